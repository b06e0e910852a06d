"""Ends of our own orders that the broker's order book shows while its trades cannot be read and no news of them came.

- What a line says of no share that is not booked needs no trades: it is taken at once.
- What it says of more shares is booked only where the positions say the same of the whole symbol, at its last mark.
- The trades themselves, when they can be read at last, are those shares: they are not booked a second time, restarts included.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from velox_core.domain.orders import TERMINAL_STATES
from velox_core.domain.positions import ADOPTED_TRADE
from velox_core.order_manager import OrderManager
from velox_core.ports import BrokerFill, BrokerOrder

_log: Final = logging.getLogger("velox.orders")


def take_what_needs_no_trades(orders: OrderManager, book: Iterable[BrokerOrder], now_ms: int) -> None:
    """Bring our live orders up to a book, but for those that ended with shares that are not booked."""
    orders.apply_book(
        [
            line
            for line in book
            if line.tag in orders.live
            and (line.state not in TERMINAL_STATES or line.filled_quantity <= orders.live[line.tag].filled_quantity)
        ],
        now_ms,
    )


def unheard_ends(orders: OrderManager, book: Iterable[BrokerOrder], symbol: str, difference: int) -> list[BrokerOrder]:
    """Return the lines of the symbol's live orders, if all of them ended and traded just what the positions differ by.

    Args:
        orders: whose orders.
        book: read without the trades.
        symbol: whose.
        difference: signed shares that the positions have more than our books.
    """
    live = {tag: order for tag, order in orders.live.items() if order.symbol == symbol}
    lines = [line for line in book if line.tag in live and line.state in TERMINAL_STATES]
    shares = sum(line.side.sign * (line.filled_quantity - live[line.tag].filled_quantity) for line in lines)
    return lines if difference and len(lines) == len(live) and shares == difference else []


def book_unheard(orders: OrderManager, lines: Iterable[BrokerOrder], price_paise: int, now_ms: int) -> None:
    """Book what ended orders traded, at a price that is not theirs: the newest that is known."""
    for line in lines:
        shares = line.filled_quantity - orders.live[line.tag].filled_quantity
        _log.warning(
            "[ORDER] %s %s: its trades cannot be read; order book and positions show %s shares of it", line.tag,
            line.state.value, shares, extra={"engine_ms": now_ms},
        )  # fmt: skip
        if shares > 0:
            orders.apply_fill(
                BrokerFill(
                    now_ms,
                    f"{ADOPTED_TRADE}{line.tag}",
                    line.tag,
                    line.broker_order_id,
                    line.symbol,
                    line.side,
                    shares,
                    price_paise,
                    line.product,
                ),
                now_ms,
            )
        orders.apply_book([line], now_ms)
