from __future__ import annotations

import json
import logging
import random
from dataclasses import replace

import pytest

from tests.fakes.broker import FakeBroker
from tests.fakes.flatten import FakeEngine, FlattenRig
from tests.fakes.outside import FakeCloserLock
from tests.fakes.rig import NOW_MS
from tests.fakes.stores import FakeJournal
from velox_core.broker_reads import LAG_MS_MAX, TRADELESS_MS_MIN
from velox_core.closing_progress import STALLED_SECONDS_MAX, EngineProgress
from velox_core.domain.errors import EXIT_DONE, EXIT_NOT_FLAT, JournalUnavailable, VeloxError
from velox_core.domain.events import EventKind
from velox_core.domain.orders import ExitRank, OrderState, OrderType, Product, Side
from velox_core.flat_proof import FlattenState, SymbolOutcome
from velox_core.lost_exits import SEARCH_MS_MAX
from velox_core.ports import BrokerPosition, CloserHold, SendStatus
from velox_core.risk.approval import ApprovedOrder

S = FlattenState


def filling(rig: FlattenRig, price_paise: int = 9_900) -> FlattenRig:
    """Have every order of any symbol fill at the next look for news."""
    rig.broker.fill_prices = dict.fromkeys(("AAA", "BBB", "CCC", "DDD", "EEE"), price_paise)
    return rig


# -- the seven steps ------------------------------------------------------------------------------------------------


def test_flatten_closes_longs_and_shorts_and_says_flat_when_the_broker_does() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.hold("BBB", -5)
    result = rig.run()
    assert result.state is S.FLAT
    assert sorted(rig.sent) == [("AAA", "SELL", 10), ("BBB", "BUY", 5)]
    assert (rig.net("AAA"), rig.net("BBB")) == (0, 0)
    assert {order.rank for order in rig.orders} == {ExitRank.EMERGENCY}
    assert (result.exit_code, result.closed_by, result.reason) == (EXIT_DONE, "this process", "")
    assert [(line.symbol, line.held_before, line.held, line.outcome) for line in result.lines] == [
        ("AAA", 10, 0, SymbolOutcome.FLAT),
        ("BBB", -5, 0, SymbolOutcome.FLAT),
    ]
    assert rig.alerts.titles == ["EMERGENCY EXIT TRIGGERED", "Emergency exit finished: FLAT"]


def test_result_is_json_with_every_symbol() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    body = json.loads(json.dumps(rig.run().to_json()))
    assert (body["state"], body["flat"], body["exit_code"], body["closed_by"]) == ("FLAT", True, 0, "this process")
    assert body["symbols"] == [{"symbol": "AAA", "held_before": 10, "held": 0, "outcome": "FLAT", "text": "flat"}]
    assert body["loss_paise"] == 1_000
    assert body["ended_ms"] > body["started_ms"] == NOW_MS


def test_account_that_is_flat_already_is_flat_and_nothing_is_sent() -> None:
    rig = FlattenRig()
    result = rig.run()
    assert (result.state, result.lines, rig.sent) == (S.FLAT, (), [])
    assert len(rig.halt_file.kept) == 1


def test_halt_is_latched_in_every_store_before_the_first_order_leaves() -> None:
    rig = filling(FlattenRig())
    rig.hold()
    seen: list[tuple[int, int, list[str]]] = []
    rig.broker.on_place = lambda order: seen.append(
        (len(rig.halt_file.kept), sum(1 for e in rig.journal.committed if e.kind is EventKind.HALT), list(rig.latched))
    )
    rig.run()
    assert seen == [(1, 1, ["ledger", "journal"])]
    halt = rig.halt_file.kept[0]
    assert (halt.halt_id, halt.reason, halt.by, halt.closes) == ("20240116-MANUAL-c1", "asked", "a person", True)


def test_book_is_read_before_the_slow_stores_are_asked() -> None:
    rig = filling(FlattenRig())
    rig.hold()
    flattener = rig.flattener()
    rig.broker.failing = {"positions"}
    flattener.step(NOW_MS)
    assert rig.broker.reads
    assert rig.latched == []


@pytest.mark.parametrize(
    ("broken", "missing"),
    [
        ({"ledger"}, ["ledger"]),
        ({"journal"}, ["journal"]),
        ({"ledger", "journal"}, ["ledger", "journal"]),
        ({"ledger", "journal", "file"}, ["halt file", "ledger", "journal"]),
        ({"ledger", "journal", "file", "emergency"}, ["halt file", "emergency file", "ledger", "journal"]),
    ],
)
def test_stores_that_are_down_keep_nothing_open(broken: set[str], missing: list[str]) -> None:
    rig = filling(FlattenRig())
    rig.hold()
    rig.latches_down = broken & {"ledger", "journal"}
    rig.halt_file.full = "file" in broken
    rig.journal.error = JournalUnavailable("disk full") if "emergency" in broken else None
    result = rig.run()
    assert result.state is (S.FLAT if len(broken) < 4 else S.NOT_FLAT)
    assert rig.sent == [("AAA", "SELL", 10)]
    assert result.halt_stands is (len(broken) < 4)
    assert result.halt_stands or "no store took the halt" in result.reason
    assert [text.partition(":")[0] for text in result.not_latched] == missing


