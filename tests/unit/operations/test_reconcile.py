from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from velox_core.brokers.book import SqliteBook
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_orders import SimulationConfig
from velox_core.domain.errors import BrokerError, ConfigError, JournalUnavailable
from velox_core.domain.events import EventKind
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import Product, Side
from velox_core.domain.scope import Scope
from velox_core.engine_lock import EngineLock
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.operations.doctor import DoctorFinding, examine, exit_code_of
from velox_core.operations.reconcile import ReconcileReport, broker_closes_from_ms, reconcile_run
from velox_core.operations.recorded import RecordedRun
from velox_core.run_stores import ENGINE_LOCK
from velox_core.runs import RunState, run_folder, write_state
from velox_core.settings import BrokerType, Paths, Settings

DAY = date(2024, 1, 15)
NOON_MS = 1_705_300_200_000  # 12:00 IST
SettingsWith = Callable[..., Settings]


class Account:
    """A run's folder with a broker's book and a journal, both written by the test's hand."""

    def __init__(self, paths: Paths) -> None:
        run = run_folder(paths.var, Scope(broker_type="simulated", account="primary"), "2024-01-15-1")
        run.folder.mkdir(parents=True)
        self.folder = run.folder
        self.scope_key = run.scope.key
        instruments = {"TCS": Instrument(symbol="TCS", security_class=SecurityClass.CASH, tick_paise=5)}
        book = SqliteBook(run.folder / "broker.db")
        config = SimulationConfig(capital_paise=100_000_000_00)
        self.broker = SimulatedBroker(("TCS",), instruments=instruments, config=config, book=book)
        self.broker.on_row(MinuteRow(NOON_MS, [10_000], [10_000], [10_000], [10_000], [100]), NOON_MS)
        self.journal = SqlJournal(
            f"sqlite:///{run.folder / 'journal.db'}",
            RunIdentity(scope_key=self.scope_key, trading_date=DAY, run_id="2024-01-15-1"),
        )

    def recorded(self, state: RunState = RunState.BEGUN) -> RecordedRun:
        write_state(self.folder, state)
        return RecordedRun(
            run=run_folder(self.folder.parents[2], Scope(broker_type="simulated", account="primary"), "2024-01-15-1"),
            trading_date=DAY,
        )

    def trade_by_hand(self, side: Side = Side.BUY, at_ms: int = NOON_MS) -> None:
        self.broker.desk.trade_foreign("TCS", side, 1, at_ms, price_paise=10_000)

    def lock(self, reason: str) -> None:
        self.journal.append(EventKind.LOCK, NOON_MS, {"symbol": "TCS", "reason": reason})
        self.journal.commit()

    def says(self, state: str = "RUNNING") -> None:
        """Let the status name this test's own process as the engine."""
        body = {"state": state, "pid": os.getpid(), "wall_ms": int(time.time() * 1_000)}
        (self.folder / "status.json").write_text(json.dumps(body))


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    made = Account(Paths(var=tmp_path / "var", logs=tmp_path / "logs"))
    with closing(made.broker), closing(made.journal):
        yield made


def kinds(report: ReconcileReport) -> list[tuple[str, str]]:
    return [(row.kind.value, row.verdict.value) for row in report.differences]


def test_reconcile_of_books_that_agree_is_flat_and_done(account: Account, settings_with: SettingsWith) -> None:
    report = reconcile_run(settings_with(), account.recorded())
    assert (report.differences, report.exposure, report.exit_code) == ([], [], 0)
    assert report.sentence == "run 2024-01-15-1: journal and broker agree; the broker says flat; no engine runs"


def test_reconcile_of_a_trade_by_hand_is_explained_and_shown(account: Account, settings_with: SettingsWith) -> None:
    account.trade_by_hand()
    report = reconcile_run(settings_with(), account.recorded())
    assert kinds(report) == [("FOREIGN_TRADE", "EXPLAINED"), ("POSITION_AT_BROKER_ONLY", "EXPLAINED")]
    assert (report.exit_code, report.exposure) == (0, ["1 TCS"])


