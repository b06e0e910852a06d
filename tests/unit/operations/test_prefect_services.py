"""Prefect's server and the serving of deployments as services: when each is ready, whom it is needed by, a taken port."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.http_server import Reply, Request, serving
from tests.fakes.ports import free_port
from velox_core.domain.errors import VeloxError
from velox_core.engine_lock import CloserLockFile, own_holder
from velox_core.operations.guard_status import guard_folder
from velox_core.operations.json_file import write_json
from velox_core.operations.prefect_home import HEALTH_SECONDS, is_healthy, prefect_home, server_lock
from velox_core.operations.prefect_services import LAST_SECONDS, PrefectServe, PrefectServer, check_port_is_free
from velox_core.operations.service_process import KILL_SECONDS
from velox_core.operations.up import SUPERVISOR_END_SECONDS, services_of
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]


@pytest.fixture
def patient_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no server that is slow."""
    monkeypatch.setitem(is_healthy.__kwdefaults__, "seconds", 120.0)


def held(path: Path) -> CloserLockFile:
    lock = CloserLockFile(path)
    lock.take()
    return lock


def test_server_lives_by_its_lock_is_ready_by_its_answer_and_shows_the_port_that_it_has(
    settings_with: Load, paths: Paths, patient_look: None
) -> None:
    service = PrefectServer(settings_with(), paths, {})
    assert (service.life(), service.is_ready(), service.where) == (None, False, "http://127.0.0.1:4200")
    with serving(lambda request: Reply(status=200, body="true")) as answering:
        write_json(prefect_home(paths.var) / "server.json", {"port": answering.port, "pid": os.getpid()})
        assert (service.is_ready(), service.where) == (False, "http://127.0.0.1:4200")
        lock = held(server_lock(paths.var))
        assert (service.life(), service.is_ready(), service.where) == (own_holder(), True, answering.url)
    assert service.is_ready() is False
    lock.close()


def test_server_that_is_slow_or_answers_an_error_is_not_dead_and_one_that_hangs_is(
    settings_with: Load, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = PrefectServer(settings_with(), paths, {})
    lock = held(server_lock(paths.var))
    late = threading.Event()

    def after_the_look(request: Request) -> Reply:
        late.wait(60)
        return Reply(status=503, body="busy")

    with serving(after_the_look) as answering:
        write_json(prefect_home(paths.var) / "server.json", {"port": answering.port, "pid": os.getpid()})
        assert service.is_ready() is False  # half a second
        late.set()
        assert (service.is_ready(), service.answers_at_last()) == (False, True)
    late.clear()
    monkeypatch.setattr("velox_core.operations.prefect_services.LAST_SECONDS", 0.05)
    with serving(lambda request: Reply(hangs=True)) as hung:
        write_json(prefect_home(paths.var) / "server.json", {"port": hung.port, "pid": os.getpid()})
        assert service.answers_at_last() is False
    assert service.answers_at_last() is False  # nobody listens
    lock.close()


def test_last_question_is_far_more_patient_than_a_look_and_fits_into_the_supervisors_end() -> None:
    assert 10 * HEALTH_SECONDS < LAST_SECONDS < SUPERVISOR_END_SECONDS - KILL_SECONDS


@pytest.mark.parametrize("place", ["simulated/primary/serve.lock", "simulated/other/serve.lock", "simulated/other/up.lock"])
def test_server_is_needed_by_whoever_serves_there_and_by_other_supervisors(
    settings_with: Load, paths: Paths, place: str
) -> None:
    (service,) = (one for one in services_of(settings_with(), paths, {})[0] if one.name == "prefect-server")
    own = held(guard_folder(settings_with(), paths) / "up.lock")
    assert service.needed_by() == []
    lock = held(paths.var / place)
    assert [str(os.getpid()) in text for text in service.needed_by()] == [True]
    lock.close()
    own.close()


def test_serve_is_ready_when_the_very_process_that_has_the_lock_says_so(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    folder, own = guard_folder(settings, paths), own_holder()
    service = PrefectServe(settings, paths, {}, list)
    said = {"ready": True, "pid": own.pid, "started": own.started}
    write_json(folder / "serve.json", said)
    assert service.is_ready() is False
    lock = held(folder / "serve.lock")
    assert (service.life(), service.is_ready()) == (own, True)
    for changed in ({"ready": False}, {"pid": own.pid + 1}, {"started": "an earlier boot"}):
        write_json(folder / "serve.json", said | changed)
        assert service.is_ready() is False
    lock.close()


def test_serve_is_not_ended_under_an_engine_whose_run_it_would_cancel(settings_with: Load, paths: Paths) -> None:
    (service,) = (one for one in services_of(settings_with(), paths, {})[0] if one.name == "prefect-serve")
    assert service.needed_by() == []
    lock = held(paths.var / "replay" / "primary" / "2024-01-15-1" / "engine.lock")
    assert service.needed_by() == [f"the engine of run 2024-01-15-1 runs (process {os.getpid()})"]
    flattened = services_of(settings_with(), paths, {}, frozenset({"2024-01-15-1"}))[0][-1]
    assert (flattened.name, flattened.needed_by()) == ("prefect-serve", [])
    lock.close()


def test_server_is_not_started_on_a_port_that_is_taken_and_says_by_whom_and_what_to_do(
    settings_with: Load, paths: Paths, request: pytest.FixtureRequest
) -> None:
    with socket.socket() as taken:
        port = free_port()  # nobody is given it by chance when it is free again
        taken.bind(("127.0.0.1", port))
        taken.listen()
        service = PrefectServer(settings_with(f"  prefect: {{port: {port}}}\n"), paths, {})
        with pytest.raises(VeloxError, match=rf"port {port} .* something else listens there \(process {os.getpid()}, .*port"):
            service.start()
        assert service.life() is None
    check_port_is_free(port)
    request.getfixturevalue("patient_look")
    with (
        serving(lambda request: Reply(status=200, body="true")) as other,
        pytest.raises(VeloxError, match="a Prefect server of another var folder"),
    ):
        check_port_is_free(other.port)
