"""A real day's end, killed by SIGKILL before and after each step is put on record, and in the middle of one: nothing is lost,
nothing is done twice; then what it left: the day's head in report and backup, and the curve against the limit in the page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.stopped import wait_until_stopped
from velox_core.archive import archive_problems, read_manifest
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.operations.backup_places import list_backups, verify_backups
from velox_core.operations.day import Day, DayRequest, open_day
from velox_core.operations.eod_record import RECORD_FILE, EodRecord
from velox_core.operations.eod_steps import STEP_NAMES
from velox_core.operations.evening import run_evening
from velox_core.operations.halt import write_everywhere
from velox_core.operations.journal_check import day_head
from velox_core.operations.recorded import RecordedRun, find_run
from velox_core.operations.runs import open_journal
from velox_core.operations.status import read_summary
from velox_core.operations.view import head_text
from velox_core.redis_server import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[2]
DAY = date(2024, 1, 15)
CLOSE_MS = 1_705_312_800_000  # 15:30 IST
WAIT_SECONDS = 200.0

STOPS_IN_ITS_BACKUP = """
import os, signal
from velox_core.backup import make
from velox_core.cli.entry import main
real = make._database
def database(*given):
    made = real(*given)
    os.kill(os.getpid(), signal.SIGSTOP)
    return made
make._database = database
main()
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Day, RecordedRun, dict[str, str]]]:
    """A day that was traded by a real engine, and halted by a person after it."""
    var = tmp_path_factory.mktemp("var")
    environ = {**os.environ, "VELOX__VAR": str(var), "COLUMNS": "160"}
    command = [sys.executable, "-m", "velox_core.cli", "run", "--date", DAY.isoformat(), "--speed", "max", "--json"]
    subprocess.run(command, env=environ, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=WAIT_SECONDS, check=True)
    day = open_day(DayRequest(date=DAY), environ)
    recorded = find_run(day.settings, day.paths, on=DAY)
    halt = HaltRecord(
        halt_id="20240115-MANUAL-1", kind=HaltKind.MANUAL, trading_date=DAY, reason="enough", by="owner", at_ms=CLOSE_MS
    )
    assert write_everywhere(day.settings, day.paths, recorded, halt) == {}
    yield day, recorded, environ
    EmbeddedRedis(var / "redis").stop()


def killed(work: Callable[[], object]) -> bool:
    """Do it in a child; returns whether SIGKILL ended that."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def kept_steps(recorded: RecordedRun) -> dict[str, Any]:
    try:
        return dict(json.loads((recorded.folder / RECORD_FILE).read_text())["steps"])
    except FileNotFoundError:
        return {}


def test_end_of_day_killed_around_each_step_does_the_rest_and_nothing_twice(
    world: tuple[Day, RecordedRun, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    day, recorded, environ = world
    whole = EodRecord.keep

    def dying(step: str, *, is_kept: bool) -> Callable[..., None]:
        def keep(record: EodRecord, result: Any) -> None:
            if result.step != step or is_kept:
                whole(record, result)
            if result.step == step:
                os.kill(os.getpid(), signal.SIGKILL)

        return keep

    moments: dict[str, int] = {}
    for number, step in enumerate(STEP_NAMES):
        for is_kept in (False, True):
            monkeypatch.setattr(EodRecord, "keep", dying(step, is_kept=is_kept))
            assert killed(lambda: run_evening(day, recorded)), (step, is_kept)
            monkeypatch.undo()
            found = kept_steps(recorded)
            assert list(found) == list(STEP_NAMES[: number + is_kept]), (step, is_kept)
            assert all(found[name]["wall_ms"] == at for name, at in moments.items())  # done steps are left
            moments = {name: found[name]["wall_ms"] for name in found}
    command = [sys.executable, "-m", "velox_core.cli", "eod", "--date", DAY.isoformat(), "--json"]
    ended = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {step["state"] for step in json.loads(ended.stdout)["steps"]} == {"ALREADY_DONE"}
    assert [backup.name for backup in list_backups(day.settings, day.paths) if backup.manifest and backup.manifest.good] == [
        kept_steps(recorded)["backup"]["data"]["name"]
    ]
    with open_journal(day.settings, recorded) as journal:
        cleared = [event.body["clears"] for event in journal.events((EventKind.HALT_CLEARED,))]
    assert cleared == ["20240115-MANUAL-1"]
    assert [verdict.problems for verdict in verify_backups(day.settings, day.paths)] == [()]
    folder = Path(kept_steps(recorded)["archive"]["data"]["folder"])
    assert archive_problems(folder) == []
    manifest = read_manifest(folder)
    assert manifest is not None
    assert sorted(path.name for path in folder.iterdir()) == sorted(["manifest.json", *(file.name for file in manifest.files)])


def test_end_of_day_as_a_process_killed_in_the_midst_goes_on(world: tuple[Day, RecordedRun, dict[str, str]]) -> None:
    day, recorded, environ = world
    command = [sys.executable, "-c", STOPS_IN_ITS_BACKUP, "eod", "--date", DAY.isoformat(), "--again", "--json"]
    before = kept_steps(recorded)
    process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until_stopped(process.pid)
    process.kill()
    process.wait()
    found = kept_steps(recorded)
    assert found["reset"] != before["reset"]
    assert found["backup"] == before["backup"]  # it did not come so far
    done = run_evening(day, recorded)
    assert done.exit_code == 0, done.sentence


def test_days_head_stands_in_report_page_and_manifest_and_the_limit_is_drawn(
    world: tuple[Day, RecordedRun, dict[str, str]],
) -> None:
    day, recorded, _ = world
    head = day_head(day.settings, day.paths, DAY)
    assert re.fullmatch(r"[0-9a-f]{64}", head)
    report = read_summary(recorded.folder)
    assert report is not None
    assert report["day_head"] == head
    (stored,) = [backup for backup in list_backups(day.settings, day.paths) if backup.manifest is not None]
    assert stored.manifest is not None
    assert stored.manifest.head == head
    page = Path(kept_steps(recorded)["report"]["data"]["page"]).read_text(encoding="utf-8")
    assert head in page
    assert "The same against the limit" in page
    assert "loss limit" in page
    shown = head_text(report)
    assert shown.startswith(f"{head[:16]}…, {report['journal_head']['events']} events")
    assert "{" not in shown
