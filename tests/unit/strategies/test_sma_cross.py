"""The moving average rule: exact signals on small series, and the benchmark's rule reproduced."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies.minutes import minute, session, told
from velox_core.domain.orders import Side, SignalKind
from velox_core.strategies.sma_cross import SmaCross

BUY_1 = ("TCS", "BUY", "ENTRY", 1, 0, 0)


def strategy(universe=("TCS",), *, columns=None, entry_minutes=330, tick_paise=5, **parameters):
    made = SmaCross("sma", {"fast": 2, "slow": 3, "stop_bps": 0} | parameters)
    made.start_session(session(universe, columns=columns, entry_minutes=entry_minutes, tick_paise=tick_paise))
    return made


def say(made, closes, position=0, *, first=1):
    """Return by minute what the strategy says about one symbol at a fixed position."""
    return [
        told(made.on_minute(row.ts_ms, row, [position]))
        for row in (minute(number, close) for number, close in enumerate(closes, start=first))
    ]


def test_crossing_up_buys_once_and_not_again_while_it_stands():
    # spread of 2 against 3 closes: 1000 1000 1000 -> 0; then 1100: (2100/2 > 3100/3) crosses up and stays up
    assert say(strategy(), [1_000, 1_000, 1_000, 1_100, 1_200]) == [[], [], [], [BUY_1], []]


def test_level_entry_repeats_as_long_as_it_is_flat():
    assert say(strategy(enter_on_level=True), [1_000, 1_000, 1_100, 1_200]) == [[], [], [BUY_1], [BUY_1]]


def test_nothing_is_said_before_the_slow_average_is_full():
    assert say(strategy(enter_on_level=True), [1_000, 2_000]) == [[], []]
    assert say(strategy(enter_on_level=True), [2_000, 1_000], position=1) == [[], []]


def test_averages_that_stand_apart_when_they_begin_are_no_crossing():
    assert say(strategy(), [1_000, 1_100, 1_200, 1_300]) == [[], [], [], []]


def test_equal_averages_are_neither_above_nor_below():
    assert say(strategy(enter_on_level=True, allow_short=True), [1_000] * 6) == [[]] * 6
    assert say(strategy(), [1_000] * 6, position=1) == [[]] * 6


def test_long_exits_when_the_fast_average_is_below_and_asks_for_what_is_held():
    made = strategy()
    assert say(made, [1_000, 1_000, 1_000, 900], position=7) == [[], [], [], [("TCS", "SELL", "EXIT", 7, 0, 0)]]


def test_short_exits_when_the_fast_average_is_above():
    assert say(strategy(allow_short=True), [1_000, 1_000, 1_000, 1_100], position=-4)[-1] == [("TCS", "BUY", "EXIT", 4, 0, 0)]


def test_crossing_down_sells_only_where_shorts_are_allowed():
    closes = [1_000, 1_000, 1_010, 900]
    assert say(strategy(), closes)[-1] == []
    assert say(strategy(allow_short=True), closes)[-1] == [("TCS", "SELL", "ENTRY", 1, 0, 0)]


def test_reversal_exits_first_and_enters_when_flat():
    made = strategy(allow_short=True)
    assert say(made, [1_000, 1_000, 1_010, 900], position=1)[-1] == [("TCS", "SELL", "EXIT", 1, 0, 0)]
    assert say(made, [890, 880], position=0, first=5) == [[("TCS", "SELL", "ENTRY", 1, 0, 0)], []]


def test_stop_and_target_are_on_the_tick_the_stop_nearer_the_target_farther():
    (signal,) = say(strategy(stop_bps=50, target_bps=100), [390_000, 390_000, 390_000, 390_115])[-1]
    # 0.5 % of 390115 is 1950, stop 388165; 1 % is 3901, target 394016 -> 394020
    assert signal == ("TCS", "BUY", "ENTRY", 1, 388_165, 394_020)
    (signal,) = say(strategy(stop_bps=50, target_bps=100, allow_short=True), [390_000, 390_000, 390_010, 389_890])[-1]
    # 1949 and 3898: stop 391839 -> 391835, target 385992 -> 385990
    assert signal == ("TCS", "SELL", "ENTRY", 1, 391_835, 385_990)


def test_no_entry_after_the_last_entry_minute_and_exits_still():
    closes = [1_000, 1_000, 1_000, 1_100]
    assert say(strategy(entry_minutes=4), closes)[-1] == [BUY_1]
    assert say(strategy(entry_minutes=3), closes)[-1] == []
    assert say(strategy(entry_minutes=1), [1_000, 1_000, 1_000, 900], position=1)[-1] != []


def test_missing_bar_is_skipped_and_counts_as_no_close():
    closes = [1_000, 0, 1_000, 0, 1_000, 0, 1_100]
    assert say(strategy(), closes) == [[], [], [], [], [], [], [BUY_1]]


def test_only_its_own_columns_are_traded():
    made = strategy(("AAA", "TCS", "BBB"), columns=(2, 1))
    rows = [
        minute(1, 500, 1_000, 2_000),
        minute(2, 600, 1_000, 2_000),
        minute(3, 700, 1_000, 2_000),
        minute(4, 900, 1_100, 2_200),
    ]
    said = [told(made.on_minute(row.ts_ms, row, [0, 0, 0])) for row in rows]
    assert said == [[], [], [], [("BBB", "BUY", "ENTRY", 1, 0, 0), ("TCS", "BUY", "ENTRY", 1, 0, 0)]]


def test_symbols_do_not_mix():
    made = strategy(("AAA", "BBB"), enter_on_level=True)
    rows = [minute(1, 1_000, 0), minute(2, 1_000, 900), minute(3, 1_100, 900), minute(4, 1_200, 800)]
    said = [told(made.on_minute(row.ts_ms, row, [0, 0])) for row in rows]
    assert said == [[], [], [("AAA", "BUY", "ENTRY", 1, 0, 0)], [("AAA", "BUY", "ENTRY", 1, 0, 0)]]


def test_new_day_forgets_closes_unless_told_to_keep_them():
    for reset, expected in ((True, [[], []]), (False, [[BUY_1], []])):
        made = strategy(reset_daily=reset)
        say(made, [1_000] * 50)
        made.start_session(session())
        assert say(made, [1_100, 1_200]) == expected


def test_new_day_with_other_symbols_forgets_whatever_it_kept():
    made = strategy(reset_daily=False)
    say(made, [1_000] * 5)
    made.start_session(session(("INFY",)))
    assert say(made, [1_100, 1_200]) == [[], []]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"fast": 3, "slow": 3}, "'fast' is 3; it must be below 'slow', which is 3"),
        ({"fast": 0}, "'fast' is 0"),
        ({"quantity": 0}, "'quantity' is 0"),
        ({"stop_bps": -1}, "'stop_bps' is -1"),
        ({"allow_short": 1}, "'allow_short' is 1"),
        ({"slwo": 30}, "'slwo' is unknown"),
    ],
)
def test_impossible_parameters_are_refused_by_name(parameters, words):
    with pytest.raises(ValueError, match=words):
        SmaCross("sma", parameters)


def benchmark_rule(closes, fast, slow):
    """Return (minute, side) of the benchmark's rule, written down naively, filled at once."""
    said, is_long = [], False
    for last in range(slow - 1, len(closes)):
        above = sum(closes[last - fast + 1 : last + 1]) * slow - sum(closes[last - slow + 1 : last + 1]) * fast
        if not is_long and above > 0:
            said.append((last, Side.BUY))
            is_long = True
        elif is_long and above < 0:
            said.append((last, Side.SELL))
            is_long = False
    return said


