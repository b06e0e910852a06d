"""What a day has to tell to those who watch from outside: typed events about one account, made from what was published.

- Pure: from a status, a checklist or a proof to values. Who sends them where is not known here.
- The subject of every event is the account, `velox.account.<broker>.<account>`.
- `key` is under what a run tells an event once, however often it is watched anew; '' for one that may repeat.
- Money in paise, times in epoch ms of the engine's clock, quantities in shares.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from velox_core.domain.halts import HaltKind
from velox_core.domain.money import rupees_display
from velox_core.operations.status import Status
from velox_core.operations.view import signed_rupees
from velox_core.settings import Settings

RESOURCE_PREFIX: Final = "velox.account"
_EVENT_IDS: Final = uuid.UUID("6f0f3c4e-5a0e-4a7e-9a51-1f6f3c6f7a10")  # ours; an id is made of it, the run and the key


class EventName(StrEnum):
    """The events, by the name that they have everywhere."""

    ARMED = "velox.armed"
    HEARTBEAT = "velox.heartbeat"
    BREACH = "velox.breach"
    HALT = "velox.halt"
    FLAT = "velox.flat"
    ENDED = "velox.ended"
    RESET = "velox.reset"
    BACKUP = "velox.backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Armed:
    """The checklist passed and the day has its pass."""

    checks: int
    warnings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The engine itself spoke lately."""

    engine_ms: int
    phase: str
    net_paise: int
    headroom_paise: int
    open_positions: int
    live_orders: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """The day's loss reached its limit; the engine halted and closes by itself."""

    halt_id: str
    reason: str
    at_ms: int
    net_paise: int
    loss_limit_paise: int
    open_positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Trading was switched off. `closes` says that everything open must be closed while it stands."""

    halt_id: str
    kind: str
    reason: str
    by: str
    at_ms: int
    closes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """Nothing is held and nothing works. `after` is a halt's id or 'session end'; `said_by` engine, closing or broker."""

    after: str
    said_by: str
    net_paise: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The engine said its last word or is gone. `exit_code` is -1 where nobody knows it."""

    state: str
    exit_code: int
    flat: bool
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """The emergency state was reset: these halts are cleared."""

    halt_ids: tuple[str, ...]
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """The databases were backed up. `verified` says that a restore was compared with the original."""

    name: str
    verified: bool
    message: str


Payload = Armed | Heartbeat | Breach | Halt | Flat | Ended | Reset | Backup
_NAMES: Final[Mapping[type[Any], EventName]] = {
    Armed: EventName.ARMED,
    Heartbeat: EventName.HEARTBEAT,
    Breach: EventName.BREACH,
    Halt: EventName.HALT,
    Flat: EventName.FLAT,
    Ended: EventName.ENDED,
    Reset: EventName.RESET,
    Backup: EventName.BACKUP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whose news it is. `run_id` is '' before there is a run; `config` is the file, as a path on the account's host."""

    broker: str
    account: str
    environment: str
    trading_date: str
    config: str
    run_id: str = ""

    @property
    def resource_id(self) -> str:
        """Return the account as a resource: 'velox.account.simulated.primary'."""
        return f"{RESOURCE_PREFIX}.{self.broker}.{self.account}"


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """One event. `sentence` tells it to a person, '' where it is no news to one."""

    subject: Subject
    payload: Payload
    key: str = ""
    sentence: str = ""

    @property
    def name(self) -> EventName:
        """Return the event's name, which its payload's type decides."""
        return _NAMES[type(self.payload)]

    def event_id(self) -> uuid.UUID:
        """Return the event's id: the same for the same key of the same run, so that a server keeps one of two."""
        if not self.key:
            return uuid.uuid4()
        subject = self.subject
        return uuid.uuid5(_EVENT_IDS, "/".join((subject.resource_id, subject.trading_date, subject.run_id, self.key)))

    def body(self) -> dict[str, Any]:
        """Return the payload with whose it is, as JSON values."""
        return {**asdict(self.subject), **asdict(self.payload), "sentence": self.sentence}


def subject_of(settings: Settings, *, trading_date: str, run_id: str = "") -> Subject:
    """Return the subject of an account's news."""
    return Subject(
        broker=settings.broker.type.value,
        account=settings.account,
        environment=settings.environment,
        trading_date=trading_date,
        config=str(Path(settings.source).absolute()),
        run_id=run_id,
    )


