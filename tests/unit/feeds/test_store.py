"""An import: the same day as its source to the paisa, the same twice, never something else overwritten, never half there."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.feeds.files import DAY, bars, content, expected, lines, written
from velox_core.domain.errors import DataError
from velox_core.domain.market.sessions import SessionCalendar
from velox_core.domain.market.ticks import SecurityClass
from velox_core.feeds.folders import MANIFEST_NAME
from velox_core.feeds.load import available_dates, load_day
from velox_core.feeds.options import NOTHING_SAID, SourceOptions, Stamps
from velox_core.operations.data import ImportOutcome, import_data, inspect_data
from velox_core.settings import Paths, Settings, load_settings

PROJECT = Path(__file__).parents[3]
HEADER = "date,open,high,low,close,volume"
BEFORE = date(2024, 1, 12)
MOCK = date(2024, 1, 13)


@pytest.fixture(scope="module")
def simulated() -> Settings:
    return load_settings(PROJECT / "config" / "system_simulated.yaml", {})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder of two shares, two sessions and a mock session, with bad rows in it."""
    folder = tmp_path / "source"
    for share, base in (("TCS", 100_000), ("INFY", 150_000)):
        good = [*lines(bars(BEFORE, base=base)), *lines(bars(DAY, base=base))]
        bad = [*lines(bars(MOCK, count=10)), good[400], "1970-01-01 05:30:00+05:30,1,1,1,1,1", good[500].replace(",1", ",x", 1)]
        spike = good[600].split(",")
        good[600] = ",".join([*spike[:2], "9999.05", *spike[3:]])
        written(folder / f"{share}.csv", HEADER, [*good, *bad])
    return folder


def imported(
    simulated: Settings, source: Path, to: Path, *, options: SourceOptions = NOTHING_SAID, again: bool = False
) -> ImportOutcome:
    return import_data(simulated, Paths(var=to.parent, logs=to.parent), source, options, to=to, replace=again)


def test_import_is_read_back_as_the_source_with_its_counts(
    simulated: Settings, nse_calendar: SessionCalendar, source: Path, tmp_path: Path
) -> None:
    outcome = imported(simulated, source, tmp_path / "stored")
    assert outcome.written
    assert available_dates(outcome.folder) == [BEFORE, DAY]
    assert dict(outcome.manifest.left_out) == {"2024-01-13": "weekend"}
    for day in (BEFORE, DAY):
        for symbols in ((), ("TCS",)):
            ours = load_day(outcome.folder, day, nse_calendar, symbols=symbols)
            theirs = load_day(source, day, nse_calendar, symbols=symbols)
            assert content(ours) == content(theirs)
            assert (ours.universe, ours.previous_close_paise) == (theirs.universe, theirs.previous_close_paise)
            if not symbols:
                assert ours.drops == theirs.drops
                assert any(drop.rule == "print far off" for drop in theirs.drops) is (day == DAY)
    assert ours.source == "source (imported)"


def test_import_of_longer_bars_keeps_the_short_last_one(
    simulated: Settings, nse_calendar: SessionCalendar, tmp_path: Path
) -> None:
    path = written(tmp_path / "source" / "TCS.csv", HEADER, lines(bars(step=10, count=38)))
    outcome = imported(simulated, path, tmp_path / "stored")
    assert content(load_day(outcome.folder, DAY, nse_calendar)) == content(load_day(path, DAY, nse_calendar))


def test_import_twice_changes_nothing(simulated: Settings, source: Path, tmp_path: Path) -> None:
    first = imported(simulated, source, tmp_path / "stored")
    seen = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in first.folder.iterdir()}
    second = imported(simulated, source, tmp_path / "stored")
    assert not second.written
    assert "nothing to do" in second.sentence
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in first.folder.iterdir()} == seen


def test_import_elsewhere_writes_the_same_bytes(simulated: Settings, source: Path, tmp_path: Path) -> None:
    one, two = (imported(simulated, source, tmp_path / name).folder for name in ("one", "two"))
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {path.name: path.read_bytes() for path in two.iterdir()}


