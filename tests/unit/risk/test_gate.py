from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakes.rig import NOW_MS, OPEN_MS, entry_signal, make_instrument, make_limits
from velox_core.domain.market.ticks import Instrument
from velox_core.domain.orders import ExitRank, Side, Signal
from velox_core.risk.gate import OrderRate, Quote, Readiness, check_day, check_signal, check_symbol, judge_exit
from velox_core.risk.layers import ReasonCode, Refusal

LIMITS = make_limits()


def ready(**changes: object) -> Readiness:
    readiness = Readiness()
    readiness.armed = True
    readiness.entries_from_ms = OPEN_MS
    readiness.entry_until_ms = NOW_MS + 1_000
    readiness.feed_ts_ms = NOW_MS
    for name, value in changes.items():
        setattr(readiness, name, value)
    return readiness


def code(refusal: Refusal | None) -> ReasonCode | None:
    if refusal is not None:
        assert refusal.layer == 0
        assert refusal.text
    return None if refusal is None else refusal.code


def test_readiness_as_made_refuses_everything() -> None:
    assert code(check_day(Readiness(), LIMITS, NOW_MS)) is ReasonCode.NOT_ARMED


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"armed": False}, ReasonCode.NOT_ARMED),
        ({"stopping": "asked for"}, ReasonCode.STOPPING),
        ({"entries_from_ms": NOW_MS + 1}, ReasonCode.OUTSIDE_ENTRY_HOURS),
        ({"entries_from_ms": NOW_MS}, None),
        ({"entry_until_ms": NOW_MS}, ReasonCode.OUTSIDE_ENTRY_HOURS),
        ({"entry_until_ms": NOW_MS + 1}, None),
        ({"fenced": True}, ReasonCode.LEASE_LOST),
        ({"ledger_fault": "gone"}, ReasonCode.LEDGER_UNAVAILABLE),
        ({"journal_fault": "gone"}, ReasonCode.JOURNAL_UNAVAILABLE),
        ({"reconcile_fault": "silent"}, ReasonCode.RECONCILE_OVERDUE),
        ({"doubtful_exits": "X2"}, ReasonCode.EXIT_UNKNOWN),
        ({"unmarked": "ZZZ"}, ReasonCode.STALE_MARKS),
        ({"feed_ts_ms": NOW_MS - 90_000}, None),
        ({"feed_ts_ms": NOW_MS - 90_001}, ReasonCode.STALE_MARKS),
        ({"feed_ts_ms": NOW_MS + 2_000}, None),
        ({"feed_ts_ms": NOW_MS + 2_001}, ReasonCode.STALE_MARKS),
    ],
    ids=str,
)
def test_check_day_answers_with_its_reason(changes: dict[str, object], expected: ReasonCode | None) -> None:
    assert code(check_day(ready(**changes), LIMITS, NOW_MS)) is expected


BANDED = make_instrument(lower_band_paise=9_000, upper_band_paise=11_000)


@pytest.mark.parametrize(
    ("instrument", "quote", "lock", "expected"),
    [
        (make_instrument(), Quote(10_000, NOW_MS), "", None),
        (None, Quote(10_000, NOW_MS), "", ReasonCode.UNKNOWN_SYMBOL),
        (make_instrument(tradable=False), Quote(10_000, NOW_MS), "", ReasonCode.NOT_TRADABLE),
        (make_instrument(), Quote(10_000, NOW_MS), "order X is UNKNOWN", ReasonCode.SYMBOL_LOCKED),
        (make_instrument(), None, "", ReasonCode.STALE_PRICE),
        (make_instrument(), Quote(10_000, NOW_MS - 90_000), "", None),
        (make_instrument(), Quote(10_000, NOW_MS - 90_001), "", ReasonCode.STALE_PRICE),
        (make_instrument(), Quote(10_000, NOW_MS + 2_000), "", None),
        (make_instrument(), Quote(10_000, NOW_MS + 2_001), "", ReasonCode.STALE_PRICE),
        (make_instrument(), Quote(0, NOW_MS), "", ReasonCode.BAD_PRICE),
        (make_instrument(), Quote(-5, NOW_MS), "", ReasonCode.BAD_PRICE),
        (make_instrument(), Quote(10_003, NOW_MS), "", ReasonCode.BAD_PRICE),
        (make_instrument(), Quote(10_005, NOW_MS), "", None),
        (BANDED, Quote(10_940, NOW_MS), "", None),
        (BANDED, Quote(10_945, NOW_MS), "", ReasonCode.NEAR_BAND),
        (BANDED, Quote(11_000, NOW_MS), "", ReasonCode.NEAR_BAND),
        (BANDED, Quote(9_050, NOW_MS), "", None),
        (BANDED, Quote(9_045, NOW_MS), "", ReasonCode.NEAR_BAND),
        (BANDED, Quote(9_000, NOW_MS), "", ReasonCode.NEAR_BAND),
        (make_instrument(upper_band_paise=2_000_000), Quote(1_989_995, NOW_MS), "", None),
        (make_instrument(upper_band_paise=2_000_000), Quote(1_990_000, NOW_MS), "", ReasonCode.NEAR_BAND),
        (make_instrument(lower_band_paise=1_000_000), Quote(1_005_005, NOW_MS), "", None),
        (make_instrument(lower_band_paise=1_000_000), Quote(1_005_000, NOW_MS), "", ReasonCode.NEAR_BAND),
        (make_instrument(tick_paise=1), Quote(1, NOW_MS), "", None),
    ],
)
def test_check_symbol_answers_with_its_reason(
    instrument: Instrument | None, quote: Quote | None, lock: str, expected: ReasonCode | None
) -> None:
    assert code(check_symbol(instrument, quote, lock, make_limits(band_margin_bps=50), NOW_MS)) is expected


