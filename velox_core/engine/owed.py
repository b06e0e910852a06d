"""The end of a session, where a broker is called off the loop: answers that are still owed are waited for, within a bound.

- With inline sends nothing is ever owed, and nothing waits.
- An order without an answer at the end of the bound is UNKNOWN: it may be in the market, and its tag is looked for.
"""

from __future__ import annotations

import time

from velox_core.domain.orders import OrderState
from velox_core.order_manager import OrderManager

ANSWER_PAUSE_SECONDS = 0.05
ANSWER_PAUSES_MAX = 160  # 8 s: longer than any request may wait to leave and then for its answer, but for a rare exit


def await_answers(orders: OrderManager, now_ms: int) -> None:
    """Wait until every order that was sent is answered; doubt those that are not by then."""
    for _ in range(ANSWER_PAUSES_MAX):
        if not any(order.state is OrderState.SUBMITTING for order in orders.live.values()):
            return
        time.sleep(ANSWER_PAUSE_SECONDS)
        orders.poll(now_ms)
    orders.doubt_submitting(now_ms)
