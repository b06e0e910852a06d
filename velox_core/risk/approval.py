"""The one thing a broker accepts: an `ApprovedOrder`, which only the gate's side of the house can make.

- The class is final, slotted, and its constructor takes a seal that this module owns and does not export.
- Only `velox_core.risk_manager` may call `approve`; the import contracts and an architecture test keep it so.
- After construction nothing on it can be set; it has no subclass and no copy.
"""

from __future__ import annotations

from typing import NoReturn, final

from velox_core.domain.errors import InvariantError
from velox_core.domain.orders import ExitRank, OrderType, Product, Side

_SEAL = object()


@final
class ApprovedOrder:
    """An order that passed the gate, or the exit door. Prices in paise, quantity in shares.

    `rank` is None for an entry. `limit_price_paise` is 0 for MARKET. `protection_bps` bounds a MARKET order.
    """

    __slots__ = (
        "client_order_id",
        "limit_price_paise",
        "order_type",
        "product",
        "protection_bps",
        "quantity",
        "rank",
        "side",
        "symbol",
    )

    client_order_id: str
    symbol: str
    side: Side
    quantity: int
    order_type: OrderType
    limit_price_paise: int
    product: Product
    rank: ExitRank | None
    protection_bps: int

    def __init__(
        self,
        seal: object,
        client_order_id: str,
        symbol: str,
        side: Side,
        quantity: int,
        order_type: OrderType,
        limit_price_paise: int,
        product: Product,
        rank: ExitRank | None,
        protection_bps: int,
    ) -> None:
        if seal is not _SEAL:
            raise InvariantError("an ApprovedOrder comes from the risk manager only")
        put = object.__setattr__
        put(self, "client_order_id", client_order_id)
        put(self, "symbol", symbol)
        put(self, "side", side)
        put(self, "quantity", quantity)
        put(self, "order_type", order_type)
        put(self, "limit_price_paise", limit_price_paise)
        put(self, "product", product)
        put(self, "rank", rank)
        put(self, "protection_bps", protection_bps)

    def __init_subclass__(cls) -> NoReturn:
        raise InvariantError("an ApprovedOrder has no subclass: it would go round the seal")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise InvariantError(f"an ApprovedOrder does not change ({name})")

    def __delattr__(self, name: str) -> NoReturn:
        raise InvariantError(f"an ApprovedOrder does not change ({name})")

    def __reduce__(self) -> NoReturn:
        raise InvariantError("an ApprovedOrder is not copied or stored")


def approve(
    *,
    client_order_id: str,
    symbol: str,
    side: Side,
    quantity: int,
    order_type: OrderType,
    limit_price_paise: int,
    product: Product,
    rank: ExitRank | None,
    protection_bps: int,
) -> ApprovedOrder:
    """Seal an order. For the risk manager alone, after the gate or the exit door said yes."""
    return ApprovedOrder(
        _SEAL, client_order_id, symbol, side, quantity, order_type, limit_price_paise, product, rank, protection_bps
    )
