"""Whether an engine that closes everything gets anywhere: what it publishes of it, and the judgement of who watches.

- An engine may acknowledge a halt, beat on, and close nothing: its closing is broken, or its session at the broker is dead.
  A heartbeat does not show that, so a watcher goes by what the broker's book does, and by the engine's own counts.
- Progress is: less is held than a look before; a closing order is new; one traded further; one that worked is gone; or the
  broker acknowledged a further exit of the engine. An exit that was only tried is none: a dead session tries for ever.
- Waiting in a queue is progress too (a symbol at its price band, a slow partial fill): while a closing order works in every
  symbol that is held, and the engine goes on reading the broker's book.
- Only what the watcher sees counts against the engine. While it cannot read the book itself it could do nothing better, and
  a pause of its own is not the engine's: a gap between two looks counts for a moment at most.
- No clock and no I/O in here. The engine's side costs an addition per exit and a short walk per status.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from velox_core.domain.orders import Order
from velox_core.ports import BrokerOrder, BrokerPosition

STALLED_SECONDS_MAX: Final = 30.0  # above the replacement of a lost exit: 5 s unanswered, 15 s until it may leave anew
LOOK_GAP_SECONDS_MAX: Final = 5.0  # a longer gap between two looks counts as this
UNANSWERED_MAX: Final = 1_000  # exits whose acknowledgement is looked for
PROGRESS_KEY: Final = "closing_progress"  # of a status


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProgress:
    """What an engine says of its closing: exits that the broker acknowledged, and its own reads of the broker's book."""

    acknowledged: int = 0
    looks: int = 0


NO_PROGRESS: Final = EngineProgress()


class ExitTally:
    """What an engine did about its exits, for its status. Times are engine time, epoch ms; 0 for never."""

    __slots__ = ("_newest", "_unanswered", "acknowledged", "exits", "last_acknowledged_ms", "last_exit_ms", "looks")

    def __init__(self) -> None:
        self.exits = self.acknowledged = self.looks = 0
        self.last_exit_ms = self.last_acknowledged_ms = 0
        self._unanswered: deque[Order] = deque(maxlen=UNANSWERED_MAX)
        self._newest: object = None

    def sent(self, order: Order, now_ms: int) -> None:
        """Count an exit that was tried."""
        self.exits += 1
        self.last_exit_ms = now_ms
        self._unanswered.append(order)

    def to_status(self, newest_look: object, now_ms: int) -> dict[str, int]:
        """Return the counts as JSON values. `newest_look`: what the last read of the book gave, None when it failed."""
        if newest_look is not None and newest_look is not self._newest:
            self._newest = newest_look
            self.looks += 1
        waiting = [order for order in self._unanswered if not order.broker_order_id]
        answered = len(self._unanswered) - len(waiting)
        if answered:
            self.acknowledged += answered
            self.last_acknowledged_ms = now_ms
        self._unanswered = deque((order for order in waiting if order.is_live), maxlen=UNANSWERED_MAX)
        return {
            "exits": self.exits,
            "last_exit_ms": self.last_exit_ms,
            "acknowledged": self.acknowledged,
            "last_acknowledged_ms": self.last_acknowledged_ms,
            "looks": self.looks,
        }


def read_progress(status: Mapping[str, object]) -> EngineProgress:
    """Return what a published status says; what is missing or of another kind counts as 0."""
    body = status.get(PROGRESS_KEY)
    counts = {key: body.get(key) if isinstance(body, Mapping) else 0 for key in ("acknowledged", "looks")}
    return EngineProgress(**{key: value if isinstance(value, int) else 0 for key, value in counts.items()})


class ProgressWatch:
    """The judgement over one engine that closes, look by look. `stalled_seconds` is how long nothing went on."""

    def __init__(self) -> None:
        self.stalled_seconds = 0.0
        self._seen = -1.0  # monotonic seconds of the look before
        self._held: dict[str, int] = {}
        self._filled: dict[str, int] = {}  # of working orders, by the broker's id
        self._word = NO_PROGRESS

    @property
    def is_stalled(self) -> bool:
        """Return whether nothing went on for the bound."""
        return self.stalled_seconds >= STALLED_SECONDS_MAX

    def see(
        self, now: float, positions: Iterable[BrokerPosition], working: Iterable[BrokerOrder], word: EngineProgress
    ) -> None:
        """Take one look at the broker's book, and the engine's newest word.

        Args:
            now: the watcher's own monotonic seconds.
            positions, working: what is to be closed, of the day's product.
            word: of the engine's newest status.
        """
        held = {p.symbol: p.quantity for p in positions if p.quantity}
        orders = list(working)
        closing = [o for o in orders if held.get(o.symbol, 0) * o.side.sign < 0]
        filled = {o.broker_order_id: o.filled_quantity for o in orders}
        is_first = self._seen < 0
        gap = 0.0 if is_first else min(max(now - self._seen, 0.0), LOOK_GAP_SECONDS_MAX)
        is_over = not held and not orders
        goes_on = self._went_on(held, closing, filled, word) or self._queues(held, orders, closing, word)
        if is_first or is_over or goes_on:
            self.stalled_seconds, self._word = 0.0, word
        else:
            self.stalled_seconds += gap
        self._seen, self._held, self._filled = now, held, filled

    def _went_on(
        self, held: Mapping[str, int], closing: list[BrokerOrder], filled: Mapping[str, int], word: EngineProgress
    ) -> bool:
        """Return whether anything is nearer to flat than a look before."""
        return (
            sum(map(abs, held.values())) < sum(map(abs, self._held.values()))
            or word.acknowledged != self._word.acknowledged
            or any(order.broker_order_id not in self._filled for order in closing)
            or any(filled.get(broker_order_id, quantity + 1) > quantity for broker_order_id, quantity in self._filled.items())
        )

    def _queues(
        self, held: Mapping[str, int], orders: list[BrokerOrder], closing: list[BrokerOrder], word: EngineProgress
    ) -> bool:
        """Return whether everything that is held waits in a queue, and the engine still hears the broker."""
        queued = {order.symbol for order in closing}
        return word.looks != self._word.looks and len(closing) == len(orders) and queued >= held.keys()
