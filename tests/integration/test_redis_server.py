"""The embedded Redis as a real process: start, attach, survive, recover, stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

from velox_core.domain.errors import LedgerUnavailable
from velox_core.redis_server import EmbeddedRedis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    made = EmbeddedRedis(tmp_path / "redis")
    yield made
    made.stop()


@pytest.fixture
def patient_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no server that hangs."""
    monkeypatch.setattr("velox_core.redis_server.ANSWER_SECONDS", 60.0)


def pid_of(server: EmbeddedRedis) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.info("server")["process_id"])


@pytest.mark.usefixtures("patient_look")
def test_start_twice_and_from_another_object_is_one_server(server: EmbeddedRedis, tmp_path: Path) -> None:
    server.start()
    pid = pid_of(server)
    assert server.start() == EmbeddedRedis(tmp_path / "redis").start() == server.url
    assert pid_of(server) == pid


@pytest.mark.usefixtures("patient_look")
def test_start_from_two_threads_is_one_server(server: EmbeddedRedis, tmp_path: Path) -> None:
    others = [EmbeddedRedis(tmp_path / "redis") for _ in range(4)]
    threads = [threading.Thread(target=other.start) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = server.log_path.read_text()
    assert server.is_running()
    assert log.count("eady to accept connections") == 1


def test_server_listens_on_no_port_and_on_a_private_socket(server: EmbeddedRedis) -> None:
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.config_get("port")["port"] == "0"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert client.config_get("appendonly")["appendonly"] == "yes"
    assert server.socket_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("patient_look")
def test_server_outlives_the_process_that_started_it(server: EmbeddedRedis, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from velox_core.redis_server import EmbeddedRedis\n"
        f"EmbeddedRedis(Path({str(tmp_path / 'redis')!r})).start()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    assert server.is_running()
    assert os.getsid(pid_of(server)) != os.getsid(0)
    server.stop()
    assert not server.is_running()


def test_killed_server_starts_again_with_its_data(server: EmbeddedRedis) -> None:
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
    os.kill(pid_of(server), signal.SIGKILL)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"


@pytest.mark.usefixtures("patient_look")
def test_server_whose_pid_file_is_gone_is_found_and_stopped(server: EmbeddedRedis, tmp_path: Path) -> None:
    server.start()
    pid = pid_of(server)
    (tmp_path / "redis" / "redis.pid").unlink()
    EmbeddedRedis(tmp_path / "redis").stop()
    assert not server.is_running()
    assert not Path(f"/proc/{pid}/fd/0").exists()


def test_server_that_hangs_is_not_started_over_and_can_be_stopped(server: EmbeddedRedis, tmp_path: Path) -> None:
    server.start()
    pid = pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(LedgerUnavailable, match="not ready"):
            EmbeddedRedis(tmp_path / "redis", ready_seconds=0.1).start()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert pid_of(server) == pid
    server.stop()
    assert not server.is_running()


def test_server_that_hangs_is_stopped_by_force(server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.redis_server.STOP_SECONDS", 3.0)  # it does not hear the first signal
    server.start()
    pid = pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not server.is_running()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_damaged_data_is_refused_with_the_end_of_the_log(server: EmbeddedRedis, tmp_path: Path) -> None:
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
    server.stop()
    for path in (tmp_path / "redis").rglob("appendonly.aof*"):
        if path.is_file():
            path.write_bytes(b"*garbage\r\n" * 50)
    with pytest.raises(LedgerUnavailable, match="rebuilt from journal and broker") as caught:
        server.start()
    assert "redis.log" in str(caught.value)


def test_deep_folder_gets_a_short_private_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory(prefix="velox-") as short:  # pytest's own folder may be too deep for a socket
        monkeypatch.setattr("tempfile.tempdir", short)
        server = EmbeddedRedis(tmp_path / ("x" * 100))
        try:
            server.start()
            assert server.socket_path.parent.stat().st_mode & 0o777 == 0o700
            assert pid_of(server) > 0
        finally:
            server.stop()
        assert list(Path(short).iterdir()) == []
        monkeypatch.undo()
