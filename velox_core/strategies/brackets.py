"""Stop and target prices around an entry: on the tick, on their sides, at least one tick away. Pure, paise."""

from __future__ import annotations

from velox_core.domain.orders import Side


def bracket_prices(side: Side, close_paise: int, tick_paise: int, stop_bps: int, target_bps: int) -> tuple[int, int]:
    """Return stop and target in paise, 0 for none: on the tick, at least one tick away, on their sides of the close.

    The stop rounds towards the entry, the target away from it. A stop or target that would not be a positive price (a
    short's target below one tick) is left out.

    Args:
        side: of the entry.
        close_paise: the price that the distances are taken from.
        tick_paise: tick size of the symbol.
        stop_bps, target_bps: distances, basis points of the close; 0 for none.
    """
    away = side.sign
    stop_paise = target_paise = 0
    if stop_bps:
        distance = close_paise * stop_bps // 10_000
        stop_paise = on_tick(close_paise - away * distance, tick_paise, up=away > 0)
        if (close_paise - stop_paise) * away < tick_paise:
            stop_paise = on_tick(close_paise - away * tick_paise, tick_paise, up=away < 0)
    if target_bps:
        distance = close_paise * target_bps // 10_000
        target_paise = on_tick(close_paise + away * max(distance, tick_paise), tick_paise, up=away > 0)
    return max(stop_paise, 0), max(target_paise, 0)


def on_tick(price_paise: int, tick_paise: int, *, up: bool) -> int:
    """Return the price rounded to the tick, up or down."""
    return -(-price_paise // tick_paise) * tick_paise if up else price_paise // tick_paise * tick_paise
