"""The SQL schema of the journal, as SQLModel tables.

- `event` is the truth: append-only, hash-chained, one row for each event of a run.
- The other event tables are projections, written in the same transaction by `projection.project`.
- Invariants live here: a client order id once in a run, a trade id once in a run, at most one entry that is not
  terminal for each symbol of a run, and at most one live exit plan in a run (an account's date is one run).
- `checklist`, `approval`, `day_pass` and `session_summary` are records of the day beside the chain.
- A change here needs a migration, and `HEAD_REVISION` names the newest one; a test holds the two together.

Money is paise, quantity shares, `*_ms` epoch milliseconds of engine time, `*_wall_ms` of the wall clock.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import BigInteger, Index, MetaData, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

HEAD_REVISION = "0004"
_WITHOUT_ROWID = {"sqlite_with_rowid": False}  # appended in key order: one page to write instead of two


class JournalTable(SQLModel):
    """Base of the journal's tables, with metadata of their own."""

    metadata = MetaData()


class Run(JournalTable, table=True):
    """One run; see `velox_core.journal.run.RunIdentity`. `status` is RUNNING until somebody says how it ended."""

    __tablename__ = "run"
    __table_args__ = (UniqueConstraint("scope_key", "trading_date", "run_id", name="uq_run_identity"),)

    run_key: int | None = Field(default=None, primary_key=True)
    scope_key: str
    trading_date: date = Field(index=True)
    run_id: str
    mode: str
    config_hash: str
    data_source: str
    started_wall_ms: int = Field(sa_type=BigInteger)
    ended_wall_ms: int | None = Field(default=None, sa_type=BigInteger)
    status: str


class Event(JournalTable, table=True):
    """One journal event: `body` is its JSON text, `digest` the hash chain in hex."""

    __tablename__ = "event"
    __table_args__ = _WITHOUT_ROWID

    run_key: int = Field(primary_key=True, foreign_key="run.run_key")
    sequence: int = Field(primary_key=True)
    ts_ms: int = Field(sa_type=BigInteger)
    kind: str
    body: str = Field(sa_type=Text)
    digest: str


class Decision(JournalTable, table=True):
    """The gate's answer to one signal, with the numbers that made it (JSON text)."""

    __tablename__ = "decision"
    __table_args__ = _WITHOUT_ROWID

    run_key: int = Field(primary_key=True, foreign_key="run.run_key")
    sequence: int = Field(primary_key=True)
    ts_ms: int = Field(sa_type=BigInteger)
    strategy: str
    symbol: str
    side: str
    kind: str
    asked_quantity: int
    quantity: int
    approved: bool
    layer: int
    code: str
    reason: str
    client_order_id: str | None = None
    numbers: str = Field(sa_type=Text)
    signal_reason: str


class Intent(JournalTable, table=True):
    """An order of ours and where it stands. `live` is False once its state is terminal. `rank` is None for an entry."""

    __tablename__ = "intent"
    __table_args__ = (
        Index(
            "uq_intent_live_entry",
            "run_key",
            "symbol",
            unique=True,
            sqlite_where=text("role = 'ENTRY' AND live"),
            postgresql_where=text("role = 'ENTRY' AND live"),
        ),
        _WITHOUT_ROWID,
    )

    run_key: int = Field(primary_key=True, foreign_key="run.run_key")
    client_order_id: str = Field(primary_key=True)
    sequence: int
    ts_ms: int = Field(sa_type=BigInteger)
    strategy: str
    symbol: str
    side: str
    quantity: int
    order_type: str
    limit_price_paise: int = Field(sa_type=BigInteger)
    product: str
    role: str
    rank: int | None = None
    reason: str
    stop_paise: int = Field(sa_type=BigInteger)
    target_paise: int = Field(sa_type=BigInteger)
    ledger_version: int = Field(sa_type=BigInteger)
    state: str
    live: bool
    filled_quantity: int
    broker_order_id: str
    updated_ms: int = Field(sa_type=BigInteger)


class OrderEvent(JournalTable, table=True):
    """A change of an order's state. `filled_quantity` is cumulative."""

    __tablename__ = "order_event"
    __table_args__ = _WITHOUT_ROWID

    run_key: int = Field(primary_key=True, foreign_key="run.run_key")
    sequence: int = Field(primary_key=True)
    ts_ms: int = Field(sa_type=BigInteger)
    client_order_id: str
    state: str
    broker_order_id: str
    filled_quantity: int
    reason: str


