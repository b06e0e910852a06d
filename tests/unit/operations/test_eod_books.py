"""The end of a day against a broker's book and a journal that the test wrote: flat, orders, charges, the kept summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from velox_core.brokers.book import SqliteBook
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.brokers.simulated_orders import SimulationConfig
from velox_core.domain.errors import VeloxError
from velox_core.domain.events import EventKind
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.market.ticks import Instrument, SecurityClass
from velox_core.domain.orders import Side
from velox_core.domain.scope import Scope
from velox_core.journal.queries import JournalReader
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.operations import eod
from velox_core.operations.day import Day, DayRequest
from velox_core.operations.eod import FlatProof, keep_summary, prove_flat, reconcile_day
from velox_core.operations.eod_record import EodRecord, StepState
from velox_core.operations.eod_steps import STEPS, Evening
from velox_core.operations.evening import run_step
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.status import read_summary
from velox_core.runs import RunState, run_folder, write_state
from velox_core.settings import Paths, Settings
from velox_core.simulated_account import BookGone, charge_schedule

Load = Callable[..., Settings]
DAY = date(2024, 1, 15)
NOON_MS = 1_705_300_200_000
PRICE = 10_000


class Books:
    """One run: the broker's book and the journal, each written by hand."""

    def __init__(self, day: Day) -> None:
        run = run_folder(day.paths.var, Scope(broker_type="simulated", account="primary"), "2024-01-15-1")
        write_state(run.folder, RunState.ENDED)
        self.day, self.run = day, run
        instruments = {"TCS": Instrument(symbol="TCS", security_class=SecurityClass.CASH, tick_paise=5)}
        book = SqliteBook(run.folder / "broker.db")
        self.broker = SimulatedBroker(
            ("TCS",), instruments=instruments, config=SimulationConfig(capital_paise=100_000_000_00), book=book
        )
        self.broker.on_row(MinuteRow(NOON_MS, [PRICE], [PRICE], [PRICE], [PRICE], [100]), NOON_MS)
        self.journal = SqlJournal(
            f"sqlite:///{run.folder / 'journal.db'}",
            RunIdentity(scope_key=run.scope.key, trading_date=DAY, run_id=run.run_id),
        )
        self.position = 0

    @property
    def recorded(self) -> RecordedRun:
        return RecordedRun(run=self.run, trading_date=DAY)

    def trade(self, side: Side, *, charges: int | None = None, at_ms: int = NOON_MS, realised: int = 0) -> None:
        """Trade one share by hand at the broker, and book it as the engine does; `charges` other than the rates' own."""
        self.broker.desk.trade_foreign("TCS", side, 1, at_ms, price_paise=PRICE)
        newest = self.broker.trades()[-1]
        due = charge_schedule(self.day.settings, DAY).order_charges_paise(side, PRICE)
        self.position += side.sign
        self.journal.append(
            EventKind.FILL,
            at_ms,
            {
                "client_order_id": "",
                "trade_id": newest.trade_id,
                "symbol": "TCS",
                "side": side.value,
                "quantity": 1,
                "price": PRICE,
                "strategy": "",
                "charges": due if charges is None else charges,
                "realised": realised,
                "position": self.position,
                "cost": self.position * PRICE,
            },
        )
        self.journal.commit()


@pytest.fixture
def day(settings_with: Load, paths: Paths) -> Day:
    return Day(
        request=DayRequest(date=DAY),
        settings=settings_with(),
        paths=paths,
        trading_date=DAY,
        closed_reason="",
        wall_clock=False,
    )


@pytest.fixture
def books(day: Day) -> Iterator[Books]:
    made = Books(day)
    with closing(made.broker), closing(made.journal):
        yield made


def evening(books: Books, *, today: date = DAY) -> Evening:
    return Evening(day=books.day, recorded=books.recorded, record=EodRecord(books.recorded), today=today, wall_ms=1)


def step(name: str) -> Any:
    return next(step for step in STEPS if step.name == name)


