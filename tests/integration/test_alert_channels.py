"""Real couriers over a local web server: delivered, refused, hung, not understood; the URL is seen nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.channels import local_hook
from velox_core.alerts.courier import reason
from velox_core.alerts.courier_process import CourierChannel
from velox_core.ports import Severity

PRIVATE = "s3cr3t-path"
LONG_SECONDS = 120.0  # a busy machine is no service that hangs
ROOT = Path(__file__).resolve().parents[2]


def test_courier_delivers_says_why_it_could_not_is_killed_when_it_hangs_and_comes_back() -> None:
    with local_hook() as hook:
        address = f"json://127.0.0.1:{hook.port}/{PRIVATE}"
        channel = CourierChannel("hook", Severity.INFO, address, start_seconds=240.0, delivery_seconds=LONG_SECONDS)
        try:
            assert channel.deliver(Severity.CRITICAL, "NOT FLAT", "5 TCS\nsecond line") == ""
            assert (hook.posts[0]["title"], hook.posts[0]["message"]) == ("NOT FLAT", "5 TCS\nsecond line")
            assert hook.posts[0]["type"] == "failure"
            first = channel._process
            assert first is not None
            arguments = Path(f"/proc/{first.pid}/cmdline").read_bytes() + Path(f"/proc/{first.pid}/environ").read_bytes()
            assert PRIVATE.encode() not in arguments
            assert os.getsid(first.pid) != os.getsid(0)

            hook.status = 503
            assert channel.deliver(Severity.INFO, "again", "text") == "the service answered with status 503"

            hook.hangs.set()
            channel._delivery_seconds = 1.0
            assert channel.deliver(Severity.INFO, "hangs", "text") == "no answer within 1 s"
            assert first.poll() is not None

            hook.hangs.clear()
            channel._delivery_seconds = LONG_SECONDS
            hook.status = 200
            assert channel.deliver(Severity.WARNING, "back", "text") == ""
            assert hook.posts[-1]["title"] == "back"
        finally:
            channel.close()
        assert PRIVATE not in repr(channel)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["Failed to send JSON notification: Unauthorized, error=401."], "the service answered with status 401"),
        (
            [f"Max retries exceeded with url: /{PRIVATE}", "A Connection error occurred"],
            "the service could not be connected to",
        ),
        ([f"read timed out https://x/{PRIVATE}"], "the service did not answer in time"),
        ([PRIVATE], "the service did not take it"),
        ([], "the service did not take it"),
    ],
)
def test_reason_says_what_happened_in_known_words_only(lines: list[str], why: str) -> None:
    assert reason(lines) == why


def velox(*arguments: str, urls: str | None, var: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VELOX__")}
    environment["VELOX__VAR"] = str(var)
    if urls is not None:
        environment["VELOX__ALERTS__URLS"] = urls
    return subprocess.run(
        [sys.executable, "-m", "velox_core.cli", *arguments],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_alerts_test_reports_each_channel_and_fails_when_one_did(tmp_path: Path) -> None:
    with local_hook() as hook:
        urls = f"phone=json://127.0.0.1:{hook.port}/{PRIVATE} nonsense://{PRIVATE}"
        done = velox("alerts", "test", "--json", urls=urls, var=tmp_path)
    assert done.returncode == 1, done.stderr
    assert [(line["name"], line["ok"], line["why"]) for line in json.loads(done.stdout)] == [
        ("phone", True, ""),
        ("channel-1", False, "apprise does not understand its URL"),
    ]
    assert [post["title"] for post in hook.posts] == ["[VELOX simulated/primary] Test message"]
    assert PRIVATE not in done.stdout + done.stderr


def test_alerts_without_a_channel_say_how_to_add_one(tmp_path: Path) -> None:
    listed, tried = (velox("alerts", command, urls=None, var=tmp_path) for command in ("list", "test"))
    assert (listed.returncode, tried.returncode) == (0, 2)
    for text in (listed.stdout, tried.stderr):
        assert "no alert channel is configured" in text
        assert "VELOX__ALERTS__URLS" in text
