"""Days that are not the usual one, run whole from files: each keeps its own phases, is flat, and adds up to its fills.

A folder of six shares is traded at two speeds, from its files and from its import: the same bytes of journal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from pathlib import Path

import pytest

from tests.integration.test_trading_days import net_from_fills_alone, run_day
from velox_core.bootstrap import RunRequest, prepare
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.domain.market.ticks import SecurityClass
from velox_core.domain.time import IST, ist_ms
from velox_core.feeds.options import NOTHING_SAID
from velox_core.journal.export import export_events
from velox_core.operations.data import import_data, inspect_data
from velox_core.operations.report import build_report
from velox_core.redis_server import EmbeddedRedis
from velox_core.settings import Paths, Settings, load_settings
from velox_core.settings.values import FrozenMapping

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "system_simulated.yaml"
SHARES = ("TCS", "INFY", "RELIANCE", "SBIN", "WIPRO", "ITC")
World = tuple[Settings, Paths]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A var folder of its own with one embedded Redis, ended afterwards."""
    var = tmp_path_factory.mktemp("var")
    settings = load_settings(CONFIG, {})
    quick = FrozenMapping({"fast": 3, "slow": 8})  # an evening of one hour is too short for the defaults
    strategies = tuple(
        replace(chosen, parameters=quick) if chosen.name == "sma_cross" else chosen for chosen in settings.strategies
    )
    yield replace(settings, strategies=strategies), Paths(var=var, logs=var / "logs")
    EmbeddedRedis(var / "redis").stop()


