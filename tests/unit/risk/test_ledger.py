from __future__ import annotations

from tests.fakes.rig import DAY
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.orders import Side
from velox_core.risk.ledger import (
    Claim,
    Committed,
    Conflict,
    Fenced,
    LedgerChange,
    OpenPosition,
    RiskSnapshot,
    apply_change,
    replace_snapshot,
)

HALT = HaltRecord(halt_id="h", kind=HaltKind.LOSS, trading_date=DAY, reason="r", by="b", at_ms=0)


def claim(intent_id: str = "I1", symbol: str = "AAA", created_ms: int = 7) -> Claim:
    return Claim(intent_id, "alpha", symbol, Side.BUY, 1, 10_100, created_ms)


def test_apply_change_empty_raises_only_the_version() -> None:
    before = RiskSnapshot(
        version=4, epoch=2, generation="g", halts=(HALT,), claims={"I1": claim()}, realised_paise=5, charges_paise=6
    )
    after = apply_change(before, LedgerChange())
    assert after.version == 5
    for name in ("epoch", "generation", "halts", "claims", "positions", "last_entry_ms", "realised_paise", "charges_paise"):
        assert getattr(after, name) == getattr(before, name)


def test_apply_change_put_claim_holds_the_slot_and_moves_the_window() -> None:
    before = RiskSnapshot(last_entry_ms={("beta", "BBB", Side.SELL): 3})
    after = apply_change(before, LedgerChange(opens_risk=True, put_claim=claim()))
    assert list(after.claims) == ["I1"]
    assert after.last_entry_ms == {("beta", "BBB", Side.SELL): 3, ("alpha", "AAA", Side.BUY): 7}
    assert (dict(before.claims), dict(before.last_entry_ms)) == ({}, {("beta", "BBB", Side.SELL): 3})


def test_apply_change_claim_to_position_is_one_change() -> None:
    before = RiskSnapshot(claims={"I1": claim(), "I2": claim("I2", "BBB")})
    held = OpenPosition("AAA", "alpha", 1, 10_000, 9)
    after = apply_change(before, LedgerChange(drop_claim="I1", put_position=held, realised_paise=0, charges_paise=12))
    assert list(after.claims) == ["I2"]
    assert dict(after.positions) == {"AAA": held}
    assert (after.version, after.charges_paise) == (1, 12)
    assert list(before.claims) == ["I1", "I2"]
    assert dict(before.positions) == {}


def test_apply_change_drop_of_what_is_not_there_changes_nothing_else() -> None:
    before = RiskSnapshot(positions={"AAA": OpenPosition("AAA", "alpha", 1, 1, 1)})
    after = apply_change(before, LedgerChange(drop_claim="none", drop_position="ZZZ"))
    assert dict(after.positions) == dict(before.positions)
    after = apply_change(after, LedgerChange(drop_position="AAA", realised_paise=-50))
    assert (dict(after.positions), after.realised_paise) == ({}, -50)


def test_replace_snapshot_changes_the_head_and_keeps_the_rest() -> None:
    before = RiskSnapshot(version=1, epoch=1, generation="a", claims={"I1": claim()})
    after = replace_snapshot(before, version=2, epoch=3, generation="b", halts=(HALT,))
    assert (after.version, after.epoch, after.generation, after.halts) == (2, 3, "b", (HALT,))
    assert after.claims is before.claims
    same = replace_snapshot(after)
    assert (same.version, same.epoch, same.generation, same.halts) == (2, 3, "b", (HALT,))


def test_values_of_the_ledger_hold_what_they_were_made_of() -> None:
    held = claim(created_ms=9)
    assert [getattr(held, name) for name in ("intent_id", "strategy_id", "symbol", "side")] == ["I1", "alpha", "AAA", Side.BUY]
    assert (held.quantity, held.notional_paise, held.created_ms) == (1, 10_100, 9)
    position = OpenPosition("AAA", "alpha", -3, -30_000, 11)
    assert (position.symbol, position.strategy_id, position.quantity) == ("AAA", "alpha", -3)
    assert (position.cost_paise, position.opened_ms) == (-30_000, 11)


def test_change_as_made_opens_no_risk_and_touches_nothing() -> None:
    change = LedgerChange()
    assert (change.opens_risk, change.is_fact) == (False, False)
    assert {name for name in LedgerChange.__slots__ if getattr(change, name) is not None} == {"opens_risk", "is_fact"}
    assert LedgerChange(opens_risk=True).opens_risk is True


def test_snapshot_as_made_is_an_empty_day() -> None:
    empty = RiskSnapshot()
    assert (empty.version, empty.epoch, empty.generation, empty.halts) == (0, 0, "", ())
    assert (dict(empty.claims), dict(empty.positions), dict(empty.last_entry_ms)) == ({}, {}, {})
    assert (empty.realised_paise, empty.charges_paise) == (0, 0)


def test_answers_of_the_store_carry_what_the_next_decision_needs() -> None:
    state = RiskSnapshot(version=3)
    assert (Committed(4).version, Committed(4).snapshot, Committed(3, state).snapshot) == (4, None, state)
    assert Conflict(state).snapshot is state
    assert Fenced(7).epoch == 7
