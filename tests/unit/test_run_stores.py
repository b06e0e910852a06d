"""The lease at an engine's start: a ledger that answers late is asked again, one that is down costs entries only."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from velox_core.domain.errors import LedgerUnavailable, VeloxError
from velox_core.run_stores import LEASE_TRIES_MAX, _lease

WITHOUT = 9_001


class LateLedger:
    """Does not answer in time so often; what it was asked may have taken effect all the same."""

    def __init__(self, late: int, error: Exception | None = None) -> None:
        self.late = late
        self.error = error or LedgerUnavailable("it did not answer in time")
        self.epoch = 0
        self.released: list[int] = []

    def acquire_lease(self, holder: str) -> int:
        self.epoch += 1
        if self.epoch <= self.late:
            raise self.error
        return self.epoch

    def release_lease(self, epoch: int) -> None:
        self.released.append(epoch)


def taken(ledger: Any) -> tuple[int, bool]:
    with ExitStack() as stack:
        return _lease(ledger, WITHOUT, stack)


@pytest.mark.parametrize("late", range(LEASE_TRIES_MAX))
def test_lease_of_a_ledger_that_answers_late_is_had_and_given_back(late: int) -> None:
    ledger = LateLedger(late)
    assert taken(ledger) == (late + 1, True)
    assert ledger.released == [late + 1]


def test_lease_of_a_ledger_that_is_down_is_asked_for_within_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    ledger = LateLedger(LEASE_TRIES_MAX)
    assert taken(ledger) == (WITHOUT, False)
    assert (ledger.epoch, ledger.released) == (LEASE_TRIES_MAX, [])
    assert caplog.text.count("exits only") == 1


def test_lease_of_another_host_is_an_error_at_once() -> None:
    ledger = LateLedger(1, VeloxError("the account's lease is held by another"))
    with pytest.raises(VeloxError, match="held by another"):
        taken(ledger)
    assert ledger.epoch == 1
