from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from tests.fakes.rig import Rig
from velox_core.domain.errors import InvariantError
from velox_core.domain.orders import ExitRank, OrderType, Product, Side
from velox_core.risk.approval import ApprovedOrder, approve


@pytest.fixture
def approved() -> ApprovedOrder:
    answer = Rig().ask()
    assert isinstance(answer, ApprovedOrder)
    return answer


@pytest.mark.parametrize("seal", [None, object(), "seal", True])
def test_approved_order_without_the_seal_is_not_built(seal: object) -> None:
    with pytest.raises(InvariantError, match="risk manager only"):
        ApprovedOrder(seal, "ID", "AAA", Side.BUY, 1, OrderType.MARKET, 0, Product.MIS, None, 100)


def test_approved_order_holds_what_was_approved_field_by_field() -> None:
    order = approve(
        client_order_id="ID",
        symbol="AAA",
        side=Side.SELL,
        quantity=7,
        order_type=OrderType.LIMIT,
        limit_price_paise=9_900,
        product=Product.CNC,
        rank=ExitRank.STOP,
        protection_bps=100,
    )
    assert {slot: getattr(order, slot) for slot in ApprovedOrder.__slots__} == {
        "client_order_id": "ID",
        "symbol": "AAA",
        "side": Side.SELL,
        "quantity": 7,
        "order_type": OrderType.LIMIT,
        "limit_price_paise": 9_900,
        "product": Product.CNC,
        "rank": ExitRank.STOP,
        "protection_bps": 100,
    }


@pytest.mark.parametrize("name", ["quantity", "symbol", "side", "rank", "limit_price_paise", "anything"])
def test_approved_order_when_set_refuses_and_keeps_its_values(approved: ApprovedOrder, name: str) -> None:
    before = {slot: getattr(approved, slot) for slot in ApprovedOrder.__slots__}
    with pytest.raises(InvariantError, match="does not change"):
        setattr(approved, name, 1_000)
    assert {slot: getattr(approved, slot) for slot in ApprovedOrder.__slots__} == before


def test_approved_order_when_deleted_from_refuses(approved: ApprovedOrder) -> None:
    with pytest.raises(InvariantError, match="does not change"):
        del approved.quantity
    assert approved.quantity == 1


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_approved_order_when_copied_or_pickled_refuses(approved: ApprovedOrder, take: object) -> None:
    with pytest.raises(InvariantError, match="not copied or stored"):
        take(approved)  # type: ignore[operator]


def test_approved_order_is_no_dataclass_to_replace_fields_of(approved: ApprovedOrder) -> None:
    with pytest.raises(TypeError):
        dataclasses.replace(approved, quantity=10)  # type: ignore[type-var]


def test_approved_order_has_no_subclass_that_goes_round_the_seal() -> None:
    with pytest.raises(InvariantError, match="no subclass"):
        type("Forged", (ApprovedOrder,), {"__init__": lambda self: None})


def test_approved_order_has_no_room_for_other_attributes(approved: ApprovedOrder) -> None:
    assert not hasattr(approved, "__dict__")
