"""The guard's judgement: values in, verdict out. An independent dead-man's switch over one account.

- Two heartbeat routes (ledger and file). A heartbeat's age is the guard's own monotonic time since it last changed; no two
  clocks are ever compared. The younger of both counts: a route that is down makes nobody dead.
- A verdict asks for everything to be closed: the engine is silent for a bound while something is open; the loss is past the
  limit by a margin, or something is open after `flat_by` and a margin, and a living engine does not close within a bound.
- After a pause of its own (it was stopped, the machine slept) the guard waits one full bound: the engine may have slept too.
- An engine that ended with a word of its own and holds positions on purpose is not silent; loss and `flat_by` still count.
- The loss is the guard's own (`guard_account`). One that is not known is no verdict, and never a zero: it is told.
- No clock, no store, no broker in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from velox_core.closing_progress import STALLED_SECONDS_MAX
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.money import rupees_text
from velox_core.domain.time import MS_PER_SECOND, ist_clock_text

GUARD_NAME: Final = "guard"  # the author of its halts
BPS: Final = 10_000
EXCUSED_SECONDS_MAX: Final = 240.0  # so long an engine that closes, and gets on, is left to it; above what a flattening takes
_NOT_YET: Final = -1.0

BeatKey = tuple[int, int, int]  # process id, number of the heartbeat, wall time: another key is another heartbeat


# -- heartbeats --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSeen:
    """What one route showed last, and since when (the guard's own monotonic seconds). `key` None: nothing yet."""

    since: float
    key: BeatKey | None = None


def hear(seen: RouteSeen, key: BeatKey | None, now: float) -> RouteSeen:
    """Return what a route shows now; a route that says nothing, or the same again, goes on ageing."""
    return seen if key is None or key == seen.key else RouteSeen(since=now, key=key)


def beat_key(status: Mapping[str, object]) -> BeatKey:
    """Return what tells a published status from every other one. Values of another kind count as 0."""
    return _number(status, "pid"), _number(status, "beat"), _number(status, "wall_ms")


def engine_closes(status: Mapping[str, object]) -> bool:
    """Return whether a status says that its engine closes everything: a halt that closes stands, or it flattens."""
    if status.get("state") == "FLATTENING":
        return True
    halts = status.get("halts")
    for body in halts if isinstance(halts, list) else []:
        try:
            if HaltRecord.from_body(body).closes:
                return True
        except (ValueError, KeyError, TypeError):
            continue
    return False


def _number(status: Mapping[str, object], key: str) -> int:
    value = status.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


class MarketTime:
    """Engine time as far as the guard can tell: the newest that a heartbeat said, and going on from there.

    It never goes back to before what the engine had reached: an engine that starts again replays its morning first.

    Args:
        speed: engine seconds per second.
    """

    __slots__ = ("_reached_ms", "_since", "_speed")

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._reached_ms = 0
        self._since = 0.0

    @property
    def reached_ms(self) -> int:
        """Return the newest engine time that a heartbeat said, 0 for none."""
        return self._reached_ms

    def note(self, engine_ms: int, now: float) -> None:
        """Take the engine time of a heartbeat, which was true at `now` (monotonic seconds)."""
        self._reached_ms = max(self._reached_ms, engine_ms)
        self._since = now

    def at(self, now: float) -> int:
        """Return engine time at `now` (monotonic seconds), epoch ms; 0 while no heartbeat has said any."""
        if not self._reached_ms:
            return 0
        return self._reached_ms + int(max(now - self._since, 0.0) * self._speed * MS_PER_SECOND)


# -- the verdict -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRules:
    """By what one day is judged. Seconds are the guard's own monotonic ones, milliseconds engine time.

    Attributes:
        heartbeat_timeout_seconds: the engine is silent when both routes are older.
        act_seconds: so long a living engine has to close what the loss or the time of day asks for.
        pause_seconds_max: a longer gap between two judgements is a pause of the guard's own.
        loss_limit_paise, loss_trigger_paise: the day's limit, and the limit with the guard's margin.
        late_ms: from then on nothing may be open: `flat_by` and the guard's margin.
        price_age_ms_max: the oldest feed whose prices count.
    """

    heartbeat_timeout_seconds: float
    act_seconds: float
    pause_seconds_max: float
    loss_limit_paise: int
    loss_trigger_paise: int
    late_ms: int
    price_age_ms_max: int


def loss_trigger_paise(limit_paise: int, margin_bps: int) -> int:
    """Return the loss at which the guard acts: the limit and a margin in basis points of it, rounded up."""
    return -(-limit_paise * (BPS + margin_bps) // BPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the guard sees at one moment.

    Attributes:
        now: own monotonic seconds.
        market_ms: engine time, epoch ms.
        beat_ages: seconds since each route's heartbeat last changed.
        exposed: whether anything is open or works at the broker; a book that cannot be read counts as exposed.
        loss_paise: by the guard's own computation, None when it is not known.
        closes: the engine's newest word is that it closes everything.
        holds: the engine ended with a word of its own and keeps positions on purpose.
        stalled_seconds: for how long a closing of the engine has got nowhere, as far as it was seen.
        unfinished: a halt of the guard's own stands and no engine has the account: an earlier guard was closing.
    """

    now: float
    market_ms: int
    beat_ages: tuple[float, ...]
    exposed: bool
    loss_paise: int | None
    closes: bool = False
    holds: bool = False
    stalled_seconds: float = 0.0
    unfinished: bool = False


class Cause(StrEnum):
    """Why everything is to be closed."""

    SILENT_ENGINE = "SILENT_ENGINE"
    LOSS = "LOSS"
    LATE = "LATE"
    UNFINISHED = "UNFINISHED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Everything is to be closed, now. `text` is one sentence for the halt record and for people."""

    cause: Cause
    text: str

    @property
    def halt_kind(self) -> HaltKind:
        """Return the kind of the halt that goes with it."""
        return HaltKind.LOSS if self.cause is Cause.LOSS else HaltKind.FAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a judgement leaves for the next one, monotonic seconds; negative: not so at present."""

    judged: float = _NOT_YET
    waits_until: float = _NOT_YET
    paused_seconds: float = 0.0  # of the pause that it waits for now
    loss_since: float = _NOT_YET
    late_since: float = _NOT_YET
    excused_since: float = _NOT_YET  # since when an engine that closes is left to it


def judge(memory: Memory, sight: Sight, rules: GuardRules) -> tuple[Memory, Verdict | None]:
    """Judge one sight. Returns what to remember, and what to do: None for nothing."""
    memory = _after_pause(memory, sight.now, rules)
    silent_seconds = min(sight.beat_ages)
    answers = silent_seconds <= rules.heartbeat_timeout_seconds
    excused_since = _since(memory.excused_since, sight.closes and answers and sight.exposed, sight.now)
    excused = excused_since >= 0 and sight.now - excused_since < EXCUSED_SECONDS_MAX
    excused = excused and sight.stalled_seconds < STALLED_SECONDS_MAX
    past = sight.loss_paise is not None and sight.loss_paise >= rules.loss_trigger_paise
    late = 0 < rules.late_ms <= sight.market_ms
    memory = replace(
        memory,
        judged=sight.now,
        excused_since=excused_since,
        loss_since=_since(memory.loss_since, past and sight.exposed and not excused, sight.now),
        late_since=_since(memory.late_since, late and sight.exposed and not excused, sight.now),
    )
    if not sight.exposed or sight.now < memory.waits_until:
        return memory, None
    if sight.unfinished:
        return memory, Verdict(cause=Cause.UNFINISHED, text="an earlier guard was closing everything; this one goes on")
    if not answers and not sight.holds:
        text = f"the engine has shown no sign of life for {silent_seconds:.0f} s, by ledger and by file, with something open"
        return memory, Verdict(cause=Cause.SILENT_ENGINE, text=text)
    if _stands(memory.loss_since, sight.now, rules):
        text = (
            f"daily loss {rupees_text(sight.loss_paise or 0)} by the guard's own computation is past the limit "
            f"{rupees_text(rules.loss_limit_paise)}, and nothing closed for {rules.act_seconds:.0f} s"
        )
        return memory, Verdict(cause=Cause.LOSS, text=text)
    if _stands(memory.late_since, sight.now, rules):
        return memory, Verdict(cause=Cause.LATE, text=f"something is still open at {ist_clock_text(sight.market_ms)}")
    return memory, None


def _after_pause(memory: Memory, now: float, rules: GuardRules) -> Memory:
    """Begin again, with one full bound to wait, when the guard itself was away."""
    gap = now - memory.judged
    if memory.judged < 0 or gap <= rules.pause_seconds_max:
        return memory
    return Memory(judged=now, waits_until=now + rules.heartbeat_timeout_seconds, paused_seconds=gap)


def _since(since: float, holds: bool, now: float) -> float:
    if not holds:
        return _NOT_YET
    return now if since < 0 else since


def _stands(since: float, now: float, rules: GuardRules) -> bool:
    return since >= 0 and now - since >= rules.act_seconds
