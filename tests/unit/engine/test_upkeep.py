from __future__ import annotations

import threading

import pytest

from tests.fakes.rig import NOW_MS, Rig, entry_signal
from tests.fakes.threads import no_thread_left
from velox_core.domain.errors import LedgerUnavailable
from velox_core.domain.orders import Side
from velox_core.engine import upkeep as upkeep_module
from velox_core.engine.guard_presence import GuardPresence
from velox_core.engine.upkeep import LEDGER_RETRY_SECONDS, Upkeep
from velox_core.exit_door import NEVER_MS
from velox_core.ports import Severity
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.layers import ReasonCode, Refusal

INTERVAL_MS = 30_000


def make_upkeep(rig: Rig, **changes: object) -> Upkeep:
    upkeep = Upkeep(
        broker=rig.broker,
        order_manager=rig.orders,
        risk_manager=rig.risk,
        alerts=rig.alerts,
        reconcile_seconds=30.0,
        **changes,  # type: ignore[arg-type]
    )
    upkeep.start(NOW_MS)
    return upkeep


def test_upkeep_without_an_interval_or_a_broker_never_reconciles() -> None:
    rig = Rig()
    upkeep = Upkeep(
        broker=rig.broker, order_manager=rig.orders, risk_manager=rig.risk, alerts=rig.alerts, reconcile_seconds=0.0
    )
    upkeep.start(NOW_MS)
    upkeep.maintain(1.0, NOW_MS)
    assert upkeep.next_reconcile_ms == NEVER_MS
    assert rig.broker.reads == []


def test_reconcile_with_an_order_at_work_books_a_trade_by_hand_in_another_symbol() -> None:
    rig = Rig()
    upkeep = make_upkeep(rig)
    rig.enter(entry_signal("AAA"))
    rig.broker.foreign("CCC", Side.BUY, 1, 10_000, told=False)
    upkeep.reconcile(NOW_MS + INTERVAL_MS)
    assert rig.quantity("CCC") == 1
    assert list(rig.risk.locks) == ["CCC"]
    assert upkeep.next_reconcile_ms == NOW_MS + 2 * INTERVAL_MS


def test_books_that_cannot_be_compared_for_too_long_stop_entries_until_they_can() -> None:
    rig = Rig()
    upkeep = make_upkeep(rig)
    rig.broker.failing = {"positions"}
    for number in (1, 2, 3):
        upkeep.reconcile(NOW_MS + number * INTERVAL_MS)
    assert isinstance(rig.ask(now_ms=NOW_MS + 3 * INTERVAL_MS), ApprovedOrder)
    assert rig.alerts.sent == []
    for number in (4, 5):
        upkeep.reconcile(NOW_MS + number * INTERVAL_MS)
    refused = rig.ask(entry_signal("BBB"), NOW_MS + 5 * INTERVAL_MS)
    assert isinstance(refused, Refusal)
    assert refused.code is ReasonCode.RECONCILE_OVERDUE
    rig.broker.failing = set()
    upkeep.reconcile(NOW_MS + 6 * INTERVAL_MS)
    assert isinstance(rig.ask(entry_signal("BBB"), NOW_MS + 6 * INTERVAL_MS), ApprovedOrder)
    assert [severity for severity, _, _ in rig.alerts.sent] == [Severity.CRITICAL, Severity.WARNING]


def test_clock_that_was_set_back_delays_no_reconcile() -> None:
    rig = Rig()
    upkeep = make_upkeep(rig)
    upkeep.maintain(1.0, NOW_MS - 3_600_000)
    assert upkeep.next_reconcile_ms == NOW_MS - 3_600_000 + INTERVAL_MS


def test_ledger_server_that_is_gone_is_started_before_the_rebuild_at_most_each_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upkeep_module, "REVIVE_WAIT_SECONDS", 120.0)  # a busy machine is no server that is slow to start
    rig = Rig()
    started: list[int] = []

    def revive() -> None:
        started.append(1)
        rig.ledger.down = len(started) < 2

    upkeep = make_upkeep(rig, revive=revive)
    rig.ledger.down = True
    for monotonic in (1.0, 1.5, 2.0):
        upkeep.maintain(monotonic, NOW_MS)
    assert (len(started), rig.ledger.rebuilds) == (1, 0)
    upkeep.maintain(1.0 + LEDGER_RETRY_SECONDS, NOW_MS)
    assert (len(started), rig.ledger.rebuilds, rig.risk.readiness.ledger_fault) == (2, 1, "")


@pytest.mark.parametrize("error", [LedgerUnavailable("no redis-server"), PermissionError("no"), KeyError("a bug")])
def test_ledger_server_that_cannot_be_started_is_no_fault_of_the_session(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep_module, "REVIVE_WAIT_SECONDS", 120.0)
    rig = Rig()

    def revive() -> None:
        raise error

    upkeep = make_upkeep(rig, revive=revive)
    rig.ledger.down = True
    upkeep.maintain(1.0, NOW_MS)
    assert rig.risk.readiness.ledger_fault
    assert rig.ledger.rebuilds == 0


def test_ledger_server_is_started_by_the_next_interval_when_the_system_has_no_thread_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upkeep_module, "REVIVE_WAIT_SECONDS", 120.0)
    rig = Rig()

    def revive() -> None:
        rig.ledger.down = False

    upkeep = make_upkeep(rig, revive=revive)
    rig.ledger.down = True
    with no_thread_left("revive-ledger"):
        upkeep.maintain(1.0, NOW_MS)
    assert (rig.ledger.down, rig.ledger.rebuilds) == (True, 0)
    upkeep.maintain(1.0 + LEDGER_RETRY_SECONDS, NOW_MS)
    assert (rig.ledger.rebuilds, rig.risk.readiness.ledger_fault) == (1, "")


def test_ledger_server_that_is_slow_to_start_is_asked_once_at_a_time() -> None:
    rig = Rig()
    may_go, has_begun, started = threading.Event(), threading.Event(), []

    def revive() -> None:
        started.append(1)
        has_begun.set()
        may_go.wait(240.0)

    upkeep = make_upkeep(rig, revive=revive)
    rig.ledger.down = True
    upkeep.maintain(1.0, NOW_MS)
    assert has_begun.wait(120.0)
    upkeep.maintain(1.0 + LEDGER_RETRY_SECONDS, NOW_MS)
    assert (started, rig.ledger.rebuilds) == ([1], 0)
    rig.ledger.down = False
    may_go.set()
    for thread in threading.enumerate():
        if thread.name == "revive-ledger":
            thread.join(120.0)
    upkeep.maintain(1.5 + LEDGER_RETRY_SECONDS, NOW_MS)  # at once, not after another interval
    assert (started, rig.ledger.rebuilds, rig.risk.readiness.ledger_fault) == ([1], 1, "")


def test_difference_that_stays_is_told_once() -> None:
    rig = Rig()
    upkeep = make_upkeep(rig)
    rig.hold("AAA")
    rig.broker.trade_list.clear()
    for number in (1, 2, 3):
        upkeep.reconcile(NOW_MS + number * INTERVAL_MS)
    assert rig.alerts.titles == ["Our books and the broker's differ"]
    assert list(rig.risk.locks) == ["AAA"]


def test_upkeep_misses_a_guard_that_is_silent() -> None:
    rig = Rig()
    upkeep = make_upkeep(rig, guard=GuardPresence(lambda: None, rig.alerts, silent_seconds=20.0))
    for second in range(30):
        upkeep.maintain(100.0 + second, NOW_MS)
    assert rig.alerts.titles == ["No guard watches this run"]
