"""Cancelling what works at the broker and is not ours: it could open, or close a second time, what is being closed.

- Needs the order book alone: trades that cannot be read keep no order working.
- Ours are the live orders of this process; whoever calls this has the closer's lock, so no other closer's exit is taken away.
- Symbols that are left alone keep their orders too: a person's stop protects a person's position.
"""

from __future__ import annotations

import logging

from velox_core.domain.orders import TERMINAL_STATES
from velox_core.order_manager import OrderManager

_log = logging.getLogger("velox.orders")


def cancel_foreign(orders: OrderManager, now_ms: int, symbol: str = "", *, left_alone: frozenset[str] = frozenset()) -> None:
    """Cancel the day's working orders that are no live ones of ours, as far as the broker answers.

    Args:
        orders: knows ours, and sends.
        now_ms: engine time.
        symbol: only in this one; '' for all.
        left_alone: symbols in which nothing is cancelled.
    """
    for line in orders.read_orders(now_ms) or ():
        if line.state in TERMINAL_STATES or line.product is not orders.product or line.tag in orders.live:
            continue
        if line.symbol in left_alone or line.symbol != (symbol or line.symbol):
            continue
        outcome = orders.send_cancel(line.broker_order_id, now_ms)
        _log.warning(
            "[ORDER] cancel of %s order %s, which is not ours: %s", line.symbol, line.broker_order_id,
            outcome.status.value, extra={"engine_ms": now_ms},
        )  # fmt: skip
