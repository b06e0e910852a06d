"""Strategies: one file each, pure, independent of each other.

- `base` is the interface they share, `rules` the trade rules that the engine keeps for any of them.
- `indicators` and `brackets` are what more than one of them computes.
"""

SHIPPED = {
    "opening_range": "velox_core.strategies.opening_range:OpeningRangeBreakout",
    "sma_cross": "velox_core.strategies.sma_cross:SmaCross",
    "vwap_reversion": "velox_core.strategies.vwap_reversion:VwapReversion",
    "rsi_reversal": "velox_core.strategies.rsi_reversal:RsiReversal",
}
"""The strategies that come with VELOX: name to `class_path`."""