def no_store(rig: FlattenRig) -> None:
    rig.latches_down = {"ledger", "journal"}
    rig.halt_file.full, rig.journal.error = True, JournalUnavailable("disk full")


def test_no_store_at_all_and_an_engine_that_cannot_hear_of_it_is_ended_and_closed_and_not_flat() -> None:
    engine = FakeEngine()
    rig = filling(FlattenRig(engine))
    rig.hold()
    no_store(rig)
    result = rig.run()
    assert (result.state, engine.taken_over, rig.net()) == (S.NOT_FLAT, 1, 0)
    assert "no store took the halt" in result.reason


@pytest.mark.parametrize("healed", ["halt file", "emergency file", "ledger"])
def test_store_that_answers_later_takes_the_halt_and_the_engine_hears_of_it(healed: str) -> None:
    engine = FakeEngine()
    rig = FlattenRig(engine)
    rig.hold()
    no_store(rig)

    def heal(now_ms: int) -> None:
        if now_ms == NOW_MS + 4_000:
            rig.halt_file.full = healed != "halt file"
            rig.journal.error = None if healed == "emergency file" else rig.journal.error
            rig.latches_down -= {healed}
        if now_ms == NOW_MS + 6_000:
            assert flattener.result().halt_stands
            engine.word = type(engine.word)(runs=True, acknowledges=True)
            rig.broker.foreign("AAA", Side.SELL, 10, 9_900, told=False)
        if now_ms == NOW_MS + 9_000:
            engine.word = type(engine.word)(runs=True, acknowledges=True, says_flat=True)

    flattener = rig.flattener()
    result = rig.run(flattener, before=heal)
    assert (result.state, result.closed_by, engine.taken_over) == (S.FLAT, "engine", 0)
    assert healed not in {text.partition(":")[0] for text in result.not_latched}


def test_store_that_missed_the_halt_is_tried_again_at_the_end() -> None:
    rig = filling(FlattenRig())
    rig.hold()
    rig.latches_down = {"ledger", "journal"}
    rig.broker.on_place = lambda order: rig.latches_down.clear()
    result = rig.run()
    assert (result.state, result.not_latched) == (S.FLAT, ())
    assert sorted(rig.latched) == ["journal", "ledger"]


def test_intent_is_durable_before_each_close_leaves() -> None:
    rig = filling(FlattenRig())
    rig.hold()
    seen: list[bool] = []
    rig.broker.on_place = lambda order: seen.append(
        any(e.kind is EventKind.INTENT and e.body["client_order_id"] == order.client_order_id for e in rig.journal.committed)
    )
    rig.run()
    assert seen == [True]


def test_journal_keeps_what_this_process_did_and_nothing_of_others() -> None:
    rig = filling(FlattenRig())
    rig.hold()
    rig.run()
    kinds = [event.kind for event in rig.journal.committed]
    fills = rig.journal.bodies(EventKind.FILL)
    assert EventKind.LOCK not in kinds
    assert [(body["client_order_id"], body["quantity"], body["position"]) for body in fills] == [
        (rig.orders[0].client_order_id, 10, 0)
    ]


def test_guides_block_is_logged_once_with_the_numbers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig = filling(FlattenRig())
    rig.hold("AAA", 10, 10_000)
    rig.broker.last_prices = {"AAA": 9_000}
    rig.run()
    lines = [r.getMessage() for r in caplog.records if r.name == "velox.emergency"]
    start = lines.index("🚨 EMERGENCY EXIT TRIGGERED 🚨")
    assert lines[start + 1 : start + 3] == ["Daily P&L: -100.00", "Max Daily Loss: -2000.00"]
    assert lines.count("🚨 EMERGENCY EXIT TRIGGERED 🚨") == 1
    assert any(line.startswith("[FLATTEN] AAA: 10 held") for line in lines)
    assert any(line.startswith("FLAT: The broker confirms") for line in lines)
    assert [title for title in rig.alerts.titles if "TRIGGERED" in title] == ["EMERGENCY EXIT TRIGGERED"]


def test_news_tell_each_position_s_way_to_zero() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.run()
    told = [line for line in rig.news if line.startswith("AAA")]
    assert told[0].startswith("AAA: 10 held; SELL 10 MARKET (240116C0001")
    assert told[-1] == "AAA: flat"
    assert rig.news[-1].startswith("FLAT")


# -- cancels --------------------------------------------------------------------------------------------------------


def test_working_orders_are_cancelled_before_anything_is_closed() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.fill_prices = {"AAA": 9_900}
    entry = rig.working("BBB", Side.BUY)
    cancelled_before: list[bool] = []
    rig.broker.on_place = lambda order: cancelled_before.append(rig.broker.book[entry].state is OrderState.CANCELLED)
    result = rig.run()
    assert result.state is S.FLAT
    assert cancelled_before == [True]
    assert rig.sent == [("AAA", "SELL", 10)]


