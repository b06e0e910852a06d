"""Prefect's environment: tuned in one place, its home below var, no telemetry whatever the caller says; the server of a var."""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.http_server import Reply, Request, Served, serving
from velox_core.engine_lock import CloserLockFile
from velox_core.operations.json_file import write_json
from velox_core.operations.prefect_home import (
    SERVER_FILE,
    TUNED,
    export_line,
    is_healthy,
    prefect_environment,
    prefect_home,
    running_server,
    server_lock,
    service_environment,
    ui_command,
)

ROOT = Path(__file__).resolve().parents[3]


def flat(section: dict[str, Any], name: str = "PREFECT") -> Iterator[tuple[str, str]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from flat(value, f"{name}_{key.upper()}")
        else:
            yield f"{name}_{key.upper()}", str(value).lower() if isinstance(value, bool) else str(value)


def test_prefect_toml_says_what_the_processes_get() -> None:
    assert dict(flat(tomllib.loads((ROOT / "prefect.toml").read_text(encoding="utf-8")))) == TUNED


def test_environment_keeps_what_the_caller_says_but_never_another_home_or_telemetry(tmp_path: Path) -> None:
    said = {
        "PREFECT_HOME": "/elsewhere",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "true",
        "DO_NOT_TRACK": "0",
        "PREFECT_RUNNER_POLL_FREQUENCY": "7",
        "OTHER": "kept",
    }
    made = prefect_environment(tmp_path, said)
    assert made["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert (made["PREFECT_SERVER_ANALYTICS_ENABLED"], made["DO_NOT_TRACK"]) == ("false", "1")
    assert (made["PREFECT_RUNNER_POLL_FREQUENCY"], made["OTHER"]) == ("7", "kept")
    assert made["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith("filesystem")
    assert (made["PREFECT_SERVER_EPHEMERAL_ENABLED"], "PREFECT_API_URL" in made) == ("true", False)


@pytest.mark.parametrize(("address", "api"), [("", None), ("http://127.0.0.1:9/api", "http://127.0.0.1:9/api")])
def test_service_environment_has_no_server_of_its_own_and_meets_the_one_it_is_given(
    tmp_path: Path, address: str, api: str | None
) -> None:
    made = service_environment(tmp_path, {"PREFECT_API_URL": "http://other/api"}, address)
    assert (made["PREFECT_SERVER_EPHEMERAL_ENABLED"], made.get("PREFECT_API_URL")) == ("false", api)


ANSWERS = {"/api/health": Reply(status=200, body="true"), "/no/health": Reply(status=200, body="false")}
ANSWERS |= {"/bad/health": Reply(status=500, body="true")}


def answer(request: Request) -> Reply:
    return ANSWERS.get(request.path, Reply(status=404, body="true"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server; a busy machine is none that is slow."""
    monkeypatch.setitem(is_healthy.__kwdefaults__, "seconds", 120.0)
    with serving(answer) as made:
        yield made


def test_flow_meets_the_living_server_of_its_var_unless_the_caller_names_another(tmp_path: Path, server: Served) -> None:
    address = f"http://127.0.0.1:{server.port}/api"
    write_json(prefect_home(tmp_path) / SERVER_FILE, {"port": server.port, "pid": os.getpid()})
    assert running_server(tmp_path) == ""  # something answers there, but nobody holds the lock
    lock = CloserLockFile(server_lock(tmp_path))
    lock.take()
    assert running_server(tmp_path) == address
    assert prefect_environment(tmp_path, {})["PREFECT_API_URL"] == address
    assert prefect_environment(tmp_path, {"PREFECT_API_URL": "http://mine/api"})["PREFECT_API_URL"] == "http://mine/api"
    assert ui_command(tmp_path) == f"http://127.0.0.1:{server.port}"
    assert export_line(tmp_path, address) == f"export PREFECT_HOME={prefect_home(tmp_path)} PREFECT_API_URL={address}"
    write_json(prefect_home(tmp_path) / SERVER_FILE, {"port": server.port, "pid": os.getpid() + 1})
    assert running_server(tmp_path) == ""  # the server before it listened there; this one has not said yet
    lock.close()
    assert running_server(tmp_path) == ""


def test_health_is_a_true_within_the_bound_and_nothing_else(server: Served) -> None:
    assert [is_healthy(f"{server.url}/{name}") for name in ("api", "no", "bad", "none")] == [True, False, False, False]
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert is_healthy(f"http://127.0.0.1:{silent.getsockname()[1]}/api", seconds=0.05) is False
