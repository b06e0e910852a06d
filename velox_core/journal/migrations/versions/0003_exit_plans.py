"""Exit plans: who sends the account's exits, at most one at a time.

Revision: 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "exit_plan",
        sa.Column("run_key", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("ts_ms", sa.BigInteger(), nullable=False),
        sa.Column("closer", sa.String(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["run_key"], ["run.run_key"]),
        sa.PrimaryKeyConstraint("run_key", "sequence"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "uq_exit_plan_live",
        "exit_plan",
        ["run_key"],
        unique=True,
        sqlite_where=sa.text("live"),
        postgresql_where=sa.text("live"),
    )


def downgrade() -> None:
    """Go back to 0002."""
    op.drop_table("exit_plan")
