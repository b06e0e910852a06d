"""Replaced once, across processes: what one closer lost, the next one knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.flatten import FlattenRig
from tests.fakes.rig import DAY, NOW_MS, Rig
from tests.fakes.stores import FakeJournal
from velox_core.domain.events import EventKind
from velox_core.domain.orders import Side
from velox_core.engine.resume import RESUME_KINDS, restore
from velox_core.flat_proof import FlattenResult, FlattenState, SymbolOutcome
from velox_core.flattening import Flattener
from velox_core.journal.file import FileJournal
from velox_core.journal.recall import recall_run
from velox_core.lease import REQUEST_SECONDS_MAX
from velox_core.lost_exits import LEAVES_LATE_MS_MAX, SEARCH_MS_MAX, LostExits, Recalled, recalled
from velox_core.outside import SIGN_OF_LIFE_SECONDS_MAX
from velox_core.ports import SendStatus

UNKNOWN = SendStatus.UNKNOWN


def lose(rig: FlattenRig, exits: int) -> Flattener:
    """Have a first closer send, lose the answers, and die once so many exits are lost; none is in the book."""
    rig.hold("AAA", 10)
    rig.broker.answers.extend([UNKNOWN] * exits)
    first = rig.flattener(journal=FakeJournal())
    while len(rig.sent) < exits:
        step(rig, first)
    return first


def step(rig: FlattenRig, flattener: Flattener) -> None:
    flattener.step(rig.now_ms)
    rig.now_ms += 250
    rig.real_ms += 250
    rig.broker.now_ms = rig.now_ms


def second(rig: FlattenRig, seconds: float = 200.0, **rules: int) -> FlattenResult:
    rig.broker.fill_prices = {"AAA": 9_900}
    return rig.run(rig.flattener(journal=FakeJournal(), **rules), seconds=seconds)


def appear(rig: FlattenRig, number: int) -> None:
    """Have a lost exit enter the broker's book after all, and trade."""
    order = rig.orders[number]
    line = rig.broker._enter(order.client_order_id, order.symbol, order.side, order.quantity, rig.now_ms)
    rig.broker.fill(line.broker_order_id, order.quantity, 9_900, told=False)


def test_exit_lost_by_a_dead_closer_is_sent_again_only_after_the_search_time() -> None:
    rig = FlattenRig()
    lose(rig, 1)
    lost_ms = rig.broker.place_times[0]
    result = second(rig)
    assert (result.state, rig.net()) == (FlattenState.FLAT, 0)
    assert rig.sent == [("AAA", "SELL", 10)] * 2
    assert rig.broker.place_times[1] - lost_ms >= LEAVES_LATE_MS_MAX + SEARCH_MS_MAX


def test_exit_lost_by_a_dead_closer_that_appears_late_is_not_sent_again() -> None:
    rig = FlattenRig()
    lose(rig, 1)
    rig.broker.fill_prices = {"AAA": 9_900}
    flattener = rig.flattener(journal=FakeJournal())
    lowest = 10
    while not flattener.ended:
        if rig.now_ms == NOW_MS + 100_000:
            appear(rig, 0)
        step(rig, flattener)
        lowest = min(lowest, rig.net())
    assert (flattener.state, rig.sent, lowest) == (FlattenState.FLAT, [("AAA", "SELL", 10)], 0)


def test_exit_that_left_late_in_a_slow_step_and_appears_at_the_end_of_its_search_is_not_sent_again() -> None:
    slow_ms = round((SIGN_OF_LIFE_SECONDS_MAX + REQUEST_SECONDS_MAX) * 1_000)
    assert slow_ms < LEAVES_LATE_MS_MAX
    rig = FlattenRig()
    lose(rig, 1)
    appears_ms = rig.broker.place_times[0] + slow_ms + SEARCH_MS_MAX - 5_000
    rig.broker.fill_prices = {"AAA": 9_900}
    flattener = rig.flattener(journal=FakeJournal())
    lowest = 10
    while not flattener.ended:
        if appears_ms <= rig.now_ms < appears_ms + 250:
            appear(rig, 0)
        step(rig, flattener)
        lowest = min(lowest, rig.net())
    assert (flattener.state, rig.sent, lowest) == (FlattenState.FLAT, [("AAA", "SELL", 10)], 0)


def test_two_lost_exits_keep_everything_back_and_are_told() -> None:
    rig = FlattenRig()
    lose(rig, 2)
    sent = list(rig.sent)
    result = second(rig)
    assert (result.state, rig.sent) == (FlattenState.NOT_FLAT, sent)
    line = rig.line(result)
    assert (line.outcome, line.held) == (SymbolOutcome.UNKNOWN, 10)
    assert all(order.client_order_id in line.text for order in rig.orders)
    assert "AAA is not being closed again by us" in rig.alerts.titles


def test_two_lost_exits_of_which_one_is_in_the_book_keep_nothing_back_for_good() -> None:
    rig = FlattenRig()
    lose(rig, 2)
    line = rig.broker._enter(rig.orders[0].client_order_id, "AAA", Side.SELL, 10, rig.now_ms)
    rig.broker.fill(line.broker_order_id, 4, 9_900, told=False)
    result = second(rig)
    assert (result.state, rig.net()) == (FlattenState.FLAT, 0)


def test_exit_of_a_closer_that_replaced_one_before_is_never_replaced_by_the_next() -> None:
    rig = FlattenRig()
    lose(rig, 1)
    rig.broker.answers.append(UNKNOWN)  # the second process' one exit is lost too
    result = second(rig, seconds=600, bound_ms=500_000)
    assert (result.state, len(rig.sent)) == (FlattenState.NOT_FLAT, 2)
    assert rig.line(result).outcome is SymbolOutcome.UNKNOWN


