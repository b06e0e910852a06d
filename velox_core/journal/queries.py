"""Reading the journal: what summary, explain, reconcile, reports and the checklist ask, beside a running engine.

- A reader holds up no writer (WAL), and creates or migrates nothing.
- Everything is read by run: list the runs first, then ask about one by its `run_key`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

import orjson
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, SQLModel, col
from sqlmodel import select as select_rows
from sqlmodel.sql.expression import SelectOfScalar

from velox_core.domain.events import EventKind, JournalEvent
from velox_core.domain.halts import HaltRecord
from velox_core.journal.chain import canonical, first_broken
from velox_core.journal.database import connect_to_read, open_database, unavailable
from velox_core.journal.schema import (
    ApprovalRow,
    ChecklistRow,
    DayPass,
    Decision,
    Event,
    ExitPlanRow,
    FillRow,
    Intent,
    OrderEvent,
    Run,
    SessionSummary,
)
from velox_core.journal.sql import read_events

_EPOCH_FROM, _EPOCH_LENGTH = 8, 4  # in a client order id: yymmdd, actor letter, lease epoch, sequence
_Row = TypeVar("_Row", bound=SQLModel)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCount:
    """How many decisions of a run had this outcome. `layer` is 0 for a precondition or an approval."""

    layer: int
    code: str
    approved: bool
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HighWater:
    """What the journal knows of a scope's ledger: a store below it has lost something. 0 when nothing is known."""

    version: int
    epoch: int


