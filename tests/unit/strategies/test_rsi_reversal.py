"""RSI reversal: exact signals on small days."""

from __future__ import annotations

import pytest

from tests.unit.strategies.minutes import minute, session, told
from velox_core.strategies.rsi_reversal import RsiReversal
from velox_core.strategies.rules import resolve_rules

FALLING = [100_000, 99_900, 99_800, 99_700]  # RSI 0 of period 3 from the fourth close on
RISING = [100_000, 100_100, 100_200, 100_300]


def strategy(universe=("TCS",), *, columns=None, entry_minutes=330, **parameters):
    made = RsiReversal("rsi", {"period": 3, "target_bps": 0} | parameters)
    made.start_session(session(universe, columns=columns, entry_minutes=entry_minutes))
    return made


def say(made, closes, position=0, *, first=1):
    return [
        told(made.on_minute(row.ts_ms, row, [position]))
        for row in (minute(number, close) for number, close in enumerate(closes, start=first))
    ]


def test_buys_on_the_way_up_out_of_the_lower_zone_not_inside_it():
    # after the fall: gain 0, loss 100; +20: gain 6.67, loss 66.67, RSI 9.1; +120: 44.44 + ..., RSI above 30
    said = say(strategy(), [*FALLING, 99_720, 99_840])
    assert said[:-1] == [[]] * 5
    assert said[-1] == [("TCS", "BUY", "ENTRY", 1, 99_245, 0)]


def test_sells_on_the_way_down_out_of_the_upper_zone_only_where_shorts_are_allowed():
    closes = [*RISING, 100_280, 100_160]
    assert say(strategy(), closes)[-1] == []
    assert say(strategy(allow_short=True, target_bps=100), closes)[-1] == [("TCS", "SELL", "ENTRY", 1, 100_760, 99_155)]


def test_one_entry_for_each_stay_in_the_zone():
    said = say(strategy(), [*FALLING, 99_840, 99_850, 99_860, 99_300, 99_200, 99_100, 99_000, 99_400])
    assert [len(signals) for signals in said] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]


def test_long_leaves_when_the_index_is_back_and_short_mirrored():
    made = strategy()
    say(made, FALLING)
    assert say(made, [99_710], position=3, first=5) == [[]]
    assert say(made, [100_200], position=3, first=6) == [[("TCS", "SELL", "EXIT", 3, 0, 0)]]
    short = strategy(allow_short=True)
    say(short, RISING)
    assert say(short, [100_290], position=-3, first=5) == [[]]
    assert say(short, [99_800], position=-3, first=6) == [[("TCS", "BUY", "EXIT", 3, 0, 0)]]


def test_nothing_before_enough_changes_nor_after_the_entry_limit_and_gaps_are_skipped():
    assert say(strategy(), [99_700, 99_900, 99_950]) == [[]] * 3
    assert say(strategy(entry_minutes=5), [*FALLING, 99_720, 99_840])[-1] == []
    assert len(say(strategy(), [0, *FALLING, 0, 99_840])[-1]) == 1


def test_only_its_own_columns_and_a_new_day_forgets_the_old_one():
    made = strategy(("AAA", "TCS"), columns=(1,))
    for number, close in enumerate(FALLING, start=1):
        row = minute(number, close, close)
        made.on_minute(row.ts_ms, row, [0, 0])
    row = minute(5, 99_900, 99_900)
    assert [signal.symbol for signal in made.on_minute(row.ts_ms, row, [0, 0])] == ["TCS"]
    made.start_session(session(("AAA", "TCS"), columns=(1,)))
    assert [made.on_minute(row.ts_ms, row, [0, 0]) for _ in range(3)] == [[]] * 3


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"period": 1}, "'period' is 1; the least allowed is 2"),
        ({"oversold": 50}, r"'oversold' is 50; the most allowed is 49.0"),
        ({"exit_level": 25.0}, "'exit_level' is 25.0; it must be above 'oversold', which is 30.0"),
        ({"exit_level": 48.0, "overbought": 51.5, "allow_short": True}, "100 less it must be below 'overbought'"),
        ({"oversold": "low"}, "'oversold' is 'low'; it takes a float"),
    ],
)
def test_impossible_parameters_are_refused_by_name(parameters, named):
    with pytest.raises(ValueError, match=named):
        RsiReversal("rsi", parameters)


def test_suggested_rules_rest_a_symbol_and_leave_in_time():
    values = resolve_rules(RsiReversal.rule_defaults, {"cooldown_minutes": 0})[1]
    assert (values.time_stop_ms, values.cooldown_ms) == (5_400_000, 0)
