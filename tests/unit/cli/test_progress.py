from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from velox_core.cli import progress
from velox_core.cli.progress import RunView
from velox_core.cli.tables import loss_bar, show, status_panel
from velox_core.operations.status import Status

BODY = {
    "state": "RUNNING",
    "engine_ms": 1_705_290_660_000,
    "trading_date": "2024-01-15",
    "net_paise": -5_000,
    "loss_limit_paise": 200_000,
}


def shown(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_run_view_in_a_pipe_writes_plain_lines_and_the_last_one_at_the_end() -> None:
    console = Console(file=io.StringIO(), width=200)
    statuses: list[Status | None] = [None]
    with RunView(console, lambda: statuses[-1], note=lambda: "starting"):
        statuses.append(Status(Path(), BODY))
    lines = shown(console).splitlines()
    assert lines[-1].startswith("2024-01-15 09:21:00 | running")
    assert "\x1b" not in shown(console)
    assert len(lines) == len(set(lines))


def test_run_view_on_a_terminal_draws_in_place_and_leaves_nothing_behind() -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    asked = threading.Event()

    def read() -> Status:
        asked.set()
        return Status(Path(), {**BODY, "halted": True, "halt_reason": "loss limit"})

    with RunView(console, read, note=lambda: "starting"):
        assert asked.wait(60)
    assert shown(console).endswith(("\x1b[2K", "\x1b[?25h"))


@pytest.mark.parametrize("is_terminal", [False, True])
def test_status_that_cannot_be_read_or_drawn_costs_a_picture_and_the_next_one_is_shown(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.01)
    console = Console(file=io.StringIO(), width=160, force_terminal=is_terminal)
    looks: list[int] = []
    again = threading.Event()

    def read() -> Status:
        looks.append(1)
        if len(looks) == 1:
            raise KeyError("nobody expects this")
        if len(looks) > 2:
            again.set()
        return Status(Path(), BODY)

    with RunView(console, read, note=lambda: "starting"):
        assert again.wait(120)
    assert "running" in shown(console).lower()


def test_look_that_outlasts_the_view_shows_nothing_after_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.01)
    monkeypatch.setattr(progress, "END_SECONDS_MAX", 0.05)
    console = Console(file=io.StringIO(), width=200)
    begun, goes_on = threading.Event(), threading.Event()

    def read() -> Status | None:
        if threading.current_thread() is threading.main_thread():
            return Status(Path(), BODY)
        begun.set()
        goes_on.wait(240)
        return None

    with RunView(console, read, note=lambda: "starting") as view:
        assert begun.wait(120)
    told = shown(console)
    goes_on.set()
    view._thread.join(120)
    assert not view._thread.is_alive()
    assert "2024-01-15 09:21:00 | running" in told
    assert shown(console) == told


def test_loss_bar_says_the_share_in_words_too() -> None:
    assert loss_bar(0.0).plain.endswith("0 % of the limit")
    assert loss_bar(1.0).plain == "#" * 24 + " 100 % of the limit"
    assert loss_bar(1.37, width=10).plain == "#" * 10 + " 137 % of the limit"


def test_status_panel_shows_positions_halt_and_the_age_of_the_numbers() -> None:
    console = Console(file=io.StringIO(), width=120)
    position = {"symbol": "TCS", "quantity": 1, "average_paise": 390_000, "last_paise": 391_000, "open_paise": 1_000}
    status = Status(Path("run-1"), {**BODY, "pid": 7, "positions": [position], "halted": True, "halt_reason": "by hand"})
    show(
        console,
        status_panel(status, environment="simulated", alive=False, age_seconds=12.0, summary={"stopped": "by me: lunch"}),
    )
    text = shown(console)
    for part in (
        "DIED (process 7 is gone, said RUNNING 12 s ago)",
        "TCS",
        "₹3,900.00",
        "by hand",
        "simulated  run",
        "by me: lunch",
    ):
        assert part in text
