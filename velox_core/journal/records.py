"""Writing the records of the day that stand beside the chain: checklist, day pass, summary, how a run ended.

- Flows call this, from processes of their own, while the engine journals; a write takes one short transaction.
- Saving a day pass or a summary again replaces it; checklists are kept, the newest counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import orjson
from sqlalchemy import delete, insert, update
from sqlalchemy.exc import SQLAlchemyError

from velox_core.journal.database import open_database, unavailable
from velox_core.journal.schema import JournalTable

_TABLES = JournalTable.metadata.tables
_SUMMARY_COLUMNS = (
    *("net_paise", "realised_paise", "charges_paise", "worst_loss_paise"),
    *("trades", "approved", "refused", "halted", "flat"),
)


class JournalRecords:
    """The write side for the records of the day, in one journal database.

    Args:
        url: SQLAlchemy URL; the database is created or migrated if need be.
    Raises: JournalUnavailable, here and from every method.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_database(url)

    def close(self) -> None:
        """Release the database."""
        self._engine.dispose()

    def save_checklist(
        self,
        *,
        scope_key: str,
        trading_date: date,
        config_hash: str,
        at_wall_ms: int,
        passed: bool,
        items: list[dict[str, Any]],
    ) -> None:
        """Keep one run of the checklist, with its items as JSON values."""
        row = {
            "scope_key": scope_key,
            "trading_date": trading_date,
            "config_hash": config_hash,
            "at_wall_ms": at_wall_ms,
            "passed": passed,
            "items": orjson.dumps(items).decode(),
        }
        self._write([insert(_TABLES["checklist"]).values(row)])

    def save_approval(
        self,
        *,
        scope_key: str,
        trading_date: date,
        config_hash: str,
        approved: bool,
        by: str,
        note: str,
        at_wall_ms: int,
    ) -> None:
        """Keep what a person answered, or that nobody did (`by` is then '')."""
        row = {
            "scope_key": scope_key,
            "trading_date": trading_date,
            "config_hash": config_hash,
            "at_wall_ms": at_wall_ms,
            "approved": approved,
            "by": by,
            "note": note,
        }
        self._write([insert(_TABLES["approval"]).values(row)])

    def save_day_pass(
        self,
        *,
        scope_key: str,
        trading_date: date,
        config_hash: str,
        armed_by: str,
        armed_wall_ms: int,
        approved_by: str | None = None,
        approval_note: str | None = None,
        approved_wall_ms: int | None = None,
    ) -> None:
        """Arm a date for a scope under one configuration; an earlier pass of the date is replaced.

        `approved_by`, `approval_note` and `approved_wall_ms` are a person's yes, if one was asked.
        """
        table = _TABLES["day_pass"]
        row = {
            "scope_key": scope_key,
            "trading_date": trading_date,
            "config_hash": config_hash,
            "armed_by": armed_by,
            "armed_wall_ms": armed_wall_ms,
            "approved_by": approved_by,
            "approval_note": approval_note,
            "approved_wall_ms": approved_wall_ms,
        }
        same = (table.c.scope_key == scope_key) & (table.c.trading_date == trading_date)
        self._write([delete(table).where(same), insert(table).values(row)])

    def save_session_summary(self, run_key: int, summary: Mapping[str, Any]) -> None:
        """Keep a run's summary: JSON values, with the headline columns of `SessionSummary` among them.

        Raises: KeyError when a headline is missing.
        """
        table = _TABLES["session_summary"]
        row = {name: summary[name] for name in _SUMMARY_COLUMNS}
        row.update(run_key=run_key, body=orjson.dumps(dict(summary)).decode())
        self._write([delete(table).where(table.c.run_key == run_key), insert(table).values(row)])

    def end_run(self, run_key: int, *, status: str, ended_wall_ms: int) -> None:
        """Note how a run ended, e.g. CLOSED, STOPPED or FAILED."""
        table = _TABLES["run"]
        self._write([update(table).where(table.c.run_key == run_key).values(status=status, ended_wall_ms=ended_wall_ms)])

    def _write(self, statements: list[Any]) -> None:
        try:
            with self._engine.begin() as connection:
                for statement in statements:
                    connection.execute(statement)
        except SQLAlchemyError as error:
            raise unavailable(self._engine, "write", error) from error
