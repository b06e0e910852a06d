from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from velox_core.engine_lock import LockView, ProcessLock
from velox_core.operations.engine_process import process_holder
from velox_core.operations.processes import lives
from velox_core.operations.watch import WatchEnd, is_watched, start_lock, take_watch, unseen_watches, watches_of
from velox_core.ports import LockHolder

STEM = "2024-01-15"
ENGINE = LockHolder(host="here", pid=77, started="boot:1")
WATCHER = """
import sys, time
from pathlib import Path
from velox_core.operations.watch import take_watch
from velox_core.ports import LockHolder
watch = take_watch(Path(sys.argv[1]), "2024-01-15", flow_run="intraday killed")
watch.watches_over(LockHolder(host="here", pid=77, started="boot:1"))
watch.seen("2024-01-15-1")
print("watching", flush=True)
time.sleep(600)
"""


def test_a_second_watcher_is_turned_away_while_the_first_lives_and_is_taken_after(tmp_path: Path) -> None:
    first = take_watch(tmp_path, STEM, flow_run="intraday a")
    assert first is not None
    assert take_watch(tmp_path, STEM, flow_run="intraday b") is None
    assert is_watched(tmp_path, STEM)
    assert watches_of(tmp_path, STEM)[-1].sentence.startswith("the flow run 'intraday a'")
    other_day = take_watch(tmp_path, "2024-01-16", flow_run="intraday c")
    assert other_day is not None
    other_day.close()
    first.end(WatchEnd.SAW_THE_END)
    first.close()
    assert not is_watched(tmp_path, STEM)
    second = take_watch(tmp_path, STEM, flow_run="intraday b")
    assert second is not None
    assert second.unseen == []
    second.close()


def test_a_watcher_that_was_killed_is_known_as_killed_and_its_engine_is_free_to_be_watched(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WATCHER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        assert take_watch(tmp_path, STEM, flow_run="intraday next") is None
        assert unseen_watches(tmp_path, STEM) == []
        process.send_signal(signal.SIGKILL)
        process.wait()
    (told,) = unseen_watches(tmp_path, STEM)
    assert (told.ended, told.flow_run, told.run_id, told.engine_pid) == (WatchEnd.KILLED, "intraday killed", "2024-01-15-1", 77)
    assert "was killed, last heard of at 20" in told.sentence
    following = take_watch(tmp_path, STEM, flow_run="intraday next")
    assert following is not None
    assert following.unseen == [told]
    following.watches_over(ENGINE)
    following.end(WatchEnd.SAW_THE_END)
    following.close()
    assert unseen_watches(tmp_path, STEM) == []  # seen through by the run that came after


@pytest.mark.parametrize("ended", [WatchEnd.CANCELLED, WatchEnd.ENDED_BEFORE, None])
def test_a_watch_that_did_not_see_the_end_is_told_by_the_next_and_one_without_an_engine_is_not(
    ended: WatchEnd | None, tmp_path: Path
) -> None:
    idle = take_watch(tmp_path, STEM, flow_run="intraday refused")
    assert idle is not None
    idle.close()
    watch = take_watch(tmp_path, STEM, flow_run="intraday a")
    assert watch is not None
    watch.watches_over(ENGINE)
    if ended is not None:
        watch.end(ended)
    watch.close()
    (told,) = unseen_watches(tmp_path, STEM)
    assert (told.flow_run, told.ended) == ("intraday a", ended or WatchEnd.FAILED)


def test_a_cancelled_watch_that_still_saw_the_end_has_seen_it_through(tmp_path: Path) -> None:
    watch = take_watch(tmp_path, STEM, flow_run="intraday a")
    assert watch is not None
    watch.watches_over(ENGINE)
    watch.end(WatchEnd.CANCELLED)
    watch.end(WatchEnd.SAW_THE_END)
    watch.end(WatchEnd.CANCELLED)
    watch.close()
    assert watches_of(tmp_path, STEM)[-1].ended is WatchEnd.SAW_THE_END
    assert unseen_watches(tmp_path, STEM) == []


def test_a_record_that_cannot_be_written_or_read_stops_nobody_from_watching(tmp_path: Path) -> None:
    folder = tmp_path / "watch"
    folder.mkdir()
    (folder / f"{STEM}.json").mkdir()
    watch = take_watch(tmp_path, STEM, flow_run="intraday a")
    assert watch is not None
    assert "cannot be written" in watch.trouble
    watch.close()
    (folder / f"{STEM}.json").rmdir()
    (folder / f"{STEM}.json").write_text('{"watches": [7, {"pid": 1}]}')
    assert watches_of(tmp_path, STEM) == []


def test_the_lock_that_an_engine_inherits_outlives_its_starter_and_ends_with_it(tmp_path: Path) -> None:
    lock = ProcessLock(start_lock(tmp_path, STEM))
    assert lock.take()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=(lock.fileno(),)) as engine:
        holder = process_holder(engine.pid)
        lock.name(holder)
        lock.close()
        view = LockView(start_lock(tmp_path, STEM))
        assert view.holder() == holder
        assert lives(holder)
        second = ProcessLock(start_lock(tmp_path, STEM))
        assert not second.take()
        assert view.holder() == holder  # whoever is turned away leaves the name
        os.kill(engine.pid, signal.SIGKILL)
        engine.wait()
        assert view.holder() is None
        assert second.take()
        second.close()
        assert not lives(holder)


def test_lives_is_no_for_another_host_another_start_and_a_process_nobody_knows() -> None:
    own = process_holder(os.getpid())
    assert lives(own)
    assert not lives(LockHolder(host="elsewhere", pid=own.pid, started=own.started))
    assert not lives(LockHolder(host=own.host, pid=own.pid, started="an-earlier-boot:1"))
    assert not lives(LockHolder(host=own.host, pid=own.pid, started=""))
