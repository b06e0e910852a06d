"""Records of the day beside the chain: checklist, day pass, session summary.

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "checklist",
        sa.Column("checklist_key", sa.Integer(), nullable=False),
        sa.Column("scope_key", sa.String(), nullable=False),
        sa.Column("trading_date", sa.Date(), nullable=False),
        sa.Column("config_hash", sa.String(), nullable=False),
        sa.Column("at_wall_ms", sa.BigInteger(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("items", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("checklist_key"),
    )
    op.create_index("ix_checklist_trading_date", "checklist", ["trading_date"], unique=False)
    op.create_table(
        "day_pass",
        sa.Column("scope_key", sa.String(), nullable=False),
        sa.Column("trading_date", sa.Date(), nullable=False),
        sa.Column("config_hash", sa.String(), nullable=False),
        sa.Column("armed_by", sa.String(), nullable=False),
        sa.Column("armed_wall_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope_key", "trading_date"),
    )
    op.create_table(
        "session_summary",
        sa.Column("run_key", sa.Integer(), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("net_paise", "realised_paise", "charges_paise", "worst_loss_paise")
        ),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("trades", "approved", "refused")),
        sa.Column("halted", sa.Boolean(), nullable=False),
        sa.Column("flat", sa.Boolean(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_key"], ["run.run_key"]),
        sa.PrimaryKeyConstraint("run_key"),
    )


def downgrade() -> None:
    """Go back to 0001."""
    for table in ("session_summary", "day_pass", "checklist"):
        op.drop_table(table)
