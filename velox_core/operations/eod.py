"""The end of a day, piece by piece: the broker's word on flat, the comparison with its book, the summary, the reset.

- Flat is what the broker says. A broker that does not answer is "not flat".
- While not flat, or not reconciled, the reset is refused. The summary is kept all the same, and its exit code says not flat.
- Before books are compared that differ, the run is opened once as an engine opens it, so that the journal has caught up.
- Each piece can be repeated: a second time finds nothing left to clear and writes the same summary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from velox_core.bootstrap import RunRequest, open_run
from velox_core.domain.errors import EXIT_DONE, EXIT_NOT_FLAT, EXIT_OPERATING_ERROR, BrokerError, JournalUnavailable, VeloxError
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.operations.day import Day
from velox_core.operations.day_figures import day_figures
from velox_core.operations.journal_bodies import int_of, text_of
from velox_core.operations.journal_check import day_head
from velox_core.operations.reconcile import ReconcileReport, exposure_text, reconcile_run
from velox_core.operations.recorded import RecordedRun, find_run
from velox_core.operations.reset import begun_on
from velox_core.operations.runs import load_report, open_journal, write_report
from velox_core.operations.session_report import tell_session
from velox_core.reconciliation.books import BrokerBooks
from velox_core.runs import RunState, write_state
from velox_core.settings import Settings
from velox_core.simulated_account import charge_schedule, read_broker_books

RESET_REASON = "end of day: flat and reconciled"
RESET_BY = "end of day"
FACTS_OF_THE_RUN = (
    "trading_date",
    "run_id",
    "environment",
    "broker",
    "account",
    "config_hash",
    "loss_limit_paise",
    "synthetic",
    "source",
    "granularity",
    "bars",
    "dropped_rows",
    "ticks",
    "data_quality",
    "halted",
    "stopped",
    "fault",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatProof:
    """What the broker said. `text` names what is open, or why it could not be known; `remedy` says what to do then."""

    flat: bool
    text: str
    remedy: str = "velox run takes the run up again and squares it off; then run the end of day again"


def run_stem(day: Day) -> str:
    """Return what the ids of the day's runs begin with: the date, and the scenario of synthetic data."""
    return day.run_stem


def find_session(day: Day) -> RecordedRun:
    """Return the newest run of the day. Raises VeloxError when there is none."""
    return find_run(day.settings, day.paths, stem=run_stem(day))


def run_request(day: Day, recorded: RecordedRun) -> RunRequest:
    """Return the request that names exactly a run that is on record."""
    request = day.request
    data = request.data or (begun_on(recorded.folder) if request.scenario is None else None)
    return RunRequest(date=day.trading_date, data=data, scenario=request.scenario, run_id=recorded.run.run_id)


