"""A session on ticks: breach, stops and targets at the tick, strategies at the minute, the dedup window to the millisecond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.rig import OPEN_MS, UNIVERSE, Rig, entry_signal, exit_signal, make_limits
from tests.fakes.session import MINUTE_MS, Day, ScriptedStrategy, row
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind
from velox_core.domain.market.bars import MinuteRow, TickBatch
from velox_core.domain.orders import Side
from velox_core.engine.prices import SessionPrices

STEADY = 10_000
LIMIT_PAISE = 200_000
CHARGED = ChargeSchedule(label="charged", brokerage_flat_paise=150, stt_sell_ppb=1_000_000, stamp_buy_ppb=30_000)


def ticks(minute: int, after_ms: int, **prices: int) -> TickBatch:
    columns = [UNIVERSE.index(symbol) for symbol in prices]
    return TickBatch(OPEN_MS + minute * MINUTE_MS + after_ms, columns, list(prices.values()), [1] * len(columns))


class TickDay(Day):
    """A day on ticks: what is sent fills at the next tick of its symbol. Rows are minutes built from ticks."""

    def __init__(self, items: Sequence[Any], *strategies: ScriptedStrategy, **more: Any) -> None:
        super().__init__(items, *strategies, on_ticks=True, **more)

    def _before(self, position: int) -> None:
        items = self.feed.items
        item = items[position] if position < len(items) else None
        if isinstance(item, TickBatch):
            self.rig.broker.now_ms = item.ts_ms
            self.rig.broker.fill_prices = {
                UNIVERSE[column]: price for column, price in zip(item.columns, item.prices, strict=True)
            }
        elif isinstance(item, MinuteRow):
            self.rig.broker.fill_prices = {}


def held(rig: Rig, quantity: int, symbol: str = "AAA", price: int = STEADY) -> None:
    """Put a position into the books as a mark, without orders."""
    rig.day_loss.book(UNIVERSE.index(symbol), quantity, quantity * price, price)


def entered(*items: Any, stop: int = 0, target: int = 0, side: Side = Side.BUY, lot: int = 1) -> TickDay:
    """Enter at minute 10 by a strategy, fill on a tick a second later, then let the items come."""
    script = {10: [entry_signal(side=side, stop=stop, target=target)]}
    start = [ticks(9, 59_000, AAA=STEADY), row(10, STEADY), ticks(10, 1_000, AAA=STEADY)]
    rig = Rig(make_limits(fixed_lot_size=lot, max_daily_loss_paise=LIMIT_PAISE))
    day = TickDay([*start, *items], ScriptedStrategy(script=script), rig=rig)
    day.run()
    return day


def test_loss_between_two_minutes_halts_and_flattens_on_the_tick_and_not_at_the_minute() -> None:
    day = entered(ticks(10, 30_000, AAA=8_000), ticks(10, 31_000, AAA=8_100), row(11, 10_000, low=8_000), lot=100)
    (halt,) = day.rig.halt_file.kept
    assert (halt.kind, halt.at_ms) == (HaltKind.LOSS, OPEN_MS + 10 * MINUTE_MS + 30_000)
    assert day.sent == [("AAA", "BUY", 100, "ENTRY"), ("AAA", "SELL", 100, "EMERGENCY")]
    assert day.rig.orders.is_flat()
    assert day.rig.broker.trade_list[1].ts_ms == OPEN_MS + 10 * MINUTE_MS + 31_000


def test_loss_one_paisa_below_the_limit_on_every_tick_halts_nothing() -> None:
    day = entered(ticks(10, 30_000, AAA=8_005), row(11, 8_005), ticks(11, 0, AAA=STEADY), row(12, STEADY), lot=100)
    assert day.rig.halt_file.kept == []
    assert day.sent[1][3] == "SQUARE_OFF"  # at the end of the data only


@pytest.mark.parametrize(
    ("side", "stop", "target", "reached", "rank"),
    [
        (Side.BUY, 9_900, 0, 9_900, "STOP"),
        (Side.BUY, 9_900, 0, 9_905, ""),
        (Side.BUY, 0, 10_100, 10_100, "TARGET"),
        (Side.BUY, 0, 10_100, 10_095, ""),
        (Side.SELL, 10_100, 0, 10_100, "STOP"),
        (Side.SELL, 10_100, 0, 10_095, ""),
        (Side.SELL, 0, 9_900, 9_900, "TARGET"),
        (Side.SELL, 0, 9_900, 9_905, ""),
    ],
)
def test_stop_and_target_are_held_against_each_tick(side: Side, stop: int, target: int, reached: int, rank: str) -> None:
    items = (ticks(10, 20_000, AAA=reached), ticks(10, 21_000, AAA=STEADY), row(11, STEADY))
    day = entered(*items, stop=stop, target=target, side=side)
    exits = [sent for sent in day.sent if sent[3] != "ENTRY"]
    assert [sent[3] for sent in exits] == [rank or "SQUARE_OFF"]
    left_ms = day.rig.broker.trade_list[1].ts_ms - OPEN_MS - 10 * MINUTE_MS if rank else 21_000
    assert left_ms == 21_000


def test_minute_built_from_ticks_marks_nothing_and_reaches_no_stop_of_a_position_opened_within_it() -> None:
    """The minute's low was before the entry: on bars it would stop the position out."""
    day = entered(ticks(10, 59_000, AAA=STEADY), row(11, STEADY, low=9_000), stop=9_500)
    assert [sent[3] for sent in day.sent] == ["ENTRY", "SQUARE_OFF"]
    assert day.rig.day_loss.open_paise == 0


