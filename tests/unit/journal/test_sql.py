"""The SQL journal: projections, backstops, other writers, unclear commits, damage, revisions."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from tests.fakes.outside import FakeClock
from velox_core.domain.errors import IntentRefused, InvariantError, JournalUnavailable
from velox_core.domain.events import Body, EventKind
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.journal.database import open_database
from velox_core.journal.queries import JournalReader
from velox_core.journal.run import RunIdentity
from velox_core.journal.schema import HEAD_REVISION
from velox_core.journal.sql import PAUSE_SECONDS, SqlJournal

HALT_BODY: Body = {
    "halt_id": "20240115-MANUAL-1", "kind": "MANUAL", "trading_date": "2024-01-15", "reason": "asked for", "by": "owner",
    "at_ms": 1, "clears": "", "keeps_positions": False,
}  # fmt: skip
RUN = RunIdentity(scope_key="simulated:primary", trading_date=date(2024, 1, 15), config_hash="abc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqlJournal]:
    opened = SqlJournal(url(path), RUN)
    yield opened
    opened.close()


@pytest.fixture
def reader(journal: SqlJournal, path: Path) -> Iterator[JournalReader]:
    opened = JournalReader(url(path))
    yield opened
    opened.close()


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def intent(number: int, symbol: str = "TCS", role: str = "ENTRY") -> Body:
    return {
        "client_order_id": f"240115E0001{number:07d}",
        "strategy": "orb",
        "symbol": symbol,
        "side": "BUY",
        "quantity": 1,
        "order_type": "MARKET",
        "limit_price": 0,
        "product": "MIS",
        "role": role,
        "rank": None if role == "ENTRY" else 2,
        "reason": "breakout",
        "stop": 1,
        "target": 2,
        "ledger_version": number * 10,
    }


def order(number: int, state: str, filled: int = 0) -> Body:
    return {
        "client_order_id": f"240115E0001{number:07d}",
        "state": state,
        "broker_order_id": "B1",
        "filled": filled,
        "reason": "",
    }


def fill(trade_id: str, number: int = 1) -> Body:
    return {
        "trade_id": trade_id,
        "client_order_id": f"240115E0001{number:07d}",
        "strategy": "orb",
        "symbol": "TCS",
        "side": "BUY",
        "quantity": 1,
        "price": 390_000,
        "charges": 12,
        "realised": 0,
        "position": 1,
        "cost": 390_000,
    }


def decision(code: str, layer: int, approved: bool) -> Body:
    return {
        "strategy": "orb",
        "symbol": "TCS",
        "side": "BUY",
        "kind": "ENTRY",
        "asked": 10,
        "quantity": 1,
        "approved": approved,
        "layer": layer,
        "code": code,
        "reason": "why",
        "numbers": {"loss_paise": 5},
        "signal_reason": "breakout",
    }


def add(journal: SqlJournal, *events: tuple[EventKind, Body]) -> None:
    for kind, body in events:
        journal.append(kind, 1_705_290_000_000, body)
    journal.commit()


def test_order_events_move_the_intent_and_fills_are_kept(journal: SqlJournal, reader: JournalReader) -> None:
    add(journal, (EventKind.INTENT, intent(1)), (EventKind.ORDER, order(1, "SUBMITTING")))
    assert [row.state for row in reader.intents(journal.run_key, live_only=True)] == ["SUBMITTING"]
    add(journal, (EventKind.ORDER, order(1, "FILLED", 1)), (EventKind.FILL, fill("T1")))
    (row,) = reader.intents(journal.run_key)
    assert (row.state, row.live, row.filled_quantity, row.broker_order_id, row.sequence) == ("FILLED", False, 1, "B1", 1)
    assert reader.intents(journal.run_key, live_only=True) == []
    assert [event.state for event in reader.order_events(journal.run_key, row.client_order_id)] == ["SUBMITTING", "FILLED"]
    assert [(found.trade_id, found.price_paise) for found in reader.fills(journal.run_key)] == [("T1", 390_000)]


def test_order_event_of_an_unknown_order_is_kept_and_moves_nothing(journal: SqlJournal, reader: JournalReader) -> None:
    add(journal, (EventKind.INTENT, intent(1)), (EventKind.ORDER, order(2, "CANCELLED")))
    assert [row.state for row in reader.intents(journal.run_key)] == ["INTENT"]
    assert len(reader.order_events(journal.run_key)) == 1


def test_fill_journaled_twice_counts_once(journal: SqlJournal, reader: JournalReader) -> None:
    add(journal, (EventKind.FILL, fill("T1")), (EventKind.FILL, fill("T1")))
    assert len(reader.fills(journal.run_key)) == 1
    assert len(reader.events(journal.run_key)) == 2


def test_decisions_are_counted_by_layer_and_code(journal: SqlJournal, reader: JournalReader) -> None:
    refused = (EventKind.DECISION, decision("DUPLICATE_ORDER", 2, approved=False))
    add(journal, refused, (EventKind.DECISION, decision("OK", 0, approved=True)), refused)
    counts = [(count.layer, count.code, count.approved, count.number) for count in reader.decision_counts(journal.run_key)]
    assert counts == [(0, "OK", True, 1), (2, "DUPLICATE_ORDER", False, 2)]
    assert reader.decisions(journal.run_key, symbol="TCS", strategy="orb")[0].numbers == '{"loss_paise":5}'
    assert reader.decisions(journal.run_key, symbol="INFY") == []


def test_halts_come_back_as_records_of_the_scope(journal: SqlJournal, reader: JournalReader) -> None:
    latch = HaltRecord(halt_id="h1", kind=HaltKind.LOSS, trading_date=RUN.trading_date, reason="r", by="engine", at_ms=5)
    clear = HaltRecord(
        halt_id="c1", kind=HaltKind.LOSS, trading_date=RUN.trading_date, reason="eod", by="eod", at_ms=6, clears="h1"
    )
    add(journal, (EventKind.HALT, {**latch.to_body()}), (EventKind.HALT_CLEARED, {**clear.to_body()}))
    assert reader.halts(RUN.scope_key) == [latch, clear]
    assert reader.halts("zerodha:primary") == []


@pytest.mark.parametrize("kind", [EventKind.DECISION, EventKind.INTENT, EventKind.ORDER, EventKind.FILL, EventKind.HALT])
def test_body_without_what_its_kind_needs_is_a_bug_and_not_buffered(journal: SqlJournal, kind: EventKind) -> None:
    with pytest.raises(InvariantError, match="cannot be journaled"):
        journal.append(kind, 1, {"symbol": "TCS"})
    journal.commit()
    assert list(journal.events()) == []


# -- backstops -----------------------------------------------------------------------------------------------------


def test_intent_with_a_used_id_is_refused_and_the_rest_is_durable(journal: SqlJournal, reader: JournalReader) -> None:
    add(journal, (EventKind.INTENT, intent(1)), (EventKind.ORDER, order(1, "FILLED", 1)))
    journal.append(EventKind.DECISION, 2, decision("OK", 0, approved=True))
    journal.append(EventKind.INTENT, 3, intent(1, "INFY"))
    journal.append(EventKind.MARK, 4, {"loss": 1})
    with pytest.raises(IntentRefused, match=r"240115E00010000001 \(ENTRY INFY\)"):
        journal.commit()
    assert [event.kind for event in journal.events()][2:] == [EventKind.DECISION, EventKind.MARK]
    assert [row.symbol for row in reader.intents(journal.run_key)] == ["TCS"]
    journal.commit()
    assert reader.verify_chain(journal.run_key) is None


def test_second_live_entry_in_a_symbol_is_refused_until_the_first_is_terminal(
    journal: SqlJournal, reader: JournalReader
) -> None:
    add(journal, (EventKind.INTENT, intent(1)))
    with pytest.raises(IntentRefused, match="not terminal"):
        add(journal, (EventKind.INTENT, intent(2)))
    add(journal, (EventKind.INTENT, intent(3, role="EXIT")), (EventKind.INTENT, intent(4, role="EXIT")))
    add(journal, (EventKind.ORDER, order(1, "UNKNOWN")))
    with pytest.raises(IntentRefused):
        add(journal, (EventKind.INTENT, intent(5)))
    add(journal, (EventKind.ORDER, order(1, "REJECTED")), (EventKind.INTENT, intent(6)))
    journal.append(EventKind.INTENT, 9, intent(1, role="EXIT"))
    with pytest.raises(IntentRefused) as refused:
        add(journal, (EventKind.INTENT, intent(7, "INFY")))
    assert refused.value.durable_ids == {str(intent(7)["client_order_id"])}
    assert [row.client_order_id[-1] for row in reader.intents(journal.run_key)] == ["1", "3", "4", "6", "7"]


def test_same_entry_of_another_run_is_not_refused(journal: SqlJournal, path: Path) -> None:
    add(journal, (EventKind.INTENT, intent(1)))
    other = SqlJournal(url(path), RunIdentity(scope_key="simulated:primary", trading_date=date(2024, 1, 16)))
    add(other, (EventKind.INTENT, intent(1)))
    assert other.run_key != journal.run_key
    assert [event.sequence for event in other.events()] == [1]
    other.close()


# -- other writers, unclear commits --------------------------------------------------------------------------------


def test_commit_after_another_process_wrote_to_the_run_continues_its_chain(
    journal: SqlJournal, reader: JournalReader, path: Path
) -> None:
    add(journal, (EventKind.MARK, {"loss": 1}))
    other = SqlJournal(url(path), RUN)
    assert other.run_key == journal.run_key
    add(other, (EventKind.SESSION, {"phase": "HALTED"}))
    add(journal, (EventKind.INTENT, intent(1)), (EventKind.MARK, {"loss": 2}))
    add(other, (EventKind.SESSION, {"phase": "SEEN"}))
    kinds = [EventKind.MARK, EventKind.SESSION, EventKind.INTENT, EventKind.MARK, EventKind.SESSION]
    assert [event.kind for event in journal.events()] == kinds
    assert reader.verify_chain(journal.run_key) is None
    other.close()


def test_commit_while_another_holds_the_write_lock_fails_and_keeps_the_events(
    patient: SqlJournal, path: Path, clock: FakeClock
) -> None:
    add(patient, (EventKind.MARK, {"loss": 1}))
    with write_lock(path):
        patient.append(EventKind.MARK, 2, {"loss": 2})
        with pytest.raises(JournalUnavailable, match="another process holds it"):
            patient.commit()
        assert len(list(patient.events())) == 1
    patient.append(EventKind.MARK, 3, {"loss": 3})
    clock.seconds += PAUSE_SECONDS
    patient.commit()
    assert [event.body["loss"] for event in patient.events()] == [1, 2, 3]


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the database's write lock as another process does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        yield
        blocker.execute("ROLLBACK")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def patient(path: Path, clock: FakeClock) -> Iterator[SqlJournal]:
    """Return a journal whose waits are short and whose pause goes by the clock."""
    opened = SqlJournal(url(path), RUN, busy_timeout_ms=1, monotonic=clock.monotonic)
    yield opened
    opened.close()


def test_commit_in_the_pause_after_a_locked_one_fails_at_once_without_a_try(
    patient: SqlJournal, path: Path, clock: FakeClock
) -> None:
    with write_lock(path):
        patient.append(EventKind.INTENT, 1, intent(1, role="EXIT"))
        with pytest.raises(JournalUnavailable, match="another process holds it"):
            patient.commit()
    clock.seconds += PAUSE_SECONDS - 0.001
    patient.append(EventKind.MARK, 2, {"loss": 2})
    with pytest.raises(JournalUnavailable, match="another process holds it"):
        patient.commit()  # the lock is free, and it is not even tried
    assert list(patient.events()) == []
    clock.seconds += 0.001
    patient.commit()
    assert [event.kind for event in patient.events()] == [EventKind.INTENT, EventKind.MARK]


def test_commit_after_a_pause_that_finds_the_lock_held_begins_another(
    patient: SqlJournal, path: Path, clock: FakeClock
) -> None:
    patient.append(EventKind.MARK, 1, {"loss": 1})
    with write_lock(path):
        for _ in range(2):
            with pytest.raises(JournalUnavailable):
                patient.commit()
            clock.seconds += PAUSE_SECONDS
        with pytest.raises(JournalUnavailable):
            patient.commit()
    with pytest.raises(JournalUnavailable):
        patient.commit()
    clock.seconds += PAUSE_SECONDS
    patient.commit()
    assert [event.body["loss"] for event in patient.events()] == [1]


@pytest.mark.parametrize("kind", [EventKind.HALT, EventKind.HALT_CLEARED, EventKind.SESSION])
def test_commit_of_a_halt_a_clear_or_the_sessions_end_is_tried_in_the_pause_too(
    patient: SqlJournal, path: Path, kind: EventKind
) -> None:
    with write_lock(path):
        patient.append(EventKind.MARK, 1, {"loss": 1})
        with pytest.raises(JournalUnavailable):
            patient.commit()
        patient.append(kind, 2, HALT_BODY)
        with pytest.raises(JournalUnavailable):
            patient.commit()
        patient.append(EventKind.MARK, 3, {"loss": 3})
    with pytest.raises(JournalUnavailable):
        patient.commit()  # the try in the pause found the lock held, and the pause began anew
    patient.append(kind, 4, HALT_BODY | {"halt_id": "20240115-MANUAL-2"})
    patient.commit()
    assert [event.ts_ms for event in patient.events()] == [1, 2, 3, 4]


def test_commit_that_failed_without_a_wait_is_tried_again_at_once(patient: SqlJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    dialect = patient._engine.dialect
    monkeypatch.setattr(dialect, "do_commit", UnclearCommit(dialect.do_commit, takes_effect=False))
    patient.append(EventKind.MARK, 1, {"loss": 1})
    with pytest.raises(JournalUnavailable):
        patient.commit()
    patient.commit()
    assert [event.body["loss"] for event in patient.events()] == [1]


class UnclearCommit:
    """A connection's COMMIT that takes effect, or not, and then fails."""

    def __init__(self, real: Any, takes_effect: bool) -> None:
        self._real = real
        self._takes_effect = takes_effect
        self.armed = True

    def __call__(self, dbapi_connection: Any) -> None:
        if not self.armed:
            return self._real(dbapi_connection)
        self.armed = False
        if self._takes_effect:
            self._real(dbapi_connection)
        raise OperationalError("COMMIT", {}, Exception("server closed the connection"))


