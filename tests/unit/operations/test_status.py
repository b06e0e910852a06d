from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from velox_core.operations.log_tail import LogTail, last_lines
from velox_core.operations.processes import is_alive
from velox_core.operations.status import Status, account_folders, newest_status, read_status, status_of_process
from velox_core.operations.view import loss_share, progress_line

BODY = {
    "state": "RUNNING",
    "pid": 42,
    "wall_ms": 2_000,
    "engine_ms": 1_705_290_660_000,
    "phase": "CONTINUOUS",
    "trading_date": "2024-01-15",
    "net_paise": -50_000,
    "loss_limit_paise": 200_000,
    "positions": [{"symbol": "TCS", "quantity": 1}],
    "orders": 3,
    "fills": 2,
    "refusals": 1,
    "progress": 0.5,
}


def write(folder: Path, **changes: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_text(json.dumps(BODY | changes))


def test_status_missing_torn_or_of_another_shape_is_none(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    for text in ("{", "[1]", "", "\x00"):
        (tmp_path / "status.json").write_text(text)
        assert read_status(tmp_path) is None


def test_status_values_of_the_wrong_type_read_as_nothing(tmp_path: Path) -> None:
    status = Status(
        tmp_path, {"state": 5, "net_paise": "x", "halted": "yes", "positions": {"a": 1}, "progress": 7, "orders": True}
    )
    assert (status.state, status.number("net_paise"), status.flag("halted"), status.positions) == ("", 0, False, [])
    assert status.progress == 1.0
    assert status.number("orders") == 0
    assert not status.ended


def test_status_newest_of_a_date_is_the_one_written_last(tmp_path: Path) -> None:
    write(tmp_path / "replay" / "primary" / "2024-01-15-1", wall_ms=3_000, run_id="2024-01-15-1")
    write(tmp_path / "replay" / "primary" / "2024-01-15-2", wall_ms=5_000, run_id="2024-01-15-2")
    write(tmp_path / "replay" / "primary" / "2024-01-16-1", wall_ms=9_000, run_id="2024-01-16-1", trading_date="2024-01-16")
    write(tmp_path / "replay" / "other" / "2024-01-15-9", wall_ms=99_000)
    folders = account_folders(tmp_path, broker_type="simulated", account="primary")
    assert [folder.name for folder in folders] == ["primary", "2024-01-15-1", "2024-01-15-2", "2024-01-16-1"]
    newest, of_date = newest_status(folders), newest_status(folders, on=date(2024, 1, 15))
    assert newest is not None
    assert of_date is not None
    assert (newest.run_id, of_date.run_id) == ("2024-01-16-1", "2024-01-15-2")
    assert newest_status(folders, on=date(2023, 1, 1)) is None


def test_status_of_a_process_is_not_an_older_one_with_the_same_id(tmp_path: Path) -> None:
    write(tmp_path, wall_ms=2_000)
    assert status_of_process([tmp_path], pid=42, since_wall_ms=2_001) is None
    assert status_of_process([tmp_path], pid=43, since_wall_ms=0) is None
    found = status_of_process([tmp_path], pid=42, since_wall_ms=2_000)
    assert found is not None
    assert found.folder == tmp_path


def test_view_progress_line_shows_clock_money_and_halt(tmp_path: Path) -> None:
    status = Status(tmp_path, BODY | {"halted": True, "halt_reason": "loss limit"})
    line = progress_line(status)
    for part in (
        "2024-01-15 09:21:00",
        "running, continuous",
        "50 %",
        "net -₹500.00 of -₹2,000.00",
        "1 open",
        "3 orders",
        "HALTED: loss limit",
    ):
        assert part in line
    assert loss_share(status) == 0.25
    assert loss_share(Status(tmp_path, {"net_paise": 10, "loss_limit_paise": 100})) == 0.0
    assert loss_share(Status(tmp_path, {"net_paise": -900, "loss_limit_paise": 100})) == 9.0
    assert loss_share(Status(tmp_path, {})) == 0.0


def test_log_tail_returns_only_what_was_added_in_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "risk.log"
    log.write_text("old\n")
    tail = LogTail([log, tmp_path / "missing.log"])
    assert tail.new_lines(10) == []
    with log.open("a") as file:
        file.write("one\ntwo\nhal")
    assert tail.new_lines(10) == ["one", "two"]
    with log.open("a") as file:
        file.write("f\n")
    assert tail.new_lines(10) == ["half"]
    assert tail.skipped_lines == 0


def test_log_tail_over_the_bound_keeps_the_newest_and_counts_the_rest(tmp_path: Path) -> None:
    log = tmp_path / "risk.log"
    tail = LogTail([log])
    log.write_text("".join(f"{number:03d}\n" for number in range(30)))
    assert tail.new_lines(5) == ["025", "026", "027", "028", "029"]
    assert tail.skipped_lines == 25


def test_log_tail_after_a_rotation_reads_the_new_file_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "risk.log"
    log.write_text("a long line of the old file\n")
    tail = LogTail([log])
    log.write_text("new\n")
    assert tail.new_lines(5) == ["new"]
    assert last_lines(log, 3) == ["new"]
    assert last_lines(tmp_path / "none", 3) == []


def test_processes_alive_knows_this_process_and_no_impossible_one() -> None:
    import os

    assert is_alive(os.getpid())
    assert not is_alive(0)
    assert not is_alive(2**22 + 12345)
