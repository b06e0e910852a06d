"""The supervisor on fake services and a fake clock: what is started, restarted, waited for, given up, and ended."""

from __future__ import annotations

import pytest

from tests.fakes.outside import FakeAlerts
from tests.fakes.services import FakeService, process
from velox_core.operations.services import (
    BACKOFF_SECONDS_MAX,
    EXIT_AGAIN,
    STEADY_SECONDS,
    Kept,
    ServiceState,
    Supervisor,
    end_services,
)
from velox_core.operations.silence import FIRST_SECONDS_MAX
from velox_core.ports import LockHolder, Severity


def test_supervisor_starts_what_is_missing_in_the_tables_order_and_leaves_what_runs() -> None:
    log: list[str] = []
    first, there, last = (FakeService(name, log=log) for name in ("redis", "prefect", "guard"))
    there.alive = process(7)
    keeper = Supervisor([first, there, last], FakeAlerts())
    keeper.step(0.0)
    keeper.step(0.5)
    assert log == ["start redis", "start guard"]
    assert [kept.is_ours for kept in keeper.kept] == [True, False, True]
    assert keeper.is_settled


def test_supervisor_is_not_settled_while_a_service_does_not_do_its_work_yet() -> None:
    service = FakeService()
    service.ready = False
    keeper = Supervisor([service], FakeAlerts())
    keeper.step(0.0)
    keeper.step(0.5)
    assert (keeper.kept[0].state, keeper.is_settled) == (ServiceState.STARTING, False)


def test_supervisor_restarts_what_died_after_waits_that_double_up_to_a_bound() -> None:
    service, now, waits = FakeService(), 0.0, []
    keeper = Supervisor([service], FakeAlerts())
    keeper.step(now)
    for _ in range(8):
        service.die()
        keeper.step(now)
        died_at, started = now, service.started
        while service.started == started:
            now += 0.5
            keeper.step(now)
        waits.append(now - died_at)
    assert waits == [1, 2, 4, 8, 16, 32, 60, BACKOFF_SECONDS_MAX]
    assert keeper.kept[0].restarts == 8


@pytest.mark.parametrize(("lived", "wait"), [(STEADY_SECONDS - 0.5, 4.0), (STEADY_SECONDS, 1.0)])
def test_supervisor_begins_with_the_first_wait_again_only_after_a_steady_life(lived: float, wait: float) -> None:
    service = FakeService()
    keeper = Supervisor([service], FakeAlerts())
    for now in (0.0, 10.0):
        keeper.step(now)
        service.die()
        keeper.step(now + 1)
        keeper.step(now + 5)
    keeper.step(15.0 + lived)
    service.die()
    assert keeper.step(15.0 + lived) == [f"guard: process 103 ended by signal 9; starts again in {wait:g} s"]


def test_supervisor_gives_a_service_up_that_refuses_its_configuration_and_says_so_once() -> None:
    service, alerts = FakeService(), FakeAlerts()
    keeper = Supervisor([service], alerts)
    keeper.step(0.0)
    service.die(2)
    told = [sentence for second in range(1, 300) for sentence in keeper.step(float(second))]
    assert (service.started, keeper.kept[0].state, keeper.is_settled) == (1, ServiceState.REFUSED, True)
    assert [sentence.count("guard.log") for sentence in told] == [1]
    assert [(severity, title) for severity, title, _ in alerts.sent] == [(Severity.CRITICAL, "The guard is not there")]


def test_supervisor_starts_a_service_that_asks_for_it_again_at_once_and_alarms_nobody() -> None:
    service, alerts = FakeService("prefect-serve"), FakeAlerts()
    keeper = Supervisor([service], alerts)
    keeper.step(0.0)
    for second in range(1, 8):
        service.die(EXIT_AGAIN)
        told = keeper.step(float(second))
        assert told[0].endswith("it asks to be started again, see prefect-serve.log")
        keeper.step(second + 0.5)
        assert service.started == second + 1
    assert (alerts.sent, keeper.kept[0].failures) == ([], 0)