def test_stuck_cancel_delays_no_other_symbol_and_its_late_fill_is_closed() -> None:
    rig = FlattenRig()
    rig.hold("AAA", 10)
    entry = rig.working("BBB", Side.BUY, 7)
    rig.broker.cancel_answers.extend([SendStatus.UNKNOWN] * 12)
    rig.broker.fill_prices = {"AAA": 9_900}

    def fill_late(now_ms: int) -> None:
        if now_ms == NOW_MS + 5_000:
            rig.broker.fill(entry, 7, 10_000, told=False)
            rig.broker.fill_prices = {"AAA": 9_900, "BBB": 9_900}

    first_close: list[int] = []
    rig.broker.on_place = lambda order: first_close.append(rig.now_ms)
    result = rig.run(before=fill_late)
    assert first_close[0] - NOW_MS <= 1_000
    assert result.state is S.FLAT
    assert rig.sent == [("AAA", "SELL", 10), ("BBB", "SELL", 7)]
    assert (rig.net("AAA"), rig.net("BBB")) == (0, 0)


def test_exit_that_still_works_is_cancelled_and_replaced_and_never_doubled() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.fill_prices = {}
    working = rig.working("AAA", Side.SELL, 10)
    rig.broker.cancel_answers.extend([SendStatus.UNKNOWN] * 3)

    def fill_from(now_ms: int) -> None:
        if now_ms >= NOW_MS + 4_000:
            rig.broker.fill_prices = {"AAA": 9_900}

    result = rig.run(before=fill_from)
    assert result.state is S.FLAT
    assert rig.broker.book[working].state in (OrderState.CANCELLED, OrderState.FILLED)
    assert rig.net("AAA") == 0


def test_holdings_and_their_orders_are_never_touched() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.foreign("BBB", Side.BUY, 50, 10_000, product=Product.CNC, told=False)
    rig.broker.fill_prices = {"AAA": 9_900}
    order = rig.broker.foreign("CCC", Side.BUY, 50, 0, product=Product.CNC, works=True)
    result = rig.run()
    assert result.state is S.FLAT
    assert rig.sent == [("AAA", "SELL", 10)]
    assert rig.broker.book[order].state is OrderState.OPEN


# -- what the positions say -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantity", [8, -8])
def test_position_that_only_the_positions_list_shows_is_closed(quantity: int) -> None:
    rig = filling(FlattenRig())
    rig.broker.unseen = {"AAA": quantity}
    rig.broker.last_prices = {"AAA": 10_000}
    result = rig.run()
    assert result.state is S.FLAT
    assert rig.sent == [("AAA", "SELL" if quantity > 0 else "BUY", 8)]
    assert rig.net("AAA") == 0
    assert rig.line(result).held_before == quantity


def test_carried_part_beside_a_known_position_is_closed_too() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.unseen = {"AAA": 5}
    result = rig.run()
    assert result.state is S.FLAT
    assert sum(quantity for _, _, quantity in rig.sent) == 15
    assert rig.net("AAA") == 0


def test_positions_count_where_the_trades_cannot_be_read_and_are_not_booked_twice_later() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.failing = {"trades"}
    lock = FakeCloserLock(CloserHold.UNBROKEN)

    rig.broker.fill_prices = {}

    def heal(now_ms: int) -> None:
        if rig.sent:
            rig.broker.failing = set()  # the trades appear while the exit works
        if now_ms >= NOW_MS + 20_000:
            rig.broker.fill_prices = {"AAA": 9_900}

    result = rig.run(rig.flattener(lock=lock), seconds=60, before=heal)
    assert result.state is S.FLAT
    assert rig.sent == [("AAA", "SELL", 10)]
    assert rig.net("AAA") == 0


@pytest.mark.parametrize("quantity", [10, -10])
def test_fresh_closer_closes_by_orders_and_positions_where_trades_can_never_be_read(quantity: int) -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", quantity)
    rig.broker.failing = {"trades"}
    result = rig.run(seconds=60)
    assert (result.state, rig.net("AAA")) == (S.FLAT, 0)
    assert rig.sent == [("AAA", "SELL" if quantity > 0 else "BUY", 10)]
    assert rig.broker.place_times[0] - NOW_MS >= TRADELESS_MS_MIN


def test_fresh_closer_without_trades_cancels_what_others_work_and_never_reverses() -> None:
    rig = FlattenRig()
    rig.hold("AAA", 10)
    working = rig.working("AAA", Side.SELL, 10)
    rig.broker.failing = {"trades"}
    rig.broker.cancel_answers.extend([SendStatus.UNKNOWN] * 30)
    lowest: list[int] = []

    def trade(now_ms: int) -> None:
        lowest.append(rig.net("AAA"))
        if now_ms == NOW_MS + 20_000:
            rig.broker.fill(working, 6, 9_900, told=False)  # and nobody hears of it
        if rig.sent:
            rig.broker.fill_prices = {"AAA": 9_900}

    result = rig.run(seconds=90, before=trade)
    assert (result.state, min(lowest), rig.net("AAA")) == (S.FLAT, 0, 0)
    assert rig.sent == [("AAA", "SELL", 4)]


def test_position_that_is_gone_from_the_broker_is_not_closed_again() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.unseen = {"AAA": -10}
    result = rig.run(seconds=LAG_MS_MAX / 1_000 + 5)
    assert (result.state, rig.sent) == (S.FLAT, [])
    assert result.ended_ms - NOW_MS >= LAG_MS_MAX


