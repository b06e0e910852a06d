"""The opening-range breakout: exact signals on small days."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.strategies.minutes import minute, session, told
from velox_core.domain.orders import Side, SignalKind
from velox_core.strategies.opening_range import OpeningRangeBreakout

RANGE = [(390_000, 390_500, 389_800, 390_200), (390_200, 390_400, 389_500, 390_000), (390_000, 390_300, 389_900, 390_100)]


def strategy(universe=("TCS",), *, columns=None, entry_minutes_of_session=330, **parameters):
    made = OpeningRangeBreakout("orb", {"range_minutes": 3} | parameters)
    made.start_session(session(universe, columns=columns, entry_minutes=entry_minutes_of_session))
    return made


def say(made, bars, position=0, *, first=1):
    return [
        told(made.on_minute(row.ts_ms, row, [position]))
        for row in (minute(number, bar) for number, bar in enumerate(bars, start=first))
    ]


def test_first_close_above_the_range_buys_with_stop_below_it_and_target_by_risk():
    said = say(strategy(), [*RANGE, 390_500, 390_505])
    # range 389500-390500; risk 390505 - 389500 = 1005; target 390505 + 2 x 1005
    assert said == [[], [], [], [], [("TCS", "BUY", "ENTRY", 1, 389_500, 392_515)]]


def test_close_below_the_range_sells_only_where_shorts_are_allowed():
    assert say(strategy(), [*RANGE, 389_400])[-1] == []
    said = say(strategy(allow_short=True), [*RANGE, 389_400])
    assert said[-1] == [("TCS", "SELL", "ENTRY", 1, 390_500, 389_400 - 2 * 1_100)]


def test_high_through_the_range_without_a_close_outside_is_no_breakout():
    assert say(strategy(), [*RANGE, (390_100, 391_000, 390_100, 390_400)])[-1] == []


@pytest.mark.parametrize(("close", "signals"), [(390_890, 0), (390_895, 1)])
def test_buffer_asks_for_a_close_beyond_it(close, signals):
    # 10 bps of 390500 are 390.5: the close must be above 390890.5
    assert len(say(strategy(buffer_bps=10), [*RANGE, close])[-1]) == signals


def test_one_entry_per_side_and_day():
    made = strategy(allow_short=True)
    said = say(made, [*RANGE, 391_000, 390_000, 391_000, 389_000, 388_000])
    assert [[signal[1] for signal in signals] for signals in said] == [[], [], [], ["BUY"], [], [], ["SELL"], []]
    made.start_session(session())
    assert len(say(made, [*RANGE, 391_000])[-1]) == 1


def test_no_entry_while_it_holds_or_is_entering():
    made = strategy()
    assert say(made, [*RANGE, 391_000], position=1)[-1] == []
    assert len(say(made, [391_000], first=5)[-1]) == 1


def test_stop_percent_replaces_the_other_side_and_no_target_when_its_multiple_is_zero():
    said = say(strategy(stop_percent=0.5, target_multiple=0.0), [*RANGE, 391_003])
    # 0.5 % of 391003 is 1955: stop 389048, down to the tick
    assert said[-1] == [("TCS", "BUY", "ENTRY", 1, 389_045, 0)]


@pytest.mark.parametrize(("bps", "signals"), [(25, 0), (26, 1), (0, 1)])
def test_range_wider_than_allowed_is_not_traded(bps, signals):
    # 1000 of 389500 are 25.67 bps
    assert len(say(strategy(range_bps_max=bps), [*RANGE, 391_000])[-1]) == signals


@pytest.mark.parametrize(("minutes", "of_session", "signals"), [(5, 330, 1), (4, 330, 0), (0, 5, 1), (0, 4, 0), (300, 4, 0)])
def test_entries_end_at_the_earlier_of_its_own_and_the_sessions_limit(minutes, of_session, signals):
    made = strategy(entry_minutes=minutes, entry_minutes_of_session=of_session)
    assert len(say(made, [*RANGE, 390_000, 391_000])[-1]) == signals


def test_late_start_has_no_range_and_trades_nothing():
    assert say(strategy(), [*RANGE[2:], 391_000, 395_000], first=3) == [[], [], []]
    assert len(say(strategy(), [*RANGE[1:], 391_000], first=2)[-1]) == 1
    assert say(strategy(), [391_000, 395_000], first=4) == [[], []]


def test_symbol_without_a_bar_in_the_range_is_left_alone_and_missing_bars_are_skipped():
    made = strategy(("TCS", "INFY"))
    rows = [minute(1, RANGE[0], 0), minute(2, 0, 0), minute(3, RANGE[1], 0), minute(4, 0, 160_000), minute(5, 391_000, 170_000)]
    said = [told(made.on_minute(row.ts_ms, row, [0, 0])) for row in rows]
    assert said == [[], [], [], [], [("TCS", "BUY", "ENTRY", 1, 389_500, 394_000)]]


def test_only_its_own_columns_are_traded():
    made = strategy(("INFY", "TCS"), columns=(1,))
    rows = [minute(number, 150_000, bar) for number, bar in enumerate(RANGE, start=1)] + [minute(4, 160_000, 391_000)]
    said = [told(made.on_minute(row.ts_ms, row, [0, 0])) for row in rows]
    assert [[signal[0] for signal in signals] for signals in said] == [[], [], [], ["TCS"]]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"range_minutes": 0}, "'range_minutes' is 0"),
        (
            {"range_minutes": 15, "entry_minutes": 15},
            "'entry_minutes' is 15; it must be 0 or above 'range_minutes', which is 15",
        ),
        ({"target_multiple": float("nan")}, "finite"),
        ({"stop_percent": "1"}, "'stop_percent' is '1'"),
        ({"bufer_bps": 1}, "unknown"),
    ],
)
def test_impossible_parameters_are_refused_by_name(parameters, words):
    with pytest.raises(ValueError, match=words):
        OpeningRangeBreakout("orb", parameters)


@given(
    bars=st.lists(st.tuples(st.integers(50, 5_000), st.integers(0, 50), st.integers(0, 40)), min_size=5, max_size=40),
    positions=st.lists(st.integers(-1, 1), min_size=40, max_size=40),
    stop_percent=st.sampled_from([0.0, 0.1, 2.5]),
    multiple=st.sampled_from([0.0, 0.3, 2.0]),
)
def test_entries_come_only_when_flat_once_a_side_with_brackets_on_their_sides(bars, positions, stop_percent, multiple):
    made = strategy(allow_short=True, stop_percent=stop_percent, target_multiple=multiple, range_bps_max=0)
    sides = []
    for number, ((close, up, down), position) in enumerate(zip(bars, positions, strict=False), start=1):
        row = minute(number, (close, close + up, close - down, close))
        for signal in made.on_minute(row.ts_ms, row, [position]):
            away = signal.side.sign
            assert (signal.kind, position) == (SignalKind.ENTRY, 0)
            assert (close - signal.stop_paise) * away > 0
            assert signal.stop_paise % 5 == 0
            assert signal.target_paise % 5 == 0
            assert not signal.target_paise or (signal.target_paise - close) * away > 0
            sides.append(signal.side)
    assert len(sides) == len(set(sides)) <= 2
    assert set(sides) <= {Side.BUY, Side.SELL}
