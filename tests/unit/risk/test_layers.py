from __future__ import annotations

import pytest

from tests.fakes.rig import DAY, NOW_MS, make_limits
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.orders import Side
from velox_core.risk.gate import judge_entry
from velox_core.risk.layers import LAYERS, EntryRequest, ReasonCode, Refusal, count_positions
from velox_core.risk.ledger import Claim, OpenPosition, RiskSnapshot

HALT = HaltRecord(halt_id="h", kind=HaltKind.MANUAL, trading_date=DAY, reason="r", by="b", at_ms=0)


def request(
    symbol: str = "AAA",
    *,
    strategy: str = "alpha",
    side: Side = Side.BUY,
    worst: int = 10_100,
    loss: int = 0,
    cost: int = 0,
    now_ms: int = NOW_MS,
    quantity: int = 1,
) -> EntryRequest:
    return EntryRequest(strategy, symbol, side, quantity, worst, now_ms, loss, cost)


def claim(symbol: str = "AAA", strategy: str = "alpha", side: Side = Side.BUY, *, number: int = 1) -> Claim:
    return Claim(f"I{number}", strategy, symbol, side, 1, 10_000, 0)


def position(symbol: str = "AAA", strategy: str = "alpha") -> OpenPosition:
    return OpenPosition(symbol, strategy, 1, 10_000, 0)


def snapshot(*held: OpenPosition | Claim, halts: tuple[HaltRecord, ...] = (), **changes: object) -> RiskSnapshot:
    positions = {item.symbol: item for item in held if isinstance(item, OpenPosition)}
    claims = {item.intent_id: item for item in held if isinstance(item, Claim)}
    return RiskSnapshot(positions=positions, claims=claims, halts=halts, **changes)  # type: ignore[arg-type]


def code_of(refusal: Refusal | None) -> tuple[int, ReasonCode] | None:
    return None if refusal is None else (refusal.layer, refusal.code)


def test_judge_entry_with_nothing_open_approves() -> None:
    assert judge_entry(request(), snapshot(), make_limits()) is None


def test_layer_1_with_a_halt_refuses_before_all_others() -> None:
    refusal = judge_entry(request(loss=10**9, worst=10**9), snapshot(position(), claim(), halts=(HALT,)), make_limits())
    assert code_of(refusal) == (1, ReasonCode.EMERGENCY_EXIT_ACTIVE)
    assert refusal is not None
    assert refusal.text == "Emergency exit active, trading disabled"


@pytest.mark.parametrize(("age_ms", "refused"), [(0, True), (4_999, True), (5_000, False), (5_001, False), (-1, True)], ids=str)
def test_layer_2_by_age_of_the_last_entry(age_ms: int, refused: bool) -> None:
    last = {("alpha", "AAA", Side.BUY): NOW_MS - age_ms}
    refusal = judge_entry(request(), snapshot(last_entry_ms=last), make_limits(dedup_window_ms=5_000))
    assert code_of(refusal) == ((2, ReasonCode.DUPLICATE_ORDER) if refused else None)


@pytest.mark.parametrize("key", [("beta", "AAA", Side.BUY), ("alpha", "BBB", Side.BUY), ("alpha", "AAA", Side.SELL)], ids=str)
def test_layer_2_window_of_another_strategy_symbol_or_side_does_not_refuse(key: tuple[str, str, Side]) -> None:
    assert judge_entry(request(), snapshot(last_entry_ms={key: NOW_MS}), make_limits()) is None


def test_layer_2_claim_refuses_however_old_it_is() -> None:
    refusal = judge_entry(request(now_ms=NOW_MS + 10**9), snapshot(claim()), make_limits())
    assert code_of(refusal) == (2, ReasonCode.DUPLICATE_ORDER)


@pytest.mark.parametrize(
    "held",
    [position(), position(strategy="beta"), position(strategy=""), claim(strategy="beta"), claim(side=Side.SELL)],
    ids=["own", "of another strategy", "by hand", "claim of another strategy", "claim of the other side"],
)
def test_layer_3_anything_held_or_coming_in_the_symbol_refuses(held: OpenPosition | Claim) -> None:
    refusal = judge_entry(request(), snapshot(held), make_limits())
    assert code_of(refusal) == (3, ReasonCode.POSITION_EXISTS)


def test_layer_3_another_symbol_does_not_refuse() -> None:
    assert judge_entry(request(), snapshot(position("BBB"), claim("CCC")), make_limits()) is None


@pytest.mark.parametrize(("limit", "refused"), [(30_301, False), (30_300, False), (30_299, True)])
def test_layer_4_by_notional_at_the_worst_price(limit: int, refused: bool) -> None:
    refusal = judge_entry(request(worst=10_100, quantity=3), snapshot(), make_limits(max_position_size_paise=limit))
    assert code_of(refusal) == ((4, ReasonCode.POSITION_SIZE) if refused else None)
    assert not refused or (refusal is not None and "303.00" in refusal.text and "302.99" in refusal.text)


@pytest.mark.parametrize(("limit", "refused"), [(4, False), (3, True), (2, True)])
def test_layer_5_counts_positions_and_claims_of_the_strategy(limit: int, refused: bool) -> None:
    held = (position("BBB"), claim("CCC"), position("DDD"), position("EEE", "beta"))
    limits = make_limits(max_positions_per_strategy=limit, max_total_positions=10)
    refusal = judge_entry(request(), snapshot(*held), limits)
    assert code_of(refusal) == ((5, ReasonCode.STRATEGY_POSITIONS) if refused else None)