def test_positions_that_lag_behind_the_trades_do_not_make_an_exit_leave_twice() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)

    def lag(now_ms: int) -> None:
        rig.broker.unseen = {"AAA": 10} if rig.sent and now_ms < NOW_MS + 4_000 else {}

    result = rig.run(before=lag)
    assert result.state is S.FLAT
    assert rig.sent == [("AAA", "SELL", 10)]


def test_converted_position_is_not_flat_and_its_holding_is_not_sold() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.hold("BBB", 5)
    rig.broker.converted = {"AAA": 10}
    result = rig.run()
    assert (result.state, result.exit_code) == (S.NOT_FLAT, EXIT_NOT_FLAT)
    assert rig.sent == [("BBB", "SELL", 5)]
    assert rig.line(result).outcome is SymbolOutcome.CONVERTED
    assert "AAA CONVERTED" in result.reason
    assert rig.line(result, "BBB").outcome is SymbolOutcome.FLAT


@pytest.mark.parametrize("close_foreign", [True, False])
def test_positions_this_system_never_opened_are_closed_unless_the_configuration_keeps_them(close_foreign: bool) -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.foreign("BBB", Side.BUY, 3, 10_000, told=False)
    rig.broker.unseen = {"CCC": 4}
    result = rig.run(close_foreign=close_foreign)
    assert result.state is S.FLAT
    sent = [("AAA", "SELL", 10), ("BBB", "SELL", 3), ("CCC", "SELL", 4)]
    assert sorted(rig.sent) == (sent if close_foreign else sent[:1])
    if not close_foreign:
        assert [rig.line(result, symbol).outcome for symbol in ("BBB", "CCC")] == [SymbolOutcome.KEPT] * 2
        assert "BBB: 3 held, left alone" in rig.news[-1]


@pytest.mark.parametrize("failing", [set(), {"trades"}])
def test_stop_order_of_a_person_beside_a_position_that_is_kept_works_on(failing: set[str]) -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.unseen = {"BBB": 4}
    rig.broker.fill_prices = {"AAA": 9_900}
    stop = rig.broker.foreign("BBB", Side.SELL, 4, 0, works=True)
    entry = rig.broker.foreign("CCC", Side.BUY, 4, 0, works=True)
    rig.broker.failing = failing

    def heal(now_ms: int) -> None:
        rig.broker.failing = failing if now_ms < NOW_MS + 8_000 else set()

    result = rig.run(close_foreign=False, before=heal)
    assert (result.state, rig.sent, rig.broker.cancels) == (S.FLAT, [("AAA", "SELL", 10)], [entry])
    assert rig.broker.book[stop].state is OrderState.OPEN
    assert rig.line(result, "BBB").text == f"4 held, left alone as configured; order {stop} beside it works on"


def test_stop_order_beside_a_position_is_cancelled_where_it_is_closed_too() -> None:
    rig = filling(FlattenRig())
    rig.broker.unseen = {"BBB": 4}
    rig.broker.fill_prices = {}
    stop = rig.broker.foreign("BBB", Side.SELL, 4, 0, works=True)

    def fill(now_ms: int) -> None:
        rig.broker.fill_prices = {"BBB": 9_900} if rig.sent else {}

    result = rig.run(before=fill)
    assert (result.state, rig.broker.cancels, rig.net("BBB")) == (S.FLAT, [stop], 0)


# -- how it closes --------------------------------------------------------------------------------------------------


def test_closes_are_sliced_to_the_freeze_quantity() -> None:
    rig = filling(FlattenRig(freeze_quantity=4))
    rig.hold("AAA", 10)
    result = rig.run()
    assert result.state is S.FLAT
    assert rig.sent == [("AAA", "SELL", 4), ("AAA", "SELL", 4), ("AAA", "SELL", 2)]


def test_partial_fills_are_waited_for_and_never_sold_twice() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.fill_quantity_max = 3
    result = rig.run()
    assert result.state is S.FLAT
    assert rig.sent == [("AAA", "SELL", 10)]


def test_rejected_closes_are_bounded_and_become_marketable_limits() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.answers.extend([SendStatus.REJECTED] * 4)
    result = rig.run()
    assert result.state is S.FLAT
    assert [order.order_type for order in rig.orders] == [OrderType.MARKET] * 2 + [OrderType.LIMIT] * 3
    assert rig.net("AAA") == 0


def test_closes_rejected_to_the_end_are_not_flat_and_at_most_sixty_a_minute() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.answers.extend([SendStatus.REJECTED] * 1_000)
    result = rig.run(seconds=70, bound_ms=60_000)
    assert result.state is S.NOT_FLAT
    assert rig.line(result).outcome is SymbolOutcome.REJECTED
    assert 10 <= len(rig.orders) <= 61
    assert {"AAA cannot be closed", "Flatten ended: NOT FLAT"} <= set(rig.alerts.titles)


@pytest.mark.parametrize(("quantity", "price", "band"), [(10, 9_000, 9_000), (-10, 11_000, 11_000)])
def test_circuit_locked_symbol_keeps_one_limit_at_the_band(quantity: int, price: int, band: int) -> None:
    rig = FlattenRig(lower_band_paise=9_000, upper_band_paise=11_000)
    rig.hold("AAA", quantity)
    rig.broker.last_prices = {"AAA": price}
    result = rig.run(seconds=130, bound_ms=120_000)
    assert result.state is S.NOT_FLAT
    assert [(order.order_type, order.limit_price_paise) for order in rig.orders] == [(OrderType.LIMIT, band)]
    assert rig.broker.cancels == []
    assert rig.line(result).outcome is SymbolOutcome.CIRCUIT_LOCKED
    assert "queued at the band" in result.reason