def test_minute_that_ends_without_ticks_is_no_sign_of_a_living_feed() -> None:
    day = TickDay([ticks(9, 1_000, AAA=STEADY), row(10, STEADY)], ScriptedStrategy())
    day.run()
    assert day.rig.risk.readiness.feed_ts_ms == OPEN_MS + 9 * MINUTE_MS + 1_000


def test_strategies_are_asked_once_a_minute_and_by_minutes_only() -> None:
    strategy = ScriptedStrategy()
    items = [ticks(9, second * 1_000, AAA=STEADY) for second in range(60)]
    day = TickDay(
        [*items, row(10, STEADY), *[ticks(10, second, AAA=STEADY) for second in range(30)], row(11, STEADY)], strategy
    )
    result = day.run()
    assert (strategy.seen, result.rows, result.fault) == ([10, 11], 2, "")
    assert day.session.status("DONE")["ticks"] == 90


def test_entry_is_priced_by_the_newest_tick_and_refused_without_a_fresh_one() -> None:
    script = {10: [entry_signal("AAA"), entry_signal("BBB"), entry_signal("CCC")]}
    old = ticks(8, 0, BBB=20_000)
    day = TickDay(
        [old, ticks(9, 58_000, AAA=9_000), ticks(9, 59_000, AAA=9_100), row(10, 1, 1, 1)], ScriptedStrategy(script=script)
    )
    day.run()
    decisions = {
        e.body["symbol"]: e.body["code"] for e in day.rig.journal.events((EventKind.DECISION,)) if not e.body.get("rank")
    }
    assert decisions["AAA"] == "OK"
    assert (decisions["BBB"], decisions["CCC"]) == ("STALE_PRICE", "STALE_PRICE")


@pytest.mark.parametrize(("early_ms", "code"), [(1, "DUPLICATE_ORDER"), (0, "OK"), (-1, "OK")])
def test_same_signal_within_the_window_is_one_order_by_engine_time_to_the_millisecond(early_ms: int, code: str) -> None:
    """A live minute is delivered with the tick that ends it, so that engine time lies between the minutes."""
    window_ms = MINUTE_MS
    rig = Rig(make_limits(dedup_window_ms=window_ms))
    script = {10: [entry_signal(target=10_100)], 11: [entry_signal()]}
    items = [
        ticks(9, 59_000, AAA=STEADY),
        row(10, STEADY),
        ticks(10, 20_000, AAA=STEADY),
        ticks(10, 21_000, AAA=10_100),
        ticks(10, 22_000, AAA=10_100),
        row(11, 10_100),
    ]
    late_ms = {1: 500, 5: 500 - early_ms}  # how long after its end each minute is delivered

    class Late(TickDay):
        def _before(self, position: int) -> None:
            super()._before(position)
            if position == 2:
                assert self.rig.orders.is_flat() is False

    day = Late(items, ScriptedStrategy(script=script), rig=rig)
    inner = day.feed.next_row

    def next_row(wait_seconds: float) -> Any:
        item = inner(wait_seconds)
        day.clock.now += late_ms.get(day.feed.position - 1, 0) if item is not None else 0
        return item

    day.feed.next_row = next_row  # type: ignore[method-assign]
    day.run()
    entries = [e.body["code"] for e in rig.journal.events((EventKind.DECISION,)) if e.body["kind"] == "ENTRY"]
    assert entries == ["OK", code]
    assert [sent[3] for sent in day.sent][:2] == ["ENTRY", "TARGET"]