def test_flat_is_what_the_broker_says(books: Books) -> None:
    assert prove_flat(books.day.settings, books.recorded) == FlatProof(flat=True, text="the broker says flat")
    books.trade(Side.BUY)
    proof = prove_flat(books.day.settings, books.recorded)
    assert (proof.flat, proof.text) == (False, "open are 1 TCS")
    books.trade(Side.SELL)
    assert prove_flat(books.day.settings, books.recorded).flat


@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_broker_that_does_not_answer_is_never_flat_and_the_rest_is_done(damage: str, books: Books) -> None:
    books.broker.close()
    book = books.run.folder / "broker.db"
    for path in book.parent.glob("broker.db*"):
        path.unlink()
    if damage == "torn":
        book.write_bytes(b"no database" * 1_000)
    work = evening(books)
    flat = run_step(work, step("flat"))
    assert (flat.state, flat.data["flat"]) == (StepState.FAILED, False)
    assert "nobody knows whether the account is flat" in flat.text
    assert run_step(work, step("reconcile")).state is StepState.FAILED
    assert run_step(work, step("summary")).state is StepState.DONE
    assert run_step(work, step("reset")).state is StepState.REFUSED
    summary = read_summary(books.run.folder)
    assert summary is not None
    assert summary["exit_code"] == 4


def test_book_of_a_past_date_that_is_gone_is_unverified_and_not_flat(books: Books) -> None:
    books.broker.close()
    (books.run.folder / "broker.db").unlink()
    with pytest.raises(BookGone):
        reconcile_day(books.day, books.recorded)
    work = evening(books, today=date(2024, 1, 16))
    assert run_step(work, step("reconcile")).state is StepState.UNVERIFIED
    assert run_step(work, step("flat")).state is StepState.FAILED
    assert run_step(work, step("reset")).state is StepState.REFUSED


def test_books_and_charges_that_agree_are_reconciled(books: Books) -> None:
    books.trade(Side.BUY)
    books.trade(Side.SELL)
    found = reconcile_day(books.day, books.recorded)
    assert found.problem == ""
    assert found.charges_paise == found.due_paise > 0
    result = run_step(evening(books), step("reconcile"))
    assert (result.state, result.data["unexplained"]) == (StepState.DONE, 0)


def test_charges_that_differ_from_the_brokers_trades_are_a_difference(books: Books) -> None:
    books.trade(Side.BUY, charges=1)
    books.trade(Side.SELL)
    result = run_step(evening(books), step("reconcile"))
    assert result.state is StepState.FAILED
    assert "cost" in result.text
    assert run_step(evening(books), step("reset")).state is StepState.REFUSED


