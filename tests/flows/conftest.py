from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Prefect makes its home when it is imported; without this it would be the user's
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="velox-prefect-")

from tests.fakes.prefect_home import DATABASE, migrated_home
from tests.fakes.sockets import sockets_let_go
from velox_core.redis_server import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[2]
LONG_SECONDS = 240.0
atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio."""
    return "asyncio"


def folder_with_database() -> str:
    """Return a folder in which the harness finds its database made: its server need not migrate one from nothing."""
    folder = migrated_home(Path(tempfile.mkdtemp(prefix="velox-harness-")))
    (folder / DATABASE).rename(folder / "prefect-test.db")
    return str(folder)


@pytest.fixture(scope="session", autouse=True)
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One server for all flow tests of a worker, on a database of its own, with nothing sent to anybody.

    Imported here: the harness brings the whole server in, and every worker collects these tests, the one that runs them or not.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_SERVER_ANALYTICS_ENABLED,
        temporary_settings,
    )
    from prefect.testing import utilities
    from prefect.testing.utilities import prefect_test_harness

    home = tmp_path_factory.mktemp("prefect")
    quiet = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_SERVER_ANALYTICS_ENABLED: False, PREFECT_HOME: home}
    with pytest.MonkeyPatch.context() as patch, temporary_settings(quiet):
        patch.setattr(utilities, "mkdtemp", folder_with_database)
        with prefect_test_harness(server_startup_timeout=240), sockets_let_go(str(PREFECT_API_URL.value())):
            yield


@pytest.fixture(autouse=True)
def garbage_of_the_client() -> Iterator[None]:
    """Let Prefect's client drop its sockets inside the test whose filter knows of them."""
    yield
    gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Prefect's own client leaves loopback sockets to the garbage collector; ours are closed and tested elsewhere."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(
                pytest.mark.filterwarnings(
                    r"ignore:Exception ignored in. <socket\.socket:pytest.PytestUnraisableExceptionWarning"
                )
            )


@pytest.fixture(autouse=True)
def patient_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process a server or an engine that answers late is none that hangs: a busy machine has it wait for a core.

    What is then given up - a picture in the UI, the question whether a run was cancelled, an engine that still stops - is given
    up by design, and is what these tests look at. A test of such a bound names its own.
    """
    from tasks import session

    monkeypatch.setattr("tasks.artifacts.SHOW_SECONDS_MAX", LONG_SECONDS)
    monkeypatch.setattr("tasks.events.REQUEST_SECONDS", 60.0)
    monkeypatch.setattr("tasks.own_state.ANSWER_SECONDS_MAX", LONG_SECONDS)
    monkeypatch.setattr("tasks.retention.SECONDS_MAX", LONG_SECONDS)
    monkeypatch.setattr(session, "STATE_WAIT_SECONDS", LONG_SECONDS)
    monkeypatch.setattr(session, "CANCEL_WAIT_SECONDS", 2 * LONG_SECONDS)
    monkeypatch.setitem(session.ask_to_stop.__kwdefaults__, "wait_seconds", LONG_SECONDS)


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A var folder of the test's own, also for the processes it starts; its Redis ends with it."""
    folder = tmp_path / "var"
    monkeypatch.setenv("VELOX__VAR", str(folder))
    yield folder
    EmbeddedRedis(folder / "redis").stop()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The shipped default, with its data named absolutely, as a file that a test may change."""
    text = (ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")
    path = tmp_path / "config" / "system.yaml"
    path.parent.mkdir()
    path.write_text(text.replace("data/tcs_2024-01-15.csv", str(ROOT / "data" / "tcs_2024-01-15.csv")), encoding="utf-8")
    return path
