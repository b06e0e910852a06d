from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from velox_core.domain.errors import VeloxError
from velox_core.domain.scope import Scope
from velox_core.operations.json_file import write_json
from velox_core.operations.period import PERIOD_HEADER, day_cells, period_lines, sparkline, summarise_period, total_cells
from velox_core.operations.status import STATUS_FILE, SUMMARY_FILE
from velox_core.runs import run_folder
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]


def keep(paths: Paths, run_id: str, *, wall_ms: int, net: int | None, **more: Any) -> None:
    """Put a run on record; without a net it has no summary."""
    folder = run_folder(paths.var, Scope(broker_type="simulated", account="primary"), run_id).folder
    write_json(folder / STATUS_FILE, {"wall_ms": wall_ms, "state": "RUNNING" if net is None else "DONE"})
    if net is not None:
        body = {"run_id": run_id, "net_paise": net, "charges_paise": 100, "trade_count": 4, "win_count": 1, "flat": True}
        body |= {"worst_loss_paise": 5_000, "loss_limit_paise": 200_000, "halts": [], "synthetic": False}
        write_json(folder / SUMMARY_FILE, body | more)


def test_period_counts_the_newest_finished_run_of_each_date_and_adds_up(paths: Paths, settings_with: Load) -> None:
    keep(paths, "2024-01-15-1", wall_ms=1, net=-900)
    keep(paths, "2024-01-15-2", wall_ms=2, net=300)
    keep(paths, "2024-01-15-3", wall_ms=3, net=None)  # did not finish
    keep(paths, "2024-01-16-1", wall_ms=4, net=-1_000, halts=[{"halt_id": "h"}], worst_loss_paise=210_000)
    keep(paths, "2024-01-17-1", wall_ms=5, net=None)
    keep(paths, "2024-01-18-1", wall_ms=6, net=250)
    period = summarise_period(settings_with(), paths, first=date(2024, 1, 15), last=date(2024, 1, 17))
    assert [(day["trading_date"], day["run_id"], day["net_paise"]) for day in period["days"]] == [
        ("2024-01-15", "2024-01-15-2", 300),
        ("2024-01-16", "2024-01-16-1", -1_000),
    ]
    totals = period["totals"]
    assert (totals["net_paise"], totals["charges_paise"], totals["trade_count"], totals["win_count"]) == (-700, 200, 8, 2)
    assert (totals["halts"], totals["worst_loss_paise"], totals["drawdown_paise"], totals["winning_dates"]) == (
        1,
        210_000,
        1_000,
        1,
    )
    assert period["unfinished_dates"] == ["2024-01-17"]
    assert any("2024-01-17" in line for line in period_lines(period))
    cells = dict(zip(PERIOD_HEADER, day_cells(period["days"][1]), strict=True))
    assert (cells["Net"], cells["Won"], cells["Worst loss"], cells["Run"]) == (
        "-10.00",
        "25 %",
        "2100.00 (105 %)",
        "1",
    )
    assert len(total_cells(period)) == len(PERIOD_HEADER)


def test_period_takes_real_prices_before_newer_synthetic_ones_and_marks_synthetic_days(
    paths: Paths, settings_with: Load
) -> None:
    keep(paths, "2024-01-15-1", wall_ms=1, net=5)
    keep(paths, "2024-01-15-crash-1", wall_ms=2, net=-7, synthetic=True)
    keep(paths, "2024-01-16-crash-1", wall_ms=3, net=-9, synthetic=True, flat=False)
    period = summarise_period(settings_with(), paths, first=None, last=None)
    assert [day["run_id"] for day in period["days"]] == ["2024-01-15-1", "2024-01-16-crash-1"]
    assert [day_cells(day)[0] for day in period["days"]] == ["2024-01-15", "2024-01-16 S"]
    assert day_cells(period["days"][1])[-1] == "crash-1 NOT FLAT"
    assert any("SYNTHETIC" in line for line in period_lines(period))


def test_period_without_a_finished_run_is_an_error_that_says_why(paths: Paths, settings_with: Load) -> None:
    with pytest.raises(VeloxError, match="none is on record"):
        summarise_period(settings_with(), paths, first=date(2024, 1, 1), last=None)
    keep(paths, "2024-01-15-1", wall_ms=1, net=None)
    with pytest.raises(VeloxError, match="runs of 2024-01-15 have not finished"):
        summarise_period(settings_with(), paths, first=None, last=None)


def test_sparkline_has_the_lowest_first_and_one_height_for_equal_values() -> None:
    assert sparkline([-10, 0, 60]) == "▁▂█"
    assert sparkline([5, 5]) == "▄▄"