def prove_flat(settings: Settings, recorded: RecordedRun) -> FlatProof:
    """Ask the broker what it holds and works. What cannot be read is not flat."""
    try:
        exposure = exposure_text(read_broker_books(settings, recorded.run))
    except BrokerError as error:
        return FlatProof(flat=False, text=f"the broker does not answer, so nobody knows whether the account is flat ({error})")
    if exposure:
        return FlatProof(flat=False, text=f"open are {'; '.join(exposure)}")
    return FlatProof(flat=True, text="the broker says flat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """How journal and broker compare. Charges in paise, of the trades on both sides: as journaled, and by the day's rates."""

    report: ReconcileReport
    charges_paise: int
    due_paise: int

    @property
    def problem(self) -> str:
        """Return what is wrong, '' when everything agrees or is explained."""
        if self.report.unexplained:
            return "; ".join(row.line for row in self.report.differences if not row.explanation)
        if self.charges_paise != self.due_paise:
            return (
                f"the broker's trades cost {self.due_paise} paise by the rates of the day, the journal has {self.charges_paise}"
            )
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        compared = {name: self.report.to_json()[name] for name in ("differences", "unexplained", "locks")}
        return {**compared, "charges_paise": self.charges_paise, "charges_due_paise": self.due_paise}


def reconcile_day(day: Day, recorded: RecordedRun) -> Reconciled:
    """Compare the run's orders, fills, positions and charges with the broker's book.

    Raises: BookGone when the broker does not tell them any more; BrokerError, JournalUnavailable for a side that cannot be
        read; VeloxError when the run cannot be opened.
    """
    report = reconcile_run(day.settings, recorded)
    if report.unexplained:
        with open_run(day.settings, day.paths, run_request(day, recorded)) as opened:
            opened.journal.commit()
        report = reconcile_run(day.settings, recorded)
    with open_journal(day.settings, recorded) as journal:
        events = list(journal.events((EventKind.INTENT, EventKind.FILL)))
    books = read_broker_books(day.settings, recorded.run)
    return Reconciled(report=report, charges_paise=_charged(events, books), due_paise=_due(day, recorded, events, books))


def _charged(events: list[JournalEvent], books: BrokerBooks) -> int:
    """Return what the journal charged for the trades that the broker lists."""
    listed = {trade.trade_id for trade in books.trades}
    fills = {text_of(event.body, "trade_id"): event.body for event in events if event.kind is EventKind.FILL}
    return sum(int_of(body, "charges") for trade_id, body in fills.items() if trade_id in listed)


def _due(day: Day, recorded: RecordedRun, events: list[JournalEvent], books: BrokerBooks) -> int:
    """Return what the trades on both sides cost by the rates: our orders each as a whole, what is not ours trade by trade."""
    schedule = charge_schedule(day.settings, recorded.trading_date)
    booked = {text_of(event.body, "trade_id") for event in events if event.kind is EventKind.FILL}
    own = {text_of(event.body, "client_order_id") for event in events if event.kind is EventKind.INTENT}
    orders: dict[str, list[Any]] = {}
    for trade in books.trades:
        if trade.trade_id in booked:
            name = trade.client_order_id if trade.client_order_id in own else f"trade {trade.trade_id}"
            order = orders.setdefault(name, [trade.side, 0])
            order[1] += trade.quantity * trade.price_paise
    return sum(schedule.order_charges_paise(side, value) for side, value in orders.values())


def reset_day(day: Day, recorded: RecordedRun) -> list[str]:
    """Clear the halts of the day and of earlier dates, once the broker says flat; returns the ids of the cleared halts.

    Raises: NotFlatError when something is open or may still trade; VeloxError when the run cannot be opened, or a store does
        not take a clear record (the halt then stays).
    """
    with open_run(day.settings, day.paths, run_request(day, recorded)) as opened:
        cleared = opened.engine.emergency.reset(RESET_REASON, RESET_BY, opened.plan.hard_stop_ms, session_over=True)
        opened.journal.commit()
    write_state(recorded.folder, RunState.CLOSED)
    return [record.clears for record in cleared]


def _head(day: Day, recorded: RecordedRun) -> str:
    """Return the hash of the date's events, '' where a journal of the date cannot be read: its own check says so."""
    try:
        return day_head(day.settings, day.paths, recorded.trading_date)
    except JournalUnavailable:
        return ""


def keep_summary(day: Day, recorded: RecordedRun, proof: FlatProof) -> dict[str, Any]:
    """Compute the run's report again, with the proof and the figures of the day in it, and keep it in folder and journal.

    Raises: JournalUnavailable; VeloxError when it cannot be kept, or the journal is not flat although the broker is.
    """
    before = load_report(day.settings, recorded)
    facts = {name: before.get(name) for name in FACTS_OF_THE_RUN}
    code = EXIT_NOT_FLAT if not proof.flat else EXIT_OPERATING_ERROR if before.get("fault") else EXIT_DONE
    report, story = tell_session(day.settings, day.paths, recorded)
    with open_journal(day.settings, recorded) as journal:
        figures = day_figures(list(journal.events()), report, story)
    kept = {"exit_code": code, "broker_says": proof.text, "figures": figures, "day_head": _head(day, recorded)}
    report = write_report(day.settings, recorded, {**facts, **kept})
    if proof.flat and not report["flat"]:
        raise VeloxError(
            f"the broker says flat, the journal of run {recorded.run.run_id} does not: {report['open_quantities']}. "
            "Do not trade on: compare the broker's book with velox summary --export"
        )
    return report
