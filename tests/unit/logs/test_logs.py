from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from velox_core.domain.errors import VeloxError
from velox_core.logs import EMERGENCY, LOG_FILES, ORDERS, RISK, SYSTEM, LogLosses, start_logging

ENGINE_MS = 1_705_290_060_000  # 2024-01-15 09:11:00 IST
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\+05:30 [A-Z]+ \[(-|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\] .*")


@pytest.fixture(autouse=True)
def loggers_as_found() -> Iterator[None]:
    root = logging.getLogger("velox")
    level, handlers, propagate = root.level, list(root.handlers), root.propagate
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    root.propagate = propagate


def read(folder: Path, name: str) -> list[str]:
    return (folder / LOG_FILES[name]).read_text(encoding="utf-8").splitlines()


def test_logs_each_logger_writes_to_the_guides_file(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "production"
    writer = start_logging(folder, now_ms=lambda: ENGINE_MS)
    logging.getLogger(RISK).info("[RISK_CHECK] %s/%s: REJECTED - %s", "orb", "TCS", "Duplicate order prevented")
    logging.getLogger(ORDERS).info("sent")
    logging.getLogger(EMERGENCY).critical("out")
    logging.getLogger(SYSTEM).info("up")
    logging.getLogger("velox.feeds").info("elsewhere")
    losses = writer.stop()

    assert sorted(path.name for path in folder.iterdir()) == sorted(LOG_FILES.values())
    assert read(folder, RISK)[0].endswith(
        " INFO [2024-01-15 09:11:00] [RISK_CHECK] orb/TCS: REJECTED - Duplicate order prevented"
    )
    assert [line.rsplit("] ", 1)[1] for line in read(folder, SYSTEM)] == ["up", "elsewhere"]
    assert len(read(folder, ORDERS)) == len(read(folder, EMERGENCY)) == 1
    assert losses == LogLosses()
    assert not losses.any


def test_logs_a_block_of_lines_keeps_each_line_whole_with_its_prefix(tmp_path: Path) -> None:
    writer = start_logging(tmp_path)
    logging.getLogger(EMERGENCY).critical("🚨 EMERGENCY EXIT TRIGGERED 🚨\nDaily P&L: -2150.00\nMax Daily Loss: -2000.00")
    writer.stop()
    lines = read(tmp_path, EMERGENCY)
    assert [line.split("] ", 1)[1] for line in lines] == [
        "🚨 EMERGENCY EXIT TRIGGERED 🚨",
        "Daily P&L: -2150.00",
        "Max Daily Loss: -2000.00",
    ]
    assert all(LINE.fullmatch(line) for line in lines)


def test_logs_formatting_happens_in_the_writer_thread_only(tmp_path: Path) -> None:
    threads: list[str] = []

    class Witness:
        def __str__(self) -> str:
            threads.append(threading.current_thread().name)
            return "seen"

    writer = start_logging(tmp_path)
    logging.getLogger(RISK).info("%s", Witness())
    writer.stop()
    assert read(tmp_path, RISK)[0].endswith("seen")
    assert threads
    assert threading.current_thread().name not in threads


def test_logs_a_full_queue_drops_and_counts_info_but_keeps_warnings_and_emergency(tmp_path: Path) -> None:
    writer = start_logging(tmp_path, queue_records_max=0)  # full from the first line on
    for _ in range(5):
        logging.getLogger(RISK).info("crowd")
    logging.getLogger(RISK).warning("kept")
    logging.getLogger(EMERGENCY).info("kept too")
    losses = writer.stop()

    assert losses == LogLosses(dropped=5)
    assert [line.split("] ", 1)[1] for line in read(tmp_path, RISK)] == ["kept"]
    assert [line.split("] ", 1)[1] for line in read(tmp_path, EMERGENCY)] == ["kept too"]
    assert "5 lines" in str(losses)


def test_logs_losses_are_written_to_the_system_log_once_there_is_room(tmp_path: Path) -> None:
    writer = start_logging(tmp_path, queue_records_max=2)
    gate = threading.Event()

    class Slow:
        def __str__(self) -> str:
            gate.wait(240)
            return "slow"

    logging.getLogger(RISK).info("%s", Slow())
    for _ in range(10):
        logging.getLogger(RISK).info("crowd")
    gate.set()
    losses = writer.stop()
    assert losses.dropped >= 7
    assert losses.dropped_important == 0
    assert "lines were dropped" in read(tmp_path, SYSTEM)[-1]
    assert f"({losses.dropped} in all)" in read(tmp_path, SYSTEM)[-1]


def test_logs_rotate_by_size_and_keep_a_bounded_number(tmp_path: Path) -> None:
    writer = start_logging(tmp_path, max_megabytes=1, keep_files=2)
    for _ in range(35):
        logging.getLogger(RISK).info("x" * 100_000)
    writer.stop()
    names = sorted(path.name for path in tmp_path.glob("risk_manager.log*"))
    assert names == ["risk_manager.log", "risk_manager.log.1", "risk_manager.log.2"]


def test_logs_a_line_that_brings_its_engine_time_keeps_it(tmp_path: Path) -> None:
    writer = start_logging(tmp_path, now_ms=lambda: ENGINE_MS)
    logging.getLogger(SYSTEM).info("own", extra={"engine_ms": ENGINE_MS + 60_000})
    writer.stop()
    counted = start_logging(tmp_path / "counted", counts_its_own_time=True)
    logging.getLogger(SYSTEM).info("own", extra={"engine_ms": ENGINE_MS + 60_000})
    logging.getLogger(SYSTEM).info("none")
    counted.stop()
    own, none = read(tmp_path / "counted", SYSTEM)
    assert "[~2024-01-15 09:12:00] own" in own
    assert "[-] none" in none
    bare = start_logging(tmp_path / "bare")
    logging.getLogger(SYSTEM).info("none")
    bare.stop()
    assert "[2024-01-15 09:12:00] own" in read(tmp_path, SYSTEM)[0]
    assert "[-] none" in read(tmp_path / "bare", SYSTEM)[0]


def test_logs_level_below_the_configured_is_not_written(tmp_path: Path) -> None:
    writer = start_logging(tmp_path, level="WARNING")
    logging.getLogger(RISK).info("quiet")
    logging.getLogger(RISK).warning("loud")
    writer.stop()
    assert [line.split("] ", 1)[1] for line in read(tmp_path, RISK)] == ["loud"]


def test_logs_stop_gives_the_loggers_back_and_can_be_called_twice(tmp_path: Path) -> None:
    root = logging.getLogger("velox")
    before = root.level
    writer = start_logging(tmp_path, level="DEBUG")
    assert root.level == logging.DEBUG
    writer.stop()
    writer.stop()
    assert root.propagate
    assert root.level == before
    assert root.handlers == []


def test_logs_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VeloxError, match="cannot be used") as caught:
        start_logging(tmp_path / "file" / "production")
    assert "VELOX__VAR" in str(caught.value)
    assert logging.getLogger("velox").handlers == []


def test_logs_a_failing_write_is_counted_and_does_not_raise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = start_logging(tmp_path)
    file = writer._writer.files[RISK]
    file.stream.close()
    file.stream = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115 - closed by stop; every write says: disk full
    logging.getLogger(RISK).info("lost")
    logging.getLogger(SYSTEM).info("still written")
    losses = writer.stop()
    assert losses.failed_writes >= 1
    assert "cannot be written" in capsys.readouterr().err
    assert len(read(tmp_path, SYSTEM)) == 1


def test_logs_a_rotated_file_whose_rest_finds_no_room_is_counted_and_the_writer_goes_on(tmp_path: Path) -> None:
    writer = start_logging(tmp_path, rotates=False)
    file = writer._writer.files[RISK]
    file.stream.close()
    file.stream = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115 - closed by the writer, as one that was moved away
    file.stream.write("what the disk had no room for")
    logging.getLogger(RISK).info("next")
    losses = writer.stop()
    assert losses == LogLosses(failed_writes=1)
    assert [line.split("] ", 1)[1] for line in read(tmp_path, RISK)] == ["next"]


def test_logs_of_a_process_that_does_not_rotate_follow_the_one_that_does(tmp_path: Path) -> None:
    writer = start_logging(tmp_path, max_megabytes=1, keep_files=1, rotates=False)
    path = tmp_path / LOG_FILES[RISK]
    logging.getLogger(RISK).info("x" * 1_500_000)  # beyond the size at which another process rotates
    logging.getLogger(RISK).info("second")
    for _ in range(120_000):  # the writer's thread has it within moments
        if "second" in path.read_text(encoding="utf-8")[-100:]:
            break
        time.sleep(0.001)
    assert [found.name for found in tmp_path.glob("risk_manager*")] == [path.name]
    path.rename(tmp_path / "rotated")
    logging.getLogger(RISK).info("third")
    writer.stop()
    assert [line.split("] ", 1)[1] for line in read(tmp_path, RISK)] == ["third"]
    assert sorted(found.name for found in tmp_path.glob("risk_manager*")) == ["risk_manager.log"]
    assert writer.losses.any is False
