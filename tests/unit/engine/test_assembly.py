from __future__ import annotations

from tests.fakes.outside import FakeClock, FakeControl, FakeFeed
from tests.fakes.rig import NOW_MS, UNIVERSE, Rig
from tests.fakes.session import ScriptedStrategy, make_plan
from velox_core.domain.events import EventKind
from velox_core.engine.assembly import Engine, EnginePorts, EngineRules, assemble
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.ports import Severity


def assembled(rig: Rig, *strategies: str) -> Engine:
    clock = FakeClock(NOW_MS)
    hosts = [HostedStrategy(ScriptedStrategy(name), tuple(range(len(UNIVERSE))), UNIVERSE) for name in strategies]
    return assemble(
        make_plan(),
        EnginePorts(
            clock=clock,
            feed=FakeFeed(UNIVERSE, [], clock),
            broker=rig.broker,
            journal=rig.journal,
            ledger=rig.ledger,
            halt_file=rig.halt_file,
            control=FakeControl(),
            alerts=rig.alerts,
            closer_lock=rig.closer_lock,
        ),
        EngineRules(limits=rig.limits, schedule=rig.schedule, instruments=rig.instruments, strategies=hosts, epoch=rig.epoch),
    )


def test_assembled_engine_keeps_the_strategies_disabled_that_its_run_disabled() -> None:
    rig = Rig()
    rig.journal.append(EventKind.STRATEGY_DISABLED, NOW_MS, {"strategy": "alpha", "reason": "a bug"})
    rig.journal.commit()
    engine = assembled(rig, "alpha", "beta")
    assert [host.disabled for host in engine.rules.strategies] == ["a bug", ""]
    assert rig.alerts.sent == []


def test_assembled_engine_whose_stores_are_down_tells_a_person_of_each() -> None:
    rig = Rig()
    rig.journal.unreadable = True
    rig.ledger.down = True
    rig.broker.failing = {"positions"}
    assembled(rig, "alpha")
    assert {severity for severity, _, _ in rig.alerts.sent} == {Severity.CRITICAL}
    assert rig.alerts.titles == ["Journal unavailable at the start", "No reconcile at the start", "Risk ledger unavailable"]
