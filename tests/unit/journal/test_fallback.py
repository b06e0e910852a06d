"""The emergency file behind a journal: on the disk before an exit leaves, in SQL once, and no hold on an exit ever."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import cast

import pytest

from tests.fakes.outside import FakeAlerts
from tests.fakes.rig import NOW_MS, Rig
from tests.fakes.stores import FakeJournal
from velox_core.domain.errors import IntentRefused, JournalUnavailable
from velox_core.domain.events import Body, EventKind
from velox_core.domain.orders import ExitRank
from velox_core.journal.fallback import FallbackJournal
from velox_core.journal.file import read_events
from velox_core.journal.imports import import_emergency_file
from velox_core.journal.queries import JournalReader
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.ports import SendOutcome
from velox_core.risk.approval import ApprovedOrder

RUN = RunIdentity(scope_key="simulated:primary", trading_date=date(2024, 1, 15))
SESSION: tuple[EventKind, Body] = (EventKind.SESSION, {"phase": "BACK"})
AWAY = JournalUnavailable("locked")


class Stores:
    """A SQL journal that can be locked by another writer, and the emergency file behind it."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "journal.db"
        self.path = folder / "emergency.jsonl"
        self.alerts = FakeAlerts()
        self._other: sqlite3.Connection | None = None
        self.open()

    def open(self) -> None:
        """Be a process."""
        self.sql = SqlJournal(f"sqlite:///{self.database}", RUN, busy_timeout_ms=1)
        self.journal = FallbackJournal(self.sql, self.path, self.alerts)

    def die(self) -> None:
        """End as a killed process does: nothing is written any more."""
        self.journal.close()
        self.sql.close()

    def lock(self) -> None:
        """Have another writer hold the database."""
        self._other = sqlite3.connect(self.database, isolation_level=None)
        self._other.execute("BEGIN IMMEDIATE")

    def free(self) -> None:
        """End the other writer."""
        if self._other is not None:
            self._other.close()
            self._other = None

    def add(self, *events: tuple[EventKind, Body]) -> None:
        """Append events and commit, with the database locked."""
        for kind, body in events:
            self.journal.append(kind, NOW_MS, body)
        with pytest.raises(JournalUnavailable):
            self.journal.commit()

    def come_back(self) -> None:
        """Commit on the free database, with an event that is tried at once whatever went before."""
        self.journal.append(SESSION[0], NOW_MS, SESSION[1])
        self.journal.commit()

    def in_file(self) -> list[tuple[EventKind, Body]]:
        return [(event.kind, event.body) for event in read_events(self.path)] if self.path.exists() else []

    def in_sql(self) -> list[tuple[EventKind, Body]]:
        """Return the run's events, after a check of its chain, without those of the import itself."""
        with closing(JournalReader(f"sqlite:///{self.database}")) as reader:
            assert reader.verify_chain(self.sql.run_key) is None
            events = reader.events(self.sql.run_key)
        return [(event.kind, event.body) for event in events if "file_digest" not in event.body]

    def set_aside(self) -> list[Path]:
        return list(self.path.parent.glob("emergency.jsonl.imported-*"))


def intent(number: int) -> tuple[EventKind, Body]:
    return EventKind.INTENT, {
        "client_order_id": f"240115E0001{number:07d}",
        "strategy": "orb",
        "symbol": "TCS",
        "side": "SELL",
        "quantity": 1,
        "order_type": "MARKET",
        "limit_price": 0,
        "product": "MIS",
        "role": "EXIT",
        "rank": 1,
        "reason": "stop",
    }


def order(number: int, state: str = "OPEN") -> tuple[EventKind, Body]:
    return EventKind.ORDER, {"client_order_id": f"240115E0001{number:07d}", "state": state, "reason": "", "filled": 0}


def fill(number: int, strategy: str = "orb") -> tuple[EventKind, Body]:
    return EventKind.FILL, {
        "trade_id": f"T{number}",
        "client_order_id": f"240115E0001{number:07d}",
        "strategy": strategy,
        "symbol": "TCS",
        "side": "SELL",
        "quantity": 1,
        "price": 390_000,
        "charges": 12,
        "realised": 0,
        "position": 0,
        "cost": 0,
    }


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores(tmp_path)
    yield made
    made.free()
    made.die()


class FiledRig(Rig):
    """The order path on a journal with an emergency file. Each send notes which intents the file has by then."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.inner = FakeJournal()
        self.journal = cast("FakeJournal", FallbackJournal(self.inner, path, self.alerts))
        self.path = path
        self.filed_at_send: list[set[str]] = []
        place = self.broker.place

        def noting(approved: ApprovedOrder, now_ms: int) -> SendOutcome:
            self.filed_at_send.append(self.filed())
            return place(approved, now_ms)

        self.broker.place = noting  # type: ignore[method-assign]
        self.restart()

    def filed(self) -> set[str]:
        """Return the ids of the intents in the file."""
        events = read_events(self.path, [EventKind.INTENT]) if self.path.exists() else ()
        return {str(event.body["client_order_id"]) for event in events}

    def leave(self) -> str:
        """Hold a share, lose the journal, want out; returns the exit's id."""
        self.hold()
        self.inner.error = AWAY
        self.door.want("AAA", ExitRank.STOP, "stop")
        self.door.work(NOW_MS)
        (sent,) = [placed for placed in self.broker.placed if placed.rank is not None]
        return sent.client_order_id