def test_circuit_locked_symbol_that_opens_again_is_flat() -> None:
    rig = FlattenRig(lower_band_paise=9_000, upper_band_paise=11_000)
    rig.hold("AAA", 10)
    rig.broker.last_prices = {"AAA": 9_000}

    def unlock(now_ms: int) -> None:
        if now_ms >= NOW_MS + 30_000:
            rig.broker.fill_prices = {"AAA": 9_000}

    result = rig.run(seconds=60, before=unlock)
    assert (result.state, rig.sent) == (S.FLAT, [("AAA", "SELL", 10)])


def test_broker_that_fails_half_of_the_calls_is_flat_unless_a_second_exit_is_unknown_and_never_reversed() -> None:
    """A second UNKNOWN exit of a symbol is never replaced: it may be in the market. The person is told, and flattens again."""
    flat = 0
    for seed in range(15):
        rig = filling(FlattenRig())
        rig.hold("AAA", 10)
        rig.hold("BBB", -6)
        rig.broker.flaky = random.Random(seed)
        held: list[tuple[int, int]] = []
        result = rig.run(seconds=400, bound_ms=390_000, before=lambda now_ms, rig=rig, held=held: held.append(_net(rig)))
        assert all(0 <= long <= 10 and -6 <= short <= 0 for long, short in held), seed
        flat += result.state is S.FLAT
        if result.state is S.FLAT:
            assert _net(rig) == (0, 0), seed
        else:
            left = {line.outcome for line in result.lines if line.outcome is not SymbolOutcome.FLAT}
            assert left == {SymbolOutcome.UNKNOWN}, (seed, result.reason)
    assert flat >= 10


def _net(rig: FlattenRig) -> tuple[int, int]:
    return rig.net("AAA"), rig.net("BBB")


def test_broker_that_never_answers_is_never_flat() -> None:
    rig = filling(FlattenRig())
    rig.hold()
    rig.broker.failing = {"orders", "trades", "positions"}
    result = rig.run(seconds=70, bound_ms=60_000)
    assert (result.state, result.loss_paise) == (S.NOT_FLAT, None)
    assert "the broker never answered" in result.reason
    assert rig.sent == []


def test_broker_that_is_slow_to_fill_is_waited_for() -> None:
    rig = FlattenRig()
    rig.hold("AAA", 10)

    def fill_at_last(now_ms: int) -> None:
        if now_ms >= NOW_MS + 20_000:
            rig.broker.fill_prices = {"AAA": 9_900}

    result = rig.run(before=fill_at_last)
    assert (result.state, rig.sent) == (S.FLAT, [("AAA", "SELL", 10)])
    assert result.ended_ms >= NOW_MS + 20_000


# -- UNKNOWN --------------------------------------------------------------------------------------------------------


def test_unknown_exit_is_never_flat_until_it_is_found() -> None:
    rig = FlattenRig()
    rig.hold("AAA", 10)
    rig.broker.answers.append(rig.broker.LOST)
    states: list[S] = []
    flattener = rig.flattener()

    def note(now_ms: int) -> None:
        states.append(flattener.state)
        if now_ms >= NOW_MS + 8_000:
            rig.broker.fill_prices = {"AAA": 9_900}

    result = rig.run(flattener, before=note)
    assert result.state is S.FLAT
    assert rig.sent == [("AAA", "SELL", 10)]


def test_unknown_exit_that_never_arrived_is_replaced_once_and_watched_before_it_is_flat() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.answers.append(SendStatus.UNKNOWN)
    result = rig.run(seconds=200)
    assert result.state is S.FLAT
    assert rig.sent == [("AAA", "SELL", 10)] * 2
    assert result.ended_ms - NOW_MS >= 120_000


def test_exit_given_up_may_appear_for_the_search_time_after_it_left_however_long_its_step_took() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.broker.answers.append(SendStatus.UNKNOWN)
    left: list[int] = []

    def slowly(order: ApprovedOrder) -> None:
        if not left:
            rig.now_ms += 40_000
            left.append(rig.now_ms)

    rig.broker.on_place = slowly
    result = rig.run(seconds=300, bound_ms=300_000)
    assert (result.state, len(rig.sent)) == (S.FLAT, 2)
    assert result.ended_ms >= left[0] + SEARCH_MS_MAX


def test_unknown_at_the_bound_is_not_flat() -> None:
    rig = FlattenRig()
    rig.hold("AAA", 10)
    rig.broker.answers.append(rig.broker.LOST)
    rig.broker.failing = set()
    flattener = rig.flattener(bound_ms=10_000)

    def hide(now_ms: int) -> None:
        if rig.sent:
            rig.broker.failing = {"orders"}

    result = rig.run(flattener, before=hide)
    assert result.state is S.NOT_FLAT
    assert rig.line(result).outcome is SymbolOutcome.UNKNOWN


