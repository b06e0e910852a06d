"""The courier's process from outside, where none is needed: what it is given, and that none is started once it was ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import UserDict
from collections.abc import Iterator

import pytest

from velox_core.alerts import courier_process
from velox_core.alerts.courier_process import ENDED, CourierChannel
from velox_core.ports import Severity


class Changing(UserDict[str, str]):
    """An environment out of which another thread takes a variable while it is read."""

    def __iter__(self) -> Iterator[str]:
        names = list(self.data)
        self.data.pop("GOES", None)
        return iter(names)


def test_environment_of_the_courier_has_no_variable_of_ours_and_may_change_while_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "environ", Changing({"PATH": "/bin", "GOES": "1", "VELOX__BROKER__API_KEY": "x", "LAST": "2"}))
        assert courier_process._environment() == {"PATH": "/bin", "LAST": "2"}


def test_channel_that_was_ended_starts_no_process_any_more() -> None:
    channel = CourierChannel("hook", Severity.INFO, "json://127.0.0.1:9/")
    channel.kill()
    assert channel.warm_up() == ENDED
    assert channel.deliver(Severity.CRITICAL, "NOT FLAT", "5 TCS") == ENDED


def test_process_that_ends_before_it_takes_its_line_is_a_failure_and_leaves_nothing_open() -> None:
    channel = CourierChannel("hook", Severity.INFO, "json://127.0.0.1:9/")
    pipe = subprocess.PIPE
    process = channel._process = subprocess.Popen([sys.executable, "-S", "-c", ""], stdin=pipe, stdout=pipe)
    process.wait(240)
    assert channel._ask({"title": "NOT FLAT"}, 240.0) == "its process broke off"
    assert channel._process is None
    assert process.stdin is not None
    assert process.stdout is not None
    assert (process.stdin.closed, process.stdout.closed) == (True, True)


def test_channel_that_is_ended_while_its_process_starts_ends_that(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = CourierChannel("hook", Severity.INFO, "json://127.0.0.1:9/")
    started: list[int | None] = []

    def ends_meanwhile() -> dict[str, str]:
        channel.kill()  # sees no process yet
        return dict(os.environ)

    def note(process: subprocess.Popen[bytes]) -> None:
        started.append(process.pid)
        kill(process)

    kill = subprocess.Popen.kill
    monkeypatch.setattr(subprocess.Popen, "kill", note)
    monkeypatch.setattr(courier_process, "_environment", ends_meanwhile)
    assert channel.deliver(Severity.CRITICAL, "NOT FLAT", "5 TCS") == ENDED
    assert len(started) == 1
    assert channel._process is None