def test_reconcile_of_the_owners_holdings_says_nothing(account: Account, settings_with: SettingsWith) -> None:
    account.broker.desk.trade_foreign("TCS", Side.BUY, 1, NOON_MS, price_paise=10_000, product=Product.CNC)
    report = reconcile_run(settings_with(), account.recorded())
    assert (report.differences, report.exposure) == ([], [])


def test_reconcile_of_a_closing_after_the_hard_stop_is_the_brokers_own(account: Account, settings_with: SettingsWith) -> None:
    settings = settings_with()
    account.trade_by_hand()
    account.trade_by_hand(Side.SELL, broker_closes_from_ms(settings, account.recorded()))
    report = reconcile_run(settings, account.recorded())
    assert [kind for kind, _ in kinds(report)] == ["BROKER_SQUARE_OFF", "FOREIGN_TRADE"]


@pytest.mark.parametrize(("is_locked", "verdict"), [(False, "OPEN"), (True, "LOCKED")])
def test_reconcile_of_a_foreign_order_is_no_success_locked_or_not(
    account: Account, settings_with: SettingsWith, is_locked: bool, verdict: str
) -> None:
    account.broker.desk.place_foreign("TCS", Side.BUY, 1, NOON_MS, limit_price_paise=9_000)
    if is_locked:
        account.lock("unexplained order O1: BUY 1 works at the broker, not made by this system")
    report = reconcile_run(settings_with(), account.recorded())
    assert kinds(report) == [("FOREIGN_ORDER", verdict)]
    assert report.exit_code == 1
    assert list(report.locks) == (["TCS"] if is_locked else [])
    assert report.to_json()["differences"][0]["verdict"] == verdict


def test_reconcile_of_a_run_that_ended_with_a_position_is_not_flat(account: Account, settings_with: SettingsWith) -> None:
    account.trade_by_hand()
    assert reconcile_run(settings_with(), account.recorded(RunState.ENDED_NOT_FLAT)).exit_code == 4


def test_reconcile_beside_an_engine_counts_only_what_stays(account: Account, settings_with: SettingsWith) -> None:
    account.says()
    account.trade_by_hand()
    orders = [account.broker.desk.place_foreign("TCS", Side.BUY, 1, NOON_MS, limit_price_paise=9_000)]
    waits: list[float] = []

    def meanwhile(seconds: float) -> None:
        waits.append(seconds)
        if orders:
            account.broker.desk.cancel_foreign(orders.pop(), NOON_MS)

    report = reconcile_run(settings_with(), account.recorded(), sleep=meanwhile)
    assert [kind for kind, _ in kinds(report)] == ["FOREIGN_TRADE", "POSITION_AT_BROKER_ONLY"]
    assert (len(waits), report.engine_pid, report.ended) == (2, os.getpid(), False)


def test_reconcile_without_the_brokers_book_is_refused_and_makes_none(account: Account, settings_with: SettingsWith) -> None:
    (account.folder / "broker.db").rename(account.folder / "moved.db")
    with pytest.raises(BrokerError, match="no broker's book"):
        reconcile_run(settings_with(), account.recorded())
    assert not (account.folder / "broker.db").exists()


def test_reconcile_with_a_journal_of_another_run_is_refused(account: Account, settings_with: SettingsWith) -> None:
    account.scope_key = "other"
    recorded = account.recorded()
    other = RecordedRun(run=recorded.run, trading_date=date(2024, 1, 16))
    with pytest.raises(JournalUnavailable, match="knows nothing of run"):
        reconcile_run(settings_with(), other)


def test_reconcile_with_a_damaged_event_is_refused(account: Account, settings_with: SettingsWith) -> None:
    account.journal.append(EventKind.LOCK, NOON_MS, {"reason": "no symbol"})
    account.journal.commit()
    with pytest.raises(JournalUnavailable, match="makes no sense"):
        reconcile_run(settings_with(), account.recorded())