@pytest.mark.parametrize("takes_effect", [True, False])
def test_commit_that_ends_unclear_is_looked_up_and_never_written_twice(
    journal: SqlJournal, reader: JournalReader, monkeypatch: pytest.MonkeyPatch, takes_effect: bool
) -> None:
    add(journal, (EventKind.MARK, {"loss": 1}))
    dialect = journal._engine.dialect
    monkeypatch.setattr(dialect, "do_commit", UnclearCommit(dialect.do_commit, takes_effect))
    journal.append(EventKind.INTENT, 2, intent(1))
    with pytest.raises(JournalUnavailable, match="server closed the connection"):
        journal.commit()
    journal.append(EventKind.MARK, 3, {"loss": 3})
    journal.commit()
    assert [event.kind for event in journal.events()] == [EventKind.MARK, EventKind.INTENT, EventKind.MARK]
    assert len(reader.intents(journal.run_key)) == 1
    assert reader.verify_chain(journal.run_key) is None


def test_journal_whose_folder_vanished_is_unavailable(journal: SqlJournal, path: Path) -> None:
    journal.close()
    shutil.rmtree(path.parent)
    journal.append(EventKind.MARK, 1, {"loss": 1})
    with pytest.raises(JournalUnavailable, match="was removed or replaced"):
        journal.commit()