@pytest.mark.parametrize(
    ("signal", "is_valid"),
    [
        (entry_signal(), True),
        (entry_signal(quantity=0), False),
        (entry_signal(quantity=-1), False),
        (entry_signal(stop=-1), False),
        (entry_signal(target=-1), False),
        (entry_signal(stop=9_999, target=10_001), True),
        (entry_signal(stop=10_000), False),
        (entry_signal(target=10_000), False),
        (entry_signal(side=Side.SELL, stop=10_001, target=9_999), True),
        (entry_signal(side=Side.SELL, stop=10_000), False),
        (entry_signal(side=Side.SELL, target=10_000), False),
    ],
)
def test_check_signal_refuses_what_makes_no_sense(signal: Signal, is_valid: bool) -> None:
    assert code(check_signal(signal, Quote(10_000, NOW_MS))) is (None if is_valid else ReasonCode.INVALID_SIGNAL)


def test_check_signal_without_a_price_judges_only_the_numbers() -> None:
    assert check_signal(entry_signal(stop=1), None) is None
    assert code(check_signal(entry_signal(quantity=0), None)) is ReasonCode.INVALID_SIGNAL


def test_order_rate_counts_any_second_not_the_clocks_seconds() -> None:
    rate = OrderRate()
    for _ in range(8):
        assert rate.left(1_900, 8)
        rate.take(1_900)
    assert not rate.left(1_900, 8)
    assert not rate.left(2_000, 8)  # the next second of the clock, 100 ms later
    assert not rate.left(2_899, 8)
    assert rate.left(2_900, 8)
    rate.take(2_900)
    assert rate.left(2_900, 8)
    assert not rate.left(2_900, 1)


def test_order_rate_when_time_goes_back_stays_closed() -> None:
    rate = OrderRate()
    rate.take(5_000)
    assert not rate.left(1_000, 1)


@pytest.mark.parametrize(
    ("open_quantity", "working", "working_rank", "allowed", "expected"),
    [
        (10, 0, None, 10, None),
        (10, 4, ExitRank.TARGET, 6, None),
        (10, 9, ExitRank.EMERGENCY, 1, None),
        (10, 10, ExitRank.STOP, 0, ReasonCode.EXIT_WORKING),
        (10, 11, None, 0, ReasonCode.EXIT_WORKING),
        (0, 0, None, 0, ReasonCode.NOTHING_TO_EXIT),
        (-1, 0, None, 0, ReasonCode.NOTHING_TO_EXIT),
        (0, 5, ExitRank.STOP, 0, ReasonCode.NOTHING_TO_EXIT),
    ],
)
def test_judge_exit_lets_out_what_is_open_less_what_works(
    open_quantity: int, working: int, working_rank: ExitRank | None, allowed: int, expected: ReasonCode | None
) -> None:
    quantity, refusal = judge_exit(open_quantity, working, working_rank, ExitRank.EMERGENCY)
    assert quantity == allowed
    assert code(refusal) is expected


