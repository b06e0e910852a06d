"""Halts and clear records that another process wrote while the engine runs, over fakes of the three stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from tests.fakes.rig import DAY, NOW_MS, Rig, entry_signal, make_limits
from tests.fakes.stores import FakeJournal
from velox_core.domain.errors import HaltedError, JournalUnavailable, VeloxError
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.domain.halts import DAMAGE_FOUND_BY, HaltKind, HaltRecord, clear_of
from velox_core.domain.orders import ExitRank
from velox_core.halt_stores import JOURNAL_LOOK_SECONDS
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.layers import ReasonCode, Refusal


def halt(
    kind: HaltKind = HaltKind.MANUAL, halt_id: str = "20240116-MANUAL-abc", *, keeps: bool = True, by: str = "someone"
) -> HaltRecord:
    return HaltRecord(halt_id=halt_id, kind=kind, trading_date=DAY, reason="why", by=by, at_ms=5, keeps_positions=keeps)


def put(rig: Rig, record: HaltRecord, *stores: str) -> None:
    """Write a record as another process does, into the stores named."""
    if "file" in stores:
        rig.halt_file.kept.append(record)
    if "journal" in stores:
        rig.journal.append(EventKind.HALT_CLEARED if record.clears else EventKind.HALT, 1, dict(record.to_body()))
        rig.journal.commit()
    if "ledger" in stores:
        rig.ledger.inner.latch_halt(record)


ALL = ("file", "journal", "ledger")


def holds(rig: Rig, halt_id: str) -> list[str]:
    """Return which stores hold a halt, each by itself."""
    found = {
        "file": any(record.halt_id == halt_id for record in rig.halt_file.kept),
        "journal": any(body["halt_id"] == halt_id for body in rig.journal.bodies(EventKind.HALT)),
        "ledger": any(record.halt_id == halt_id for record in rig.ledger.inner.snapshot().halts),
    }
    return [store for store, is_there in found.items() if is_there]


def exits(rig: Rig) -> list[ApprovedOrder]:
    return [order for order in rig.broker.placed if order.rank is not None]


def is_active(rig: Rig) -> bool:
    return rig.emergency.active


def test_take_up_without_news_changes_nothing() -> None:
    rig = Rig()
    rig.emergency.load()
    assert not rig.emergency.take_up(NOW_MS)
    assert (rig.halt_file.kept, rig.journal.length, rig.alerts.sent) == ([], 0, [])


@pytest.mark.parametrize("store", ["file", "ledger"])
def test_take_up_of_a_halt_that_keeps_positions_stops_entries_only_and_copies_it_to_every_store(store: str) -> None:
    rig = Rig()
    rig.hold()
    rig.emergency.load()
    put(rig, halt(), store)
    assert rig.emergency.take_up(NOW_MS)
    assert rig.emergency.halt_ids == ["20240116-MANUAL-abc"]
    answer = rig.ask(entry_signal("BBB"))
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.EMERGENCY_EXIT_ACTIVE
    rig.emergency.check(NOW_MS + 1_000)
    assert not rig.emergency.closing
    assert exits(rig) == []
    assert rig.quantity() == 1
    assert holds(rig, "20240116-MANUAL-abc") == list(ALL)
    assert rig.journal.bodies(EventKind.HALT)[0]["by"] == "someone"
    assert not rig.emergency.take_up(NOW_MS)
    assert rig.alerts.titles == ["HALTED from outside"]


@pytest.mark.parametrize(
    ("record", "closes"),
    [
        (halt(keeps=False), True),
        (halt(HaltKind.LOSS, "20240116-LOSS-x"), True),
        (halt(HaltKind.FAULT, "20240116-FAULT-x"), True),
        (halt(HaltKind.RECONCILE, "20240116-RECONCILE-x"), False),
    ],
)
def test_take_up_of_a_halt_that_closes_flattens_at_once(record: HaltRecord, closes: bool) -> None:
    rig = Rig()
    rig.hold()
    rig.emergency.load()
    put(rig, record, "file")
    assert rig.emergency.take_up(NOW_MS)
    assert rig.emergency.closing is closes
    assert [order.rank for order in exits(rig)] == ([ExitRank.EMERGENCY] if closes else [])


@pytest.mark.parametrize(("kind", "blocks"), [(HaltKind.MANUAL, 1), (HaltKind.RECONCILE, 0)])
def test_engine_that_obeys_a_halt_from_outside_writes_the_guides_block_once(
    kind: HaltKind, blocks: int, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    rig.hold()
    rig.emergency.load()
    put(rig, halt(kind, "20240116-X-1", keeps=False), "file")
    rig.emergency.take_up(NOW_MS)
    put(rig, halt(HaltKind.MANUAL, "20240116-X-2", keeps=False), "file")
    rig.emergency.take_up(NOW_MS)
    lines = [r.getMessage() for r in caplog.records if r.name == "velox.emergency"]
    assert lines.count("🚨 EMERGENCY EXIT TRIGGERED 🚨") == 1
    start = lines.index("🚨 EMERGENCY EXIT TRIGGERED 🚨")
    assert lines[start + 1].startswith("Daily P&L: ")
    assert lines[start + 2] == "Max Daily Loss: -2000.00"
    assert ("halt 20240116-X-1" in lines[start + 3]) is bool(blocks)  # the first that closes


def test_take_up_of_a_closing_halt_under_one_that_keeps_positions_closes() -> None:
    rig = Rig()
    rig.hold()
    put(rig, halt(), "file")
    rig.emergency.load()
    put(rig, halt(keeps=False, halt_id="second"), "ledger")
    rig.emergency.take_up(NOW_MS)
    assert rig.emergency.halt_ids == ["20240116-MANUAL-abc", "second"]
    assert len(exits(rig)) == 1


def test_loss_at_the_limit_under_a_halt_that_keeps_positions_closes_all_the_same() -> None:
    rig = Rig(make_limits(max_daily_loss_paise=5_000))
    rig.hold()
    put(rig, halt(), "file")
    rig.emergency.load()
    rig.emergency.check(NOW_MS)
    assert exits(rig) == []
    rig.day_loss.mark(0, 5_000)
    rig.emergency.check(NOW_MS)
    assert len(exits(rig)) == 1


def test_take_up_with_the_ledger_down_goes_by_the_file_and_with_the_journal_down_journals_it_later() -> None:
    rig = Rig()
    rig.emergency.load()
    rig.ledger.down = rig.journal.unreadable = True
    rig.journal.error = JournalUnavailable("disk full")
    put(rig, halt(), "file")
    assert rig.emergency.take_up(NOW_MS)
    rig.journal.error, rig.journal.unreadable = None, False
    rig.orders.commit_journal()
    assert holds(rig, "20240116-MANUAL-abc") == ["file", "journal"]
    assert rig.risk.snapshot.halts == (halt(),)
    assert not rig.emergency.closing


# -- the journal alone --------------------------------------------------------------------------------------------


class CountingJournal(FakeJournal):
    """Counts the looks at its newest halt, and its whole readings."""

    looks = readings = 0

    def newest_halt(self) -> int:
        self.looks += 1
        return super().newest_halt()

    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        self.readings += 1
        return super().events(kinds)


def test_take_up_looks_at_the_journal_at_most_every_so_often_and_reads_it_only_when_there_is_news() -> None:
    rig = Rig()
    rig.journal = journal = CountingJournal()
    rig.restart()
    rig.emergency.load()
    rig.emergency.take_up(NOW_MS)
    assert (journal.looks, journal.readings) == (1, 1)
    put(rig, halt(), "journal")
    rig.clock.seconds += JOURNAL_LOOK_SECONDS - 0.01
    assert not rig.emergency.take_up(NOW_MS)
    assert (journal.looks, journal.readings) == (1, 1)
    rig.clock.seconds += 0.01
    assert rig.emergency.take_up(NOW_MS)
    assert holds(rig, "20240116-MANUAL-abc") == list(ALL)
    for _ in range(3):
        rig.clock.seconds += JOURNAL_LOOK_SECONDS
        rig.emergency.take_up(NOW_MS)
    assert (journal.looks, journal.readings) == (4, 3)  # once more for what the copies changed


def test_take_up_with_a_journal_that_cannot_be_read_is_no_news_and_finds_the_halt_when_it_can() -> None:
    rig = Rig()
    rig.emergency.load()
    rig.journal.unreadable = True
    put(rig, halt(), "journal")
    assert not rig.emergency.take_up(NOW_MS)
    assert not is_active(rig)
    rig.journal.unreadable = False
    rig.clock.seconds += JOURNAL_LOOK_SECONDS
    assert rig.emergency.take_up(NOW_MS)
    assert is_active(rig)


# -- clear records -------------------------------------------------------------------------------------------------


def test_take_up_of_a_clear_that_every_store_holds_lets_entries_pass_again() -> None:
    rig = Rig()
    put(rig, halt(), *ALL)
    rig.emergency.load()
    put(rig, clear_of(halt(), reason="over", by="p", at_ms=9), *ALL)
    assert rig.emergency.take_up(NOW_MS)
    assert not is_active(rig)
    assert isinstance(rig.ask(), ApprovedOrder)


@pytest.mark.parametrize("stores", [("file",), ("ledger",), ("file", "ledger"), ("file", "journal"), ("journal", "ledger")])
def test_take_up_of_a_clear_that_one_store_lacks_clears_nothing(stores: tuple[str, ...]) -> None:
    rig = Rig()
    put(rig, halt(), *ALL)
    rig.emergency.load()
    put(rig, clear_of(halt(), reason="over", by="p", at_ms=9), *stores)
    rig.emergency.take_up(NOW_MS)
    assert is_active(rig)
    assert isinstance(rig.ask(), Refusal)


@pytest.mark.parametrize("gap", ["journal", "ledger"])
def test_take_up_of_a_clear_while_a_store_cannot_be_read_clears_nothing(gap: str) -> None:
    rig = Rig()
    put(rig, halt(), *ALL)
    rig.emergency.load()
    put(rig, clear_of(halt(), reason="over", by="p", at_ms=9), *ALL)
    rig.journal.unreadable, rig.ledger.down = gap == "journal", gap == "ledger"
    assert not rig.emergency.take_up(NOW_MS)
    assert is_active(rig)


def test_take_up_of_a_clear_of_another_id_clears_nothing() -> None:
    rig = Rig()
    put(rig, halt(), *ALL)
    rig.emergency.load()
    put(rig, clear_of(halt(halt_id="20240116-MANUAL-other"), reason="over", by="p", at_ms=9), *ALL)
    assert not rig.emergency.take_up(NOW_MS)
    assert rig.emergency.halt_ids == ["20240116-MANUAL-abc"]


def test_take_up_of_stores_that_came_back_empty_clears_nothing() -> None:
    rig = Rig()
    put(rig, halt(), *ALL)
    rig.emergency.load()
    rig.halt_file.kept.clear()
    rig.journal.committed.clear()
    assert not rig.emergency.take_up(NOW_MS)
    assert is_active(rig)
    assert isinstance(rig.ask(), Refusal)


def test_take_up_of_a_clear_of_todays_loss_halt_clears_nothing() -> None:
    rig = Rig()
    loss = halt(HaltKind.LOSS, "20240116-LOSS-1")
    put(rig, loss, *ALL)
    rig.emergency.load()
    put(rig, clear_of(loss, reason="over", by="p", at_ms=9), *ALL)
    assert not rig.emergency.take_up(NOW_MS)
    assert is_active(rig)


# -- damage of the halt file ---------------------------------------------------------------------------------------


def test_take_up_believes_damage_of_the_halt_file_at_the_second_look_only() -> None:
    rig = Rig()
    rig.hold()
    rig.emergency.load()
    damage = halt(HaltKind.FAULT, "HALT-FILE-GARBLED-1", by=DAMAGE_FOUND_BY)
    put(rig, damage, "file")
    assert not rig.emergency.take_up(NOW_MS)
    assert exits(rig) == []
    assert rig.emergency.take_up(NOW_MS)
    assert rig.emergency.halt_ids == ["HALT-FILE-GARBLED-1"]
    assert len(exits(rig)) == 1
    assert rig.journal.bodies(EventKind.HALT) == []


def test_line_that_was_on_its_way_at_the_first_look_is_no_damage() -> None:
    rig = Rig()
    rig.emergency.load()
    put(rig, halt(HaltKind.FAULT, "HALT-FILE-GARBLED-1", by=DAMAGE_FOUND_BY), "file")
    rig.emergency.take_up(NOW_MS)
    rig.halt_file.kept[:] = [halt()]
    assert rig.emergency.take_up(NOW_MS)
    assert rig.emergency.halt_ids == ["20240116-MANUAL-abc"]
    assert not rig.emergency.closing


# -- at the start --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ALL)
def test_load_copies_a_halt_to_the_stores_that_lack_it_once(store: str) -> None:
    rig = Rig()
    put(rig, halt(), store)
    for _ in range(2):
        rig.restart()
        rig.emergency.load()
    assert holds(rig, "20240116-MANUAL-abc") == list(ALL)
    assert (len(rig.halt_file.kept), len(rig.journal.bodies(EventKind.HALT))) == (1, 1)


def test_load_with_an_unreadable_journal_numbers_its_halts_in_a_series_of_its_own() -> None:
    rig = Rig()
    rig.journal.unreadable = True
    rig.emergency.load()
    assert rig.emergency.trigger("why", "p", NOW_MS).halt_id == "20240116-MANUAL-U1"


def test_halt_id_that_only_a_clear_record_names_is_not_used_again() -> None:
    rig = Rig()
    put(rig, clear_of(halt(halt_id="20240116-MANUAL-1"), reason="over", by="p", at_ms=9), "file")
    rig.emergency.load()
    assert rig.emergency.trigger("why", "p", NOW_MS).halt_id == "20240116-MANUAL-2"


@pytest.mark.parametrize("gap", ["journal", "ledger"])
def test_reset_while_a_store_cannot_be_read_is_refused_and_writes_nothing(gap: str) -> None:
    rig = Rig()
    put(rig, halt(), *ALL)
    rig.emergency.load()
    rig.journal.unreadable, rig.ledger.down = gap == "journal", gap == "ledger"
    with pytest.raises(VeloxError, match="it stays halted"):
        rig.emergency.reset("over", "p", NOW_MS, session_over=True)
    assert is_active(rig)
    assert [record for record in rig.halt_file.kept if record.clears] == []
    assert rig.journal.bodies(EventKind.HALT_CLEARED) == []


@pytest.mark.parametrize("store", ["file", "ledger"])
def test_reset_is_refused_while_a_halt_comes_that_nobody_has_seen(store: str) -> None:
    rig = Rig()
    put(rig, halt(), *ALL)
    rig.emergency.load()
    put(rig, halt(halt_id="later"), store)
    with pytest.raises(HaltedError, match="later came meanwhile"):
        rig.emergency.reset("over", "p", NOW_MS, session_over=True)
    assert rig.emergency.halt_ids == ["20240116-MANUAL-abc", "later"]
    assert rig.journal.bodies(EventKind.HALT_CLEARED) == []
    cleared = rig.emergency.reset("over", "p", NOW_MS, session_over=True)
    assert [record.clears for record in cleared] == ["20240116-MANUAL-abc", "later"]
    rig.restart()
    assert rig.emergency.load() == ()


@pytest.mark.parametrize("broken", ["file", "journal", "ledger"])
def test_reset_that_one_store_does_not_take_goes_on_refusing_entries(broken: str) -> None:
    rig = Rig()
    put(rig, halt(), *ALL)
    rig.emergency.load()
    rig.halt_file.full, rig.ledger.latch_down = broken == "file", broken == "ledger"
    rig.journal.error = JournalUnavailable("disk full") if broken == "journal" else None
    with pytest.raises(VeloxError, match="it stays halted"):
        rig.emergency.reset("over", "p", NOW_MS, session_over=True)
    rig.halt_file.full, rig.ledger.latch_down, rig.journal.error = False, False, None
    rig.orders.commit_journal()  # a clear that the journal kept buffered is durable now
    put(rig, halt(halt_id="news"), "file")
    rig.emergency.take_up(NOW_MS)
    assert rig.emergency.halt_ids == ["20240116-MANUAL-abc", "news"]
    answer = rig.ask()
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.EMERGENCY_EXIT_ACTIVE


def test_halt_that_comes_during_a_refused_reset_is_not_overlooked() -> None:
    rig = Rig()
    put(rig, halt(), *ALL)
    rig.emergency.load()
    damage = halt(HaltKind.FAULT, "HALT-FILE-GARBLED-1", by=DAMAGE_FOUND_BY)
    put(rig, damage, "file")
    with pytest.raises(VeloxError, match="refused"):
        rig.emergency.reset("over", "p", NOW_MS, session_over=True)
    assert rig.emergency.take_up(NOW_MS)
    assert "HALT-FILE-GARBLED-1" in rig.emergency.halt_ids