def test_supervisor_says_the_same_reason_once_and_then_that_it_is_the_same() -> None:
    service = FakeService("prefect-server")
    service.fault = "port 4200 is another's"
    keeper = Supervisor([FakeService(), service], FakeAlerts())
    told = [line for second in range(6) for line in keeper.step(float(second)) if "prefect-server" in line]
    assert told == [
        "prefect-server: port 4200 is another's; starts again in 1 s",
        "prefect-server: the same again, 2 times now; starts again in 2 s",
        "prefect-server: the same again, 3 times now; starts again in 4 s",
    ]
    service.fault = "the disk is full"
    assert keeper.step(7.0) == ["prefect-server: the disk is full; starts again in 8 s"]


def test_supervisor_waits_when_nothing_starts_and_one_has_failed_again() -> None:
    service, starts = FakeService("prefect-server"), FakeService()
    service.fault, starts.ready = "port 4200 is another's", False
    keeper = Supervisor([starts, service], FakeAlerts())
    for second in range(3):
        keeper.step(float(second))
    assert (keeper.is_waiting, keeper.is_settled) == (False, False)
    starts.ready = True
    keeper.step(2.5)
    assert (keeper.is_waiting, keeper.is_settled) == (True, False)


def test_supervisor_tells_of_a_slow_start_and_of_its_end_once() -> None:
    service = FakeService("prefect-server")
    service.ready = False
    keeper = Supervisor([service], FakeAlerts())
    told = [line for second in range(30) for line in keeper.step(float(second))]
    service.ready = True
    told += [line for second in range(30, 33) for line in keeper.step(float(second))]
    assert told == [
        "prefect-server: started, process 101",
        "prefect-server: still starting; a first start may take a minute",
        "prefect-server: ready after 30 s",
    ]


def hung_server(bound: float | None = 60.0) -> tuple[FakeService, Supervisor, FakeAlerts]:
    """Return a service that has been ready once, at 0.0, and is no longer."""
    service, alerts = FakeService("prefect-server"), FakeAlerts()
    service.unready_seconds_max = bound
    keeper = Supervisor([service], alerts)
    for _ in range(2):
        keeper.step(0.0)
    assert keeper.kept[0].state is ServiceState.RUNNING
    service.ready = False
    return service, keeper, alerts


def test_supervisor_kills_a_service_that_lives_and_does_not_answer_and_starts_it_again() -> None:
    service, keeper, alerts = hung_server()
    guard = FakeService(log=service.log)
    keeper.kept.append(Kept(guard, None))
    for second in range(1, 61):
        assert [line for line in keeper.step(float(second)) if "guard" not in line] == []
    assert service.alive == process(101)
    (told,) = keeper.step(61.0)
    assert told == "prefect-server: process 101 lived and did not answer for 60 s: killed; starts again in 1 s"
    assert [(severity, title) for severity, title, _ in alerts.sent] == [
        (Severity.WARNING, "The prefect-server hung and was killed")
    ]
    keeper.step(62.0)
    service.ready = True
    keeper.step(63.0)
    start, ask, kill = "start prefect-server", "ask prefect-server", "kill prefect-server 101"
    assert service.log == [start, "start guard", ask, kill, start]
    assert (keeper.kept[0].restarts, keeper.is_settled) == (1, True)


def test_supervisor_leaves_a_service_that_answers_now_and_then() -> None:
    service, keeper, _ = hung_server()
    for second in range(1, 400):
        service.ready = second % 50 == 0
        keeper.step(float(second))
    assert service.log == ["start prefect-server"]


def test_supervisor_asks_a_last_time_with_patience_and_leaves_a_service_that_is_only_slow() -> None:
    service, keeper, alerts = hung_server()
    service.is_late = True
    for second in range(1, 200):
        keeper.step(float(second))
    assert service.log == ["start prefect-server", *["ask prefect-server"] * 3]  # at 61, 123 and 185
    assert alerts.sent == []
    service.is_late = False  # now it hangs
    for second in range(200, 300):
        keeper.step(float(second))
    assert service.log[4:] == ["ask prefect-server", "kill prefect-server 101", "start prefect-server"]


