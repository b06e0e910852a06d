"""Sizing: the fixed lot is the quantity of every entry, whatever the strategy calculated."""

from __future__ import annotations

from velox_core.risk.limits import RiskLimits


def entry_quantity(limits: RiskLimits) -> int:
    """Return the shares of an entry: the fixed lot. The strategy's own quantity never reaches the market."""
    return limits.fixed_lot_size


def worst_price_paise(price_paise: int, protection_bps: int) -> int:
    """Return the price a protected MARKET order may at worst trade at, rounded up, for either side.

    A short is valued at the same upper bound: it may fill above the price at which it was decided.
    """
    return price_paise - (-price_paise * protection_bps // 10_000)