def test_check_day_judges_in_a_fixed_order() -> None:
    """Take away one fault after the other; the next one answers."""
    readiness = ready(
        stopping="s", entry_until_ms=0, fenced=True, ledger_fault="l", journal_fault="j", feed_ts_ms=0, armed=False
    )
    repairs: list[Callable[[], None]] = [
        lambda: setattr(readiness, "armed", True),
        lambda: setattr(readiness, "stopping", ""),
        lambda: setattr(readiness, "entry_until_ms", NOW_MS + 1),
        lambda: setattr(readiness, "fenced", False),
        lambda: setattr(readiness, "ledger_fault", ""),
        lambda: setattr(readiness, "journal_fault", ""),
        lambda: setattr(readiness, "feed_ts_ms", NOW_MS),
    ]
    seen = []
    for repair in repairs:
        seen.append(code(check_day(readiness, LIMITS, NOW_MS)))
        repair()
    assert seen == [
        ReasonCode.NOT_ARMED,
        ReasonCode.STOPPING,
        ReasonCode.OUTSIDE_ENTRY_HOURS,
        ReasonCode.LEASE_LOST,
        ReasonCode.LEDGER_UNAVAILABLE,
        ReasonCode.JOURNAL_UNAVAILABLE,
        ReasonCode.STALE_MARKS,
    ]
    assert check_day(readiness, LIMITS, NOW_MS) is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"armed": False}, "The day is not armed"),
        ({"stopping": "asked for"}, "Stopping: asked for"),
        ({"entry_until_ms": 0}, "Outside entry hours"),
        ({"fenced": True}, "Another engine holds the lease"),
        ({"ledger_fault": "gone"}, "Risk ledger unavailable: gone"),
        ({"journal_fault": "full"}, "Journal unavailable: full"),
        ({"reconcile_fault": "silent"}, "No reconcile with the broker: silent"),
        ({"doubtful_exits": "X2"}, "May open a position that has no slot: X2"),
        ({"unmarked": "ZZZ"}, "Held without a price from the feed: ZZZ"),
        ({"feed_ts_ms": NOW_MS - 90_001}, "Market data is 90001 ms old, at most 90000 ms"),
    ],
    ids=str,
)
def test_check_day_says_what_is_wrong(changes: dict[str, object], text: str) -> None:
    refusal = check_day(ready(**changes), LIMITS, NOW_MS)
    assert refusal is not None
    assert refusal.text == text


@pytest.mark.parametrize(
    ("instrument", "quote", "lock", "text"),
    [
        (None, None, "", "Symbol is not in the universe"),
        (make_instrument(tradable=False), None, "", "Symbol is not tradable today"),
        (make_instrument(), None, "order X is UNKNOWN", "Symbol locked: order X is UNKNOWN"),
        (make_instrument(), None, "", "Price never seen, at most 90000 ms allowed"),
        (make_instrument(), Quote(10_000, NOW_MS - 90_001), "", "Price 90001 ms old, at most 90000 ms allowed"),
        (make_instrument(), Quote(10_003, NOW_MS), "", "Price 100.03 is no positive multiple of the tick 0.05"),
        (BANDED, Quote(10_945, NOW_MS), "", "Price 109.45 is too near its band 90.00 to 110.00"),
    ],
)
def test_check_symbol_says_what_is_wrong(instrument: Instrument | None, quote: Quote | None, lock: str, text: str) -> None:
    refusal = check_symbol(instrument, quote, lock, LIMITS, NOW_MS)
    assert refusal is not None
    assert refusal.text == text


@pytest.mark.parametrize(
    ("signal", "text"),
    [
        (entry_signal(quantity=-1), "Quantity -1 is not positive"),
        (entry_signal(stop=-1, target=5), "Stop -0.01 or target 0.05 is negative"),
        (entry_signal(stop=10_000, target=10_100), "Stop 100.00 or target 101.00 is on the wrong side of the price 100.00"),
    ],
)
def test_check_signal_says_what_is_wrong(signal: Signal, text: str) -> None:
    refusal = check_signal(signal, Quote(10_000, NOW_MS))
    assert refusal is not None
    assert refusal.text == text


@pytest.mark.parametrize(
    ("open_quantity", "working_rank", "text"),
    [
        (0, None, "No open quantity to exit"),
        (5, ExitRank.STOP, "An exit of rank STOP already works the whole quantity"),
        (5, None, "An exit of rank EMERGENCY already works the whole quantity"),
    ],
)
def test_judge_exit_says_what_closes_the_door(open_quantity: int, working_rank: ExitRank | None, text: str) -> None:
    _, refusal = judge_exit(open_quantity, 5, working_rank, ExitRank.EMERGENCY)
    assert refusal is not None
    assert refusal.text == text
