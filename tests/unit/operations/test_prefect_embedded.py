"""A flow process' own server: up, down, and what it says when it does not come up. A small application stands for Prefect."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from velox_core.domain.errors import VeloxError
from velox_core.operations import prefect_embedded
from velox_core.operations.prefect_embedded import EmbeddedPrefect, without_authorities
from velox_core.operations.prefect_home import is_healthy
from velox_core.operations.processes import is_alive

HEALTHY = """
def create_app():
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                event = (await receive())["type"]
                await send({"type": event + ".complete"})
                if event == "lifespan.shutdown":
                    open("closed.txt", "w").write("whole")
                    return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"true"})
    return app
"""
END_SECONDS_MAX = 120.0
BROKEN = "def create_app():\n    raise SystemExit(7)\n"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[EmbeddedPrefect]:
    (tmp_path / "small_server.py").write_text(request.param, encoding="utf-8")
    monkeypatch.setattr(prefect_embedded, "_APPLICATION", "small_server:create_app")
    monkeypatch.setattr(prefect_embedded, "STOP_SECONDS_MAX", END_SECONDS_MAX)  # a busy machine is no server that hangs
    monkeypatch.chdir(tmp_path)
    started = EmbeddedPrefect({**os.environ, "PYTHONPATH": str(tmp_path)})
    yield started
    started.stop()


@pytest.mark.parametrize("server", [HEALTHY], indirect=True)
def test_server_answers_where_it_says_and_ends_whole_when_it_is_stopped(server: EmbeddedPrefect, tmp_path: Path) -> None:
    server.wait()
    assert server.url.startswith("http://127.0.0.1:")
    assert is_healthy(server.url, seconds=END_SECONDS_MAX)
    assert not (tmp_path / "closed.txt").exists()
    server.stop()
    assert (tmp_path / "closed.txt").read_text(encoding="utf-8") == "whole"
    assert not is_healthy(server.url)
    server.stop()  # a second time is nothing


OWNER = """
import os, sys, time
from velox_core.operations import prefect_embedded
prefect_embedded._APPLICATION = "small_server:create_app"
server = prefect_embedded.EmbeddedPrefect(os.environ)
server.wait()
print(server._process.pid, flush=True)
time.sleep(600)
"""


def test_server_ends_whole_when_its_flow_process_is_killed(tmp_path: Path) -> None:
    (tmp_path / "small_server.py").write_text(HEALTHY, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[3])])
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        server = int(owner.stdout.readline())
        assert is_alive(server)
        owner.kill()
    until = time.monotonic() + END_SECONDS_MAX
    while is_alive(server) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(server)
    assert (tmp_path / "closed.txt").read_text(encoding="utf-8") == "whole"


@pytest.mark.parametrize("server", [BROKEN], indirect=True)
def test_server_that_does_not_come_up_is_told_with_what_to_do(server: EmbeddedPrefect) -> None:
    with pytest.raises(VeloxError, match=r"ended with code \d+ before it answered.*velox up"):
        server.wait()


def test_server_without_tls_is_met_with_one_authority_and_one_with_tls_with_all(tmp_path: Path) -> None:
    (name, file), *others = without_authorities("http://127.0.0.1:4200/api", tmp_path / "prefect").items()
    assert (name, others) == ("PREFECT_API_SSL_CERT_FILE", [])
    context = ssl.create_default_context(cafile=file)
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert without_authorities("https://prefect.example/api", tmp_path / "prefect") == {}
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert without_authorities("http://127.0.0.1:4200/api", tmp_path / "file" / "prefect") == {}
