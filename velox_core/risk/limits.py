"""The limits of one account, as configured: one frozen value, read once."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskLimits:
    """The safety guide's limits, in paise, shares and milliseconds.

    Attributes:
        max_daily_loss_paise: absolute daily loss limit.
        max_daily_loss_bps: limit as a share of the initial capital, in hundredths of a percent (2.0 % = 200).
        initial_capital_paise: the capital the percentage refers to.
        fixed_lot_size: shares of every entry, whatever the strategy asked.
        dedup_window_ms: a second entry of the same strategy, symbol and side within it is a duplicate.
        max_position_size_paise: quantity x worst protected price of one position.
        max_positions_per_strategy, max_total_positions: open plus pending.
        protection_bps: how far from the price a MARKET order may trade (the broker's market protection).
        entry_price_age_ms_max: an entry needs a price no older than this.
        mark_age_ms_max: an entry needs market data no older than this: the age of the feed, not of a symbol's last trade.
            A held symbol that the feed does not price at all refuses entries whatever its age.
        band_margin_bps: an entry nearer than this to a price band is refused.
        orders_per_second_max: entries sent in any one second of engine time.
        loss_limit_paise: min(absolute, percent of capital), whichever comes first; rounded down, so never above either.
    """

    max_daily_loss_paise: int
    max_daily_loss_bps: int
    initial_capital_paise: int
    fixed_lot_size: int
    dedup_window_ms: int
    max_position_size_paise: int
    max_positions_per_strategy: int
    max_total_positions: int
    protection_bps: int = 100
    entry_price_age_ms_max: int = 90_000
    mark_age_ms_max: int = 90_000
    band_margin_bps: int = 50
    orders_per_second_max: int = 8
    loss_limit_paise: int = field(init=False)

    def __post_init__(self) -> None:
        """Work out the loss limit once: every minute and every entry reads it."""
        limit_paise = min(self.max_daily_loss_paise, self.initial_capital_paise * self.max_daily_loss_bps // 10_000)
        object.__setattr__(self, "loss_limit_paise", limit_paise)
