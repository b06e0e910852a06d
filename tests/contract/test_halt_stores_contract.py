"""The halt stores as they really are (a file, SQLite, a ledger): an engine heeds what any of them holds, at its start and
while it runs, whatever became of the others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.rig import DAY, NOW_MS, Rig
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord, active_halts, clear_of
from velox_core.domain.orders import ExitRank
from velox_core.halt_file import JsonLinesHaltFile
from velox_core.halt_stores import JOURNAL_LOOK_SECONDS
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal

IDS = ("h1", "h2", "h3")
STORES = ("file", "journal", "ledger")
RUN = RunIdentity(scope_key="simulated:primary", trading_date=DAY, run_id="1", config_hash="c")
STEPS = st.lists(st.tuples(st.sampled_from(STORES), st.sampled_from(IDS), st.booleans()), max_size=12)


def latch(halt_id: str) -> HaltRecord:
    return HaltRecord(
        halt_id=halt_id,
        kind=HaltKind.MANUAL,
        trading_date=DAY,
        reason="r",
        by="b",
        at_ms=1,
        keeps_positions=halt_id == "h1",
    )


@settings(max_examples=15, deadline=None)
@given(STEPS)
def test_engine_that_starts_heeds_the_union_of_what_the_stores_hold_and_a_reset_ends_all_of_it(
    steps: list[tuple[str, str, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = SqlJournal(f"sqlite:///{folder}/journal.db", RUN)
        try:
            rig = Rig()
            halt_file = JsonLinesHaltFile(Path(folder) / "halt.jsonl")
            rig.journal, rig.halt_file = journal, halt_file  # type: ignore[assignment]
            held: dict[str, list[HaltRecord]] = {store: [] for store in STORES}
            for store, halt_id, clears in steps:
                record = clear_of(latch(halt_id), reason="over", by="p", at_ms=2) if clears else latch(halt_id)
                held[store].append(record)
                if store == "file":
                    halt_file.append(record)
                elif store == "journal":
                    journal.append(EventKind.HALT_CLEARED if clears else EventKind.HALT, 1, dict(record.to_body()))
                    journal.commit()
                else:
                    rig.ledger.inner.latch_halt(record)
            union = {halt.halt_id: halt for records in held.values() for halt in active_halts(records)}
            rig.restart()
            assert {halt.halt_id: halt for halt in rig.emergency.load()} == union
            assert {halt.halt_id for halt in rig.risk.snapshot.halts} == union.keys()
            cleared = rig.emergency.reset("over", "p", NOW_MS, session_over=True)
            assert {record.clears for record in cleared} == union.keys()
            rig.restart()
            assert rig.emergency.load() == ()
        finally:
            journal.close()


class Running:
    """A running engine that holds a position, over the real file and SQLite and a ledger that another process reaches too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'journal.db'}"
        self.journal = SqlJournal(self.url, RUN)
        self.rig = Rig()
        self.rig.journal, self.rig.halt_file = self.journal, JsonLinesHaltFile(folder / "halt.jsonl")  # type: ignore[assignment]
        self.rig.restart()
        self.rig.emergency.load()
        self.rig.hold()
        self.rig.emergency.take_up(NOW_MS)

    def lose(self, store: str) -> None:
        """Take a store away: nothing can be read from it nor written to it."""
        if store == "file":
            (self.folder / "halt.jsonl").symlink_to(self.folder / "a disk that is gone" / "halt.jsonl")
        elif store == "journal":
            for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
                (self.folder / name).unlink(missing_ok=True)
        else:
            self.rig.ledger.down = True

    def put(self, store: str, record: HaltRecord) -> None:
        """Write a record into one store as another process does."""
        if store == "file":
            JsonLinesHaltFile(self.folder / "halt.jsonl").append(record)
        elif store == "journal":
            other = SqlJournal(self.url, RUN)
            other.append(EventKind.HALT_CLEARED if record.clears else EventKind.HALT, 1, dict(record.to_body()))
            other.commit()
            other.close()
        else:
            self.rig.ledger.inner.latch_halt(record)

    def look(self) -> bool:
        """Have the engine look for halts once the next look at the journal is due."""
        self.rig.clock.seconds += JOURNAL_LOOK_SECONDS
        return self.rig.emergency.take_up(NOW_MS)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    engine = Running(tmp_path)
    yield engine
    engine.journal.close()


@pytest.mark.parametrize("lost", [False, True], ids=["the others lack it", "the others are lost"])
@pytest.mark.parametrize("store", STORES)
def test_running_engine_halts_on_what_one_store_alone_holds(running: Running, store: str, lost: bool) -> None:
    rig = running.rig
    assert not rig.emergency.active
    for other in STORES:
        if lost and other != store:
            running.lose(other)
    running.put(store, latch("h2"))
    assert running.look()
    assert rig.emergency.halt_ids == ["h2"]
    assert [order.rank for order in rig.broker.placed] == [None, ExitRank.EMERGENCY]
    assert not running.look()


@pytest.mark.parametrize("lost", STORES)
def test_running_engine_halts_on_what_two_stores_hold_while_the_third_is_lost(running: Running, lost: str) -> None:
    running.lose(lost)
    for store in STORES:
        if store != lost:
            running.put(store, latch("h1"))
    assert running.look()
    assert running.rig.emergency.halt_ids == ["h1"]
    assert not running.rig.emergency.closing
    assert [order.rank for order in running.rig.broker.placed] == [None]


def test_running_engine_is_told_nothing_by_stores_that_are_lost(running: Running) -> None:
    running.lose("journal")
    running.lose("file")
    assert not running.look()
    assert not running.rig.emergency.active


def test_clear_in_the_journal_alone_ends_no_halt(running: Running) -> None:
    for store in STORES:
        running.put(store, latch("h1"))
    assert running.look()
    running.put("journal", clear_of(latch("h1"), reason="over", by="p", at_ms=2))
    assert not running.look()
    assert running.rig.emergency.halt_ids == ["h1"]
