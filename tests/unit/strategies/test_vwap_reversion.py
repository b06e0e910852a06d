"""VWAP reversion: exact signals on small days."""

from __future__ import annotations

import pytest

from tests.unit.strategies.minutes import minute, session, told
from velox_core.strategies.rules import resolve_rules
from velox_core.strategies.vwap_reversion import VwapReversion

BASE = 100_000


def strategy(universe=("TCS",), *, columns=None, entry_minutes=330, **parameters):
    made = VwapReversion("vwap", {"warmup_minutes": 2, "entry_bps": 50, "exit_bps": 0} | parameters)
    made.start_session(session(universe, columns=columns, entry_minutes=entry_minutes))
    return made


def say(made, bars, position=0, *, first=1):
    return [
        told(made.on_minute(row.ts_ms, row, [position]))
        for row in (minute(number, bar) for number, bar in enumerate(bars, start=first))
    ]


# after n bars at 100000 and one at x the average is (n * 100000 + x) / (n + 1)
def test_close_stretched_below_the_average_buys_with_a_stop_and_no_target():
    said = say(strategy(), [BASE] * 3 + [99_300])
    # average 99825; 50 bps below is 99325.9
    assert said == [[], [], [], [("TCS", "BUY", "ENTRY", 1, 98_705, 0)]]


@pytest.mark.parametrize(("close", "signals"), [(99_335, 0), (99_334, 1)])
def test_distance_is_just_under_at_and_over_the_limit(close, signals):
    # 3 x 100000 and c: c < (300000 + c) / 4 x 0.995 from c < 99334.44
    assert len(say(strategy(), [BASE] * 3 + [close])[-1]) == signals


def test_close_stretched_above_sells_only_where_shorts_are_allowed():
    assert say(strategy(), [BASE] * 3 + [101_000])[-1] == []
    assert say(strategy(allow_short=True, target_bps=100), [BASE] * 3 + [101_000])[-1] == [
        ("TCS", "SELL", "ENTRY", 1, 101_605, 99_990)
    ]


def test_long_leaves_at_the_average_and_not_before():
    made = strategy()
    say(made, [BASE] * 3 + [99_000])
    assert say(made, [99_500], position=2, first=5) == [[]]
    assert say(made, [BASE], position=2, first=6) == [[("TCS", "SELL", "EXIT", 2, 0, 0)]]


def test_short_leaves_at_the_average_and_not_before():
    made = strategy(allow_short=True)
    say(made, [BASE] * 3 + [101_000])
    assert say(made, [100_500], position=-2, first=5) == [[]]
    assert say(made, [BASE], position=-2, first=6) == [[("TCS", "BUY", "EXIT", 2, 0, 0)]]


def test_exit_distance_counts_as_back():
    made = strategy(exit_bps=40)
    say(made, [BASE] * 3 + [99_000])
    assert len(say(made, [99_500], position=1, first=5)[0]) == 1  # average 99600: 10 bps away


def test_one_entry_for_each_stretch_until_the_price_was_back():
    said = say(strategy(), [BASE] * 3 + [99_000, 98_900, 98_800, BASE, 98_000])
    assert [len(signals) for signals in said] == [0, 0, 0, 1, 0, 0, 0, 1]


def test_no_entry_before_the_warm_up_after_the_limit_or_when_the_open_was_missed():
    assert [len(s) for s in say(strategy(warmup_minutes=5), [BASE] * 3 + [99_000, 98_500])] == [0, 0, 0, 0, 1]
    assert say(strategy(entry_minutes=3), [BASE] * 3 + [99_000])[-1] == []
    assert say(strategy(), [BASE] * 3 + [99_000], first=4)[-1] == []
    assert len(say(strategy(), [BASE] * 3 + [99_000], first=2)[-1]) == 1


def test_minutes_without_a_bar_or_volume_change_nothing():
    made = strategy()
    assert [len(s) for s in say(made, [0, BASE, 0, BASE, BASE, 0, 99_000])] == [0, 0, 0, 0, 0, 0, 1]
    silent = strategy()
    for number in range(1, 6):
        row = minute(number, BASE if number < 4 else 50_000)
        row.volumes[0] = 0
        assert silent.on_minute(row.ts_ms, row, [0]) == []


def test_only_its_own_columns_and_a_new_day_forgets_the_old_one():
    made = strategy(("AAA", "TCS"), columns=(1,))
    for number in range(1, 4):
        row = minute(number, BASE, BASE)
        made.on_minute(row.ts_ms, row, [0, 0])
    row = minute(4, 90_000, 99_000)
    assert told(made.on_minute(row.ts_ms, row, [0, 0])) == [("TCS", "BUY", "ENTRY", 1, 98_410, 0)]
    made.start_session(session(("AAA", "TCS"), columns=(1,)))
    row = minute(3, 90_000, 90_000)
    assert made.on_minute(row.ts_ms, row, [0, 0]) == []


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"entry_bps": 0}, r"'entry_bps' is 0; the least allowed is 1"),
        ({"exit_bps": 60, "entry_bps": 60}, r"'exit_bps' is 60; it must be below 'entry_bps', which is 60"),
        ({"stop_bps": True}, r"'stop_bps' is True; it takes a int"),
        ({"stopp_bps": 1}, r"'stopp_bps' is unknown"),
    ],
)
def test_impossible_parameters_are_refused_by_name(parameters, named):
    with pytest.raises(ValueError, match=named):
        VwapReversion("vwap", parameters)


def test_suggested_rules_are_a_time_stop_of_an_hour():
    assert resolve_rules(VwapReversion.rule_defaults, {})[1].time_stop_ms == 3_600_000