def test_nothing_is_flat_before_the_last_request_of_a_dead_process_can_have_arrived() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    result = rig.run(request_ms=10_000)
    assert result.state is S.FLAT
    assert result.ended_ms - NOW_MS >= 10_000


# -- ids ------------------------------------------------------------------------------------------------------------


def test_tags_carry_the_actor_and_never_repeat_one_of_the_book() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10, tag="240116C00010000007")
    rig.hold("BBB", 5)
    rig.run()
    tags = [order.client_order_id for order in rig.orders]
    assert tags == ["240116C00010000008", "240116C00010000009"]


# -- the engine -----------------------------------------------------------------------------------------------------


def test_engine_that_acknowledges_closes_by_itself_and_is_followed() -> None:
    engine = FakeEngine()
    rig = FlattenRig(engine)
    rig.hold("AAA", 10)

    def live(now_ms: int) -> None:
        if now_ms == NOW_MS + 1_000:
            engine.word = type(engine.word)(runs=True, acknowledges=True)
        if now_ms == NOW_MS + 5_000:
            rig.broker.foreign("AAA", Side.SELL, 10, 9_900, told=False)
        if now_ms == NOW_MS + 8_000:
            engine.word = type(engine.word)(runs=True, acknowledges=True, says_flat=True)

    result = rig.run(before=live)
    assert (result.state, result.closed_by, rig.sent) == (S.FLAT, "engine", [])
    assert result.ended_ms >= NOW_MS + 8_000
    assert engine.taken_over == 0
    assert rig.lock.takes == 0


def test_engine_that_says_flat_is_not_believed_while_the_broker_holds_something() -> None:
    rig = FlattenRig(FakeEngine(acknowledges=True, says_flat=True))
    rig.hold("AAA", 10)
    result = rig.run(bound_ms=20_000)
    assert result.state is S.NOT_FLAT
    assert "AAA OPEN" in result.reason


def test_engine_that_does_not_acknowledge_is_taken_over_and_then_closed() -> None:
    engine = FakeEngine()
    rig = filling(FlattenRig(engine))
    rig.hold("AAA", 10)
    first: list[int] = []
    rig.broker.on_place = lambda order: first.append(rig.now_ms)
    result = rig.run()
    assert (result.state, engine.taken_over, rig.sent) == (S.FLAT, 1, [("AAA", "SELL", 10)])
    assert "process 0 was killed: it did not answer" in rig.news
    assert first[0] - NOW_MS >= 10_000


def test_engine_that_acknowledged_and_falls_silent_is_taken_over() -> None:
    engine = FakeEngine(acknowledges=True)
    engine.beats = False
    rig = filling(FlattenRig(engine))
    rig.hold("AAA", 10)
    result = rig.run(seconds=60)
    assert (result.state, engine.taken_over, rig.net("AAA")) == (S.FLAT, 1, 0)


def test_engine_that_acknowledges_beats_and_closes_nothing_is_taken_over_and_its_account_closed() -> None:
    engine = FakeEngine(acknowledges=True, pid=4711)
    rig = filling(FlattenRig(engine))
    rig.hold("AAA", 10)
    rig.hold("BBB", -5)
    first: list[int] = []
    rig.broker.on_place = lambda order: first.append(rig.real_ms - began_ms)
    began_ms = rig.real_ms
    result = rig.run(seconds=60)
    assert (result.state, result.closed_by, engine.stalled_pids) == (S.FLAT, "this process", [4711])
    assert STALLED_SECONDS_MAX <= first[0] / 1_000 <= STALLED_SECONDS_MAX + 3
    assert (rig.net("AAA"), rig.net("BBB")) == (0, 0)
    assert "process 4711 was killed: it closed nothing" in rig.news
    assert any("the engine answers, and has closed nothing" in line for line in rig.news)


def test_engine_that_only_tries_and_hears_no_broker_is_taken_over_with_its_resting_exit_replaced() -> None:
    engine = FakeEngine(acknowledges=True, pid=4711)
    rig = filling(FlattenRig(engine))
    rig.hold("AAA", 10)
    rig.broker.book[rig.working("AAA", Side.SELL)].limit_price_paise = 20_000
    result = rig.run(seconds=90)
    assert (result.state, engine.taken_over, rig.net("AAA")) == (S.FLAT, 1, 0)


@pytest.mark.parametrize("way", ["share by share", "one symbol after the other", "acknowledged", "queued", "cancelled"])
def test_engine_that_gets_on_slowly_is_followed_to_the_end(way: str) -> None:
    engine = FakeEngine(acknowledges=True, pid=4711)
    rig = FlattenRig(engine)
    rig.hold("AAA", 10)
    queued = [rig.working("BBB", Side.BUY, 1) for _ in range(8)] if way == "cancelled" else []
    if way == "queued":
        queued = [rig.working("AAA", Side.SELL, 10)]
    began_ms, slow = rig.real_ms, int(STALLED_SECONDS_MAX * 1_000) - 5_000

    def get_on(now_ms: int) -> None:
        seconds, rest = divmod(rig.real_ms - began_ms, 1_000)
        if way == "queued":
            engine.word = replace(engine.word, progress=EngineProgress(looks=seconds))
        if rest or not seconds or seconds * 1_000 % slow:
            return
        if way == "share by share":
            rig.broker.foreign("AAA", Side.SELL, 1, 9_900, told=False)
        elif way == "one symbol after the other":
            rig.working("AAA", Side.SELL, 1)
        elif way == "acknowledged":
            engine.word = replace(engine.word, progress=EngineProgress(acknowledged=seconds))
        elif way == "cancelled":
            rig.broker.book[queued.pop()].state = OrderState.CANCELLED

    result = rig.run(seconds=200, before=get_on)
    assert (result.state, engine.taken_over, rig.sent) == (S.NOT_FLAT, 0, [])
    assert rig.real_ms - began_ms >= 180_000


