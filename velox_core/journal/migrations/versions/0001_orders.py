"""Runs, their events, and what is projected from them.

Revision: 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    _create_run()
    _create_event()
    _create_decision()
    _create_intent()
    _create_order_event()
    _create_fill()
    _create_halt()


def downgrade() -> None:
    """Go back to an empty database."""
    for table in ("halt", "fill", "order_event", "intent", "decision", "event", "run"):
        op.drop_table(table)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=nullable)


def _integer(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=nullable)


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _of_run() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["run_key"], ["run.run_key"])


def _create_run() -> None:
    op.create_table(
        "run",
        _integer("run_key"),
        _text("scope_key"),
        sa.Column("trading_date", sa.Date(), nullable=False),
        _text("run_id"),
        _text("mode"),
        _text("config_hash"),
        _text("data_source"),
        _big("started_wall_ms"),
        _big("ended_wall_ms", nullable=True),
        _text("status"),
        sa.PrimaryKeyConstraint("run_key"),
        sa.UniqueConstraint("scope_key", "trading_date", "run_id", name="uq_run_identity"),
    )
    op.create_index("ix_run_trading_date", "run", ["trading_date"], unique=False)


def _create_event() -> None:
    op.create_table(
        "event",
        _integer("run_key"),
        _integer("sequence"),
        _big("ts_ms"),
        _text("kind"),
        sa.Column("body", sa.Text(), nullable=False),
        _text("digest"),
        _of_run(),
        sa.PrimaryKeyConstraint("run_key", "sequence"),
        sqlite_with_rowid=False,
    )


def _create_decision() -> None:
    op.create_table(
        "decision",
        _integer("run_key"),
        _integer("sequence"),
        _big("ts_ms"),
        *(_text(name) for name in ("strategy", "symbol", "side", "kind")),
        _integer("asked_quantity"),
        _integer("quantity"),
        sa.Column("approved", sa.Boolean(), nullable=False),
        _integer("layer"),
        _text("code"),
        _text("reason"),
        _text("client_order_id", nullable=True),
        sa.Column("numbers", sa.Text(), nullable=False),
        _text("signal_reason"),
        _of_run(),
        sa.PrimaryKeyConstraint("run_key", "sequence"),
        sqlite_with_rowid=False,
    )


def _create_intent() -> None:
    op.create_table(
        "intent",
        _integer("run_key"),
        _text("client_order_id"),
        _integer("sequence"),
        _big("ts_ms"),
        *(_text(name) for name in ("strategy", "symbol", "side")),
        _integer("quantity"),
        _text("order_type"),
        _big("limit_price_paise"),
        _text("product"),
        _text("role"),
        _integer("rank", nullable=True),
        _text("reason"),
        *(_big(name) for name in ("stop_paise", "target_paise", "ledger_version")),
        _text("state"),
        sa.Column("live", sa.Boolean(), nullable=False),
        _integer("filled_quantity"),
        _text("broker_order_id"),
        _big("updated_ms"),
        _of_run(),
        sa.PrimaryKeyConstraint("run_key", "client_order_id"),
        sqlite_with_rowid=False,
    )
    live_entry = sa.text("role = 'ENTRY' AND live")
    op.create_index(
        *("uq_intent_live_entry", "intent", ["run_key", "symbol"]),
        unique=True,
        sqlite_where=live_entry,
        postgresql_where=live_entry,
    )


def _create_order_event() -> None:
    op.create_table(
        "order_event",
        _integer("run_key"),
        _integer("sequence"),
        _big("ts_ms"),
        *(_text(name) for name in ("client_order_id", "state", "broker_order_id")),
        _integer("filled_quantity"),
        _text("reason"),
        _of_run(),
        sa.PrimaryKeyConstraint("run_key", "sequence"),
        sqlite_with_rowid=False,
    )


def _create_fill() -> None:
    op.create_table(
        "fill",
        _integer("run_key"),
        _text("trade_id"),
        _integer("sequence"),
        _big("ts_ms"),
        *(_text(name) for name in ("client_order_id", "strategy", "symbol", "side")),
        _integer("quantity"),
        *(_big(name) for name in ("price_paise", "charges_paise", "realised_paise")),
        _integer("position_quantity"),
        _big("cost_paise"),
        _of_run(),
        sa.PrimaryKeyConstraint("run_key", "trade_id"),
    )


def _create_halt() -> None:
    op.create_table(
        "halt",
        _integer("run_key"),
        _integer("sequence"),
        _text("halt_id"),
        _text("kind"),
        sa.Column("trading_date", sa.Date(), nullable=False),
        _text("reason"),
        _text("by"),
        _big("at_ms"),
        _text("clears"),
        _of_run(),
        sa.PrimaryKeyConstraint("run_key", "sequence"),
    )
