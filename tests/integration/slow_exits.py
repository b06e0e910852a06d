"""A strategy that holds, in an engine whose broker is slow: it takes up one exit after another, each for some seconds.

The broker is made slow in the engine's process alone: who else loads the strategy, a checklist or a test, keeps the fast one.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

from tests.integration.holding_strategy import BuyAndHold
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Signal
from velox_core.ports import SendOutcome
from velox_core.risk.approval import ApprovedOrder

EXIT_SECONDS = 2.8
ENTRIES_A_MINUTE = 7  # eight a second are allowed
_one_at_a_time = threading.Lock()
_fast_place = SimulatedBroker.place


def _slow_place(self: SimulatedBroker, order: ApprovedOrder, now_ms: int) -> SendOutcome:
    if order.rank is not None:
        with _one_at_a_time:
            time.sleep(EXIT_SECONDS)
    return _fast_place(self, order, now_ms)


if sys.argv[1:2] == ["run"]:
    SimulatedBroker.place = _slow_place  # type: ignore[method-assign]


class HoldAtASlowBroker(BuyAndHold):
    """Buys one share of every symbol, a few each minute, and holds them."""

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        signals = super().on_minute(ts_ms, row, positions)
        self.entered -= {self.session.universe.index(late.symbol) for late in signals[ENTRIES_A_MINUTE:]}
        return signals[:ENTRIES_A_MINUTE]
