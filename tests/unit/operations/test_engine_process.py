"""Starting an engine: as a child, and as a unit of systemd through a systemctl that keeps what it was asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from velox_core.control import CombinedControl, FileControl, process_folder
from velox_core.domain.errors import VeloxError
from velox_core.engine_lock import LockView, ProcessLock, own_holder
from velox_core.operations import engine_process
from velox_core.operations.engine_process import EngineProcess, EngineRequest, process_holder, start_engine
from velox_core.operations.engine_unit import engine_unit, leave_request, read_request, start_unit
from velox_core.operations.handover import engine_of
from velox_core.settings import Paths, Settings

Load = Callable[..., Settings]
SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$FAKE_SYSTEMCTL/asked"
case "$1" in
start) test ! -e "$FAKE_SYSTEMCTL/broken" || { echo "Unit not found" >&2; exit 5; };;
show) cat "$FAKE_SYSTEMCTL/$4" 2>/dev/null || echo 0;;
esac
"""


def request(settings: Settings, **changes: object) -> EngineRequest:
    asked = EngineRequest(config=settings.source, trading_date=date(2024, 1, 15), speed=60.0)
    return replace(asked, **changes)  # type: ignore[arg-type]


def test_a_started_engine_is_known_by_its_lock_from_its_first_moment_and_died_when_it_is_killed(
    settings_with: Load, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_with()
    monkeypatch.setattr(engine_process.sys, "executable", "/bin/sh")
    monkeypatch.setattr(EngineRequest, "arguments", lambda self: ["-c", "exec sleep 60"])
    lock = ProcessLock(tmp_path / "start")
    assert lock.take()
    engine = start_engine(settings, paths, request(settings), os.environ, lock)
    lock.close()
    assert LockView(tmp_path / "start").holder() == engine.holder == process_holder(engine.pid)
    assert os.getsid(engine.pid) == engine.pid
    assert engine_of(paths, os.getpid()) == engine.pid
    assert not engine.wait(0.0)
    os.kill(engine.pid, signal.SIGKILL)
    assert engine.wait(120.0)
    assert engine.outcome().exit_code is None
    assert "signal 9" in engine.outcome().cause
    later = EngineProcess(replace(engine.holder, started="a later process with the same id"), settings, paths)
    assert "signal 9" not in later.outcome().cause
    assert LockView(tmp_path / "start").holder() is None


def test_an_engine_that_cannot_even_start_says_why_in_what_it_printed(
    settings_with: Load, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_with()
    monkeypatch.setattr(engine_process.sys, "executable", "/bin/sh")
    printed = "echo '{\"trades\": []}'; echo 'velox: no bars' >&2; echo 'of the date' >&2; exit 2"
    monkeypatch.setattr(EngineRequest, "arguments", lambda self: ["-c", printed])
    lock = ProcessLock(tmp_path / "start")
    engine = start_engine(settings, paths, request(settings), os.environ, lock)
    assert engine.wait(120.0)
    lock.close()
    assert (engine.outcome().exit_code, engine.outcome().cause) == (2, "no bars\nof the date")
    assert engine.run_folder is None


def test_a_stop_waits_for_that_very_process_and_is_taken_once(settings_with: Load, paths: Paths, tmp_path: Path) -> None:
    engine = EngineProcess(own_holder(), settings_with(), paths)
    engine.request_stop(by="the test", reason="enough")
    earlier = replace(own_holder(), started="an-earlier-boot:1")
    assert FileControl(process_folder(paths.var, earlier)).poll() is None
    control = CombinedControl(None, FileControl(tmp_path / "run"), FileControl(process_folder(paths.var, own_holder())))
    control.forget_requests()  # what an earlier engine of the run left undone; this is not
    found = control.poll()
    assert found is not None
    assert (found.action, found.by, found.reason) == ("stop", "the test", "enough")
    assert control.poll() is None


def test_a_request_for_a_unit_is_read_as_it_was_left_and_one_that_nobody_left_is_an_error(
    settings_with: Load, tmp_path: Path
) -> None:
    asked = request(settings_with(), data=Path("bars.csv"), exits_only="no pass")
    with pytest.raises(VeloxError, match="does not say what to run"):
        read_request(tmp_path)
    leave_request(tmp_path, asked)
    assert read_request(tmp_path) == asked
    plain = request(settings_with(), scenario="calm", speed=None)
    leave_request(tmp_path, plain)
    assert read_request(tmp_path) == plain
    assert asked.arguments()[-2:] == ["--exits-only", "no pass"]


@pytest.fixture
def systemctl(tmp_path: Path) -> dict[str, str]:
    """An environment whose systemctl notes what it was asked, and shows what files say."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "systemctl").write_text(SYSTEMCTL)
    (folder / "systemctl").chmod(0o755)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "FAKE_SYSTEMCTL": str(folder),
        "VELOX_ENGINE_UNIT": "velox-engine@primary.service",
        "VELOX_SYSTEMCTL": "systemctl --user",
    }


def test_a_unit_is_started_with_what_it_is_to_run_and_is_no_child(
    settings_with: Load, paths: Paths, systemctl: dict[str, str], tmp_path: Path
) -> None:
    assert engine_unit(systemctl) == "velox-engine@primary.service"
    assert engine_unit({}) == ""
    systemctl["VELOX_SYSTEMCTL"] = ""
    folder = Path(systemctl["FAKE_SYSTEMCTL"])
    for name, value in {"MainPID": os.getpid(), "ExecMainPID": os.getpid(), "ExecMainStatus": 2, "ExecMainCode": 1}.items():
        (folder / name).write_text(f"{value}\n")
    settings = settings_with()
    engine = start_unit(settings, paths, tmp_path / "account", request(settings), systemctl)
    assert engine.holder == own_holder()
    assert not engine.has_ended()
    assert read_request(tmp_path / "account") == request(settings)
    assert (folder / "asked").read_text().splitlines() == [
        "start velox-engine@primary.service",
        "show --value -p MainPID velox-engine@primary.service",
    ]
    assert engine.outcome().exit_code == 2  # it left no word of its own: systemd knows
    (folder / "ExecMainCode").write_text("2\n")  # a signal ended it; the status is the signal's number
    assert engine.outcome().exit_code is None


def test_a_unit_that_does_not_start_or_does_not_stay_is_an_error_that_names_it(
    settings_with: Load, paths: Paths, systemctl: dict[str, str], tmp_path: Path
) -> None:
    systemctl["VELOX_SYSTEMCTL"] = ""
    settings = settings_with()
    with pytest.raises(VeloxError, match=r"journalctl -u velox-engine@primary"):
        start_unit(settings, paths, tmp_path, request(settings), systemctl)
    (Path(systemctl["FAKE_SYSTEMCTL"]) / "broken").touch()
    with pytest.raises(VeloxError, match="Unit not found"):
        start_unit(settings, paths, tmp_path, request(settings), systemctl)
    systemctl["PATH"] = ""
    with pytest.raises(VeloxError, match="VELOX_ENGINE_UNIT"):
        start_unit(settings, paths, tmp_path, request(settings), systemctl)


def test_the_command_before_systemctls_verb_is_the_environments(
    settings_with: Load, paths: Paths, systemctl: dict[str, str], tmp_path: Path
) -> None:
    (Path(systemctl["FAKE_SYSTEMCTL"]) / "systemctl").write_text(SYSTEMCTL.replace('case "$1" in', 'shift; case "$1" in'))
    (Path(systemctl["FAKE_SYSTEMCTL"]) / "MainPID").write_text(f"{os.getpid()}\n")
    settings = settings_with()
    start_unit(settings, paths, tmp_path, request(settings), systemctl)
    asked = (Path(systemctl["FAKE_SYSTEMCTL"]) / "asked").read_text()
    assert asked.startswith("--user start velox-engine@primary.service")
