"""The broker's positions as what an engine closes by: in an emergency, at a square-off, and over a restart."""

from __future__ import annotations

import pytest

from tests.fakes.rig import NOW_MS, Rig, make_limits
from tests.fakes.session import MINUTE_MS, Day, ScriptedStrategy, rows
from velox_core.adoption import DOUBT_MS_MAX, Adoption
from velox_core.broker_reads import LAG_MS_MAX
from velox_core.domain.events import EventKind
from velox_core.domain.orders import ExitRank, Product, Side
from velox_core.domain.positions import ADOPTED_TRADE
from velox_core.engine.resume import RESUME_KINDS, reconcile, restore
from velox_core.reconciliation.books import BrokerBooks, own_books
from velox_core.reconciliation.differences import DifferenceKind, compare


def closing(rig: Rig, *, until_ms: int, step_ms: int = 500, fills: bool = True) -> None:
    """Let an emergency exit go on."""
    for after_ms in range(0, until_ms, step_ms):
        now_ms = NOW_MS + after_ms
        rig.broker.now_ms = now_ms
        rig.broker.fill_prices = dict.fromkeys(("AAA", "BBB", "CCC"), 9_900) if fills else {}
        rig.orders.poll(now_ms)
        rig.emergency.check(now_ms)


def sent(rig: Rig) -> list[tuple[str, str, int]]:
    return [(o.symbol, o.side.value, o.quantity) for o in rig.broker.placed if o.rank is not None]


@pytest.mark.parametrize("quantity", [7, -7])
def test_emergency_closes_what_only_the_positions_show(quantity: int) -> None:
    rig = Rig()
    rig.broker.unseen = {"BBB": quantity}
    rig.emergency.trigger("asked", "me", NOW_MS)
    closing(rig, until_ms=4_000)
    assert sent(rig) == [("BBB", "SELL" if quantity > 0 else "BUY", 7)]
    assert not rig.emergency.closing
    assert rig.emergency.broker_exposure() == []


def test_emergency_on_a_known_and_an_unknown_position_closes_the_known_one_at_once() -> None:
    rig = Rig()
    rig.hold("AAA")
    rig.broker.unseen = {"BBB": 7}
    rig.emergency.trigger("asked", "me", NOW_MS)
    assert sent(rig) == [("AAA", "SELL", 1)]
    closing(rig, until_ms=6_000)
    assert sent(rig) == [("AAA", "SELL", 1), ("BBB", "SELL", 7)]
    assert not rig.emergency.closing


def test_restart_on_a_halt_closes_an_unexplained_position() -> None:
    rig = Rig()
    rig.emergency.trigger("asked", "me", NOW_MS)
    closing(rig, until_ms=2_000)
    rig.broker.unseen = {"BBB": 7}
    rig.broker.last_prices = {"BBB": 10_000}
    rig.restart()
    reconcile(rig.broker, rig.orders, rig.risk, rig.alerts, NOW_MS)
    rig.emergency.load()
    closing(rig, until_ms=4_000)
    assert sent(rig) == [("BBB", "SELL", 7)]
    assert not rig.emergency.closing