def test_exit_without_a_journal_leaves_with_its_intent_synced_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    rig = FiledRig(tmp_path / "emergency.jsonl")
    place = rig.broker.place

    def after_sync(approved: ApprovedOrder, now_ms: int) -> SendOutcome:
        assert approved.rank is None or synced[0] == tmp_path.name
        assert approved.rank is None or "emergency.jsonl" in synced
        return place(approved, now_ms)

    rig.broker.place = after_sync  # type: ignore[method-assign]
    order_id = rig.leave()
    assert rig.filed_at_send == [set(), {order_id}]
    assert "Emergency file unavailable" not in rig.alerts.titles


def test_entry_without_a_journal_is_not_sent(tmp_path: Path) -> None:
    rig = FiledRig(tmp_path / "emergency.jsonl")
    rig.inner.error = AWAY
    rig.enter()
    assert rig.broker.placed == []


def test_journal_that_never_fails_leaves_no_file(tmp_path: Path) -> None:
    rig = FiledRig(tmp_path / "emergency.jsonl")
    rig.hold()
    assert rig.inner.committed
    assert list(tmp_path.iterdir()) == []


def test_exit_without_journal_and_file_leaves_and_a_person_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    rig = FiledRig(tmp_path / "file" / "emergency.jsonl")
    order_id = rig.leave()
    rig.orders.commit_journal()
    assert order_id in [placed.client_order_id for placed in rig.broker.placed]
    assert rig.alerts.titles.count("Emergency file unavailable") == 1
    rig.inner.error = None
    assert rig.orders.commit_journal()
    assert order_id in {str(event.body["client_order_id"]) for event in rig.inner.committed if event.kind is EventKind.INTENT}


def test_journal_back_has_each_event_once_and_the_file_is_set_aside(stores: Stores) -> None:
    stores.lock()
    stores.add(intent(1))
    stores.add(order(1), fill(1))
    assert stores.in_file() == [intent(1), order(1), fill(1)]
    stores.free()
    stores.come_back()
    assert stores.in_sql() == [intent(1), order(1), fill(1), SESSION]
    assert not stores.path.exists()
    assert len(stores.set_aside()) == 1


def test_process_that_dies_while_the_journal_is_away_leaves_its_events_to_the_next_start(stores: Stores) -> None:
    stores.lock()
    stores.add(intent(1), fill(1))
    stores.die()
    stores.free()
    stores.open()
    assert import_emergency_file(stores.path, stores.sql) == 2
    assert import_emergency_file(stores.path, stores.sql) == 0
    assert stores.in_sql() == [intent(1), fill(1)]
    assert not stores.path.exists()


def test_process_that_dies_between_commit_and_setting_the_file_aside_doubles_nothing(stores: Stores) -> None:
    stores.lock()
    stores.add(intent(1), order(1), fill(1))
    kept = stores.path.read_bytes()
    stores.free()
    stores.come_back()
    stores.path.write_bytes(kept)
    stores.die()
    stores.open()
    assert import_emergency_file(stores.path, stores.sql) == 0
    assert stores.in_sql() == [intent(1), order(1), fill(1), SESSION]


def test_import_books_a_trade_once_that_two_engines_noted(stores: Stores) -> None:
    stores.lock()
    stores.add(intent(1), fill(1))
    stores.add(fill(1, strategy="foreign"))
    stores.die()
    stores.free()
    stores.open()
    import_emergency_file(stores.path, stores.sql)
    assert stores.in_sql() == [intent(1), fill(1)]


def test_import_of_an_intent_whose_id_has_another_order_writes_the_rest_and_is_over(stores: Stores) -> None:
    stores.journal.append(*_at(intent(1)))
    stores.journal.commit()
    stores.lock()
    kind, body = intent(1)
    stores.add((kind, {**body, "quantity": 2}), intent(2))
    stores.die()
    stores.free()
    stores.open()
    with pytest.raises(IntentRefused):
        import_emergency_file(stores.path, stores.sql)
    assert stores.in_sql() == [intent(1), intent(2)]
    assert import_emergency_file(stores.path, stores.sql) == 0


def test_file_that_was_there_before_is_written_on_and_left_to_the_next_start(stores: Stores) -> None:
    stores.lock()
    stores.add(intent(1))
    stores.die()
    stores.free()
    stores.open()  # and its import failed
    stores.lock()
    stores.add(intent(2))
    stores.free()
    stores.come_back()
    assert stores.in_sql() == [intent(2), SESSION]
    assert stores.in_file() == [intent(1), intent(2)]
    assert import_emergency_file(stores.path, stores.sql) == 1
    assert stores.in_sql() == [intent(2), SESSION, intent(1)]


def test_journal_with_a_file_that_could_not_be_imported_cannot_be_read(tmp_path: Path) -> None:
    journal = FallbackJournal(FakeJournal(), tmp_path / "emergency.jsonl", FakeAlerts(), not_imported=AWAY)
    with pytest.raises(JournalUnavailable):
        journal.events()


def _at(event: tuple[EventKind, Body]) -> tuple[EventKind, int, Body]:
    return event[0], NOW_MS, event[1]