def write_bars(path: Path, day: date, start: time, count: int, *, step: int = 1, phase: float = 0.0) -> None:
    """Write a share's day that swings by 1 % an hour, so that averages cross."""
    begin = datetime.combine(day, start, IST)
    swings = [100_000 + round(1_000 * math.sin(phase + index * step / 9.0)) // 5 * 5 for index in range(-1, count)]
    lines = ["date,open,high,low,close,volume"]
    for index in range(count):
        opening, close = swings[index], swings[index + 1]
        prices = (opening, max(opening, close) + 10, min(opening, close) - 10, close)
        moment = begin + timedelta(minutes=step * index)
        lines.append(f"{moment:%Y-%m-%d %H:%M:%S}+05:30,{','.join(f'{price / 100:.2f}' for price in prices)},{500 + index % 9}")
    path.write_text("\n".join(lines) + "\n")


def traded(events: list[JournalEvent], *, role: str | None = None) -> list[int]:
    """Return the moments of the intents, of one role or of all."""
    return [event.ts_ms for event in events if event.kind is EventKind.INTENT and role in (None, event.body["role"])]


@pytest.mark.parametrize(
    ("day", "start", "bars", "entry_until", "hard_stop", "last_row"),
    [
        pytest.param(date(2024, 1, 16), time(9, 15), 370, time(14, 45), time(15, 10), time(15, 25), id="cut off at 15:25"),
        pytest.param(date(2024, 1, 20), time(9, 15), 375, time(14, 45), time(15, 10), time(15, 30), id="Saturday"),
        pytest.param(date(2024, 11, 1), time(18, 0), 60, time(18, 30), time(18, 55), time(19, 0), id="Muhurat"),
        pytest.param(date(2026, 8, 18), time(9, 15), 375, time(14, 45), time(15, 10), time(15, 15), id="closing auction"),
    ],
)
def test_special_day_keeps_its_phases_and_ends_flat(
    world: World, tmp_path: Path, day: date, start: time, bars: int, entry_until: time, hard_stop: time, last_row: time
) -> None:
    write_bars(tmp_path / "TCS.csv", day, start, bars, phase=3.0)  # falls first: the averages cross after a quarter of an hour
    request = RunRequest(date=day, speed=0.0, data=tmp_path, fresh=True)
    replay = prepare(*world, request)
    assert replay.rules.instruments.security_class("TCS", day) is SecurityClass.DERIVATIVE
    assert replay.day.rows[-1].ts_ms == ist_ms(day, last_row)
    outcome, events = run_day(world, request)
    assert (outcome.exit_code, outcome.flat, outcome.halted) == (0, True, False)
    report = build_report(events, outcome.facts)
    assert report["net_paise"] == net_from_fills_alone(events, day)
    entries = traded(events, role="ENTRY")
    assert entries
    assert ist_ms(day, start) < min(entries)
    assert max(entries) < ist_ms(day, entry_until)
    assert max(traded(events)) <= ist_ms(day, hard_stop)


def test_special_day_findings_reach_journal_and_report(world: World, tmp_path: Path) -> None:
    day = date(2024, 1, 16)
    write_bars(tmp_path / "TCS.csv", day, time(9, 15), 370)
    with (tmp_path / "TCS.csv").open("a") as stream:
        stream.write("1970-01-01 05:30:00+05:30,1,1,1,1,1\n2024-01-13 11:00:00+05:30,1,1,1,1,1\n")
    outcome, events = run_day(world, RunRequest(date=day, speed=0.0, data=tmp_path, fresh=True))
    data = [event.body for event in events if event.kind is EventKind.SESSION and event.body["phase"] == "DATA"]
    dropped, noted = (
        {"impossible date": 1, "closed day or mock session": 1},
        {"no bar for the rest of the session (minutes)": 5},
    )
    assert data == [{"phase": "DATA", "dropped": dropped, "noted": noted}]
    assert outcome.facts["dropped_rows"] == dropped
    quality = outcome.facts["data_quality"]
    assert isinstance(quality, list)
    assert [(entry["rule"], entry["kept"], entry["by_symbol"]) for entry in quality][-1] == (*noted, True, {"TCS": 5})


def test_special_day_of_five_minute_bars_trades_at_their_ends(world: World, tmp_path: Path) -> None:
    day = date(2024, 1, 16)
    write_bars(tmp_path / "TCS.csv", day, time(9, 15), 75, step=5)
    request = RunRequest(date=day, speed=0.0, data=tmp_path, fresh=True)
    outcome, events = run_day(world, request)
    assert (outcome.exit_code, outcome.flat) == (0, True)
    assert str(outcome.facts["granularity"]).startswith("5-minute bars")
    assert build_report(events, outcome.facts)["net_paise"] == net_from_fills_alone(events, day)
    fills = [event.body for event in events if event.kind is EventKind.FILL]
    assert fills
    opens = {row.ts_ms - 300_000: row.opens[0] for row in prepare(*world, request).day.rows}
    for event in (event for event in events if event.kind is EventKind.FILL):
        begun_ms = max(moment for moment in opens if moment <= event.ts_ms)
        assert abs(int(str(event.body["price"])) - opens[begun_ms]) <= opens[begun_ms] // 100


def test_special_folder_of_shares_is_the_same_at_both_speeds_and_imported(world: World, tmp_path: Path) -> None:
    settings, paths = world
    folder, day = tmp_path / "shares", date(2024, 1, 16)
    folder.mkdir()
    for number, share in enumerate(SHARES):
        write_bars(folder / f"{share}.csv", day, time(9, 15), 375 - number, phase=float(number))
    found = inspect_data(settings, folder, NOTHING_SAID)
    assert (found.usable, [note.symbols for note in found.dates]) == (True, [tuple(sorted(SHARES))])
    stored = import_data(settings, paths, folder, NOTHING_SAID, to=tmp_path / "stored", replace=False).folder
    runs = [
        run_day(world, RunRequest(date=day, speed=speed, data=data, fresh=True))
        for data, speed in ((folder, 0.0), (folder, 12_000.0), (stored, 0.0))
    ]
    assert all((outcome.exit_code, outcome.flat) == (0, True) for outcome, _ in runs)
    texts = [export_events(events) for _, events in runs]
    assert texts[0].count(b"\n") > 100
    assert texts[1] == texts[0]
    assert texts[2] == texts[0]
    outcome, events = runs[0]
    assert build_report(events, outcome.facts)["net_paise"] == net_from_fills_alone(events, day)
