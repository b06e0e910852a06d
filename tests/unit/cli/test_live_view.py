from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from velox_core.cli.live_view import DECISIONS_MIN, ROWS_MAX, live_screen
from velox_core.operations.status import Status

ENGINE_MS = 1_705_290_660_000  # 09:21:00 IST
REASON = "Strategy has 2 positions, the limit is 2 " + "x" * 300
BODY: dict[str, Any] = {
    "state": "RUNNING",
    "phase": "trading",
    "engine_ms": ENGINE_MS,
    "data_ms": ENGINE_MS - 3_000,
    "trading_date": "2024-01-15",
    "run_id": "2024-01-15-1",
    "net_paise": -150_000,
    "realised_paise": -100_000,
    "open_paise": -45_000,
    "charges_paise": 5_000,
    "loss_limit_paise": 200_000,
    "headroom_paise": 50_000,
    "progress": 0.25,
    "positions": [
        {"symbol": "TCS", "quantity": -2, "average_paise": 390_000, "last_paise": 391_050, "stop_paise": 400_000}
    ],
    "live_orders": 1,
    "working_orders": [{"symbol": "INFY", "side": "BUY", "quantity": 5, "filled": 2, "state": "UNKNOWN", "role": "ENTRY"}],
    "decisions": 9,
    "refusals": 4,
    "last_decisions": [
        {"ms": ENGINE_MS, "strategy": "[red]sma", "symbol": "TCS", "side": "BUY", "kind": "ENTRY", "layer": n, "reason": REASON}
        for n in range(8)
    ],
}  # fmt: skip


def screen(width: int = 80, height: int = 40, age: float = 0.1, colour: bool = False, **changes: Any) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    console.print(live_screen(Status(Path("run"), BODY | changes), age_seconds=age, width=width, height=height, hint="Ctrl-C"))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_live_screen_fits_every_width_and_never_wraps_a_line(width: int) -> None:
    lines = screen(width).splitlines()
    assert {len(line) for line in lines} == {width}
    assert len(lines) == 2 + 1 + 2 + 2 + 2 + 9 + 1


def test_live_screen_says_clock_phase_money_headroom_positions_orders_and_decisions_in_words() -> None:
    text = screen(160)
    for part in (
        "09:21:00  running, trading",
        "25 %",
        "data 3 s old",
        "P&L -₹1,500.00",
        "75 % of -₹2,000.00",
        "headroom ₹500.00",
        "realised -1000.00, open -450.00, charges 50.00",
        "TCS             -2",
        "stop 4000.00",
        "BUY 2/5 INFY UNKNOWN entry",
        "Last decisions (9, 4 refused",
        "09:21:00 [red]sma entry BUY TCS REFUSED by layer 7: Strategy has 2",
        "Ctrl-C",
        "2024-01-15-1",
    ):
        assert part in text
    assert text.index("layer 7") < text.index("layer 1")  # the newest first


def test_live_screen_shouts_a_halt_a_synthetic_day_and_an_engine_that_is_silent() -> None:
    calm = screen(100)
    assert not any(word in calm for word in ("HALTED", "SYNTHETIC", "SILENT", "PAST THE LIMIT"))
    halts = [{"kind": "LOSS", "by": "engine", "reason": "limit reached", "halt_id": "H1"}]
    loud = screen(100, age=30.0, halted=True, halts=halts, synthetic=True, headroom_paise=-1_000, net_paise=-204_000)
    for part in (
        "HALTED  limit reached",
        " LOSS by engine",
        "SYNTHETIC DATA",
        "SILENT for 30 s",
        "PAST THE LIMIT by ₹10.00",
        "102 %",
    ):
        assert part in loud
    assert "SILENT" not in screen(100, age=30.0, state="DONE")


def test_live_screen_on_a_low_terminal_cuts_decisions_first_and_keeps_the_newest() -> None:
    lines = screen(80, height=12).splitlines()
    assert sum("REFUSED" in line for line in lines) == DECISIONS_MIN
    assert "layer 7" in screen(80, height=12)
    assert "P&L" in screen(80, height=12)


def test_live_screen_bounds_long_lists_and_says_how_many_there_are() -> None:
    many = [{"symbol": f"S{number}", "quantity": 1} for number in range(30)]
    text = screen(positions=many)
    assert "Positions (30)" in text
    assert f"and {30 - ROWS_MAX} more" in text


@pytest.mark.parametrize(
    "broken", [{"positions": "none"}, {"last_decisions": [1, None]}, {"halts": 3, "halted": True}, {"engine_ms": "x"}]
)
def test_live_screen_of_a_status_of_another_shape_is_drawn_all_the_same(broken: dict[str, Any]) -> None:
    assert "2024-01-15" in screen(**broken)


def test_live_screen_of_an_empty_status_is_drawn() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(live_screen(Status(Path("run"), {}), age_seconds=0.0, width=80, height=24))
    assert "--:--:--" in console.file.getvalue()  # type: ignore[attr-defined]