# -- runs, tail, finish --------------------------------------------------------------------------------------------


def test_run_opened_again_keeps_its_row_and_tail(journal: SqlJournal, reader: JournalReader, path: Path) -> None:
    add(journal, (EventKind.MARK, {"loss": 1}))
    again = SqlJournal(url(path), RunIdentity(scope_key=RUN.scope_key, trading_date=RUN.trading_date, config_hash="other"))
    assert again.tail() == journal.tail()
    assert again.tail()[0] == 1
    again.finish("ENDED")
    (run,) = reader.runs(RUN.trading_date, RUN.trading_date)
    assert (run.config_hash, run.status) == ("abc", "ENDED")
    assert run.ended_wall_ms is not None
    again.close()


# -- opening -------------------------------------------------------------------------------------------------------


def head_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def test_new_journal_is_at_head_in_wal_mode_and_leaves_no_scratch_file(journal: SqlJournal, path: Path) -> None:
    assert head_of(path) == HEAD_REVISION
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["journal.db", "journal.db-shm", "journal.db-wal"]


def test_journal_at_head_is_opened_without_alembic(path: Path) -> None:
    code = (
        "import sys, datetime\n"
        "from velox_core.journal.sql import SqlJournal\nfrom velox_core.journal.run import RunIdentity\n"
        "run = RunIdentity(scope_key='s', trading_date=datetime.date(2024, 1, 1))\n"
        f"for _ in range(2): SqlJournal({url(path)!r}, run).close()\n"
        "print('alembic' in sys.modules, 'prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"hello", "is not a journal"), (b"SQLite format 3\x00" + bytes(50), "cannot open|damaged")],
)
def test_file_that_is_no_journal_is_refused_with_a_way_out(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalUnavailable, match=says) as caught:
        SqlJournal(url(path), RUN)
    assert "restore a backup" in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_file_that_was_cut_off_is_refused(path: Path, share: float) -> None:
    journal = SqlJournal(url(path), RUN)
    add(journal, *[(EventKind.MARK, {"loss": number, "text": "x" * 200}) for number in range(2_000)])
    journal.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(int(size * share))
    with pytest.raises(JournalUnavailable, match=r"damaged|cut off"):
        SqlJournal(url(path), RUN)


