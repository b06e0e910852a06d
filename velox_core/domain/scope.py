"""Which world a process lives in: broker type, account, and for replays a run id.

Every key, file, database and lock carries it, so that simulated and live, or two replays, can never meet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One account's world.

    Attributes:
        broker_type: 'simulated', 'zerodha' or 'upstox'.
        account: the configured account name.
        run_id: for a replay or drill its own id, '' for the account's real day.
    """

    broker_type: str
    account: str
    run_id: str = ""

    def __post_init__(self) -> None:
        for label, value in (("broker type", self.broker_type), ("account", self.account), ("run id", self.run_id or "x")):
            if not _NAME.fullmatch(value):
                raise ValueError(f"{label} {value!r} may hold letters, digits, '-', '_' and '.' only, at most 64")

    @property
    def key(self) -> str:
        """Return the prefix of every key in a shared store: 'simulated:primary' or 'simulated:primary:<run>'."""
        return ":".join(part for part in (self.broker_type, self.account, self.run_id) if part)

    @property
    def folder(self) -> str:
        """Return the folder below `var/`: 'simulated/primary', or 'replay/primary/<run>' for a replay."""
        if self.run_id:
            return f"replay/{self.account}/{self.run_id}"
        return f"{self.broker_type}/{self.account}"
