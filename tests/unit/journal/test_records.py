"""What stands beside the chain, and the questions that reports, flows and reconcile ask."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import orjson
import pytest

from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.events import EventKind
from velox_core.journal.queries import HighWater, JournalReader
from velox_core.journal.records import JournalRecords
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal

DAY, NEXT_DAY = date(2024, 1, 15), date(2024, 1, 16)
SCOPE = "simulated:primary"
HEADLINES = {
    "net_paise": -100,
    "realised_paise": -50,
    "charges_paise": 50,
    "worst_loss_paise": 200,
    "trades": 3,
    "approved": 2,
    "refused": 9,
    "halted": False,
    "flat": True,
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'journal.db'}"


@pytest.fixture
def records(url: str) -> Iterator[JournalRecords]:
    opened = JournalRecords(url)
    yield opened
    opened.close()


@pytest.fixture
def reader(records: JournalRecords, url: str) -> Iterator[JournalReader]:
    opened = JournalReader(url)
    yield opened
    opened.close()


def run(url: str, day: date, run_id: str, scope: str = SCOPE) -> int:
    journal = SqlJournal(url, RunIdentity(scope_key=scope, trading_date=day, run_id=run_id, data_source="TCS"))
    journal.close()
    return journal.run_key


def test_checklist_saved_again_keeps_both_and_the_newest_counts(records: JournalRecords, reader: JournalReader) -> None:
    for passed in (False, True):
        records.save_checklist(
            scope_key=SCOPE,
            trading_date=DAY,
            config_hash="h",
            at_wall_ms=1,
            passed=passed,
            items=[{"item": "redis", "ok": passed}],
        )
    found = reader.checklist(SCOPE, DAY)
    assert found is not None
    assert found.passed
    assert orjson.loads(found.items) == [{"item": "redis", "ok": True}]
    assert reader.checklist(SCOPE, NEXT_DAY) is None
    assert reader.checklist("zerodha:primary", DAY) is None


def test_day_pass_saved_again_is_replaced(records: JournalRecords, reader: JournalReader) -> None:
    for config_hash in ("old", "new"):
        records.save_day_pass(scope_key=SCOPE, trading_date=DAY, config_hash=config_hash, armed_by="flow", armed_wall_ms=5)
    found = reader.day_pass(SCOPE, DAY)
    assert found is not None
    assert (found.config_hash, found.armed_by) == ("new", "flow")
    assert reader.day_pass(SCOPE, NEXT_DAY) is None
    assert reader.day_pass("zerodha:primary", DAY) is None


def test_session_summary_saved_again_is_replaced_and_listed_by_date(
    records: JournalRecords, reader: JournalReader, url: str
) -> None:
    first, second = run(url, DAY, "1"), run(url, NEXT_DAY, "2")
    records.save_session_summary(first, {**HEADLINES, "net_paise": 7})
    records.save_session_summary(first, {**HEADLINES, "symbols": ["TCS"]})
    records.save_session_summary(second, HEADLINES)
    found = reader.session_summary(first)
    assert found is not None
    assert (found.net_paise, found.flat) == (-100, True)
    assert orjson.loads(found.body)["symbols"] == ["TCS"]
    assert [(r.run_id, s.trades) for r, s in reader.session_summaries(DAY, NEXT_DAY)] == [("1", 3), ("2", 3)]
    assert [r.run_id for r, _ in reader.session_summaries(NEXT_DAY, NEXT_DAY)] == ["2"]


def test_session_summary_without_a_headline_is_refused(records: JournalRecords, reader: JournalReader, url: str) -> None:
    run_key = run(url, DAY, "1")
    with pytest.raises(KeyError):
        records.save_session_summary(run_key, {"net_paise": 1})
    assert reader.session_summary(run_key) is None


def test_session_summary_of_an_unknown_run_is_refused(records: JournalRecords) -> None:
    with pytest.raises(JournalUnavailable, match="FOREIGN KEY"):
        records.save_session_summary(77, HEADLINES)


def test_runs_are_listed_by_date_and_scope_and_the_latest_found(
    records: JournalRecords, reader: JournalReader, url: str
) -> None:
    for day, run_id in ((DAY, "1"), (DAY, "2"), (NEXT_DAY, "3")):
        run(url, day, run_id)
    other = run(url, DAY, "4", scope="simulated:second")
    assert [found.run_id for found in reader.runs(DAY, NEXT_DAY, scope_key=SCOPE)] == ["1", "2", "3"]
    assert [found.run_id for found in reader.runs(NEXT_DAY, NEXT_DAY)] == ["3"]
    latest = reader.latest_run(DAY, scope_key=SCOPE)
    assert latest is not None
    assert (latest.run_id, latest.data_source, latest.status) == ("2", "TCS", "RUNNING")
    newest = reader.latest_run()
    assert newest is not None
    assert newest.run_key == other
    assert reader.latest_run(date(2023, 1, 2)) is None
    records.end_run(other, status="STOPPED", ended_wall_ms=9)
    ended = reader.run(other)
    assert ended is not None
    assert (ended.status, ended.ended_wall_ms) == ("STOPPED", 9)
    assert reader.run(99) is None


def test_high_water_is_the_highest_version_of_the_date_and_epoch_of_the_scope(
    records: JournalRecords, reader: JournalReader, url: str
) -> None:
    assert reader.high_water(SCOPE, DAY) == HighWater(version=0, epoch=0)
    for day, epoch, version in ((DAY, 9, 40), (DAY, 10, 70), (NEXT_DAY, 12, 5)):
        journal = SqlJournal(url, RunIdentity(scope_key=SCOPE, trading_date=day))
        body = {
            "client_order_id": f"240115E{epoch:04d}0000001",
            "strategy": "orb",
            "symbol": f"S{epoch}",
            "side": "BUY",
            "quantity": 1,
            "order_type": "MARKET",
            "limit_price": 0,
            "product": "MIS",
            "role": "ENTRY",
            "rank": None,
            "reason": "",
            "ledger_version": version,
        }
        journal.append(EventKind.INTENT, 1, body)  # type: ignore[arg-type]
        journal.commit()
        journal.close()
    assert reader.high_water(SCOPE, DAY) == HighWater(version=70, epoch=12)
    assert reader.high_water(SCOPE, NEXT_DAY) == HighWater(version=5, epoch=12)
    assert reader.high_water("zerodha:primary", DAY) == HighWater(version=0, epoch=0)
    journal = SqlJournal(url, RunIdentity(scope_key=SCOPE, trading_date=DAY))
    journal.append(EventKind.SESSION, 1, {"phase": "OPENED", "epoch": 15})
    journal.append(EventKind.SESSION, 1, {"phase": "CLOSED"})
    journal.commit()
    journal.close()
    assert reader.high_water(SCOPE, DAY).epoch == 15


def test_records_are_written_and_read_while_the_engine_holds_its_connection(
    records: JournalRecords, reader: JournalReader, url: str
) -> None:
    engine = SqlJournal(url, RunIdentity(scope_key=SCOPE, trading_date=DAY))
    for number in range(20):
        engine.append(EventKind.MARK, number, {"loss": number})
        engine.commit()
        records.save_day_pass(scope_key=SCOPE, trading_date=DAY, config_hash=str(number), armed_by="flow", armed_wall_ms=5)
        assert len(reader.events(engine.run_key)) == number + 1
    engine.close()