@pytest.mark.parametrize(("fast", "slow"), [(10, 30), (7, 30), (1, 2)])
def test_benchmark_rule_is_reproduced_exactly_over_days(fast, slow):
    chance = random.Random(fast)
    symbols = ("AAA", "BBB", "CCC")
    series = [[max(5, 100_000 + 5 * chance.randint(-400, 400)) for _ in range(1_200)] for _ in symbols]
    made = strategy(symbols, fast=fast, slow=slow, enter_on_level=True, reset_daily=False, entry_minutes=10**6)
    positions = [0, 0, 0]
    said = {symbol: [] for symbol in symbols}
    for number in range(1_200):
        if number % 375 == 0:
            made.start_session(session(symbols, entry_minutes=10**6))
        row = minute(number, *(closes[number] for closes in series))
        for signal in made.on_minute(row.ts_ms, row, positions):
            column = symbols.index(signal.symbol)
            assert (signal.kind is SignalKind.ENTRY) is (positions[column] == 0)
            positions[column] += signal.side.sign * signal.quantity
            said[signal.symbol].append((number, signal.side))
    for symbol, closes in zip(symbols, series, strict=True):
        assert said[symbol] == benchmark_rule(closes, fast, slow)
        assert len(said[symbol]) > 20


CLOSE = st.sampled_from((980, 990, 1_000, 1_010, 1_020))  # few values, so that averages often meet exactly


