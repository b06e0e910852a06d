"""Approvals: what a person answered when asked whether a date may be traded, and the yes that a day pass carries.

Revision: 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "approval",
        sa.Column("approval_key", sa.Integer(), nullable=False),
        sa.Column("scope_key", sa.String(), nullable=False),
        sa.Column("trading_date", sa.Date(), nullable=False),
        sa.Column("config_hash", sa.String(), nullable=False),
        sa.Column("at_wall_ms", sa.BigInteger(), nullable=False),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("approval_key"),
    )
    op.create_index("ix_approval_trading_date", "approval", ["trading_date"], unique=False)
    op.add_column("day_pass", sa.Column("approved_by", sa.String(), nullable=True))
    op.add_column("day_pass", sa.Column("approval_note", sa.Text(), nullable=True))
    op.add_column("day_pass", sa.Column("approved_wall_ms", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Go back to 0003."""
    for column in ("approved_wall_ms", "approval_note", "approved_by"):
        op.drop_column("day_pass", column)
    op.drop_table("approval")
