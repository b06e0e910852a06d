"""The kernel locks of a scope: who has them, who had them, and who may be ended."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.outside import FakeClock
from velox_core.domain.errors import VeloxError
from velox_core.engine_lock import (
    CloserLockFile,
    EngineLock,
    LockView,
    SoleCloser,
    end_holder,
    own_holder,
    process_start,
    settle_closer_lock,
)
from velox_core.ports import CloserHold, EndOfHolder, LockHolder

HOLD_CLOSER = """
import sys, time
from pathlib import Path
from velox_core.engine_lock import CloserLockFile
lock = CloserLockFile(Path(sys.argv[1]))
print(lock.take().value, flush=True)
sys.stdin.readline()
lock.give_back()
print("given back", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that took the closer's lock of `tmp_path`; a line on its stdin makes it give the lock back."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_CLOSER, str(tmp_path / "closer.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "FRESH"
    yield process
    process.kill()
    process.communicate()


def test_engine_lock_held_by_a_process_is_refused_to_the_next_and_named(tmp_path: Path) -> None:
    lock = EngineLock(tmp_path / "engine.lock")
    with pytest.raises(VeloxError, match=f"process {os.getpid()}"):
        EngineLock(tmp_path / "engine.lock")
    assert LockView(tmp_path / "engine.lock").holder() == own_holder()
    lock.release()
    assert LockView(tmp_path / "engine.lock").holder() is None
    EngineLock(tmp_path / "engine.lock").release()


def test_closer_lock_of_another_process_is_not_had_until_it_is_given_back(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    lock = CloserLockFile(tmp_path / "closer.lock")
    assert lock.take() is CloserHold.ELSEWHERE
    assert lock.holder == f"process {other.pid}"
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write("\n")
    other.stdin.flush()
    assert other.stdout.readline().strip() == "given back"
    assert lock.take() is CloserHold.FRESH
    assert lock.take() is CloserHold.UNBROKEN
    lock.close()


def test_closer_lock_that_nobody_else_had_meanwhile_is_unbroken(tmp_path: Path) -> None:
    lock = CloserLockFile(tmp_path / "closer.lock")
    assert lock.take() is CloserHold.FRESH
    lock.give_back()
    assert LockView(tmp_path / "closer.lock").holder() is None
    assert lock.take() is CloserHold.UNBROKEN
    lock.close()


def test_closer_lock_whose_record_another_process_wrote_is_fresh(tmp_path: Path) -> None:
    lock = CloserLockFile(tmp_path / "closer.lock")
    lock.take()
    lock.give_back()
    (tmp_path / "closer.lock").write_bytes(b'{"host":"h","pid":1,"started":"s"}\n')
    assert lock.take() is CloserHold.FRESH
    lock.close()


def test_closer_lock_dies_with_its_process(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    lock = CloserLockFile(tmp_path / "closer.lock")
    assert lock.take() is CloserHold.FRESH
    lock.close()


def patient_lock(tmp_path: Path) -> tuple[CloserLockFile, FakeClock]:
    clock = FakeClock()
    return CloserLockFile(tmp_path / "closer.lock", request_seconds=10.0, monotonic=clock.monotonic), clock


def test_closer_lock_of_a_holder_that_died_with_it_is_had_once_its_last_request_is_over(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    other.kill()
    other.wait()
    lock, clock = patient_lock(tmp_path)
    clock.seconds = 100.0
    assert lock.take() is CloserHold.ELSEWHERE
    lock.give_back()  # as a closer does that was refused: it says nothing of the dead one
    clock.seconds = 109.9
    assert lock.take() is CloserHold.ELSEWHERE
    assert CloserLockFile(tmp_path / "closer.lock").take() is CloserHold.FRESH  # the kernel's lock is free meanwhile
    lock.close()


def test_closer_lock_is_fresh_after_the_last_request_of_a_dead_holder(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    lock, clock = patient_lock(tmp_path)
    assert lock.take() is CloserHold.ELSEWHERE
    clock.seconds = 10.0
    assert [lock.take(), lock.take()] == [CloserHold.FRESH, CloserHold.UNBROKEN]
    lock.give_back()
    assert lock.take() is CloserHold.UNBROKEN
    lock.close()


def test_closer_lock_that_was_given_back_is_not_waited_for(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write("\n")
    other.stdin.flush()
    assert other.stdout.readline().strip() == "given back"
    lock, _ = patient_lock(tmp_path)
    assert lock.take() is CloserHold.FRESH
    lock.close()


def test_closer_lock_that_nobody_ever_had_is_not_waited_for(tmp_path: Path) -> None:
    lock, _ = patient_lock(tmp_path)
    assert lock.take() is CloserHold.FRESH
    lock.close()


def test_closer_lock_whose_record_is_not_whole_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "closer.lock").write_bytes(b'{"host":"h","pid":1,"sta')
    lock, clock = patient_lock(tmp_path)
    assert lock.take() is CloserHold.ELSEWHERE
    clock.seconds = 10.0
    assert lock.take() is CloserHold.FRESH
    lock.close()


def test_closer_lock_of_another_holder_that_died_is_waited_for_anew(tmp_path: Path) -> None:
    (tmp_path / "closer.lock").write_bytes(b'{"host":"h","pid":1,"started":"s"}\n')
    lock, clock = patient_lock(tmp_path)
    assert lock.take() is CloserHold.ELSEWHERE
    clock.seconds = 9.0
    (tmp_path / "closer.lock").write_bytes(b'{"host":"h","pid":2,"started":"s"}\n')
    assert lock.take() is CloserHold.ELSEWHERE
    clock.seconds = 18.9
    assert lock.take() is CloserHold.ELSEWHERE
    clock.seconds = 19.0
    assert lock.take() is CloserHold.FRESH
    lock.close()


def test_closer_lock_of_a_killed_holder_is_not_waited_for_again_after_a_take_over(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    settle_closer_lock(tmp_path / "closer.lock")  # it lives: nothing is said of it
    other.kill()
    other.wait()
    lock, _ = patient_lock(tmp_path)
    assert lock.take() is CloserHold.ELSEWHERE
    settle_closer_lock(tmp_path / "closer.lock")
    assert lock.take() is CloserHold.FRESH
    lock.close()


def test_looking_at_a_lock_takes_it_from_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closer, view = CloserLockFile(tmp_path / "closer.lock"), LockView(tmp_path / "closer.lock")
    taken: list[CloserHold] = []
    close = os.close

    def take_while_the_looker_is_at_it(file: int) -> None:
        taken.append(closer.take())
        close(file)

    monkeypatch.setattr("velox_core.engine_lock.os.close", take_while_the_looker_is_at_it)
    assert view.holder() is None
    monkeypatch.undo()
    assert taken == [CloserHold.FRESH]
    assert view.holder() == own_holder()
    closer.close()


def test_lock_names_its_holder_on_a_disk_that_has_filled_up_since_the_file_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "engine.lock"
    CloserLockFile(path).close()  # the file is made; nobody has had the lock
    blocks, size = path.stat().st_blocks, path.stat().st_size
    write = os.pwrite

    def full(file: int, record: bytes, offset: int) -> int:
        if offset + len(record) > size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, record, offset)

    def cut(file: int, length: int) -> None:
        raise AssertionError("a record that is cut off names nobody when the next write fails")

    monkeypatch.setattr("velox_core.engine_lock.os.pwrite", full)
    monkeypatch.setattr("velox_core.engine_lock.os.ftruncate", cut)
    lock = EngineLock(path)
    assert LockView(path).holder() == own_holder()
    assert blocks > 0
    assert (path.stat().st_blocks, path.stat().st_size) == (blocks, size)
    lock.release()


@pytest.mark.parametrize("padding", [b"", b"\n", b"\0" * 300, b" " * 300 + b"\n"])
def test_record_is_read_with_and_without_padding(tmp_path: Path, padding: bytes) -> None:
    lock = EngineLock(tmp_path / "engine.lock")
    (tmp_path / "engine.lock").write_bytes(b'{"host":"h","pid":1,"started":"s"}' + padding)
    assert LockView(tmp_path / "engine.lock").holder() == LockHolder(host="h", pid=1, started="s")
    lock.release()


def test_locks_in_a_folder_that_cannot_be_made_say_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VeloxError, match="cannot be made"):
        EngineLock(tmp_path / "file" / "engine.lock")
    with pytest.raises(VeloxError, match="cannot be made"):
        CloserLockFile(tmp_path / "file" / "closer.lock")


def test_lock_view_of_a_file_without_a_record_names_nobody(tmp_path: Path) -> None:
    lock = EngineLock(tmp_path / "engine.lock")
    (tmp_path / "engine.lock").write_bytes(b"4711\n")
    assert LockView(tmp_path / "engine.lock").holder() == LockHolder(host="", pid=0, started="")
    lock.release()
    assert LockView(tmp_path / "absent.lock").holder() is None


# -- ending a holder -----------------------------------------------------------------------------------------------


def test_end_holder_kills_the_very_process_and_frees_its_lock(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    holder = LockView(tmp_path / "closer.lock").holder()
    assert holder is not None
    assert holder.pid == other.pid
    assert end_holder(holder, 10.0) is EndOfHolder.KILLED
    assert LockView(tmp_path / "closer.lock").holder() is None
    assert other.wait() == -9


@pytest.mark.parametrize("change", ["started", "host", "nobody"])
def test_end_holder_leaves_a_process_alone_that_it_cannot_verify(
    tmp_path: Path, other: subprocess.Popen[str], change: str
) -> None:
    true = own_holder()
    holder = {
        "started": LockHolder(host=true.host, pid=other.pid, started=true.started),  # the id passed to another process
        "host": LockHolder(host="elsewhere", pid=other.pid, started=process_start(other.pid)),
        "nobody": LockHolder(host=true.host, pid=other.pid, started=""),
    }[change]
    assert end_holder(holder, 10.0) is EndOfHolder.NOT_VERIFIED
    assert other.poll() is None


def test_end_holder_of_a_process_that_is_gone_kills_nothing(other: subprocess.Popen[str]) -> None:
    holder = LockHolder(host=own_holder().host, pid=other.pid, started=process_start(other.pid))
    other.kill()
    other.wait()
    assert end_holder(holder, 10.0) is EndOfHolder.GONE
    assert process_start(other.pid) == ""


def test_sole_closer_always_has_it() -> None:
    closer = SoleCloser()
    assert closer.take() is CloserHold.UNBROKEN
    closer.give_back()
    assert closer.take() is CloserHold.UNBROKEN


def test_closer_that_follows_another_of_its_own_process_finds_the_lock_fresh(tmp_path: Path) -> None:
    path = tmp_path / "closer.lock"
    for ends in ("give_back", "close"):
        first = CloserLockFile(path)
        assert first.take() is CloserHold.FRESH
        getattr(first, ends)()
        first.close()
    second = CloserLockFile(path)
    assert [second.take(), second.take()] == [CloserHold.FRESH, CloserHold.UNBROKEN]
    second.give_back()
    assert second.take() is CloserHold.UNBROKEN
    second.close()
