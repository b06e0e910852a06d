"""Which run a journal belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """One run: (scope, date, run id) names it; opening a journal with the same three resumes it.

    Attributes:
        scope_key: see `velox_core.domain.scope`.
        trading_date: the IST date that is traded or replayed.
        run_id: of a replay or drill, e.g. '2024-01-15-1'; '' for the account's real day.
        mode: 'replay', 'paper', 'live' or 'drill'.
        config_hash: of the resolved settings.
        data_source: where the bars come from, for people; says so when they are synthetic.
        started_wall_ms: when the run was first opened, wall clock, epoch ms.
    """

    scope_key: str
    trading_date: date
    run_id: str = ""
    mode: str = "replay"
    config_hash: str = ""
    data_source: str = ""
    started_wall_ms: int = 0