@pytest.mark.parametrize("unready_before", [0, 40])
def test_supervisor_does_not_judge_by_the_time_that_a_machine_slept(unready_before: int) -> None:
    service, keeper, _ = hung_server()
    for look in range(2 * unready_before):
        keeper.step(1.0 + look / 2)
    for look in range(60):  # eight hours later it needs half a minute
        keeper.step(30_000.0 + look / 2)
    service.ready = True
    keeper.step(30_030.0)
    assert service.log == ["start prefect-server"]
    service.ready = False
    for look in range(122):
        keeper.step(30_030.5 + look / 2)
    assert service.log[1:] == ["ask prefect-server", "kill prefect-server 101"]  # the bound holds after a sleep too


def test_supervisor_kills_what_it_has_never_seen_ready_after_the_longer_bound_and_starts_it_again() -> None:
    hung_in_its_first_start, hung_before = FakeService("prefect-server"), FakeService("prefect-server")
    hung_before.alive = process(7)
    for service, pid in ((hung_in_its_first_start, 101), (hung_before, 7)):
        service.unready_seconds_max, service.ready = 60.0, False
        alerts = FakeAlerts()
        keeper = Supervisor([service], alerts)
        for second in range(int(FIRST_SECONDS_MAX)):
            keeper.step(float(second))
        assert (service.alive, alerts.sent) == (process(pid), [])
        told = [line for second in range(3) for line in keeper.step(FIRST_SECONDS_MAX + second)]
        assert told[0] == (
            f"prefect-server: process {pid} lived and did not answer once for 300 s: killed; starts again in 1 s"
        )
        assert alerts.titles == ["The prefect-server hung and was killed"]
        assert service.log[-3:] == ["ask prefect-server", f"kill prefect-server {pid}", "start prefect-server"]


def test_supervisor_takes_hang_after_hang_for_failures_in_a_row() -> None:
    service, keeper, alerts = hung_server()
    waits, second = [], 0.0
    for _ in range(8):
        killed = service.log.count(f"kill prefect-server {100 + service.started}")
        while not killed:
            service.ready = False
            second += 1
            told = keeper.step(second)
            killed = service.log.count(f"kill prefect-server {100 + service.started}")
        waits.append(float(told[-1].rpartition(" in ")[2].removesuffix(" s")))
        started = service.started
        while service.started == started:
            second += 1
            keeper.step(second)
        service.ready = True
        keeper.step(second)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [(severity, title) for severity, title, _ in alerts.sent] == [
        (Severity.WARNING, "The prefect-server hung and was killed"),
        (Severity.CRITICAL, "The prefect-server does not stay alive"),
    ]
    for later in range(1, 62):  # it works: the next one is a first one again
        keeper.step(second + later)
    assert (keeper.kept[0].failures, keeper.kept[0].delay) == (0, 1.0)


def test_supervisor_leaves_a_service_alone_for_which_no_bound_is_named() -> None:
    service, keeper, _ = hung_server(bound=None)
    for second in range(1, 400):
        keeper.step(float(second))
    assert service.log == ["start prefect-server"]


def test_supervisor_that_cannot_kill_what_hangs_says_so_and_tries_again_after_the_bound() -> None:
    service, keeper, alerts = hung_server()
    service.fault = "process 101 hangs and could not be killed: look at it with ps"
    told = [line for second in range(1, 190) for line in keeper.step(float(second))]
    text = f"{service.fault}. It did not answer for 60 s; it is tried again as long as it is silent"
    assert told == [f"{service.name}: {text}"] * 3
    assert [(severity, title) for severity, title, _ in alerts.sent] == [
        (Severity.CRITICAL, "The prefect-server hangs and could not be killed")
    ]
    assert (service.alive, keeper.kept[0].state) == (process(101), ServiceState.STARTING)
    service.fault, service.ready = "", True
    keeper.step(190.0)
    service.ready = False
    for second in range(191, 253):
        keeper.step(float(second))
    assert service.log[-2:] == ["kill prefect-server 101", "start prefect-server"]


