"""`velox doctor --reconcile`: a run's journal beside its broker's book, without trading, with or without an engine.

- The broker is read before the journal, so that what trades in between is at most known here and not yet there.
- Beside a running engine a difference counts only when it is in every one of a few looks: the engine is writing meanwhile.
- Nothing is written: a difference is explained, or locked by the engine, or open. A run that is not taken up locks nothing.
- Exit codes: 4 when the run has ended, or its engine died, and the broker does not say flat; else 1 when a difference is not
  explained, the engine died, or a side cannot be read; else 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from velox_core.bootstrap import load_rules
from velox_core.domain.errors import EXIT_DONE, EXIT_NOT_FLAT, EXIT_OPERATING_ERROR, JournalUnavailable
from velox_core.domain.market.sessions import trading_window
from velox_core.domain.market.ticks import SecurityClass
from velox_core.domain.orders import TERMINAL_STATES, Product
from velox_core.domain.time import MS_PER_SECOND
from velox_core.journal.queries import JournalReader
from velox_core.operations.dead_engine import dead_engine
from velox_core.operations.processes import wrote_it
from velox_core.operations.recorded import RecordedRun
from velox_core.operations.status import read_status
from velox_core.reconciliation.books import BOOK_KINDS, BrokerBooks, OwnBooks, own_books
from velox_core.reconciliation.differences import NEVER_MS, Difference, Verdict, compare
from velox_core.run_stores import journal_url
from velox_core.runs import RunState
from velox_core.settings import Settings
from velox_core.simulated_account import read_broker_books

LOOKS_MAX: Final = 3
LOOK_INTERVAL_SECONDS: Final = 1.0
ENDED: Final = frozenset({RunState.ENDED, RunState.ENDED_HALTED, RunState.ENDED_NOT_FLAT, RunState.CLOSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileReport:
    """What a comparison found.

    Attributes:
        run_id, trading_date: which run.
        engine_pid: of the engine that trades it now, 0 for none.
        ended: whether the run is over.
        exposure: what the broker holds or works for the day's product, in words; empty is flat.
        differences: the table.
        locks: every lock that stands, by symbol.
        died: how the run's engine died and what takes the run up, '' when it did not.
    """

    run_id: str
    trading_date: str
    engine_pid: int
    ended: bool
    exposure: list[str]
    differences: list[Difference]
    locks: dict[str, list[str]]
    died: str = ""

    @property
    def unexplained(self) -> int:
        """Return how many differences nothing explains."""
        return sum(row.verdict is not Verdict.EXPLAINED for row in self.differences)

    @property
    def exit_code(self) -> int:
        """Return 4 for a run that nobody trades on and is not flat, 1 for an unexplained difference or a death, else 0."""
        if (self.ended or self.died) and self.exposure:
            return EXIT_NOT_FLAT
        return EXIT_OPERATING_ERROR if self.unexplained or self.died else EXIT_DONE

    @property
    def sentence(self) -> str:
        """Return the result in one line."""
        number, open_rows = len(self.differences), self.unexplained
        agree = (
            "journal and broker agree" if not number else f"{number} difference{'s' * (number != 1)}, {open_rows} unexplained"
        )
        flat = f"the broker holds {', '.join(self.exposure)}" if self.exposure else "the broker says flat"
        engine = f"engine {self.engine_pid} runs" if self.engine_pid else "no engine runs"
        return f"run {self.run_id}: {agree}; {flat}; {engine}{self.died and f'; {self.died}'}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "run_id": self.run_id,
            "trading_date": self.trading_date,
            "engine_pid": self.engine_pid,
            "ended": self.ended,
            "flat": not self.exposure,
            "exposure": self.exposure,
            "differences": [row.to_json() for row in self.differences],
            "unexplained": self.unexplained,
            "locks": self.locks,
            "died": self.died,
            "exit_code": self.exit_code,
        }


def reconcile_run(
    settings: Settings, recorded: RecordedRun, *, sleep: Callable[[float], object] = time.sleep
) -> ReconcileReport:
    """Compare a run's journal with its broker's book.

    Raises: BrokerError, JournalUnavailable for a side that cannot be read; ConfigError for a broker that this version
        cannot read.
    """
    status = read_status(recorded.folder)
    alive = status is not None and not status.ended and wrote_it(status.number("pid"), status.number("wall_ms"))
    dead = dead_engine(settings, status)
    closes_from_ms = broker_closes_from_ms(settings, recorded)
    rows: list[Difference] = []
    for look in range(LOOKS_MAX if alive else 1):
        if look:
            sleep(LOOK_INTERVAL_SECONDS)
        theirs = read_broker_books(settings, recorded.run)
        ours = journal_books(settings, recorded)
        found = compare(ours, theirs, product=Product.MIS, broker_closes_from_ms=closes_from_ms)
        before = {_name(row) for row in rows}
        rows = [row for row in found if not look or _name(row) in before]
        if not rows:
            break
    return ReconcileReport(
        run_id=recorded.run.run_id,
        trading_date=recorded.trading_date.isoformat(),
        engine_pid=status.number("pid") if status is not None and alive else 0,
        ended=not alive and recorded.run.state in ENDED,
        exposure=exposure_text(theirs),
        differences=rows,
        locks={symbol: list(reasons) for symbol, reasons in ours.locks.items()},
        died="" if dead is None else dead.sentence,
    )


def _name(row: Difference) -> tuple[str, str, str]:
    return row.kind.value, row.symbol, row.subject


def exposure_text(theirs: BrokerBooks) -> list[str]:
    """Return what the broker holds or works for the day's product, in words; empty is flat."""
    held = [f"{p.quantity} {p.symbol}" for p in theirs.positions if p.quantity and p.product is Product.MIS]
    working = [o for o in theirs.orders if o.state not in TERMINAL_STATES and o.product is Product.MIS]
    return held + [f"order {o.broker_order_id} {o.side} {o.quantity} {o.symbol}" for o in working]


def journal_books(settings: Settings, recorded: RecordedRun) -> OwnBooks:
    """Return our side from a run's journal. Raises JournalUnavailable."""
    reader = JournalReader(journal_url(settings, recorded.run))
    try:
        run = reader.latest_run(recorded.trading_date, scope_key=recorded.run.scope.key)
        if run is None or run.run_key is None:
            raise JournalUnavailable(
                f"the journal knows nothing of run {recorded.run.run_id}: it was never begun, or is another's"
            )
        return own_books(reader.events(run.run_key, BOOK_KINDS))
    except (ValueError, KeyError) as error:
        raise JournalUnavailable(
            f"the journal of run {recorded.run.run_id} holds an event that makes no sense ({error}): restore a backup"
        ) from error
    finally:
        reader.close()


def broker_closes_from_ms(settings: Settings, recorded: RecordedRun) -> int:
    """Return the engine time from which on the broker squares off by itself; never, on a date without a session."""
    session = load_rules(settings).calendar.session(recorded.trading_date)
    market = settings.market
    if session is None:
        return NEVER_MS
    try:
        window = trading_window(
            session,
            SecurityClass.CASH,
            entry_until=market.entry_until,
            flat_by=market.flat_by,
            hard_stop=market.hard_stop,
            margin_ms=market.margin_seconds * MS_PER_SECOND,
        )
    except ValueError:
        return NEVER_MS
    return window.hard_stop_ms
