"""What alembic runs: the migrations, on the connection and inside the transaction that `migrate.upgrade` opened."""

from __future__ import annotations

from alembic import context

from velox_core.journal.schema import JournalTable

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=JournalTable.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
