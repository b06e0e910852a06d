"""The three kinds of failure.

- A refusal is a value (`velox_core.risk.gate`), never an exception.
- An operating error is a `VeloxError`: what failed, on what, and what the operator should do.
- A bug is an `InvariantError`: entries stop, positions are closed, the process exits non-zero.
"""

from __future__ import annotations

from collections.abc import Iterable

EXIT_DONE = 0
EXIT_OPERATING_ERROR = 1
EXIT_BAD_USAGE = 2
EXIT_CHECKLIST_FAILED = 3
EXIT_NOT_FLAT = 4


class VeloxError(Exception):
    """An operating error: one line that says what failed, on what, and what to do."""

    exit_code = EXIT_OPERATING_ERROR


class ConfigError(VeloxError):
    """Configuration or usage that cannot be accepted. `problems` holds one line for each problem found."""

    exit_code = EXIT_BAD_USAGE

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(VeloxError):
    """Market data that is absent or cannot be used."""


class CalendarError(VeloxError):
    """A date that the session calendar does not cover, or a calendar file that cannot be used."""


class BrokerError(VeloxError):
    """A read from the broker failed. Never raised for a send: a send that fails unclearly is UNKNOWN."""


class LedgerUnavailable(VeloxError):
    """The risk ledger did not answer, or its answer cannot be trusted: no entries until it is rebuilt."""


class JournalUnavailable(VeloxError):
    """The journal could not be written or read: no entries until it answers."""


class IntentRefused(JournalUnavailable):
    """The journal's backstop refused an intent: its id is used, or the symbol has an entry that is not terminal.

    The intent is not journaled and must not be sent; what was appended beside it is durable: `durable_ids` are the orders
    among it.
    """

    def __init__(self, text: str, durable_ids: Iterable[str] = ()) -> None:
        self.durable_ids = frozenset(durable_ids)
        super().__init__(text)


class HaltedError(VeloxError):
    """Trading is halted, and what was asked for needs it not to be."""


class NotFlatError(VeloxError):
    """Positions or working orders remain where none may."""

    exit_code = EXIT_NOT_FLAT


class InvariantError(Exception):
    """A state that must be impossible. Not an operating error: it is a bug, and trading stops."""