class FillRow(JournalTable, table=True):
    """One trade at the broker. `position_quantity` (signed) and `cost_paise` are the net position after it."""

    __tablename__ = "fill"

    run_key: int = Field(primary_key=True, foreign_key="run.run_key")
    trade_id: str = Field(primary_key=True)
    sequence: int
    ts_ms: int = Field(sa_type=BigInteger)
    client_order_id: str
    strategy: str
    symbol: str
    side: str
    quantity: int
    price_paise: int = Field(sa_type=BigInteger)
    charges_paise: int = Field(sa_type=BigInteger)
    realised_paise: int = Field(sa_type=BigInteger)
    position_quantity: int
    cost_paise: int = Field(sa_type=BigInteger)


class ExitPlanRow(JournalTable, table=True):
    """Who sends the exits: `closer` is date, actor and epoch. A new plan ends the live one in its own transaction."""

    __tablename__ = "exit_plan"
    __table_args__ = (
        Index(
            "uq_exit_plan_live",
            "run_key",
            unique=True,
            sqlite_where=text("live"),
            postgresql_where=text("live"),
        ),
        _WITHOUT_ROWID,
    )

    run_key: int = Field(primary_key=True, foreign_key="run.run_key")
    sequence: int = Field(primary_key=True)
    ts_ms: int = Field(sa_type=BigInteger)
    closer: str
    live: bool
    ended_ms: int | None = Field(default=None, sa_type=BigInteger)


class HaltRow(JournalTable, table=True):
    """A halt record, or a clear record (`clears` names the halt); see `velox_core.domain.halts`."""

    __tablename__ = "halt"

    run_key: int = Field(primary_key=True, foreign_key="run.run_key")
    sequence: int = Field(primary_key=True)
    halt_id: str
    kind: str
    trading_date: date
    reason: str
    by: str
    at_ms: int = Field(sa_type=BigInteger)
    clears: str


class ChecklistRow(JournalTable, table=True):
    """One run of the pre-production checklist; `items` is JSON text."""

    __tablename__ = "checklist"

    checklist_key: int | None = Field(default=None, primary_key=True)
    scope_key: str
    trading_date: date = Field(index=True)
    config_hash: str
    at_wall_ms: int = Field(sa_type=BigInteger)
    passed: bool
    items: str = Field(sa_type=Text)


class ApprovalRow(JournalTable, table=True):
    """A person's answer to whether a date may be traded under one configuration; the newest one of a date counts."""

    __tablename__ = "approval"

    approval_key: int | None = Field(default=None, primary_key=True)
    scope_key: str
    trading_date: date = Field(index=True)
    config_hash: str
    at_wall_ms: int = Field(sa_type=BigInteger)
    approved: bool
    by: str
    note: str = Field(sa_type=Text)


class DayPass(JournalTable, table=True):
    """The permission to open risk on a date, bound to the config's hash; the newest one of a scope and date counts.

    `approved_by`, `approval_note` and `approved_wall_ms` are a person's yes, None when nobody was asked.
    """

    __tablename__ = "day_pass"

    scope_key: str = Field(primary_key=True)
    trading_date: date = Field(primary_key=True)
    config_hash: str
    armed_by: str
    armed_wall_ms: int = Field(sa_type=BigInteger)
    approved_by: str | None = None
    approval_note: str | None = Field(default=None, sa_type=Text)
    approved_wall_ms: int | None = Field(default=None, sa_type=BigInteger)


class SessionSummary(JournalTable, table=True):
    """What a run came to. Headline columns for lists and totals; `body` is the whole summary as JSON text."""

    __tablename__ = "session_summary"

    run_key: int = Field(primary_key=True, foreign_key="run.run_key")
    net_paise: int = Field(sa_type=BigInteger)
    realised_paise: int = Field(sa_type=BigInteger)
    charges_paise: int = Field(sa_type=BigInteger)
    worst_loss_paise: int = Field(sa_type=BigInteger)
    trades: int
    approved: int
    refused: int
    halted: bool
    flat: bool
    body: str = Field(sa_type=Text)
