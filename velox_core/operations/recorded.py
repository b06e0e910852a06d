"""Runs on record: which there are, and finding one.

- The newest run of a date is the one with the highest number among the newest of its scenarios, by its last change.
- Reads folders only: it works with every store down, and imports none, so that a halt is not kept waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from velox_core.domain.errors import VeloxError
from velox_core.domain.scope import Scope
from velox_core.operations.hints import velox
from velox_core.operations.status import read_status
from velox_core.runs import RunFolder, run_folder
from velox_core.settings import BrokerType, Paths, Settings

DATE_LENGTH: Final = len("2024-01-15")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """One run that was begun."""

    run: RunFolder
    trading_date: date

    @property
    def folder(self) -> Path:
        """Return where the run's files lie."""
        return self.run.folder


def recorded_runs(settings: Settings, paths: Paths) -> list[RecordedRun]:
    """Return the account's replays, the one that changed last at the end."""
    account = Scope(broker_type=BrokerType.SIMULATED.value, account=settings.account)
    parent = (paths.var / Scope(broker_type=account.broker_type, account=account.account, run_id="x").folder).parent
    found = []
    for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
        try:
            trading_date = date.fromisoformat(folder.name[:DATE_LENGTH])
            run = run_folder(paths.var, account, folder.name)
        except ValueError:
            continue
        if folder.is_dir():
            found.append(RecordedRun(run=run, trading_date=trading_date))
    return sorted(found, key=_changed_at)


def _changed_at(recorded: RecordedRun) -> tuple[int, str]:
    status = read_status(recorded.folder)
    return (status.number("wall_ms") if status is not None else 0, recorded.folder.name)


def find_run(
    settings: Settings,
    paths: Paths,
    *,
    on: date | None = None,
    stem: str | None = None,
    run_id: str | None = None,
    advise_to_run: bool = True,
) -> RecordedRun:
    """Return the newest run: of a date, of a stem (date, with the scenario's name for synthetic days), or the one named.

    `advise_to_run` False leaves out how to run one: nobody who wants to halt is told to trade.

    Raises: VeloxError when there is none, naming the dates that there are.
    """
    runs = recorded_runs(settings, paths)
    wanted = [
        recorded
        for recorded in runs
        if (on is None or recorded.trading_date == on)
        and (stem is None or recorded.folder.name.rpartition("-")[0] == stem)
        and (run_id is None or recorded.run.run_id == run_id)
    ]
    if wanted:
        return wanted[-1]
    dates = sorted({recorded.trading_date.isoformat() for recorded in runs})
    known = f"on record are {', '.join(dates[-10:])}" if dates else "nothing is on record yet"
    if run_id is not None:
        raise VeloxError(
            f"no run {run_id} below {paths.var}: {known}. The ids: {velox('summary', '--list', settings=settings)}"
        )
    if not advise_to_run:
        raise VeloxError(f"no run of {stem or on or 'any date'} below {paths.var}: {known}")
    again = velox("day", "--date", "YYYY-MM-DD", settings=settings)
    raise VeloxError(f"no run of {stem or on or 'any date'} below {paths.var}: {known}. Run one: {again}")
