from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.prefect_server import PrefectServer


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server for the tests of one file."""
    server = PrefectServer(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server
    finally:
        server.end()
