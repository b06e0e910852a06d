"""Migrating a journal to the head revision with alembic, from the installed package: no ini file, no working folder.

- The upgrade runs in one transaction that holds the write lock from the start: two processes cannot both migrate.
- A revision that this version does not know was written by a newer one, and is refused.
"""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Engine

from velox_core.domain.errors import JournalUnavailable


def alembic_config() -> Config:
    """Return alembic's configuration: the migrations that this package carries."""
    config = Config()
    config.set_main_option("script_location", "velox_core.journal:migrations")
    config.set_main_option("path_separator", "os")
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the database to `revision`. Raises JournalUnavailable for one that a newer VELOX wrote."""
    config = alembic_config()
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    except CommandError as error:
        raise JournalUnavailable(
            f"the journal {engine.url.database} cannot be migrated: {error}: it was written by a newer VELOX; "
            "update VELOX, or restore a backup of the older one"
        ) from error