def test_position_that_the_broker_has_no_more_is_not_closed_into_its_opposite() -> None:
    rig = Rig()
    rig.hold("AAA")
    rig.broker.unseen = {"AAA": -1}
    rig.emergency.trigger("asked", "me", NOW_MS)
    closing(rig, until_ms=4_000)
    assert rig.emergency.closing  # it traded a moment ago: the positions may lag
    closing(rig, until_ms=LAG_MS_MAX)
    assert rig.emergency.closing
    closing(rig, until_ms=LAG_MS_MAX + 2_000)
    assert sent(rig) == []
    assert not rig.emergency.closing
    assert rig.quantity("AAA") == 0


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("lag_ms", [3_000, 9_000, 28_000])
def test_hand_close_while_the_engine_closes_is_not_turned_round_by_positions_that_lag(told: bool, lag_ms: int) -> None:
    rig = Rig()
    rig.hold("AAA")
    hand_ms = NOW_MS + 20_000
    rig.broker.now_ms = hand_ms
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000, told=told)
    rig.broker.unseen = {"AAA": 1}
    rig.emergency.trigger("asked", "me", hand_ms)
    lowest: list[int] = []
    for now_ms in range(hand_ms, hand_ms + 40_000, 250):
        rig.broker.now_ms = now_ms
        rig.broker.unseen = {"AAA": 1} if now_ms < hand_ms + lag_ms else {}
        rig.broker.fill_prices = {"AAA": 10_000}
        rig.orders.poll(now_ms)
        rig.emergency.check(now_ms)
        lowest.append(sum(t.side.sign * t.quantity for t in rig.broker.trade_list))
    assert (sent(rig), min(lowest), rig.emergency.closing) == ([], 0, False)


def test_position_that_is_older_than_the_lag_of_positions_is_closed_though_a_trade_of_today_explains_its_size() -> None:
    rig = Rig()
    rig.hold("AAA")
    rig.broker.foreign("AAA", Side.SELL, 1, 10_000)
    rig.orders.poll(NOW_MS)
    rig.broker.unseen = {"AAA": 1}  # a carried one
    start_ms = NOW_MS + LAG_MS_MAX
    rig.emergency.trigger("asked", "me", start_ms)
    for now_ms in range(start_ms, start_ms + 3_000, 500):
        rig.emergency.check(now_ms)
    assert sent(rig) == [("AAA", "SELL", 1)]


