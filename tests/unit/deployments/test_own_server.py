"""Whose Prefect server an account's deployments are registered at: its own, never one that merely listens there."""

from __future__ import annotations

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


def test_server_of_another_var_folder_is_not_served_at(paths: Paths) -> None:
    with serving(lambda request: Reply(status=200, body="true")) as answering:
        address = f"{answering.url}/api"
        with pytest.raises(VeloxError, match="what answers there belongs to another var folder"):
            await_server(settings(), paths, address, seconds=WAIT_SECONDS)
        lock = CloserLockFile(server_lock(paths.var))
        lock.take()
        write_json(prefect_home(paths.var) / "server.json", {"port": answering.port})
        await_server(settings(), paths, address, seconds=WAIT_SECONDS)
        with pytest.raises(VeloxError, match=rf"listens at {address}, not at .*/other: start again"):
            await_server(settings(), paths, f"{answering.url}/other", seconds=60.0)
        lock.close()
        with pytest.raises(VeloxError, match="belongs to another var folder"):
            await_server(settings(), paths, address, seconds=WAIT_SECONDS)
    with pytest.raises(VeloxError, match=r"no Prefect server of this account answers at \S+ within 0 s: velox up --status"):
        await_server(settings(), paths, address, seconds=WAIT_SECONDS)


def test_ui_is_told_where_its_api_listens_unless_the_environment_says_so_already(tmp_path: Path) -> None:
    made = server_environment(tmp_path, {}, 4321)
    assert made["PREFECT_SERVER_UI_API_URL"] == "http://127.0.0.1:4321/api"
    assert made["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    for name in ("PREFECT_SERVER_UI_API_URL", "PREFECT_UI_API_URL"):
        proxied = server_environment(tmp_path, {name: "https://prefect.example/api"}, 4321)
        assert [proxied[key] for key in proxied if key.endswith("UI_API_URL")] == ["https://prefect.example/api"]


def test_server_that_the_configuration_names_is_served_at_whoever_started_it(paths: Paths) -> None:
    with serving(lambda request: Reply(status=200, body="true")) as answering:
        address = f"{answering.url}/api"
        await_server(settings(address), paths, address, seconds=WAIT_SECONDS)