def test_engine_is_not_taken_over_for_what_this_process_could_not_see() -> None:
    engine = FakeEngine(acknowledges=True, pid=4711)
    rig = FlattenRig(engine)
    rig.hold("AAA", 10)
    rig.broker.failing = {"orders", "positions", "trades"}
    assert rig.run(seconds=200).state is S.NOT_FLAT
    assert engine.taken_over == 0


def test_engine_with_nothing_left_at_the_broker_that_does_not_say_flat_is_not_taken_over() -> None:
    engine = FakeEngine(acknowledges=True, pid=4711)
    rig = FlattenRig(engine)
    result = rig.run(seconds=200)
    assert (result.state, engine.taken_over) == (S.NOT_FLAT, 0)


def test_engine_that_dies_while_it_closes_is_followed_by_this_process(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine(acknowledges=True)
    rig = filling(FlattenRig(engine))
    rig.hold("AAA", 10)

    def die(now_ms: int) -> None:
        if now_ms >= NOW_MS + 3_000:
            engine.word = type(engine.word)(runs=False)

    result = rig.run(before=die)
    assert (result.state, result.closed_by, rig.sent) == (S.FLAT, "this process", [("AAA", "SELL", 10)])
    lines = [r.getMessage() for r in caplog.records if r.name == "velox.emergency"]
    assert "🚨 EMERGENCY EXIT TRIGGERED 🚨" not in lines  # the engine wrote it when it took the halt up
    assert any(line.startswith("FLAT: The broker confirms") for line in lines)


def test_each_line_of_a_flattening_has_its_engine_time(caplog: pytest.LogCaptureFixture) -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    rig.run()
    records = [r for r in caplog.records if r.name == "velox.emergency"]
    times = [getattr(record, "engine_ms", None) for record in records]
    assert all(isinstance(at_ms, int) and NOW_MS <= at_ms < NOW_MS + 180_000 for at_ms in times), times
    assert times == sorted(times, key=lambda at_ms: at_ms or 0)


def test_engine_that_answers_a_take_over_after_all_is_followed() -> None:
    engine = FakeEngine()
    engine.on_take_over = False
    rig = filling(FlattenRig(engine))
    rig.hold("AAA", 10)
    result = rig.run(bound_ms=20_000)
    assert (result.state, rig.sent) == (S.NOT_FLAT, [])


@pytest.mark.parametrize("later", ["runs", "acknowledges", "ends"])
def test_engine_that_cannot_be_ended_is_closed_beside_and_not_called_flat_while_it_may_trade(later: str) -> None:
    engine = FakeEngine(pid=4711)
    engine.on_take_over = VeloxError("another user's process")
    rig = filling(FlattenRig(engine))
    rig.hold("AAA", 10)
    word = {"runs": later != "ends", "acknowledges": later == "acknowledges", "pid": 4711}
    rig.broker.on_place = lambda order: setattr(engine, "word", type(engine.word)(**word))
    result = rig.run()
    assert (rig.sent, rig.net("AAA")) == ([("AAA", "SELL", 10)], 0)
    if later == "runs":
        assert (result.state, result.exit_code) == (S.NOT_FLAT, EXIT_NOT_FLAT)
        assert "process 4711 runs, has not acknowledged the halt and may still trade: another user's process" in result.reason
        assert rig.alerts.titles[-1] == "Flatten ended: NOT FLAT"
    else:
        assert result.state is S.FLAT


@pytest.mark.parametrize("until_sent", [True, False])
def test_engine_that_cannot_be_seen_is_closed_beside_and_not_called_flat(until_sent: bool) -> None:
    engine = FakeEngine(runs=False)
    engine.unseen = True
    rig = filling(FlattenRig(engine))
    rig.hold("AAA", 10)
    rig.broker.on_place = lambda order: setattr(engine, "unseen", not until_sent)
    result = rig.run()
    assert (rig.sent, rig.net("AAA")) == ([("AAA", "SELL", 10)], 0)
    assert result.state is (S.FLAT if until_sent else S.NOT_FLAT)
    assert until_sent or "is not known: the lock cannot be read" in result.reason


@pytest.mark.parametrize("acknowledges", [True, False])
def test_engine_whose_time_jumps_is_followed_for_real_seconds(acknowledges: bool) -> None:
    engine = FakeEngine(acknowledges=acknowledges)
    engine.beats = False
    rig = FlattenRig(engine)
    rig.jump_ms = 60_000
    rig.hold("AAA", 10)
    began_ms = rig.real_ms

    def live(now_ms: int) -> None:
        if rig.real_ms - began_ms == 8_000:
            engine.beats = True
            engine.word = type(engine.word)(runs=True, acknowledges=True)
        if rig.real_ms - began_ms == 16_000:
            rig.broker.foreign("AAA", Side.SELL, 10, 9_900, told=False)
            engine.word = type(engine.word)(runs=True, acknowledges=True, says_flat=True)

    result = rig.run(before=live)
    assert (result.state, result.closed_by, engine.taken_over) == (S.FLAT, "engine", 0)
    assert 16_000 <= rig.real_ms - began_ms <= 17_000


def test_bound_and_the_wait_for_another_closer_are_real_seconds() -> None:
    engine = FakeEngine(runs=False)
    engine.hangs = True
    rig = FlattenRig(engine)
    rig.jump_ms = 60_000
    rig.hold("AAA", 10)
    result = rig.run(rig.flattener(lock=FakeCloserLock(CloserHold.ELSEWHERE), bound_ms=19_000))
    assert (result.state, engine.taken_over, rig.real_ms) == (S.NOT_FLAT, 0, 5_000 + 19_250)


# -- two at once ----------------------------------------------------------------------------------------------------


def test_second_flattener_waits_for_the_first_and_never_reverses() -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)
    first, second = rig.flattener(), rig.flattener(lock=FakeCloserLock(CloserHold.ELSEWHERE), journal=FakeJournal())
    second.step(rig.now_ms)
    assert second.state is S.CLOSING
    assert rig.sent == []
    rig.run(first)
    second_lock = second._ports.closer_lock
    assert isinstance(second_lock, FakeCloserLock)
    second_lock.hold = CloserHold.FRESH
    result = rig.run(second)
    assert (result.state, rig.sent, rig.net("AAA")) == (S.FLAT, [("AAA", "SELL", 10)], 0)