def test_layer_5_of_another_strategy_at_its_limit_does_not_refuse() -> None:
    held = (position("BBB", "beta"), position("CCC", "beta"), position("DDD", "beta"))
    assert judge_entry(request(), snapshot(*held), make_limits(max_positions_per_strategy=3)) is None


@pytest.mark.parametrize(("limit", "refused"), [(5, False), (4, True), (3, True)])
def test_layer_6_counts_the_whole_account(limit: int, refused: bool) -> None:
    held = (position("BBB", "beta"), claim("CCC", "gamma"), position("DDD", ""), position("EEE", "delta"))
    refusal = judge_entry(request(), snapshot(*held), make_limits(max_total_positions=limit))
    assert code_of(refusal) == ((6, ReasonCode.TOTAL_POSITIONS) if refused else None)


@pytest.mark.parametrize("layer_limit", ["max_positions_per_strategy", "max_total_positions"])
def test_partly_filled_entry_counts_once(layer_limit: str) -> None:
    held = (position("BBB"), claim("BBB"), position("CCC"), claim("CCC", number=2))
    assert count_positions(snapshot(*held), "alpha") == 2
    assert judge_entry(request(), snapshot(*held), make_limits(**{layer_limit: 3})) is None
    assert judge_entry(request(), snapshot(*held), make_limits(**{layer_limit: 2})) is not None


@pytest.mark.parametrize(
    ("loss", "cost", "refused"),
    [
        (199_899, 100, False),
        (199_900, 100, True),
        (199_901, 100, True),
        (200_000, 0, True),
        (-1_000, 200_999, False),
        (0, 200_000, True),
    ],
)
def test_layer_7_refuses_when_loss_and_costs_reach_the_limit(loss: int, cost: int, refused: bool) -> None:
    refusal = judge_entry(request(loss=loss, cost=cost), snapshot(), make_limits(max_daily_loss_paise=200_000))
    assert code_of(refusal) == ((7, ReasonCode.DAILY_LOSS) if refused else None)


def test_layers_judge_in_the_order_of_the_guide() -> None:
    """Take away one reason after the other; the next layer answers."""
    limits = make_limits(max_position_size_paise=1, max_positions_per_strategy=1, max_total_positions=1)
    last = {("alpha", "AAA", Side.BUY): NOW_MS}
    held = (position("AAA"), position("BBB"))
    bad = request(loss=10**9)
    codes = [code_of(judge_entry(bad, snapshot(*held, halts=(HALT,), last_entry_ms=last), limits))]
    codes.append(code_of(judge_entry(bad, snapshot(*held, last_entry_ms=last), limits)))
    codes.append(code_of(judge_entry(bad, snapshot(*held), limits)))
    codes.append(code_of(judge_entry(bad, snapshot(position("BBB")), limits)))
    limits = make_limits(max_positions_per_strategy=1, max_total_positions=1)
    codes.append(code_of(judge_entry(bad, snapshot(position("BBB")), limits)))
    limits = make_limits(max_total_positions=1)
    codes.append(code_of(judge_entry(bad, snapshot(position("BBB")), limits)))
    codes.append(code_of(judge_entry(bad, snapshot(), make_limits())))
    assert [code and code[0] for code in codes] == [1, 2, 3, 4, 5, 6, 7]
    assert len(LAYERS) == 7


@pytest.mark.parametrize(
    ("held", "asked", "changes", "text"),
    [
        ((claim(),), request(), {}, "Duplicate order prevented"),
        ((position(),), request(), {}, "Position already exists"),
        ((claim(strategy="beta"),), request(), {}, "Position already exists"),
        ((), request(), {"max_position_size_paise": 5_000}, "Position size 101.00 above the limit 50.00"),
        ((position("BBB"),), request(), {"max_positions_per_strategy": 1}, "Strategy has 1 positions, the limit is 1"),
        ((position("BBB", ""),), request(), {"max_total_positions": 1}, "Account has 1 positions, the limit is 1"),
        (
            (),
            request(loss=199_000, cost=1_000),
            {},
            "Daily loss 1990.00 with this entry's costs 10.00 reaches the limit 2000.00",
        ),
    ],
)
def test_layers_say_what_is_wrong_with_the_numbers(
    held: tuple[OpenPosition | Claim, ...], asked: EntryRequest, changes: dict[str, int], text: str
) -> None:
    refusal = judge_entry(asked, snapshot(*held), make_limits(**changes))
    assert refusal is not None
    assert refusal.text == text


def test_count_goes_on_past_a_partly_filled_entry() -> None:
    held = (position("BBB"), claim("BBB"), claim("CCC", number=2), claim("DDD", number=3))
    assert count_positions(snapshot(*held), "alpha") == 3
    assert count_positions(snapshot(*held), None) == 3


def test_claim_in_a_symbol_that_another_strategy_holds_counts_for_its_own_and_once_for_the_account() -> None:
    state = snapshot(position("BBB", "beta"), claim("BBB"))
    assert (count_positions(state, "alpha"), count_positions(state, "beta"), count_positions(state, None)) == (1, 1, 1)
