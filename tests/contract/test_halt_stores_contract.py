"""The halt stores as they really are (a file, SQLite, a ledger): an engine that starts heeds what any of them holds."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.rig import DAY, NOW_MS, Rig
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord, active_halts, clear_of
from velox_core.halt_file import JsonLinesHaltFile
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