def test_import_of_other_data_is_refused_unless_told(simulated: Settings, source: Path, tmp_path: Path) -> None:
    folder = imported(simulated, source, tmp_path / "stored").folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (source / "INFY.csv").unlink()
    with pytest.raises(DataError, match="holds an import of other data"):
        imported(simulated, source, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert imported(simulated, source, folder, again=True).written
    days = json.loads((folder / MANIFEST_NAME).read_text())["days"]
    assert {path.name for path in folder.iterdir()} == {MANIFEST_NAME, *(day["file"] for day in days)}
    assert all(day["symbols"] == ["TCS"] for day in days)


def test_import_into_a_folder_with_other_files_is_refused(simulated: Settings, source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match="holds something that is no import"):
        imported(simulated, source, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_import_that_breaks_leaves_the_old_one(
    simulated: Settings, nse_calendar: SessionCalendar, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = imported(simulated, source, tmp_path / "stored").folder
    whole = content(load_day(folder, DAY, nse_calendar))
    written(source / "TCS.csv", HEADER, lines(bars(DAY, base=200_000)))
    renamed = os.replace

    def full_disk(there: Path, here: Path) -> None:
        if here.name == MANIFEST_NAME:
            raise OSError(28, "No space left on device")
        renamed(there, here)

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(DataError, match="No space left on device; what was there before is unchanged"):
        imported(simulated, source, folder, again=True)
    monkeypatch.undo()
    assert content(load_day(folder, DAY, nse_calendar)) == whole


def test_import_damaged_afterwards_is_refused_and_can_be_made_again(
    simulated: Settings, nse_calendar: SessionCalendar, source: Path, tmp_path: Path
) -> None:
    folder = imported(simulated, source, tmp_path / "stored").folder
    path = next(folder.glob("2024-01-15-*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match="is not the file that was imported"):
        load_day(folder, DAY, nse_calendar)
    assert imported(simulated, source, folder).written
    assert path.read_bytes() == whole


def test_import_keeps_what_was_said_about_the_times(simulated: Settings, nse_calendar: SessionCalendar, tmp_path: Path) -> None:
    path = written(tmp_path / "TCS.csv", "timestamp,open,high,low,close,volume", lines(bars()[60:99], stamp="naive"))
    options = replace(NOTHING_SAID, stamps=Stamps.END)
    folder = imported(simulated, path, tmp_path / "stored", options=options).folder
    assert content(load_day(folder, DAY, nse_calendar)) == content(load_day(path, DAY, nse_calendar, options=options))
    with pytest.raises(DataError, match="holds an import of other data"):
        imported(simulated, path, folder, options=replace(NOTHING_SAID, stamps=Stamps.START))


def test_import_of_ticks_or_of_nothing_says_so(simulated: Settings, tmp_path: Path) -> None:
    ticks = written(tmp_path / "ticks" / "TCS.csv", "timestamp,ltp,volume", ["2024-01-15 09:16:00,100,5"])
    with pytest.raises(DataError, match="only bars are imported"):
        imported(simulated, ticks.parent, tmp_path / "stored")
    path = written(tmp_path / "TCS.csv", HEADER, lines(bars(MOCK)))
    with pytest.raises(DataError, match=r"nothing of .* can be imported: 2024-01-13: weekend"):
        imported(simulated, path, tmp_path / "stored")
    assert not (tmp_path / "stored").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_manifest_is_a_day_or_a_data_error(
    simulated: Settings, nse_calendar: SessionCalendar, tmp_path: Path, data: st.DataObject
) -> None:
    folder = tmp_path / "stored"
    if not (tmp_path / "whole").exists():
        path = written(tmp_path / "source.csv", "ts,symbol,open,high,low,close,volume", [
            line.replace(" ", "T", 1).replace("+05:30,", "+05:30,TCS,") for line in lines(bars())])  # fmt: skip
        imported(simulated, path, folder)
        (tmp_path / "whole").write_bytes((folder / MANIFEST_NAME).read_bytes())
    damaged = bytearray((tmp_path / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(32, 126))
    (folder / MANIFEST_NAME).write_bytes(bytes(damaged))
    try:
        day = load_day(folder, DAY, nse_calendar, security_class=lambda _symbol, _day: SecurityClass.CASH)
    except DataError:
        return
    assert content(day) == expected(bars())


def test_inspect_says_what_an_import_is(simulated: Settings, source: Path, tmp_path: Path) -> None:
    found = inspect_data(simulated, imported(simulated, source, tmp_path / "stored").folder, NOTHING_SAID)
    assert (found.imported_from, found.usable, [note.day for note in found.dates]) == ("source", True, [BEFORE, DAY])