def test_flat_by_hand_with_lost_exits_is_flat_only_when_they_cannot_appear_any_more() -> None:
    rig = FlattenRig()
    lose(rig, 2)
    lost_ms = rig.broker.place_times[1]
    rig.broker.foreign("AAA", Side.SELL, 10, 9_900, told=False)
    result = second(rig)
    assert (result.state, len(rig.sent)) == (FlattenState.FLAT, 2)
    assert result.ended_ms >= lost_ms + LEAVES_LATE_MS_MAX + SEARCH_MS_MAX


def test_record_that_cannot_be_read_closes_all_the_same_and_says_so() -> None:
    rig = FlattenRig()
    lose(rig, 2)
    rig.unreadable = "the disk is gone"
    result = second(rig)
    assert (result.state, rig.net()) == (FlattenState.FLAT, 0)
    assert result.not_recalled == "the disk is gone"
    assert "Closing without the record of earlier exits" in rig.alerts.titles
    assert any("the disk is gone" in line for line in rig.news)


def test_numbers_of_lost_orders_are_never_used_again() -> None:
    rig = FlattenRig()
    lose(rig, 1)
    second(rig, epoch=1)  # two processes that began in one slot share the ids' prefix
    first, again = (order.client_order_id for order in rig.orders)
    assert (first[:11], first != again) == (again[:11], True)


def test_lost_entry_keeps_nothing_back_but_the_proof() -> None:
    rig = Rig()
    rig.broker.answers.append(UNKNOWN)
    rig.enter()
    rig.orders.commit_journal()
    lost = LostExits(lambda: recalled([[(e.kind, e.ts_ms, e.body) for e in rig.journal.committed]]))
    lost.recall((), NOW_MS)
    assert (lost.holds_back("AAA", NOW_MS), lost.no_proof_before_ms) == (
        False,
        NOW_MS + LEAVES_LATE_MS_MAX + SEARCH_MS_MAX,
    )


def test_engine_that_starts_after_a_flatten_knows_its_unknown_exits_and_locks_their_symbol() -> None:
    rig = FlattenRig()
    lose(rig, 2)
    engine = Rig()
    restore((e for e in rig.journals[0].committed if e.kind in RESUME_KINDS), engine.orders, engine.risk)
    given_up, unknown = (order.client_order_id for order in rig.orders)
    assert (list(engine.orders.not_placed), list(engine.orders.live)) == ([given_up], [unknown])
    assert engine.risk.lock_reasons["AAA"] == [f"order {tag} is UNKNOWN" for tag in (given_up, unknown)]


# -- the record ------------------------------------------------------------------------------------------------------


def written(path: Path, rig: FlattenRig) -> Path:
    file = FileJournal(path)
    for event in rig.journals[0].committed:
        file.append(event.kind, event.ts_ms, event.body)
    file.commit()
    file.close()
    return path


@pytest.mark.parametrize("name", ["emergency.jsonl", "emergency-a.jsonl", "emergency-a.jsonl.imported-0123"])
def test_files_of_earlier_processes_are_read_imported_or_not(tmp_path: Path, name: str) -> None:
    rig = FlattenRig()
    lose(rig, 2)
    written(tmp_path / name, rig)
    found = recall_run(tmp_path, f"sqlite:///{tmp_path / 'journal.db'}", "simulated:x", trading_date=DAY)
    assert [(o.client_order_id, o.given_up) for o in found.orders] == [
        (rig.orders[0].client_order_id, True),
        (rig.orders[1].client_order_id, False),
    ]
    assert found.missing == ""


def test_damaged_file_and_journal_are_named_and_the_rest_is_known(tmp_path: Path) -> None:
    rig = FlattenRig()
    lose(rig, 1)
    written(tmp_path / "emergency-a.jsonl", rig)
    damaged = written(tmp_path / "emergency-b.jsonl", rig)
    damaged.write_bytes(damaged.read_bytes().replace(b"MANUAL", b"MANUEL"))
    (tmp_path / "journal.db").write_bytes(b"no database at all, " * 100)
    found = recall_run(tmp_path, f"sqlite:///{tmp_path / 'journal.db'}", "simulated:x", trading_date=DAY)
    assert [o.client_order_id for o in found.orders] == [rig.orders[0].client_order_id]
    assert "emergency-b.jsonl" in found.missing
    assert "the journal: file is not a database" in found.missing


def test_end_that_one_record_knows_is_an_end() -> None:
    rig = FlattenRig()
    lose(rig, 1)
    events = [(e.kind, e.ts_ms, e.body) for e in rig.journals[0].committed]
    tag = rig.orders[0].client_order_id
    end = (EventKind.ORDER, NOW_MS, {"client_order_id": tag, "state": "REJECTED", "broker_order_id": "", "reason": "no"})
    assert len(recalled([events]).orders) == 1
    assert recalled([events, [end]]) == Recalled(ids=frozenset({tag}))


def test_lost_exit_that_appears_and_still_works_is_not_doubled() -> None:
    rig = FlattenRig()
    lose(rig, 2)
    flattener = rig.flattener(journal=FakeJournal())
    rig.broker.cancel_answers.extend([UNKNOWN] * 100)
    while not flattener.ended:
        if rig.now_ms == NOW_MS + 60_000:
            for order in rig.orders[:2]:
                rig.broker._enter(order.client_order_id, "AAA", Side.SELL, 5, rig.now_ms)
        if rig.now_ms == NOW_MS + 63_000:
            rig.broker.fill_prices = {"AAA": 9_900}
        step(rig, flattener)
    assert (flattener.state, len(rig.sent), rig.net()) == (FlattenState.FLAT, 2, 0)
