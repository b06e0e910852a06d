"""The process that waits to be a replay's engine: an order is whole or nothing runs, and only a replay is given to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from velox_core.engine_lock import LockView, ProcessLock
from velox_core.operations import engine_standby
from velox_core.operations.engine_process import EngineRequest, start_engine
from velox_core.operations.engine_standby import dismiss_engine, get_engine_ready, order_engine, receive_order
from velox_core.operations.processes import is_alive
from velox_core.settings import Paths, Settings

BOUND_SECONDS = 240.0
ORDER = {"arguments": ["run", "--json"], "environ": {"HOME": "/h"}}


def within_bound(done: Callable[[], bool]) -> bool:
    until = time.monotonic() + BOUND_SECONDS
    while not done() and time.monotonic() < until:
        time.sleep(0.02)
    return done()


@pytest.fixture(autouse=True)
def no_spare() -> Iterator[None]:
    yield
    dismiss_engine()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[int, ProcessLock, Path]]:
    """Where an engine prints, and the lock that it is given."""
    lock, output = ProcessLock(tmp_path / "start"), tmp_path / "output"
    assert lock.take()
    sink = os.open(output, os.O_WRONLY | os.O_CREAT)
    yield sink, lock, output
    os.close(sink)
    lock.close()


def sent(*parts: bytes, files: int = 2) -> engine_standby.Order | None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if parts:
            socket.send_fds(ours, [parts[0]], [ours.fileno()] * files)
            for part in parts[1:]:
                ours.sendall(part)
        ours.shutdown(socket.SHUT_WR)
        order = receive_order(theirs)
    if order is not None:
        os.close(order.output)
        os.close(order.lock)
    return order


def test_a_whole_order_is_taken_as_it_was_given() -> None:
    body = json.dumps(ORDER).encode() + b"\n"
    order = sent(b"order\n", body[:7], body[7:])
    assert order is not None
    assert (order.arguments, order.environ) == (ORDER["arguments"], ORDER["environ"])


def test_an_order_that_is_not_whole_is_none() -> None:
    body = json.dumps(ORDER).encode()
    assert sent() is None  # whoever started it ended
    assert sent(b"order\n", body) is None  # or ended within it
    assert sent(b"order\n", body[:-3] + b"\n") is None
    assert sent(b"other\n", body + b"\n") is None
    assert sent(b"order\n", body + b"\n", files=1) is None


def test_a_process_that_waited_is_the_engine_with_its_environment_its_output_and_its_lock(
    place: tuple[int, ProcessLock, Path],
) -> None:
    sink, lock, output = place
    get_engine_ready()
    get_engine_ready()  # one is enough
    (spare,) = engine_standby._spare
    assert LockView(lock.path).holder() is not None
    environ = {**os.environ, "VELOX__SYSTEM__SPEED": "x", "VELOX__VAR": str(output.parent / "var")}
    process = order_engine(["check", "--json"], environ, output=sink, lock=lock.fileno())
    assert process is spare.process
    assert order_engine(["check"], environ, output=sink, lock=lock.fileno()) is None  # there was one
    assert process.wait(BOUND_SECONDS) == 2
    assert "VELOX__SYSTEM__SPEED" in output.read_text()


def test_what_cannot_be_imported_ahead_is_told_by_the_engine_in_its_own_output(
    place: tuple[int, ProcessLock, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, lock, output = place
    (tmp_path / "pyarrow").mkdir()
    (tmp_path / "pyarrow" / "__init__.py").write_text("raise ValueError('it is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    get_engine_ready()
    process = order_engine(["--version"], os.environ, output=sink, lock=lock.fileno())
    assert process is not None
    assert process.wait(BOUND_SECONDS) == 0
    assert output.read_text().startswith("velox ")


def test_an_order_that_was_interrupted_ends_the_process(
    place: tuple[int, ProcessLock, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    sink, lock, output = place
    get_engine_ready()
    (spare,) = engine_standby._spare
    monkeypatch.setattr(engine_standby.socket, "send_fds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        order_engine(["--version"], os.environ, output=sink, lock=lock.fileno())
    assert (spare.process.poll(), engine_standby._spare) == (-signal.SIGKILL, [])
    assert output.read_bytes() == b""


def test_the_lock_is_held_until_the_process_that_was_given_it_ends(place: tuple[int, ProcessLock, Path]) -> None:
    sink, lock, _ = place
    get_engine_ready()
    (spare,) = engine_standby._spare
    os.kill(spare.process.pid, signal.SIGSTOP)  # it cannot end before it was looked at
    process = order_engine(["--version"], os.environ, output=sink, lock=lock.fileno())
    assert process is not None
    lock.close()
    assert LockView(lock.path).holder() is not None
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(BOUND_SECONDS) == 0
    assert within_bound(lambda: LockView(lock.path).holder() is None)


def test_a_process_that_is_gone_gets_no_order_and_nothing_runs(place: tuple[int, ProcessLock, Path]) -> None:
    sink, lock, output = place
    get_engine_ready()
    (spare,) = engine_standby._spare
    spare.process.kill()
    assert spare.process.wait(BOUND_SECONDS) == -signal.SIGKILL
    assert order_engine(["--version"], os.environ, output=sink, lock=lock.fileno()) is None
    assert engine_standby._spare == []
    assert output.read_bytes() == b""


def test_an_order_that_does_not_get_through_ends_the_process_before_anybody_starts_another(
    place: tuple[int, ProcessLock, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, lock, output = place
    monkeypatch.setattr(engine_standby, "ORDER_SECONDS_MAX", 0.05)
    get_engine_ready()
    (spare,) = engine_standby._spare
    os.kill(spare.process.pid, signal.SIGSTOP)  # it reads nothing, so that what is larger than the buffer waits
    environ = {**os.environ, "LARGE": "x" * 4_000_000}
    assert order_engine(["--version"], environ, output=sink, lock=lock.fileno()) is None
    assert spare.process.poll() == -signal.SIGKILL
    assert output.read_bytes() == b""


def test_it_ends_with_whoever_started_it_however_that_ended(tmp_path: Path) -> None:
    code = (
        "import os, signal; from velox_core.operations import engine_standby as s; s.get_engine_ready(); "
        "print(s._spare[0].process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=BOUND_SECONDS)
    assert ended.returncode == -signal.SIGKILL
    assert within_bound(lambda: not is_alive(int(ended.stdout)))


def test_it_is_nothing_for_people(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, *engine_standby.STANDBY],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUND_SECONDS,
    )
    assert (ended.returncode, ended.stderr) == (2, "velox: --standby is for the process of a flow; use velox run\n")


@pytest.mark.parametrize("is_replay", [True, False])
def test_only_a_replay_is_given_to_a_process_that_waited(
    settings_with: Callable[..., Settings],
    paths: Paths,
    place: tuple[int, ProcessLock, Path],
    monkeypatch: pytest.MonkeyPatch,
    is_replay: bool,
) -> None:
    settings, lock = settings_with(), place[1]
    request = replace(EngineRequest(config=settings.source, trading_date=date(2024, 1, 15)), speed=60.0)
    monkeypatch.setattr(EngineRequest, "arguments", lambda self: ["-m", "velox_core.cli", "--version"])
    get_engine_ready()
    (spare,) = engine_standby._spare
    engine = start_engine(settings, paths, request, os.environ, lock, is_replay=is_replay)
    assert (engine.pid == spare.process.pid) is is_replay
    assert engine.wait(BOUND_SECONDS)
    assert engine.outcome().exit_code == 0
    assert engine.output is not None
    assert engine.output.read_text().startswith("velox ")
    assert (engine_standby._spare == []) is is_replay
