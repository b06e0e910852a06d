"""What the tests of real servers stand on: nothing of theirs holds up a run of the tests, or outlives one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from tests.fakes.paused_courier import GO, REACHED, when_reached

SECONDS_MAX = 60.0


def until(true: Callable[[], bool], what: str) -> None:
    last = time.monotonic() + SECONDS_MAX
    while not true():
        assert time.monotonic() < last, what
        time.sleep(0.02)


def test_block_that_fails_before_its_process_got_there_fails_the_test_at_once(tmp_path: Path) -> None:
    acted: list[str] = []
    said: list[str] = []

    def block() -> None:
        try:
            with when_reached(tmp_path, lambda: acted.append("x")):
                raise ValueError("the backup failed before that file")
        except ValueError as error:
            said.append(str(error))

    beside = Thread(target=block, daemon=True)
    beside.start()
    beside.join(SECONDS_MAX)
    assert (said, acted) == (["the backup failed before that file"], [])
    assert (tmp_path / GO).exists()


def test_block_whose_process_never_got_there_is_no_pass(tmp_path: Path) -> None:
    waiting = when_reached(tmp_path, lambda: None)
    with pytest.raises(AssertionError, match="has ended before it reached its file"), waiting:
        pass


def test_process_that_got_there_goes_on_after_the_act_and_its_error_is_told(tmp_path: Path) -> None:
    def act() -> None:
        assert not (tmp_path / GO).exists()
        raise OSError("no such server")

    def block() -> None:
        with when_reached(tmp_path, act):
            (tmp_path / REACHED).touch()
            until((tmp_path / GO).exists, "the process is not let go on")

    with pytest.raises(OSError, match="no such server"):
        block()


def test_bound_process_ends_with_the_one_that_started_it() -> None:
    waits = "import threading; print(1, flush=True); threading.Event().wait()"
    starts = (
        "import subprocess, sys; from tests.fakes.bound_process import bound; "
        f"child = subprocess.Popen(bound([sys.executable, '-S', '-c', {waits!r}]), stdout=subprocess.PIPE); "
        "child.stdout.readline(); print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()
    try:
        until(lambda: _has_ended(Path(f"/proc/{pid}/stat")), "the process outlives the one that started it")
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _has_ended(state: Path) -> bool:
    try:
        return state.read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
