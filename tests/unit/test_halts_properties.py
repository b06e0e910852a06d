"""Any interleaving of halts, clear records, losses, outages, looks and restarts over the three stores: the strictest rules."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.rig import DAY, NOW_MS, Rig, entry_signal
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord, active_halts, clear_of
from velox_core.risk.approval import ApprovedOrder

IDS = ("h1", "h2", "h3")
STORES = ("file", "journal", "ledger")
KINDS = {
    "h1": (HaltKind.MANUAL, True),
    "h2": (HaltKind.FAULT, False),
    "h3": (HaltKind.RECONCILE, False),
}


def latch(halt_id: str) -> HaltRecord:
    kind, keeps = KINDS[halt_id]
    return HaltRecord(halt_id=halt_id, kind=kind, trading_date=DAY, reason="r", by="b", at_ms=1, keeps_positions=keeps)


def write(rig: Rig, record: HaltRecord, stores: tuple[str, ...]) -> None:
    """Write as another process does: into the stores named, whether our engine can reach them or not."""
    if "file" in stores:
        rig.halt_file.kept.append(record)
    if "journal" in stores:
        rig.journal.append(EventKind.HALT_CLEARED if record.clears else EventKind.HALT, 1, dict(record.to_body()))
        rig.journal.commit()
    if "ledger" in stores:
        rig.ledger.inner.latch_halt(record)


def held(rig: Rig) -> dict[str, set[str]]:
    """Return the ids that each store holds active, by itself."""
    kinds = (EventKind.HALT, EventKind.HALT_CLEARED)
    journaled = [HaltRecord.from_body(dict(event.body)) for event in rig.journal.committed if event.kind in kinds]
    return {
        "file": {halt.halt_id for halt in active_halts(rig.halt_file.kept)},
        "journal": {halt.halt_id for halt in active_halts(journaled)},
        "ledger": {halt.halt_id for halt in rig.ledger.inner.snapshot().halts},
    }


def readable(rig: Rig, *, running: bool = False) -> set[str]:
    """Return the ids that our engine can see: a store that is away shows none. A running one is told by file and ledger."""
    by_store = held(rig)
    if rig.journal.unreadable or running:
        by_store["journal"] = set()
    if rig.ledger.down:
        by_store["ledger"] = set()
    return set().union(*by_store.values())


SOME = st.lists(st.sampled_from(STORES), min_size=1, max_size=3, unique=True).map(tuple)
STEPS = st.one_of(
    st.tuples(st.just("latch"), st.sampled_from(IDS), SOME),
    st.tuples(st.just("clear"), st.sampled_from(IDS), SOME),
    st.tuples(st.just("lose"), st.sampled_from(("file", "journal")), st.none()),
    st.tuples(st.just("away"), st.sampled_from(("journal", "ledger")), st.booleans()),
    st.tuples(st.just("look"), st.none(), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=14))
def test_strictest_rules_for_any_interleaving(steps: list[tuple[str, Any, Any]]) -> None:
    rig = Rig()
    rig.emergency.load()
    for action, what, how in steps:
        before = set(rig.emergency.halt_ids)
        if action == "latch":
            write(rig, latch(what), how)
        elif action == "clear":
            write(rig, clear_of(latch(what), reason="over", by="p", at_ms=2), how)
        elif action == "lose" and what == "file":
            rig.halt_file.kept.clear()
        elif action == "lose":
            rig.journal.committed.clear()
        elif action == "away" and what == "journal":
            rig.journal.unreadable = how
        elif action == "away":
            rig.ledger.down = how
            if not how and rig.risk.readiness.ledger_fault:
                rig.risk.open_ledger()
        elif action == "look":
            look(rig, before)
        elif not rig.ledger.down:
            restart(rig)


def look(rig: Rig, before: set[str]) -> None:
    """Everything that can be seen is heeded; what is dropped is cleared in every store, and every store was read."""
    cleared = {str(body["clears"]) for body in rig.journal.bodies(EventKind.HALT_CLEARED)}
    cleared |= {record.clears for record in rig.halt_file.kept if record.clears}
    seen = readable(rig)
    rig.emergency.take_up(NOW_MS)
    now = set(rig.emergency.halt_ids)
    assert readable(rig, running=True) <= now
    dropped = before - now
    assert dropped <= cleared
    assert not dropped & seen
    assert not dropped or not (rig.journal.unreadable or rig.ledger.down)
    check_entries(rig)


def restart(rig: Rig) -> None:
    """A new engine heeds exactly what the stores hold, and one halt more when the journal cannot be read."""
    seen = readable(rig)
    rig.restart()
    rig.emergency.load()
    now = set(rig.emergency.halt_ids)
    assert now - seen == ({"20240116-FAULT-U1"} if rig.journal.unreadable else set())
    assert seen <= now
    check_entries(rig)


def check_entries(rig: Rig) -> None:
    """Entries pass without a halt only; what was placed is taken back to keep the account as it is."""
    if rig.emergency.halt_ids:
        answer = rig.ask(entry_signal("BBB"))
        assert not isinstance(answer, ApprovedOrder)
        assert rig.broker.placed == []
    else:
        assert rig.risk.snapshot.halts == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(IDS), SOME), min_size=1, max_size=5), st.booleans())
def test_position_is_closed_exactly_when_one_of_the_halts_closes(
    latches: list[tuple[str, tuple[str, ...]]], running: bool
) -> None:
    rig = Rig()
    rig.hold()
    placed = len(rig.broker.placed)
    rig.emergency.load()
    for halt_id, stores in latches:
        write(rig, latch(halt_id), stores if not running else tuple({*stores, "file"}))
    if running:
        rig.emergency.take_up(NOW_MS)
    else:
        rig.emergency.load()
        rig.risk.refresh()
        rig.emergency.take_up(NOW_MS)
    rig.emergency.check(NOW_MS)
    closes = any(latch(halt_id).closes for halt_id, _ in latches)
    assert rig.emergency.closing is closes
    assert (len(rig.broker.placed) > placed) is closes
