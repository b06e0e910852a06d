"""Engines that died or hang: what they last held, and the command that takes their run up, or over.

- Dead is a run whose last status says that it goes on, whose process is gone, and which nobody has ended since.
- What is open is what the engine last said, or what a closing from outside left after that (`closing`); the broker alone
  knows what is open now (`velox doctor --reconcile`).
- Reads folders only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from velox_core.domain.errors import EXIT_NOT_FLAT, EXIT_OPERATING_ERROR
from velox_core.operations.closing import with_closing
from velox_core.operations.hints import velox
from velox_core.operations.processes import wrote_it
from velox_core.operations.status import Status, age_seconds, read_status
from velox_core.runs import TAKEN_UP_AGAIN, read_state
from velox_core.settings import Settings

DATE_LENGTH: Final = len("2024-01-15")
SILENT_HEARTBEATS_MAX: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadEngine:
    """One engine that died.

    `held` is what is open by the newest word, '' for nothing; `closed` what a closing from outside came to since, '' for
    none; `take_up` the command to run.
    """

    run_id: str
    pid: int
    held: str
    take_up: str
    closed: str = ""
    is_proven_open: bool = False  # a closing ended NOT FLAT, whatever quantity it could name

    @property
    def is_open(self) -> bool:
        """Return whether something is open, as far as anybody said."""
        return self.is_proven_open if self.closed else bool(self.held)

    @property
    def exit_code(self) -> int:
        """Return 4 when it died with something open, else 1."""
        return EXIT_NOT_FLAT if self.is_open else EXIT_OPERATING_ERROR

    @property
    def sentence(self) -> str:
        """Return what happened and what to do."""
        died = f"the engine of run {self.run_id} DIED (process {self.pid} is gone)"
        if self.closed:
            return f"{died}; since then {self.closed}. Take the run up: {self.take_up}"
        held = f"with {self.held} open, by its last status" if self.held else "with nothing open, by its last status"
        return f"{died} {held}. Take the run up: {self.take_up}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"died": True, "held": self.held, "closed": self.closed, "take_up": self.take_up, "message": self.sentence}


def dead_engine(settings: Settings, status: Status | None) -> DeadEngine | None:
    """Return the engine of a status as a dead one; None while it lives, or when its run came to an end."""
    if status is None or status.ended or wrote_it(status.number("pid"), status.number("wall_ms")):
        return None
    if read_state(status.folder) not in TAKEN_UP_AGAIN:
        return None
    status = with_closing(status)
    closing = status.closing
    return DeadEngine(
        run_id=status.run_id or status.folder.name,
        pid=status.number("pid"),
        held=_held(status),
        take_up=velox(*_take_up(settings, status), settings=settings),
        closed=str(closing.get("message", "")),
        is_proven_open=bool(closing) and closing.get("flat") is not True,
    )


def dead_engines(settings: Settings, folders: Sequence[Path]) -> list[DeadEngine]:
    """Return every dead engine of some run folders."""
    return [dead for folder in folders if (dead := dead_engine(settings, read_status(folder))) is not None]


def take_over_command(settings: Settings, status: Status) -> str:
    """Return the command that takes a run over from an engine that lives and does not answer."""
    return velox(*_take_up(settings, status), "--take-over", "--reason", "it hangs", "--by", "NAME", settings=settings)


def is_stale(settings: Settings, status: Status) -> bool:
    """Return whether an engine has been silent for more heartbeats than one that works ever is."""
    return not status.ended and age_seconds(status) > SILENT_HEARTBEATS_MAX * settings.engine.heartbeat_seconds


def _held(status: Status) -> str:
    held = [f"{position.get('quantity', '?')} {position.get('symbol', '?')}" for position in status.positions]
    orders = status.number("live_orders")
    return ", ".join([*held, *([f"{orders} live order{'s' * (orders != 1)}"] if orders else [])])


def _take_up(settings: Settings, status: Status) -> list[str]:
    """Return the command that takes a run up on the data it was begun on."""
    stem = status.folder.name.rpartition("-")[0]
    arguments = ["run", "--date", stem[:DATE_LENGTH] or status.text("trading_date")]
    source, path = status.text("source"), settings.feed.path
    if stem[DATE_LENGTH + 1 :]:
        arguments += ["--scenario", stem[DATE_LENGTH + 1 :]]
    elif data := status.text("data"):
        if path is None or Path(data).resolve() != path.resolve():
            arguments += ["--data", data]
    elif source and (path is None or not source.startswith(path.name)):
        arguments += ["--data", source.partition(" (")[0]]  # a status without the path: its name only
    return arguments