@given(
    closes=st.lists(st.tuples(CLOSE, CLOSE), min_size=2, max_size=60),
    gaps=st.sets(st.integers(0, 59), max_size=6),
    short=st.booleans(),
    level=st.booleans(),
    reset_daily=st.booleans(),
)
def test_rows_without_a_gap_say_the_same_as_bars_one_by_one(closes, gaps, short, level, reset_daily):
    rules = {"fast": 2, "slow": 3, "allow_short": short, "enter_on_level": level, "reset_daily": reset_daily}
    by_row, by_bar = strategy(("AAA", "BBB"), **rules), strategy(("AAA", "BBB", "GAPS"), **rules)
    positions = [0, 0]
    for number, (first, second) in enumerate(closes):
        if number % 20 == 0:
            by_row.start_session(session(("AAA", "BBB")))
            by_bar.start_session(session(("AAA", "BBB", "GAPS")))
        row = minute(number, first, 0 if number in gaps else second)
        signals = by_row.on_minute(row.ts_ms, row, positions)
        row = minute(number, first, 0 if number in gaps else second, 0 if number % 20 == 0 else 1_000)
        assert told(signals) == told(by_bar.on_minute(row.ts_ms, row, [*positions, 0]))
        for signal in signals:
            positions[("AAA", "BBB").index(signal.symbol)] += signal.side.sign * signal.quantity


@given(
    closes=st.lists(st.integers(0, 3_000), min_size=8, max_size=60),
    positions=st.lists(st.integers(-3, 3), min_size=60, max_size=60),
    short=st.booleans(),
    level=st.booleans(),
    stop_bps=st.integers(0, 500),
    target_bps=st.integers(0, 500),
)
def test_entries_come_only_when_flat_with_brackets_on_their_sides(closes, positions, short, level, stop_bps, target_bps):
    made = strategy(allow_short=short, enter_on_level=level, stop_bps=stop_bps, target_bps=target_bps)
    for number, (close, position) in enumerate(zip(closes, positions, strict=False), start=1):
        row = minute(number, close)
        for signal in made.on_minute(row.ts_ms, row, [position]):
            assert close
            if signal.kind is SignalKind.ENTRY:
                assert position == 0
                assert short or signal.side is Side.BUY
                check_brackets(signal, close, stop_bps, target_bps)
            else:
                assert signal.side.sign * position < 0
                assert signal.quantity == abs(position)


def check_brackets(signal, close, stop_bps, target_bps):
    away = signal.side.sign
    assert signal.stop_paise % 5 == 0
    assert signal.target_paise % 5 == 0
    if signal.stop_paise:
        assert stop_bps
        assert (close - signal.stop_paise) * away > 0
    if signal.target_paise:
        assert target_bps
        assert (signal.target_paise - close) * away > 0
    assert not stop_bps or signal.stop_paise or close <= 10
