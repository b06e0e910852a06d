"""Each symbol of a flattening on its way to zero, in words: what is held, what works, and what stands in the way.

- Reads what the parts of a flattening know; decides and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from velox_core.adoption import Adoption
from velox_core.closer import Closer
from velox_core.domain.market.ticks import Instrument
from velox_core.domain.money import rupees_text
from velox_core.domain.orders import Order, OrderState, OrderType
from velox_core.exit_door import ExitDoor
from velox_core.flat_proof import SymbolLine, SymbolOutcome
from velox_core.order_manager import OrderManager


class FlattenLines:
    """The lines of one flattening, made anew at each call.

    Args:
        orders, adoption, door, closer: the parts of the flattening.
        instruments: price bands by symbol, as far as they are known.
    """

    def __init__(
        self,
        *,
        orders: OrderManager,
        adoption: Adoption,
        door: ExitDoor,
        closer: Closer,
        instruments: Mapping[str, Instrument],
    ) -> None:
        self._orders = orders
        self._adoption = adoption
        self._door = door
        self._closer = closer
        self._instruments = instruments

    def lines(self, before: Mapping[str, int], now_ms: int) -> list[SymbolLine]:
        """Return a line for each symbol that was held (`before`: signed shares), works, was converted or is left alone."""
        adoption = self._adoption
        live = [order.symbol for order in self._orders.live.values()]
        symbols = dict.fromkeys((*before, *live, *adoption.converted, *adoption.kept))
        return [self._line(symbol, before.get(symbol, 0), now_ms) for symbol in symbols]

    def _line(self, symbol: str, held_before: int, now_ms: int) -> SymbolLine:
        position = self._orders.positions.get(symbol)
        held = 0 if position is None else position.quantity
        outcome, text = self._outcome(symbol, held, now_ms)
        return SymbolLine(symbol=symbol, held_before=held_before, held=held, outcome=outcome, text=text)

    def _outcome(self, symbol: str, held: int, now_ms: int) -> tuple[SymbolOutcome, str]:
        adoption, orders = self._adoption, self._orders
        live = [order for order in orders.live.values() if order.symbol == symbol]
        unknown = next((order for order in live if order.state is OrderState.UNKNOWN), None)
        if symbol in adoption.kept:
            return SymbolOutcome.KEPT, self._kept(symbol)
        if unknown is not None:
            return SymbolOutcome.UNKNOWN, f"{held} held; what became of order {unknown.client_order_id} is not known"
        if symbol in adoption.converted:
            return (
                SymbolOutcome.CONVERTED,
                f"{adoption.converted[symbol]} stand in another product: close them in the broker's app",
            )
        queued = next((order for order in live if self._is_at_band(order)), None)
        if queued is not None:
            price = rupees_text(queued.limit_price_paise)
            return (
                SymbolOutcome.CIRCUIT_LOCKED,
                f"{held} held; {queued.side.value} {queued.quantity} queued at the band {price}",
            )
        if live:
            working = ", ".join(f"{o.side.value} {o.open_quantity} {o.order_type.value} ({o.client_order_id})" for o in live)
            return SymbolOutcome.OPEN, f"{held} held; {working} sent"
        return self._outcome_without_ours(symbol, held, now_ms)

    def _outcome_without_ours(self, symbol: str, held: int, now_ms: int) -> tuple[SymbolOutcome, str]:
        """Return the outcome of a symbol in which no order of this process works."""
        goal, lost = self._door.goals.get(symbol), self._closer.lost
        if held and lost.holds_back(symbol, now_ms):
            then = "it is waited for, then sent once more"
            if lost.is_final(symbol):
                then = "nothing more is sent, close it in the broker's app"
            return (
                SymbolOutcome.UNKNOWN,
                f"{held} held; what became of {lost.text(symbol)} of an earlier process is not known: {then}",
            )
        if held and goal is not None and (goal.rejections or _is_rejected(goal.last_order)):
            return SymbolOutcome.REJECTED, f"{held} held; {goal.attempts} exits tried, the broker rejects them"
        newest = self._adoption.newest
        foreign = [o for o in (newest.working if newest else ()) if o.symbol == symbol and o.tag not in self._orders.live]
        if foreign:
            return SymbolOutcome.OPEN, f"{held} held; order {foreign[0].broker_order_id} is not cancelled yet"
        if held:
            return SymbolOutcome.OPEN, f"{held} held"
        return SymbolOutcome.FLAT, "flat"

    def _kept(self, symbol: str) -> str:
        beside = self._adoption.working_beside(symbol)
        works = f"; {', '.join(beside)} beside it {'works' if len(beside) == 1 else 'work'} on" if beside else ""
        return f"{self._adoption.kept[symbol]} held, left alone as configured{works}"

    def _is_at_band(self, order: Order) -> bool:
        instrument = self._instruments.get(order.symbol)
        if instrument is None or order.order_type is not OrderType.LIMIT:
            return False
        return order.limit_price_paise in (instrument.lower_band_paise, instrument.upper_band_paise)


def _is_rejected(order: Order | None) -> bool:
    return order is not None and order.state is OrderState.REJECTED
