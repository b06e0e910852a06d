"""The plug-in interface: parameters and the bar adapter."""

from __future__ import annotations

import pytest

from tests.unit.strategies.minutes import minute, session
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.strategies.base import BarStrategy, ParameterSpec, resolve_parameters
from velox_core.strategies.opening_range import OpeningRangeBreakout
from velox_core.strategies.sma_cross import SmaCross

SPECS = (
    ParameterSpec(name="length", default=10, help="bars", minimum=1, maximum=20),
    ParameterSpec(name="ratio", default=1.5, help="times", minimum=0.0),
    ParameterSpec(name="label", default="a", help="text"),
    ParameterSpec(name="on", default=False, help="switch"),
)


class EveryBar(BarStrategy):
    """Buys on every bar while flat."""

    def on_bar(self, bar, position):
        if position:
            return None
        return Signal(self.strategy_id, bar.symbol, Side.BUY, bar.volume, SignalKind.ENTRY, f"close {bar.close}")


def test_parameters_default_and_take_whole_numbers_for_decimal_ones():
    assert resolve_parameters(SPECS, {}) == {"length": 10, "ratio": 1.5, "label": "a", "on": False}
    resolved = resolve_parameters(SPECS, {"ratio": 2, "on": True, "length": 20})
    assert (resolved["ratio"], type(resolved["ratio"]), resolved["on"], resolved["length"]) == (2.0, float, True, 20)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"length": 0}, "'length' is 0; the least allowed is 1"),
        ({"length": 21}, "'length' is 21; the most allowed is 20"),
        ({"length": 2.5}, "'length' is 2.5; it takes a int"),
        ({"length": True}, "'length' is True"),
        ({"ratio": float("inf")}, "'ratio' is inf; it takes a finite number"),
        ({"label": 3}, "'label' is 3"),
        ({"on": 1}, "'on' is 1"),
        ({"lenght": 3}, "'lenght' is unknown; known are label, length, on, ratio"),
    ],
)
def test_impossible_parameter_is_named_with_what_is_allowed(given, words):
    with pytest.raises(ValueError, match=words):
        resolve_parameters(SPECS, given)


def test_all_problems_are_told_at_once():
    with pytest.raises(ValueError, match=r"unknown.*'length'.*'ratio'"):
        resolve_parameters(SPECS, {"length": 0, "ratio": -1.0, "nope": 1})


def test_bar_adapter_calls_once_per_bar_of_its_columns_in_their_order():
    made = EveryBar("every", {})
    made.start_session(session(("AAA", "BBB", "CCC"), columns=(2, 0, 1)))
    row = minute(1, 1_000, 0, 3_000)
    assert [signal.symbol for signal in made.on_minute(row.ts_ms, row, [0, 0, 0])] == ["CCC", "AAA"]
    assert [signal.symbol for signal in made.on_minute(row.ts_ms, row, [5, 0, 0])] == ["CCC"]


@pytest.mark.parametrize("made", [OpeningRangeBreakout("range", {}), SmaCross("cross", {})], ids=["range", "cross"])
def test_strategies_that_come_along_change_neither_rows_nor_positions(made):
    made.start_session(session(("AAA", "BBB")))
    positions = [0, 0]
    for number in range(1, 120):
        price = 10_000 + (number * 37 % 91) * 5
        row = minute(number, price, price + 500)
        before = (list(row.opens), list(row.highs), list(row.lows), list(row.closes), list(row.volumes))
        made.on_minute(row.ts_ms, row, positions)
        assert (row.opens, row.highs, row.lows, row.closes, row.volumes) == before
    assert positions == [0, 0]
