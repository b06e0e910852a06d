"""The memory ledger hands its new state over with a commit, so that nobody has to work it out again."""

from __future__ import annotations

from velox_core.domain.orders import Side
from velox_core.ledger.memory import MemoryLedger
from velox_core.risk.ledger import Claim, Committed, LedgerChange

CHANGE = LedgerChange(opens_risk=True, put_claim=Claim("I1", "sma", "TCS", Side.BUY, 1, 400_000, 7))


def test_commit_answers_with_the_state_after_it() -> None:
    ledger = MemoryLedger()
    epoch = ledger.acquire_lease("engine")
    before = ledger.snapshot()
    answer = ledger.commit(before.version, epoch, CHANGE, "I1")
    assert isinstance(answer, Committed)
    assert answer.snapshot is ledger.snapshot()
    assert answer.snapshot is not None
    assert (answer.snapshot.version, answer.version) == (before.version + 1, before.version + 1)
    assert (list(answer.snapshot.claims), list(before.claims)) == (["I1"], [])


def test_repeated_commit_answers_without_a_state_because_others_may_have_changed_it_since() -> None:
    ledger = MemoryLedger()
    epoch = ledger.acquire_lease("engine")
    first = ledger.commit(ledger.snapshot().version, epoch, CHANGE, "I1")
    again = ledger.commit(ledger.snapshot().version, epoch, CHANGE, "I1")
    assert isinstance(first, Committed)
    assert isinstance(again, Committed)
    assert (again.version, again.snapshot) == (first.version, None)
