from __future__ import annotations

import pytest

from tests.fakes.rig import NOW_MS, Rig, entry_signal
from velox_core.domain.errors import JournalUnavailable
from velox_core.domain.orders import Side
from velox_core.ports import Severity
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.layers import ReasonCode, Refusal

CRITICAL, WARNING = Severity.CRITICAL, Severity.WARNING


def told(rig: Rig) -> list[tuple[Severity, str]]:
    return [(severity, title) for severity, title, _ in rig.alerts.sent]


def test_ledger_that_is_lost_and_comes_back_is_told_once_each() -> None:
    rig = Rig()
    rig.ledger.down = True
    for symbol in ("AAA", "BBB"):
        assert isinstance(rig.ask(entry_signal(symbol)), Refusal)
    rig.risk.renew_lease()
    assert told(rig) == [(CRITICAL, "Risk ledger unavailable")]
    rig.ledger.down = False
    rig.risk.open_ledger()
    rig.risk.open_ledger()
    assert told(rig)[1:] == [(WARNING, "Risk ledger is back")]
    assert isinstance(rig.ask(), ApprovedOrder)


def test_ledger_that_was_never_trusted_at_the_start_comes_up_without_an_alert() -> None:
    rig = Rig()
    rig.risk.readiness.ledger_fault = "not read yet"
    rig.risk.rebuild_ledger(rig.risk.snapshot)
    assert rig.alerts.sent == []


def test_journal_that_is_lost_and_comes_back_is_told_once_each() -> None:
    rig = Rig()
    rig.journal.error = JournalUnavailable("the disk is full")
    for _ in range(3):
        rig.risk.lock("CCC", "test", NOW_MS)
        assert not rig.orders.commit_journal()
    assert told(rig) == [(CRITICAL, "Journal unavailable")]
    assert "the disk is full" in rig.alerts.sent[0][2]
    rig.journal.error = None
    assert rig.orders.commit_journal()
    assert rig.orders.commit_journal()
    assert told(rig)[1:] == [(WARNING, "Journal is back")]


@pytest.mark.parametrize("how", ["renewal", "commit"])
def test_lease_that_is_lost_is_told_once(how: str) -> None:
    rig = Rig()
    if how == "renewal":
        rig.ledger.inner.release_lease(rig.epoch)
        rig.risk.renew_lease()
        rig.risk.renew_lease()
    else:
        rig.ledger.fenced_by = 9
        rig.ask()
        rig.ask(entry_signal("BBB"))
    assert told(rig) == [(CRITICAL, "Lease lost")]
    assert rig.risk.readiness.fenced


def test_position_outside_the_universe_refuses_every_entry_until_it_is_flat_and_is_told_once() -> None:
    rig = Rig()
    rig.broker.foreign("ZZZ", Side.BUY, 2, 10_000)
    rig.orders.poll(NOW_MS)
    refused = rig.ask()
    assert isinstance(refused, Refusal)
    assert refused.code is ReasonCode.STALE_MARKS
    assert "ZZZ" in refused.text
    rig.broker.foreign("ZZZ", Side.BUY, 1, 10_000)
    rig.orders.poll(NOW_MS)
    assert told(rig) == [(CRITICAL, "ZZZ is locked"), (CRITICAL, "ZZZ has no price")]
    rig.broker.foreign("ZZZ", Side.SELL, 3, 10_000)
    rig.orders.poll(NOW_MS)
    assert isinstance(rig.ask(), ApprovedOrder)


def test_position_by_hand_inside_the_universe_refuses_its_own_symbol_only() -> None:
    rig = Rig()
    rig.broker.foreign("BBB", Side.BUY, 2, 10_000)
    rig.orders.poll(NOW_MS)
    assert isinstance(rig.ask(), ApprovedOrder)
    assert told(rig) == [(CRITICAL, "BBB is locked")]