def test_closer_without_a_sign_of_life_is_taken_over() -> None:
    engine = FakeEngine(runs=False)
    engine.hangs = True
    rig = filling(FlattenRig(engine))
    rig.hold("AAA", 10)
    lock = FakeCloserLock(CloserHold.ELSEWHERE)
    flattener = rig.flattener(lock=lock)

    def free(now_ms: int) -> None:
        if engine.taken_over:
            lock.hold = CloserHold.FRESH

    result = rig.run(flattener, seconds=60, before=free)
    assert (result.state, engine.taken_over, rig.net("AAA")) == (S.FLAT, 1, 0)


class LaggingBroker(FakeBroker):
    """Its positions are told late: until `lag_until_ms` they say `lag_quantity` of AAA."""

    lag_until_ms = 0
    lag_quantity = 0

    def positions(self) -> list[BrokerPosition]:
        found = super().positions()
        if self.now_ms >= self.lag_until_ms:
            return found
        return [replace(p, quantity=self.lag_quantity) if p.symbol == "AAA" else p for p in found]


def lagging(lag_ms: int, quantity: int) -> FlattenRig:
    rig = FlattenRig()
    rig.broker = broker = LaggingBroker()
    broker.now_ms = NOW_MS
    broker.lag_until_ms, broker.lag_quantity = NOW_MS + lag_ms, quantity
    broker.fill_prices = {"AAA": 10_000}
    rig.hold("AAA", 10)
    return rig


@pytest.mark.parametrize("lag_ms", [500, 1_500, 4_500, 12_000, 28_000])
def test_entry_of_a_dead_engine_that_the_positions_do_not_show_yet_is_closed(lag_ms: int) -> None:
    rig = lagging(lag_ms, 0)
    result = rig.run(seconds=40)
    assert (result.state, rig.net("AAA"), rig.sent) == (S.FLAT, 0, [("AAA", "SELL", 10)])


@pytest.mark.parametrize("lag_ms", [500, 1_500, 4_500, 12_000, 28_000])
def test_exit_of_a_dead_engine_that_the_positions_do_not_show_yet_is_not_sent_again(lag_ms: int) -> None:
    rig = lagging(lag_ms, 10)
    rig.hold("AAA", -10, tag="240116E00010000002")
    result = rig.run(seconds=40)
    assert (result.state, rig.net("AAA"), rig.sent) == (S.FLAT, 0, [])


@pytest.mark.parametrize("lag_ms", [4_500, 12_000, 28_000])
def test_own_exit_that_the_positions_do_not_show_yet_is_not_sent_again(lag_ms: int) -> None:
    rig = filling(FlattenRig())
    rig.hold("AAA", 10)

    def lag(now_ms: int) -> None:
        rig.broker.unseen = {"AAA": 10} if rig.sent and now_ms < NOW_MS + lag_ms else {}

    result = rig.run(seconds=40, before=lag)
    assert (result.state, rig.sent, rig.net("AAA")) == (S.FLAT, [("AAA", "SELL", 10)], 0)


@pytest.mark.parametrize("seed", range(10))
def test_converted_position_is_never_flat_however_many_reads_fail(seed: int) -> None:
    rig = FlattenRig()
    rig.hold("AAA", 10)
    rig.broker.converted = {"AAA": 10}
    rig.broker.flaky = random.Random(seed)
    assert rig.run(seconds=70, bound_ms=60_000).state is S.NOT_FLAT
