"""The embedded Redis, as far as no server is needed: paths, flags, executables, refusals."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from velox_core.domain.errors import LedgerUnavailable
from velox_core.redis_server import EmbeddedRedis, bundled_executable, find_executable, server_flags


def executable(folder: Path, text: str) -> Path:
    path = folder / "redis-server"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_socket_stands_in_the_folder_when_its_name_fits() -> None:
    server = EmbeddedRedis(Path("/velox/var/redis"))
    assert server.socket_path == Path("/velox/var/redis/redis.sock")
    assert server.url == "unix:///velox/var/redis/redis.sock"


@pytest.mark.parametrize(("length", "fits"), [(100, True), (101, False)])
def test_socket_of_a_deep_folder_stands_in_a_private_one_of_its_own(length: int, fits: bool) -> None:
    folder = Path("/" + "x" * (length - len("//redis.sock")))
    path = EmbeddedRedis(folder).socket_path
    assert (path.parent == folder) is fits
    assert len(str(path)) <= 100
    assert path == EmbeddedRedis(folder).socket_path
    assert path != EmbeddedRedis(folder / "other" / ("y" * 100)).socket_path


def test_socket_folder_that_is_not_private_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server = EmbeddedRedis(tmp_path / ("x" * 100), executable=executable(tmp_path, "exit 1"))
    server.socket_path.parent.mkdir()
    server.socket_path.parent.chmod(0o755)
    with pytest.raises(LedgerUnavailable, match="not a private folder"):
        server.start()


def test_flags_open_no_port_and_evict_nothing() -> None:
    flags = server_flags(Path("/d"), Path("/d/redis.sock"))
    pairs = dict(zip(flags[::2], flags[1::2], strict=True))
    assert pairs["--port"] == "0"
    assert pairs["--unixsocket"] == "/d/redis.sock"
    assert pairs["--unixsocketperm"] == "700"
    assert pairs["--appendonly"] == "yes"
    assert pairs["--maxmemory-policy"] == "noeviction"


def test_executable_on_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = executable(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_executable() == own


def test_executable_from_the_wheel_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bundled = bundled_executable()
    assert bundled is not None
    assert os.access(bundled, os.X_OK)
    assert find_executable() == bundled


def test_no_executable_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(LedgerUnavailable, match="make setup"):
        EmbeddedRedis(tmp_path / "redis").start()


def test_server_that_ends_at_once_is_refused_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis", executable=executable(tmp_path, "echo first; echo Bad file format >&2; exit 1"))
    with pytest.raises(LedgerUnavailable, match="Bad file format") as caught:
        server.start()
    assert "move" in str(caught.value)
    assert not server.is_running()


def test_server_keeps_no_file_that_this_process_inherited(tmp_path: Path) -> None:
    kept = tmp_path / "files"
    server = EmbeddedRedis(tmp_path / "redis", executable=executable(tmp_path, f"ls /proc/self/fd > {kept}; exit 1"))
    opened = os.open(tmp_path, os.O_RDONLY)
    inherited = fcntl.fcntl(opened, fcntl.F_DUPFD, 100)  # no number that the shell or `ls` gives to a file of its own
    os.close(opened)
    os.set_inheritable(inherited, True)
    try:
        with pytest.raises(LedgerUnavailable):
            server.start()
        assert str(inherited) not in kept.read_text().split()
        assert os.get_inheritable(inherited)
    finally:
        os.close(inherited)


def test_server_that_never_answers_is_ended_and_refused(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis", executable=executable(tmp_path, "exec sleep 60"), ready_seconds=0.05)
    with pytest.raises(LedgerUnavailable, match=r"not ready after 0\.05 s"):
        server.start()
    assert not (tmp_path / "redis" / "redis.pid").exists()


def test_executable_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="cannot start"):
        EmbeddedRedis(tmp_path / "redis", executable=tmp_path / "nothing").start()


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnavailable, match="cannot create"):
        EmbeddedRedis(tmp_path / "file" / "redis").start()


def test_stop_without_a_server_is_no_error(tmp_path: Path) -> None:
    EmbeddedRedis(tmp_path / "redis").stop()
    assert not (tmp_path / "redis").exists()


@pytest.mark.parametrize("content", ["", "x y", "1 2", f"{os.getpid()} 5"], ids=["empty", "words", "dead", "ours"])
def test_stop_with_a_pid_file_of_another_process_ends_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "redis.pid").write_text(content)
    EmbeddedRedis(tmp_path).stop()
    assert (tmp_path / "redis.pid").read_text() == content