def test_difference_that_never_stands_still_counts_after_a_bound() -> None:
    rig = Rig()
    rig.broker.unseen = {"BBB": 7}
    rig.emergency.trigger("asked", "me", NOW_MS)
    first: list[int] = []
    rig.broker.on_place = lambda order: first.append(rig.broker.now_ms)
    for step in range(60):
        rig.broker.unseen = {"BBB": 7 + step // 2 % 2}
        rig.broker.now_ms = NOW_MS + step * 500
        rig.emergency.check(NOW_MS + step * 500)
        rig.orders.poll(NOW_MS + step * 500)
        if first:
            break
    assert DOUBT_MS_MAX - 1_000 <= first[0] - NOW_MS <= DOUBT_MS_MAX + 1_000


def test_symbol_in_which_an_order_of_ours_works_is_not_judged() -> None:
    rig = Rig()
    rig.hold("AAA")
    rig.emergency.trigger("asked", "me", NOW_MS)
    rig.broker.unseen = {"AAA": 5}  # as while a fill is in one list and not in the other
    closing(rig, until_ms=10_000, fills=False)
    assert sent(rig) == [("AAA", "SELL", 1)]
    assert rig.quantity("AAA") == 1


def test_engine_that_is_told_to_leaves_alone_what_this_system_did_not_trade() -> None:
    rig = Rig()
    rig.emergency.adoption = Adoption(broker=rig.broker, order_manager=rig.orders, risk_manager=rig.risk, close_foreign=False)
    rig.hold("AAA")
    rig.broker.foreign("BBB", Side.BUY, 3, 10_000)
    rig.broker.unseen = {"CCC": 4}
    rig.orders.poll(NOW_MS)
    rig.emergency.trigger("asked", "me", NOW_MS)
    closing(rig, until_ms=6_000)
    assert sent(rig) == [("AAA", "SELL", 1)]
    assert not rig.emergency.closing
    assert rig.emergency.adoption.kept == {"BBB": 3, "CCC": 4}


def test_converted_position_keeps_the_emergency_from_ending_and_is_told() -> None:
    rig = Rig()
    rig.hold("AAA")
    rig.broker.converted = {"AAA": 1}
    rig.emergency.trigger("asked", "me", NOW_MS)
    closing(rig, until_ms=70_000, step_ms=1_000)
    assert sent(rig) == []
    assert rig.emergency.closing
    assert "1 AAA were CONVERTED" in rig.alerts.sent[-1][2]
    rig.broker.converted = {}
    rig.broker.foreign("AAA", Side.SELL, 1, 9_900, product=Product.MIS)
    closing(rig, until_ms=90_000, step_ms=1_000)
    assert not rig.emergency.closing


def test_what_was_found_is_journaled_and_a_restart_and_the_doctor_know_it() -> None:
    rig = Rig()
    rig.broker.unseen = {"BBB": 7}
    rig.broker.last_prices = {"BBB": 10_000}
    rig.emergency.trigger("asked", "me", NOW_MS)
    closing(rig, until_ms=4_000)
    rig.orders.commit_journal()
    found, closed = rig.journal.bodies(EventKind.FILL)
    assert str(found["trade_id"]).startswith(ADOPTED_TRADE)
    assert (found["quantity"], found["position"], closed["position"], closed["realised"]) == (7, 7, 0, -700)
    events = list(rig.journal.events())
    theirs = BrokerBooks(orders=rig.broker.orders(), trades=rig.broker.trades(), positions=rig.broker.positions())
    table = compare(own_books(events), theirs, product=Product.MIS)
    assert [(row.kind, bool(row.explanation)) for row in table] == [(DifferenceKind.EXTRA_FILL, True)]
    rig.restart()
    restore(rig.journal.events(RESUME_KINDS), rig.orders, rig.risk)
    assert rig.quantity("BBB") == 0
    assert rig.orders.is_flat()
    assert reconcile(rig.broker, rig.orders, rig.risk, rig.alerts, NOW_MS) == []


def test_carried_position_is_charged_nothing_for_what_it_was_not_traded_today() -> None:
    from velox_core.domain.charges import ChargeSchedule

    rig = Rig(make_limits(), schedule=ChargeSchedule(label="flat", brokerage_flat_paise=2_000))
    rig.broker.unseen = {"BBB": 7}
    rig.broker.last_prices = {"BBB": 10_000}
    rig.emergency.trigger("asked", "me", NOW_MS)
    closing(rig, until_ms=4_000)
    assert rig.day_loss.charges_paise == 2_000


def test_square_off_closes_what_only_the_positions_show() -> None:
    rig = Rig()
    rig.broker.unseen = {"BBB": 7}
    day = Day(rows(*[10_000] * 65), ScriptedStrategy(), rig=rig, flat_by_ms=NOW_MS + 55 * MINUTE_MS)
    result = day.run()
    assert ("BBB", "SELL", 7, ExitRank.SQUARE_OFF.name) in day.sent
    assert result.flat
    assert rig.emergency.broker_exposure() == []


def test_day_without_a_difference_asks_for_positions_once_at_the_square_off() -> None:
    rig = Rig()
    day = Day(rows(*[10_000] * 65), ScriptedStrategy(), rig=rig, flat_by_ms=NOW_MS + 55 * MINUTE_MS)
    before = rig.broker.reads.count("positions")
    day.run()
    assert rig.broker.reads.count("positions") == before + 1
    assert day.sent == []


@pytest.mark.parametrize(
    ("quantity", "price", "band"), [(1, 9_000, 9_000), (-1, 11_000, 11_000), (1, 9_005, 0), (-1, 10_995, 0)]
)
def test_exit_of_a_symbol_at_its_band_is_one_limit_there(quantity: int, price: int, band: int) -> None:
    rig = Rig(lower_band_paise=9_000, upper_band_paise=11_000)
    rig.hold("AAA", Side.BUY if quantity > 0 else Side.SELL)
    rig.day_loss.mark(0, price)
    rig.door.want("AAA", ExitRank.EMERGENCY, "test")
    for after_ms in range(0, 200_000, 1_000):
        rig.door.work(NOW_MS + after_ms)
        if not band:
            break
    assert [order.limit_price_paise for order in rig.broker.placed if order.rank is not None] == [band]