def test_difference_that_nothing_explains_fails_the_step_after_the_journal_has_caught_up(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Opened:
        journal = books.journal

    @contextmanager
    def open_once(*_: object) -> Iterator[Opened]:
        opened.append("once")
        yield Opened()

    monkeypatch.setattr(eod, "open_run", open_once)
    body = {"client_order_id": "", "trade_id": "X1", "symbol": "TCS", "side": "BUY", "quantity": 1, "price": PRICE}
    body |= {"strategy": "", "charges": 1, "realised": 0, "position": 1, "cost": PRICE}
    books.journal.append(EventKind.FILL, NOON_MS, body)
    books.journal.commit()
    result = run_step(evening(books), step("reconcile"))
    assert result.state is StepState.FAILED
    assert "velox doctor --reconcile" in result.text
    assert opened == ["once"]


def test_summary_is_kept_in_folder_and_journal_with_the_figures_of_the_day(books: Books) -> None:
    books.trade(Side.BUY)
    books.trade(Side.SELL, at_ms=NOON_MS + 60_000, realised=500)
    books.journal.append(EventKind.MARK, NOON_MS, {"realised": 0, "open": -700, "charges": 50})
    books.journal.commit()
    report = keep_summary(books.day, books.recorded, FlatProof(flat=True, text="the broker says flat"))
    assert (report["flat"], report["exit_code"], report["broker_says"]) == (True, 0, "the broker says flat")
    figures = report["figures"]
    assert figures["all"]["trades"] == 1
    assert figures["exposure"] == {"peak_paise": PRICE, "peak_ms": NOON_MS, "positions_max": 1, "held_ms": 60_000}
    assert figures["drawdown"]["paise"] == 750
    assert [row["symbol"] for row in figures["by_symbol"]] == ["TCS"]
    assert figures["no_prices"]
    assert (figures["slippage"], figures["longest_outage"]) == (None, None)
    assert read_summary(books.run.folder) == report
    with closing(JournalReader(f"sqlite:///{books.run.folder / 'journal.db'}")) as reader:
        run = reader.latest_run(DAY)
        assert run is not None
        assert run.run_key is not None
        row = reader.session_summary(run.run_key)
    assert row is not None
    assert '"figures"' in row.body


def test_summary_of_a_journal_that_is_not_flat_although_the_broker_is_fails(books: Books) -> None:
    books.trade(Side.BUY)
    with pytest.raises(VeloxError, match="the broker says flat, the journal of run 2024-01-15-1 does not"):
        keep_summary(books.day, books.recorded, FlatProof(flat=True, text="the broker says flat"))


def test_archive_and_retention_of_an_evening(books: Books, tmp_path: Path) -> None:
    logs = books.day.paths.logs / "simulated"
    logs.mkdir(parents=True)
    text = "2026-11-23 09:31:00,120+05:30 INFO [2024-01-15 09:31:00] one\n"
    (logs / "risk_manager.log").write_text(text, encoding="utf-8")
    work = evening(books)
    archived = run_step(work, step("archive"))
    assert (archived.state, archived.data["lines"]) == (StepState.DONE, 1)
    folder = books.day.paths.logs / "backup" / "20240115" / "simulated"
    assert archived.data["folder"] == str(folder)
    assert sorted(path.name for path in folder.iterdir())[-1] == "system.log.zst"
    assert run_step(work, step("retention")).text == "nothing is due"
    (logs / "risk_manager.log").write_text(text * 2, encoding="utf-8")  # logged after its own end of day
    other = replace(work.recorded, trading_date=date(2024, 1, 16))
    later = replace(work, recorded=other, results={}, record=EodRecord(other))
    assert run_step(later, step("archive")).data["lines"] == 0
    assert (folder / "risk_manager.2.log.zst").exists()


def test_archive_that_cannot_be_written_fails_its_step_and_blocks_retention(books: Books) -> None:
    books.day.paths.logs.mkdir(parents=True)
    (books.day.paths.logs / "backup").write_text("a file is in the way", encoding="utf-8")
    work = evening(books)
    archived = run_step(work, step("archive"))
    assert (archived.state, "cannot be archived in" in archived.text) == (StepState.FAILED, True)
    assert run_step(work, step("retention")).state is StepState.BLOCKED


def test_alert_says_what_is_undone_as_loud_as_it_is(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, str, str]] = []

    class Alerts:
        def send(self, severity: Any, title: str, text: str) -> None:
            sent.append((severity.value, title, text))

    @contextmanager
    def fake(*_: object, **__: object) -> Iterator[Alerts]:
        yield Alerts()

    monkeypatch.setattr("velox_core.operations.eod_steps.open_alerts", fake)
    books.trade(Side.BUY)
    work = evening(books)
    for name in ("flat", "reconcile", "summary", "reset"):
        run_step(work, step(name))
    run_step(work, step("alert"))
    assert [(severity, title) for severity, title, _ in sent] == [("CRITICAL", "End of day 2024-01-15: NOT FLAT")]
    assert "reset REFUSED: not before flat" in sent[0][2]
    books.trade(Side.SELL)
    work = evening(books)
    for name in ("flat", "reconcile", "summary"):
        run_step(work, step(name))
    run_step(work, step("alert"))
    assert sent[1][:2] == ("INFO", "End of day 2024-01-15: done")
    assert "profit factor" in sent[1][2]