def test_missing_file_beside_its_wal_is_refused(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(b"x")
    with pytest.raises(JournalUnavailable, match="-wal"):
        SqlJournal(url(path), RUN)
    assert not path.exists()


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_postgresql_is_spoken_to_by_psycopg_3_however_its_address_is_written(scheme: str) -> None:
    with pytest.raises(JournalUnavailable, match=r"psycopg(?!2)"):
        open_database(f"{scheme}://velox@127.0.0.1:1/velox")


@pytest.mark.parametrize("bad", ["sqlite://", "sqlite:///:memory:", "nonsense", "postgresql+nothing://x/y", "mysql+x://"])
def test_url_that_cannot_be_a_journal_is_refused(bad: str) -> None:
    with pytest.raises(JournalUnavailable, match=r"stores\.journal\.url"):
        open_database(bad)


def test_reader_of_a_missing_journal_is_refused_and_creates_nothing(path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="there is no journal"):
        JournalReader(url(path))
    assert not path.exists()


# -- exit plans ------------------------------------------------------------------------------------------------------


def test_new_exit_plan_ends_the_one_that_a_dead_closer_left_live(journal: SqlJournal, reader: JournalReader) -> None:
    add(journal, (EventKind.EXIT_PLAN, {"closer": "240115E0001"}), (EventKind.INTENT, intent(1, role="EXIT")))
    add(journal, (EventKind.EXIT_PLAN, {"closer": "240115G0001"}), (EventKind.INTENT, intent(2, role="EXIT")))
    plans = reader.exit_plans(journal.run_key)
    assert [(plan.closer, plan.live) for plan in plans] == [("240115E0001", False), ("240115G0001", True)]
    assert plans[0].ended_ms == plans[1].ts_ms
    assert len(reader.intents(journal.run_key)) == 2


def test_session_that_closes_ends_its_exit_plan(journal: SqlJournal, reader: JournalReader) -> None:
    add(journal, (EventKind.EXIT_PLAN, {"closer": "240115E0001"}), (EventKind.SESSION, {"phase": "STOPPED"}))
    assert [plan.live for plan in reader.exit_plans(journal.run_key)] == [True]
    add(journal, (EventKind.SESSION, {"phase": "CLOSED"}))
    assert [plan.live for plan in reader.exit_plans(journal.run_key)] == [False]


def test_second_live_exit_plan_is_refused_by_the_database(journal: SqlJournal, path: Path) -> None:
    add(journal, (EventKind.EXIT_PLAN, {"closer": "240115E0001"}))
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        connection.execute(
            "INSERT INTO exit_plan (run_key, sequence, ts_ms, closer, live) VALUES (?, 99, 1, '240115G0001', 1)",
            (journal.run_key,),
        )


def test_commit_after_the_file_was_removed_is_refused_until_it_is_back(journal: SqlJournal, path: Path) -> None:
    journal.append(EventKind.INTENT, 1, intent(1))
    journal.commit()
    away = path.with_name("away.db")
    path.rename(away)
    journal.append(EventKind.INTENT, 2, intent(2, "INFY"))
    with pytest.raises(JournalUnavailable, match="was removed or replaced"):
        journal.commit()
    assert not path.exists()
    away.rename(path)
    journal.commit()
    assert [event.body["client_order_id"] for event in journal.events((EventKind.INTENT,))] == [
        "240115E00010000001",
        "240115E00010000002",
    ]


def test_commit_to_a_file_that_another_one_replaced_is_refused(journal: SqlJournal, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    open_database(url(other)).dispose()
    other.replace(path)
    journal.append(EventKind.INTENT, 1, intent(1))
    with pytest.raises(JournalUnavailable, match="was removed or replaced"):
        journal.commit()
    with closing(sqlite3.connect(path)) as replaced:
        assert replaced.execute("SELECT count(*) FROM event").fetchone() == (0,)