class JournalReader:
    """The read side of one journal database.

    Args:
        url: SQLAlchemy URL.
    Raises: JournalUnavailable, here and from every method.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url, writer=False)

    def close(self) -> None:
        """Release the database."""
        self._engine.dispose()

    def runs(self, from_date: date, to_date: date, *, scope_key: str | None = None) -> list[Run]:
        """Return the runs of a range of dates, both included, oldest first; of one scope, or of all."""
        query = select_rows(Run).where(Run.trading_date >= from_date, Run.trading_date <= to_date)
        if scope_key is not None:
            query = query.where(Run.scope_key == scope_key)
        return self._rows(query.order_by(col(Run.trading_date), col(Run.run_key)))

    def latest_run(self, trading_date: date | None = None, *, scope_key: str | None = None) -> Run | None:
        """Return the run that was begun last, of a date (None: of any) and a scope (None: of any)."""
        query = select_rows(Run)
        if trading_date is not None:
            query = query.where(Run.trading_date == trading_date)
        if scope_key is not None:
            query = query.where(Run.scope_key == scope_key)
        return self._first(query.order_by(col(Run.run_key).desc()).limit(1))

    def run(self, run_key: int) -> Run | None:
        """Return one run."""
        return self._first(select_rows(Run).where(Run.run_key == run_key))

    def events(self, run_key: int, kinds: Iterable[EventKind] | None = None) -> list[JournalEvent]:
        """Return a run's events, oldest first."""
        return self._ask(lambda connection: list(read_events(connection, run_key, kinds)))

    def verify_chain(self, run_key: int) -> int | None:
        """Return the first broken sequence of a run, None when its hash chain holds."""

        def check(connection: Connection) -> int | None:
            columns = (Event.sequence, Event.ts_ms, Event.kind, Event.body, Event.digest)
            query = select(*columns).where(col(Event.run_key) == run_key).order_by(col(Event.sequence))  # type: ignore[call-overload]
            rows = connection.execute(query)
            return first_broken(
                (number, canonical(number, ts, kind, body.encode()), digest) for number, ts, kind, body, digest in rows
            )

        return self._ask(check)

    def decisions(self, run_key: int, *, symbol: str | None = None, strategy: str | None = None) -> list[Decision]:
        """Return the gate's answers in a run, oldest first; `numbers` is JSON text."""
        query = select_rows(Decision).where(Decision.run_key == run_key)
        if symbol is not None:
            query = query.where(Decision.symbol == symbol)
        if strategy is not None:
            query = query.where(Decision.strategy == strategy)
        return self._rows(query.order_by(col(Decision.sequence)))

    def decision_counts(self, run_key: int) -> list[DecisionCount]:
        """Return how often each outcome occurred, approvals first, then by layer and code."""
        columns = (col(Decision.layer), col(Decision.code), col(Decision.approved))
        query = select(*columns, func.count()).where(col(Decision.run_key) == run_key).group_by(*columns)
        rows = self._ask(lambda connection: connection.execute(query).all())
        counts = [DecisionCount(layer=row[0], code=row[1], approved=bool(row[2]), number=row[3]) for row in rows]
        return sorted(counts, key=lambda count: (not count.approved, count.layer, count.code))

    def intents(self, run_key: int, *, live_only: bool = False) -> list[Intent]:
        """Return a run's orders with their newest state, oldest first; those that may still trade, or all."""
        query = select_rows(Intent).where(Intent.run_key == run_key)
        if live_only:
            query = query.where(col(Intent.live))
        return self._rows(query.order_by(col(Intent.sequence)))

    def order_events(self, run_key: int, client_order_id: str | None = None) -> list[OrderEvent]:
        """Return the state changes of a run's orders, or of one, oldest first."""
        query = select_rows(OrderEvent).where(OrderEvent.run_key == run_key)
        if client_order_id is not None:
            query = query.where(OrderEvent.client_order_id == client_order_id)
        return self._rows(query.order_by(col(OrderEvent.sequence)))

    def fills(self, run_key: int, client_order_id: str | None = None) -> list[FillRow]:
        """Return a run's fills, or those of one order, oldest first."""
        query = select_rows(FillRow).where(FillRow.run_key == run_key)
        if client_order_id is not None:
            query = query.where(FillRow.client_order_id == client_order_id)
        return self._rows(query.order_by(col(FillRow.sequence)))

    def exit_plans(self, run_key: int) -> list[ExitPlanRow]:
        """Return who sent a run's exits, oldest first; at most the newest is live."""
        return self._rows(select_rows(ExitPlanRow).where(ExitPlanRow.run_key == run_key).order_by(col(ExitPlanRow.sequence)))

    def halts(self, scope_key: str) -> list[HaltRecord]:
        """Return every halt and clear record of a scope, of all its dates, oldest first (see `active_halts`)."""
        query = select(Event.body).join(Run, col(Run.run_key) == col(Event.run_key))  # type: ignore[call-overload]
        query = query.where(col(Run.scope_key) == scope_key)
        kinds = (EventKind.HALT.value, EventKind.HALT_CLEARED.value)
        query = query.where(col(Event.kind).in_(kinds)).order_by(col(Event.run_key), col(Event.sequence))
        bodies = self._ask(lambda connection: connection.execute(query).all())
        return [HaltRecord.from_body(orjson.loads(body)) for (body,) in bodies]

    def high_water(self, scope_key: str, trading_date: date) -> HighWater:
        """Return the highest ledger version that the date's intents saw, and the scope's highest lease epoch."""
        of_scope = select(Run.run_key).where(col(Run.scope_key) == scope_key)  # type: ignore[call-overload]
        of_date = of_scope.where(col(Run.trading_date) == trading_date)
        version = select(func.max(Intent.ledger_version)).where(col(Intent.run_key).in_(of_date))
        epoch_text = func.substr(Intent.client_order_id, _EPOCH_FROM, _EPOCH_LENGTH)
        epoch = select(func.max(epoch_text)).where(col(Intent.run_key).in_(of_scope))
        sessions = select(Event.body).where(col(Event.run_key).in_(of_scope), col(Event.kind) == EventKind.SESSION.value)  # type: ignore[call-overload]

        def measure(connection: Connection) -> HighWater:
            epochs = [_epoch_of(body) for (body,) in connection.execute(sessions)]
            found = str(connection.execute(epoch).scalar() or "0")
            highest = max([int(found) if found.isdigit() else 0, *epochs])
            return HighWater(version=connection.execute(version).scalar() or 0, epoch=highest)

        return self._ask(measure)

    def checklist(self, scope_key: str, trading_date: date) -> ChecklistRow | None:
        """Return the newest checklist of a scope and date; `items` is JSON text."""
        query = select_rows(ChecklistRow).where(ChecklistRow.scope_key == scope_key, ChecklistRow.trading_date == trading_date)
        return self._first(query.order_by(col(ChecklistRow.checklist_key).desc()).limit(1))

    def approval(self, scope_key: str, trading_date: date) -> ApprovalRow | None:
        """Return the newest answer of a person about a scope and date."""
        query = select_rows(ApprovalRow).where(ApprovalRow.scope_key == scope_key, ApprovalRow.trading_date == trading_date)
        return self._first(query.order_by(col(ApprovalRow.approval_key).desc()).limit(1))

    def day_pass(self, scope_key: str, trading_date: date) -> DayPass | None:
        """Return the day pass of a scope and date."""
        return self._first(select_rows(DayPass).where(DayPass.scope_key == scope_key, DayPass.trading_date == trading_date))

    def session_summary(self, run_key: int) -> SessionSummary | None:
        """Return a run's summary; `body` is JSON text."""
        return self._first(select_rows(SessionSummary).where(SessionSummary.run_key == run_key))

    def session_summaries(self, from_date: date, to_date: date) -> list[tuple[Run, SessionSummary]]:
        """Return the runs of a range of dates that have a summary, with it, oldest first."""
        summaries = select_rows(SessionSummary).join(Run, col(Run.run_key) == col(SessionSummary.run_key))
        in_range = summaries.where(Run.trading_date >= from_date, Run.trading_date <= to_date)
        by_run = {summary.run_key: summary for summary in self._rows(in_range)}
        return [(run, by_run[run.run_key]) for run in self.runs(from_date, to_date) if run.run_key in by_run]

    def _rows(self, query: SelectOfScalar[_Row]) -> list[_Row]:
        def read(connection: Connection) -> list[_Row]:
            with Session(connection, expire_on_commit=False) as session:
                rows = list(session.exec(query).all())
                session.expunge_all()
                return rows

        return self._ask(read)

    def _first(self, query: SelectOfScalar[_Row]) -> _Row | None:
        rows = self._rows(query)
        return rows[0] if rows else None

    def _ask(self, question: Callable[[Connection], _Answer]) -> _Answer:
        try:
            with connect_to_read(self._engine) as connection:
                return question(connection)
        except SQLAlchemyError as error:
            raise unavailable(self._engine, "read", error) from error


def _epoch_of(body: str) -> int:
    """Return the lease epoch that a SESSION event names, 0 for none."""
    epoch = orjson.loads(body).get("epoch", 0)
    return epoch if isinstance(epoch, int) else 0
