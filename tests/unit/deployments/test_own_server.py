"""Whose Prefect server an account's deployments are registered at: its own, never one that merely listens there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.serve import await_server
from deployments.server import server_environment
from tests.fakes.http_server import Reply, serving
from velox_core.domain.errors import VeloxError
from velox_core.engine_lock import CloserLockFile
from velox_core.operations.json_file import write_json
from velox_core.operations.prefect_home import prefect_home, server_lock
from velox_core.settings import Paths, Settings, load_settings

ROOT = Path(__file__).resolve().parents[3]
WAIT_SECONDS = 0.0  # one look
Answering = Callable[[], object]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(var=tmp_path / "var", logs=tmp_path / "logs")


def settings(api_url: str = "") -> Settings:
    environ = {"VELOX__PREFECT__API_URL": api_url} if api_url else {}
    return load_settings(ROOT / "config" / "system_simulated.yaml", environ)


@pytest.fixture
def patient_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no server that is slow."""
    monkeypatch.setattr("deployments.serve.HEALTH_SECONDS", 120.0)


@pytest.mark.usefixtures("patient_look")
def test_server_of_another_var_folder_is_not_served_at(paths: Paths) -> None:
    with serving(lambda request: Reply(status=200, body="true")) as answering:
        address = f"{answering.url}/api"
        with pytest.raises(VeloxError, match="what answers there belongs to another var folder"):
            await_server(settings(), paths, address, seconds=WAIT_SECONDS)
        lock = CloserLockFile(server_lock(paths.var))
        lock.take()
        write_json(prefect_home(paths.var) / "server.json", {"port": answering.port, "pid": os.getpid()})
        await_server(settings(), paths, address, seconds=WAIT_SECONDS)
        with pytest.raises(VeloxError, match=rf"listens at {address}, not at .*/other: start again"):
            await_server(settings(), paths, f"{answering.url}/other", seconds=60.0)
        lock.close()
        with pytest.raises(VeloxError, match="belongs to another var folder"):
            await_server(settings(), paths, address, seconds=WAIT_SECONDS)
    with pytest.raises(VeloxError, match=r"no Prefect server of this account answers at \S+ within 0 s: velox up --status"):
        await_server(settings(), paths, address, seconds=WAIT_SECONDS)


def test_own_server_that_is_slow_is_waited_for_and_never_taken_for_anothers(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def slow(address: str, *, seconds: float = 0.5) -> bool:
        asked.append(seconds)
        return seconds >= 1.0  # it answers within a second

    monkeypatch.setattr("deployments.serve.is_healthy", slow)
    monkeypatch.setattr("velox_core.operations.prefect_home.is_healthy", slow)
    lock = CloserLockFile(server_lock(paths.var))
    lock.take()
    write_json(prefect_home(paths.var) / "server.json", {"port": 4321, "pid": os.getpid()})
    await_server(settings(), paths, "http://127.0.0.1:4321/api", seconds=WAIT_SECONDS)
    assert asked == [2.0]
    lock.close()


def test_own_server_that_has_not_said_where_it_listens_is_not_looked_for_at_the_port_of_the_last_one(paths: Paths) -> None:
    lock = CloserLockFile(server_lock(paths.var))
    lock.take()
    with serving(lambda request: Reply(status=200, body="true")) as other:
        write_json(prefect_home(paths.var) / "server.json", {"port": other.port, "pid": os.getpid() + 1})
        for address in (f"{other.url}/api", "http://127.0.0.1:4321/api"):  # neither served at nor told as a wrong address
            with pytest.raises(VeloxError, match=rf"within 0 s: process {os.getpid()} is the server and does not answer"):
                await_server(settings(), paths, address, seconds=WAIT_SECONDS)
    lock.close()


def test_ui_is_told_where_its_api_listens_unless_the_environment_says_so_already(tmp_path: Path) -> None:
    made = server_environment(tmp_path, {}, 4321)
    assert made["PREFECT_SERVER_UI_API_URL"] == "http://127.0.0.1:4321/api"
    assert made["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    for name in ("PREFECT_SERVER_UI_API_URL", "PREFECT_UI_API_URL"):
        proxied = server_environment(tmp_path, {name: "https://prefect.example/api"}, 4321)
        assert [proxied[key] for key in proxied if key.endswith("UI_API_URL")] == ["https://prefect.example/api"]


@pytest.mark.usefixtures("patient_look")
def test_server_that_the_configuration_names_is_served_at_whoever_started_it(paths: Paths) -> None:
    with serving(lambda request: Reply(status=200, body="true")) as answering:
        address = f"{answering.url}/api"
        await_server(settings(address), paths, address, seconds=WAIT_SECONDS)
        assert [request.path for request in answering.requests] == ["/api/health"]