def news_of(subject: Subject, status: Status) -> list[News]:
    """Return everything that a status tells and that is told once, oldest first: breaches, halts, and flat after them."""
    found = []
    closing = ""
    for halt in status.rows("halts"):
        found += _halt_news(subject, status, halt)
        closing = closing or (str(halt.get("halt_id")) if _closes(halt) else "")
    if is_flat(status) and (closing or status.state == "DONE"):
        said_by = "closing" if status.closing else "engine"
        after = closing or "session end"
        net_paise = status.number("net_paise")
        sentence = f"FLAT after {after}: nothing is held and nothing works, the day's P&L is {signed_rupees(net_paise)}"
        payload = Flat(after=after, said_by=said_by, net_paise=net_paise)
        found.append(News(subject=subject, payload=payload, key=f"flat:{after}", sentence=sentence))
    return found


def _halt_news(subject: Subject, status: Status, halt: Mapping[str, Any]) -> list[News]:
    halt_id, kind, reason = (str(halt.get(name, "")) for name in ("halt_id", "kind", "reason"))
    at_ms = halt.get("at_ms")
    by, at_ms = str(halt.get("by", "")), at_ms if isinstance(at_ms, int) else 0
    found = []
    if kind == HaltKind.LOSS.value:
        limit_paise = status.number("loss_limit_paise")
        breach = Breach(
            halt_id=halt_id,
            reason=reason,
            at_ms=at_ms,
            net_paise=status.number("net_paise"),
            loss_limit_paise=limit_paise,
            open_positions=len(status.positions),
        )
        sentence = f"the day's loss reached its limit of {rupees_display(limit_paise)}: {reason}"
        found.append(News(subject=subject, payload=breach, key=f"breach:{halt_id}", sentence=sentence))
    payload = Halt(halt_id=halt_id, kind=kind, reason=reason, by=by, at_ms=at_ms, closes=_closes(halt))
    what = "everything is being closed" if payload.closes else "positions are kept, nothing is entered"
    sentence = f"trading is halted ({kind}, by {by}, halt {halt_id}): {reason}; {what}"
    return [*found, News(subject=subject, payload=payload, key=f"halt:{halt_id}", sentence=sentence)]


def _closes(halt: Mapping[str, Any]) -> bool:
    """Return whether a published halt closes what is open; one whose kind cannot be read does."""
    if halt.get("kind") == HaltKind.MANUAL.value:
        return halt.get("keeps_positions") is not True
    return halt.get("kind") != HaltKind.RECONCILE.value


def is_flat(status: Status) -> bool:
    """Return whether a status says that nothing is held and nothing works. What it does not say is not flat."""
    if status.closing:
        return status.closing.get("flat") is True
    known = isinstance(status.body.get("positions"), list) and isinstance(status.body.get("live_orders"), int)
    return known and not status.body["positions"] and status.body["live_orders"] == 0


def heartbeat_of(subject: Subject, status: Status) -> News:
    """Return that the engine is alive. The caller knows how old the status is."""
    payload = Heartbeat(
        engine_ms=status.number("engine_ms"),
        phase=status.text("phase"),
        net_paise=status.number("net_paise"),
        headroom_paise=status.number("headroom_paise"),
        open_positions=len(status.positions),
        live_orders=status.number("live_orders"),
    )
    return News(subject=subject, payload=payload)


def ended_of(subject: Subject, status: Status | None, *, exit_code: int | None, cause: str = "") -> News:
    """Return that the engine is gone, by its exit code and its last status; told once for each engine process."""
    flat = status is not None and is_flat(status)
    state = status.state if status is not None else ""
    ended = Ended(state=state, exit_code=-1 if exit_code is None else exit_code, flat=flat, cause=cause)
    how = "nobody knows how" if exit_code is None else f"exit code {exit_code}"
    sentence = f"the engine has ended ({how}), {'flat' if flat else 'NOT known to be flat'}{f': {cause}' if cause else ''}"
    pid = status.number("pid") if status is not None else 0
    return News(subject=subject, payload=ended, key=f"ended:{pid}", sentence=sentence)