def test_supervisor_takes_up_a_refused_service_that_somebody_else_started() -> None:
    service = FakeService()
    keeper = Supervisor([service], FakeAlerts())
    keeper.step(0.0)
    service.die(2)
    keeper.step(1.0)
    service.alive = process(7)
    assert keeper.step(2.0) == ["guard: runs already, process 7"]
    assert keeper.kept[0].state is ServiceState.RUNNING


def test_supervisor_restarts_a_foreign_process_whatever_its_own_last_one_ended_with() -> None:
    service = FakeService()
    service.alive = process(7)
    keeper = Supervisor([service], FakeAlerts())
    keeper.step(0.0)
    service.die(2)  # the exit code of an earlier child says nothing of this process
    keeper.step(1.0)
    keeper.step(2.0)
    assert (service.started, keeper.kept[0].is_ours) == (1, True)


def test_supervisor_alerts_at_the_first_and_the_fifth_failure_in_a_row_and_keeps_trying() -> None:
    service, alerts = FakeService(), FakeAlerts()
    service.fault = "the disk is full"
    keeper = Supervisor([service], alerts)
    for second in range(400):
        keeper.step(float(second))
    assert alerts.titles == ["The guard could not be started or found", "The guard does not stay alive"]
    assert service.started > 8
    service.fault = ""
    keeper.step(500.0)
    assert keeper.kept[0].state is ServiceState.STARTING


def test_supervisor_whose_first_service_fails_starts_the_others() -> None:
    broken, guard = FakeService("redis"), FakeService()
    broken.fault = "no redis-server"
    Supervisor([broken, guard], FakeAlerts()).step(0.0)
    assert guard.started == 1


def test_supervisor_knows_what_an_earlier_one_had_started() -> None:
    service = FakeService()
    service.alive = process(7)
    keeper = Supervisor([service], FakeAlerts(), {"guard": process(7)})
    keeper.step(0.0)
    assert keeper.kept[0].is_ours
    other = Supervisor([service], FakeAlerts(), {"guard": LockHolder(host="here", pid=7, started="an earlier boot")})
    other.step(0.0)
    assert not other.kept[0].is_ours


def test_end_services_ends_the_last_first() -> None:
    log: list[str] = []
    services = [FakeService("redis", is_shared=True, log=log), FakeService("guard", log=log)]
    keeper = Supervisor(services, FakeAlerts())
    keeper.step(0.0)
    log.clear()
    told, all_ended = end_services(keeper.kept, ends_shared=True)
    assert log == ["end guard 101", "end redis 101"]
    assert (told, all_ended) == (["guard: ended", "redis: ended"], True)


@pytest.mark.parametrize(
    ("is_shared", "ends_shared", "ended"),
    [(False, False, False), (False, True, False), (True, False, False), (True, True, True)],
)
def test_end_services_ends_of_others_only_shared_ones(is_shared: bool, ends_shared: bool, ended: bool) -> None:
    service = FakeService(is_shared=is_shared)
    service.alive = process(7)
    told, all_ended = end_services([Kept(service, process(8))], ends_shared=ends_shared)
    assert (service.alive is None, all_ended) == (ended, True)
    assert ("did not start it" in told[0]) is not ended


def test_end_services_leaves_what_somebody_needs_and_what_cannot_be_asked() -> None:
    needed, unknown = FakeService("guard"), FakeService("redis")
    needed.alive = unknown.alive = process(7)
    needed.needs, unknown.fault = ["run r has 5 TCS open"], "the lock cannot be read"
    told, all_ended = end_services([Kept(unknown, process(7)), Kept(needed, process(7))], ends_shared=True)
    assert (needed.alive, unknown.alive, all_ended) == (process(7), process(7), False)
    assert told == ["guard: LEFT RUNNING, process 7: run r has 5 TCS open", "redis: left: the lock cannot be read"]
