"""Exits that earlier processes of the account sent and of which no end is on record: a new closer must not send them again.

- What is on record is asked once for each time that somebody else may have closed (`Closer`): files, then the journal.
- A tag that was ever seen in the broker's book is no longer lost: what it traded is booked, what is left of it is cancelled.
- One lost exit keeps its symbol's exits back for the search time after the latest moment at which it can have left, since
  nobody here sees whether its request still travels; one that its own process gave up was waited for there. After that it
  counts as replaced, and no further one is.
- Two lost exits of a symbol keep everything back there for good: either may still trade, and a third could reverse.
- Entries keep nothing back. Nothing is called flat before either kind can no longer appear.
- A record that cannot be read keeps nothing back either, it is told: exits are never refused for a store.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Final

from velox_core.domain.events import Body, EventKind
from velox_core.domain.orders import TERMINAL_STATES, Order, OrderState, Side
from velox_core.reconciliation.books import order_from, was_given_up

SEARCH_MS_MAX: Final = 120_000  # engine time: so long a tag without a trace in the book may still appear
# An order bears the time of the step that sent it, and leaves later where that step is slow: a process without a sign of life
# for 15 s is ended, and its last request takes 10 s at most.
LEAVES_LATE_MS_MAX: Final = 30_000
LOST_MAX: Final = 2  # of one symbol; from then on nothing more is sent there

RecordedEvent = tuple[EventKind, int, Body]


@dataclass(frozen=True, slots=True, kw_only=True)
class LostOrder:
    """An order of an earlier process without an end on record. Shares; engine time in epoch ms.

    `given_up`: its own process looked for it and took it for not placed.
    """

    client_order_id: str
    symbol: str
    side: Side
    quantity: int
    created_ms: int
    is_exit: bool
    given_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What is on record of earlier processes: lost orders, every client order id, and why something could not be read."""

    orders: tuple[LostOrder, ...] = ()
    ids: frozenset[str] = frozenset()
    missing: str = ""


def recalled(sources: Iterable[Iterable[RecordedEvent]], missing: str = "", of_date: str = "") -> Recalled:
    """Return what several records of one account say together: an end that one of them knows is an end.

    `of_date` is the trading date with which the ids of the orders that count begin, 'yymmdd'; '' counts all.
    Raises: KeyError, ValueError for a damaged event.
    """
    orders: dict[str, Order] = {}
    ended: set[str] = set()
    given_up: set[str] = set()
    for source in sources:
        for kind, ts_ms, body in source:
            if kind is EventKind.INTENT:
                order = order_from(body, ts_ms)
                orders.setdefault(order.client_order_id, order)
            elif kind is EventKind.ORDER and OrderState(str(body["state"])) in TERMINAL_STATES:
                (given_up if was_given_up(body) else ended).add(str(body["client_order_id"]))
    orders = {order_id: order for order_id, order in orders.items() if order_id.startswith(of_date)}
    lost = [order for order_id, order in orders.items() if order_id not in ended]
    return Recalled(
        orders=tuple(
            LostOrder(
                client_order_id=order.client_order_id,
                symbol=order.symbol,
                side=order.side,
                quantity=order.quantity,
                created_ms=order.created_ms,
                is_exit=order.rank is not None,
                given_up=order.client_order_id in given_up,
            )
            for order in lost
        ),
        ids=frozenset(orders),
        missing=missing,
    )


class LostExits:
    """The lost orders of an account, as one closer knows them.

    Args:
        recall: reads what is on record; never raises and is bounded. None where no other process can have sent anything.

    Attributes:
        missing: why some of the record could not be read, '' when all of it was.
    """

    def __init__(self, recall: Callable[[], Recalled] | None = None) -> None:
        self.missing = ""
        self._recall = recall
        self._is_due = recall is not None
        self._has_appeared = False
        self._seen: set[str] = set()
        self._lost: dict[str, LostOrder] = {}
        self._until_ms: dict[str, int] = {}  # engine time until which a lost order may appear

    def recall_again(self) -> None:
        """Have the record read before the next exit: another process may have sent something."""
        self._is_due = self._recall is not None

    def recall(self, own: Container[str], now_ms: int) -> frozenset[str]:
        """Read the record if that is due. `own` are orders of this process. Returns the ids on record, when it was read."""
        if self._recall is None or not self._is_due:
            return frozenset()
        self._is_due = False
        found = self._recall()
        self.missing = found.missing
        before = self._lost if found.missing else {}  # a whole record knows what has ended since
        self._lost = {**before, **{o.client_order_id: o for o in found.orders}}
        for tag in [tag for tag in self._lost if tag in own or tag in self._seen]:
            del self._lost[tag]
        for tag, order in self._lost.items():
            self._until_ms.setdefault(tag, min(order.created_ms, now_ms) + LEAVES_LATE_MS_MAX + SEARCH_MS_MAX)
        return found.ids

    def note_book(self, tags: Iterable[str]) -> None:
        """Take it that these tags are in the broker's book: they are lost no longer."""
        if self._recall is not None:
            self._seen.update(tags)
            for tag in self._lost.keys() & self._seen:
                del self._lost[tag]
                self._has_appeared = True

    def take_appeared(self) -> bool:
        """Return whether a lost order appeared since the last call: it may work, or have traded a moment ago."""
        appeared, self._has_appeared = self._has_appeared, False
        return appeared

    def of(self, symbol: str) -> list[LostOrder]:
        """Return the lost exits of a symbol, oldest first."""
        if not self._lost:
            return []
        found = [order for order in self._lost.values() if order.symbol == symbol and order.is_exit]
        return sorted(found, key=lambda order: (order.created_ms, order.client_order_id))

    def is_final(self, symbol: str) -> bool:
        """Return whether nothing more may be sent in a symbol."""
        return len(self.of(symbol)) >= LOST_MAX

    def holds_back(self, symbol: str, now_ms: int) -> bool:
        """Return whether no exit may leave in a symbol now."""
        lost = self.of(symbol)
        return len(lost) >= LOST_MAX or any(
            not order.given_up and now_ms < self._until_ms[order.client_order_id] for order in lost
        )

    def text(self, symbol: str) -> str:
        """Return what is lost in a symbol, for people; '' when nothing is."""
        return ", ".join(f"{o.client_order_id} ({o.side.value} {o.quantity})" for o in self.of(symbol))

    @property
    def no_proof_before_ms(self) -> int:
        """Return the engine time before which a lost order, entries included, may still appear; 0 when none is."""
        return max((self._until_ms[tag] for tag in self._lost), default=0)
