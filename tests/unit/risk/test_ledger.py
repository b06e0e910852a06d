from __future__ import annotations

from tests.fakes.rig import DAY
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.orders import Side
from velox_core.risk.ledger import Claim, LedgerChange, OpenPosition, RiskSnapshot, apply_change, replace_snapshot

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
