"""Which ticks become a mark: each rule just inside and just outside, and what a real crash looks like."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from velox_core.feeds.tick_rules import FAR_OFF_BPS, FAR_OFF_RUN_MAX, TickRule, TickSieve, TickTally

OPEN_MS, CLOSE_MS = 1_000_000, 2_000_000
START_MS = 1_500_000


def sieve(tick_paise: int = 5, *, reference: int = 0, band: tuple[int, int] = (0, 0)) -> TickSieve:
    return TickSieve([(OPEN_MS, CLOSE_MS)], [tick_paise], [reference], [band])


def judged(made: TickSieve, *prices: int) -> list[TickRule | None]:
    """Judge prices a second apart, each with a trade."""
    return [made.judge(0, START_MS + number * 1_000, price, 100 + number) for number, price in enumerate(prices)]


def test_judge_good_ticks_are_used() -> None:
    assert judged(sieve(), 10_000, 10_005, 9_995) == [None, None, None]


def test_judge_the_same_tick_again_is_a_duplicate_also_of_a_refused_one() -> None:
    made = sieve()
    assert made.judge(0, START_MS, 10_000, 7) is None
    assert made.judge(0, START_MS, 10_000, 7) is TickRule.DUPLICATE
    assert made.judge(0, START_MS, 10_000, 8) is None
    assert made.judge(0, CLOSE_MS, 10_000, 8) is TickRule.OFF_SESSION
    assert made.judge(0, CLOSE_MS, 10_000, 8) is TickRule.DUPLICATE


def test_judge_stamps_at_the_edges_of_the_session() -> None:
    for ts_ms, rule in ((OPEN_MS - 1, TickRule.OFF_SESSION), (OPEN_MS, None), (CLOSE_MS - 1, None)):
        assert sieve().judge(0, ts_ms, 10_000, 0) is rule
    assert sieve().judge(0, CLOSE_MS, 10_000, 0) is TickRule.OFF_SESSION


def test_judge_an_older_stamp_or_a_lower_volume_at_one_stamp_is_out_of_order() -> None:
    made = sieve()
    assert made.judge(0, START_MS, 10_000, 100) is None
    assert made.judge(0, START_MS - 1, 10_005, 101) is TickRule.OUT_OF_ORDER
    assert made.judge(0, START_MS, 10_005, 99) is TickRule.OUT_OF_ORDER
    assert made.judge(0, START_MS + 1, 10_005, 99) is None  # a later stamp is newer, whatever its volume


def test_judge_zero_negative_and_off_tick_prices_are_refused() -> None:
    made = sieve()
    assert judged(made, 0, -5, 10_001) == [TickRule.NOT_POSITIVE, TickRule.NOT_POSITIVE, TickRule.OFF_TICK]
    assert judged(sieve(0), 10_001) == [None]  # an unknown tick size refuses nothing


def test_judge_a_single_print_far_off_is_never_used() -> None:
    edge = 10_000 * FAR_OFF_BPS // 10_000
    assert judged(sieve(), 10_000, 10_000 - edge, 9_900) == [None, None, None]
    assert judged(sieve(), 10_000, 10_000 - edge - 5, 10_000) == [None, TickRule.FAR_OFF, None]
    assert judged(sieve(), 10_000, 10_000 + edge + 5, 10_000) == [None, TickRule.FAR_OFF, None]


def test_judge_a_real_crash_is_seen_one_print_late_also_in_free_fall() -> None:
    assert judged(sieve(), 10_000, 8_000, 8_000, 7_900) == [None, TickRule.FAR_OFF, None, None]
    fall = [10_000, 9_000, 8_000, 7_000, 6_000]
    assert judged(sieve(), *fall) == [None, TickRule.FAR_OFF, None, TickRule.FAR_OFF, None]


def test_judge_the_first_print_is_held_against_the_close_before() -> None:
    assert judged(sieve(reference=10_000), 1_000, 10_000) == [TickRule.FAR_OFF, None]
    assert judged(sieve(), 1_000, 10_000, 10_000) == [None, TickRule.FAR_OFF, None]


def test_judge_a_print_outside_the_band_waits_for_the_next() -> None:
    made = sieve(band=(9_800, 10_200))
    assert judged(made, 9_800, 9_795, 10_200, 10_205, 10_210) == [
        None, TickRule.FAR_OFF, None, TickRule.FAR_OFF, None,
    ]  # fmt: skip


@given(st.lists(st.integers(1, 4_000).map(lambda number: number * 5), min_size=1, max_size=60))
def test_judge_no_price_path_is_kept_out_for_longer_than_the_bound(prices: list[int]) -> None:
    answers = judged(sieve(), *prices)
    waiting = 0
    for answer in answers:
        waiting = waiting + 1 if answer is TickRule.FAR_OFF else 0
        assert waiting <= FAR_OFF_RUN_MAX
    assert answers[0] is None


def test_judge_prints_to_both_sides_in_turn_are_used_after_the_bound() -> None:
    far = TickRule.FAR_OFF
    assert judged(sieve(), 10_000, 5_000, 15_000, 5_000, 15_000) == [None, far, far, far, None]


def test_judge_symbols_are_apart() -> None:
    made = TickSieve([(OPEN_MS, CLOSE_MS)], [5, 10])
    assert made.judge(0, START_MS, 10_005, 1) is None
    assert made.judge(1, START_MS - 1, 10_005, 1) is TickRule.OFF_TICK
    assert made.judge(1, START_MS - 1, 90_000, 1) is None


def test_tally_counts_by_rule_and_symbol_in_the_order_of_the_rules() -> None:
    tally = TickTally()
    tally.add(TickRule.FAR_OFF, "TCS", 1, "third")
    tally.add(TickRule.DUPLICATE, "TCS", 2, "first")
    tally.add(TickRule.DUPLICATE, "INFY", 3, "second")
    tally.add(TickRule.OFF_TICK, "TCS", 0, "none")
    assert [(drop.rule, drop.count, drop.example, drop.by_symbol) for drop in tally.drops()] == [
        ("duplicate", 5, "first", (("INFY", 3), ("TCS", 2))),
        (TickRule.FAR_OFF.value, 1, "third", (("TCS", 1),)),
    ]