def test_ticks_that_an_earlier_process_traded_on_mark_and_trigger_nothing() -> None:
    rig = Rig()
    held(rig, 100)
    seen: list[int] = []

    def look(position: int) -> None:
        seen.append(rig.day_loss.open_paise)

    items = [ticks(9, 0, AAA=5_000), ticks(9, 1_000, AAA=STEADY), row(10, STEADY)]
    day = TickDay(items, ScriptedStrategy(), rig=rig, before=None, resume_after_ms=OPEN_MS + 9 * MINUTE_MS)
    original = day._before

    def before(position: int) -> None:
        original(position)
        look(position)

    day.feed.before = before
    day.run()
    assert seen[:3] == [0, -500_000, 0]
    assert rig.halt_file.kept == []


@st.composite
def tick_paths(draw: st.DrawFn) -> list[TickBatch]:
    batches = []
    for number in range(draw(st.integers(1, 25))):
        columns = draw(st.lists(st.integers(0, len(UNIVERSE) - 1), min_size=1, max_size=len(UNIVERSE), unique=True))
        prices = [draw(st.sampled_from(range(8_000, 12_001, 250))) for _ in columns]
        batches.append(TickBatch(OPEN_MS + number * 1_000, columns, prices, [1] * len(columns)))
    return batches


@settings(max_examples=150, deadline=None)
@given(tick_paths(), st.lists(st.integers(-3, 3), min_size=5, max_size=5), st.booleans())
def test_first_tick_at_which_the_loss_reaches_the_limit_is_the_one_that_triggers(
    path: list[TickBatch], quantities: list[int], is_charged: bool
) -> None:
    schedule = CHARGED if is_charged else ChargeSchedule(label="free")
    rig = Rig(make_limits(max_daily_loss_paise=1_500), schedule=schedule)
    marks = dict.fromkeys(range(len(UNIVERSE)), STEADY)
    for column, quantity in enumerate(quantities):
        if quantity:
            held(rig, quantity, UNIVERSE[column])
    day = Day([], rig=rig, on_ticks=True)
    prices = SessionPrices(day.plan, day.session._parts)

    def loss_paise() -> int:
        lost = sum(-quantity * (marks[column] - STEADY) for column, quantity in enumerate(quantities))
        sides = [(Side.SELL if q > 0 else Side.BUY, abs(q) * marks[c]) for c, q in enumerate(quantities) if q]
        return lost + sum(schedule.closing_estimate_paise(side, value) for side, value in sides)

    expected: tuple[int, str] | None = None
    for batch in path:
        for column, price in zip(batch.columns, batch.prices, strict=True):
            marks[column] = price
            if expected is None and quantities[column] and loss_paise() >= 1_500:
                lost = loss_paise()
                expected = (batch.ts_ms, f"daily loss {lost / 100:.2f}")
        prices.take_ticks(batch, batch.ts_ms)
        if expected is not None:
            break
        assert rig.halt_file.kept == []
    if expected is not None:
        halt = rig.halt_file.kept[0]
        assert (halt.kind, halt.at_ms) == (HaltKind.LOSS, expected[0])
        assert halt.reason.replace(",", "").startswith(expected[1])


def test_exit_signal_of_a_minute_leaves_at_once() -> None:
    script = {10: [entry_signal()], 11: [exit_signal()]}
    items = [
        ticks(9, 0, AAA=STEADY),
        row(10, STEADY),
        ticks(10, 1_000, AAA=STEADY),
        row(11, STEADY),
        ticks(11, 1_000, AAA=9_990),
    ]
    day = TickDay(items, ScriptedStrategy(script=script))
    day.run()
    assert [sent[3] for sent in day.sent] == ["ENTRY", "TARGET"]
    assert day.rig.broker.trade_list[1].ts_ms == OPEN_MS + 11 * MINUTE_MS + 1_000
