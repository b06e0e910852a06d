from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.prefect_server import PrefectServer
from velox_core.ledger.redis import RedisLedger


@pytest.fixture(autouse=True)
def patient_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process a server that answers late is no hung one: a busy machine has Redis wait for a core.

    A time-out stops entries for seconds, by design; a test of that names its own.
    """
    monkeypatch.setitem(RedisLedger.__init__.__kwdefaults__, "timeout_seconds", 30.0)


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server for the tests of one file."""
    server = PrefectServer(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server
    finally:
        server.end()
