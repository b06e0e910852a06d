"""The guard's terminal: lines for people from a thread, which never keeps the guard waiting."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.threads import no_thread_left
from velox_core.cli import guard
from velox_core.cli.guard import GuardScreen
from velox_core.settings import Settings, load_settings

LONG_SECONDS = 120.0  # a busy machine is no terminal that takes nothing
CONFIG = Path(__file__).resolve().parents[3] / "config" / "system_simulated.yaml"
ALIVE: dict[str, object] = {
    "run_id": "r-1", "state": "watching", "engine": "alive", "beat_ages": [0.4], "exposed": True, "open": ["1 TCS"],
    "loss_paise": 1_652, "loss_limit_paise": 200_000, "faults": [],
}  # fmt: skip


@pytest.fixture
def settings() -> Settings:
    return load_settings(CONFIG, {})


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_for(stream: io.StringIO, text: str) -> None:
    until = time.monotonic() + LONG_SECONDS
    while text not in stream.getvalue():
        assert time.monotonic() < until, stream.getvalue()
        time.sleep(0.01)


def test_screen_that_is_no_terminal_writes_plain_lines_a_heartbeat_and_last_words(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "END_SECONDS_MAX", LONG_SECONDS)
    stream = io.StringIO()
    screen = GuardScreen(stream, settings, logs="logs/simulated", beat_seconds=3600)
    screen.show("RUNNING", [ALIVE])
    wait_for(stream, "r-1: alive 0 s, open: 1 TCS, loss ₹16.52 of ₹2,000.00")
    screen.show("RUNNING", [{**ALIVE, "engine": "silent"}])
    wait_for(stream, "r-1: engine SILENT")
    screen.show("ENDING", [{**ALIVE, "engine": "silent"}])
    screen.end()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("guard of account primary")
    assert "\x1b" not in stream.getvalue()
    assert sum("r-1: alive 0 s" in line for line in lines) == 1
    assert any(line.endswith("asked to end") for line in lines)
    assert "the guard has ended. NOT watched any more:" in lines
    assert "  r-1: engine SILENT, open: 1 TCS" in lines


def test_screen_on_a_terminal_redraws_one_line_that_fits_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(guard, "END_SECONDS_MAX", LONG_SECONDS)
    stream = Terminal()
    screen = GuardScreen(stream, settings, logs="logs/simulated")
    screen.show("RUNNING", [ALIVE])
    wait_for(stream, "\r\x1b[2K")
    screen.end()
    drawn = [part for part in stream.getvalue().split("\r\x1b[2K")[1:] if part and "\n" not in part]
    assert drawn
    assert all(len(part) <= 79 for part in drawn)
    assert stream.getvalue().endswith("\n")


def test_screen_of_a_terminal_that_takes_nothing_or_is_gone_keeps_nobody_waiting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "END_SECONDS_MAX", 0.05)
    goes_on = threading.Event()

    class Stopped(io.StringIO):
        def write(self, text: str) -> int:
            goes_on.wait()
            raise OSError("gone")

    screen = GuardScreen(Stopped(), settings, logs="logs/simulated")
    for _ in range(1_000):
        screen.show("RUNNING", [ALIVE])
    screen.end()  # returns although the terminal still takes nothing
    writer = screen._thread
    assert writer is not None
    assert writer.is_alive()
    goes_on.set()
    writer.join()
    screen.show("RUNNING", [ALIVE])  # the guard goes on without it


def test_view_that_cannot_be_told_keeps_no_later_one_from_being_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    changes = guard.changes

    def strict(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        if "r-1" in now and "engine" not in now["r-1"]:
            raise KeyError("engine")
        return changes(before, now)

    monkeypatch.setattr(guard, "changes", strict)
    monkeypatch.setattr(guard, "END_SECONDS_MAX", LONG_SECONDS)
    stream = io.StringIO()
    screen = GuardScreen(stream, settings, logs="logs/simulated")
    screen.show("RUNNING", [{"run_id": "r-1"}])
    until = time.monotonic() + LONG_SECONDS
    while "could not show" not in caplog.text:
        assert time.monotonic() < until, caplog.text
        time.sleep(0.01)
    screen.show("RUNNING", [ALIVE])
    wait_for(stream, "r-1: alive 0 s")
    screen.end()
    assert stream.getvalue().count("the guard has ended") == 1
    assert caplog.text.count("could not show") == 1


def test_screen_without_a_thread_left_raises_nothing_and_shows_the_next_look(settings: Settings) -> None:
    stream = io.StringIO()
    screen = GuardScreen(stream, settings, logs="logs/simulated")
    with no_thread_left("guard-screen"):
        screen.show("RUNNING", [ALIVE])
        screen.end()
    assert stream.getvalue() == ""
    screen = GuardScreen(stream, settings, logs="logs/simulated")
    with no_thread_left("guard-screen"):
        screen.show("RUNNING", [ALIVE])
    screen.show("RUNNING", [ALIVE])
    wait_for(stream, "r-1: alive 0 s")
    screen.end()


def test_screen_that_never_was_shown_anything_says_nothing(settings: Settings) -> None:
    stream = io.StringIO()
    GuardScreen(stream, settings, logs="x").end()
    assert stream.getvalue() == ""