def test_reconcile_of_a_live_broker_is_refused(account: Account, settings_with: SettingsWith) -> None:
    settings = settings_with()
    live = replace(settings, broker=replace(settings.broker, type=BrokerType.ZERODHA))
    with pytest.raises(ConfigError, match="cannot be read yet"):
        reconcile_run(live, account.recorded())


def test_broker_closes_on_a_date_without_a_session_never(account: Account, settings_with: SettingsWith) -> None:
    sunday = RecordedRun(run=account.recorded().run, trading_date=date(2024, 1, 14))
    assert broker_closes_from_ms(settings_with(), sunday) > 1 << 50


# -- the doctor --------------------------------------------------------------------------------------------------------


def found(account: Account, settings: Settings) -> dict[str, DoctorFinding]:
    paths = Paths(var=account.folder.parents[2], logs=account.folder / "logs")
    return {finding.item: finding for finding in examine(settings, paths, account.recorded())}


def test_reconcile_after_the_engine_died_is_never_in_order(account: Account, settings_with: SettingsWith) -> None:
    account.says()
    body = json.loads((account.folder / "status.json").read_text()) | {"pid": 2**22 + 12345}
    (account.folder / "status.json").write_text(json.dumps(body))
    flat = reconcile_run(settings_with(), account.recorded())
    assert (flat.exit_code, flat.differences) == (1, [])
    assert "DIED" in flat.sentence
    account.trade_by_hand()
    assert reconcile_run(settings_with(), account.recorded()).exit_code == 4


def test_doctor_of_a_sound_run_measures_everything(account: Account, settings_with: SettingsWith) -> None:
    account.says("DONE")
    account.lock("test")
    findings = found(account, settings_with())
    assert list(findings) == ["journal", "broker's book", "Redis", "engine", "disk", "clock"]
    assert exit_code_of(list(findings.values())) == 0
    assert findings["journal"].measured.startswith("1 events, the hash chain holds, head 1 ")
    assert "does not run" in findings["Redis"].measured
    assert not (account.folder.parents[2] / "redis").exists()


def test_doctor_names_the_process_that_holds_the_run(account: Account, settings_with: SettingsWith) -> None:
    account.says()
    lock = EngineLock(account.folder / ENGINE_LOCK)
    held = found(account, settings_with())["engine"]
    lock.release()
    assert f"process {os.getpid()} holds the run" in held.measured
    assert (held.ok, held.advice) == (True, "")


def test_doctor_of_a_lock_whose_holder_is_gone_says_that_the_engine_died(account: Account, settings_with: SettingsWith) -> None:
    EngineLock(account.folder / ENGINE_LOCK).release()  # the file still names this living process: only the lock counts
    body = {"state": "RUNNING", "pid": 2**22 + 12345, "wall_ms": 0}
    (account.folder / "status.json").write_text(json.dumps(body))
    engine = found(account, settings_with())["engine"]
    assert not engine.ok
    assert "nobody holds the run" in engine.measured
    assert "Take the run up: " in engine.advice


def test_doctor_finds_each_thing_that_is_wrong(account: Account, settings_with: SettingsWith) -> None:
    ahead_ms = int(time.time() * 1_000) + 60_000
    (account.folder / "status.json").write_text(json.dumps({"state": "RUNNING", "pid": 0, "wall_ms": ahead_ms}))
    (account.folder / "broker.db").rename(account.folder / "moved.db")
    account.lock("test")
    account.journal.close()
    with closing(sqlite3.connect(account.folder / "journal.db")) as connection, connection:
        connection.execute("""UPDATE event SET body = '{"symbol":"TCS","reason":"nothing"}'""")
    findings = found(account, settings_with())
    assert {item for item, finding in findings.items() if not finding.ok} == {"journal", "broker's book", "engine", "clock"}
    assert "broken at event 1" in findings["journal"].measured
    assert all(finding.advice for finding in findings.values() if not finding.ok)
    assert exit_code_of(list(findings.values())) == 1
