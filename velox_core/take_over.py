"""Taking the account over from a process that holds its locks and does not answer.

- First a halt is latched, so that nothing opens whatever happens next; then the holder has a bounded time to acknowledge
  that halt's id in its status. One that does is alive and closes by itself: it is left alone.
- One that does not is killed: the very process that the lock file names, by id and start, and no other. So is one that
  acknowledges and whose closing gets nowhere, as the caller saw (`closing_progress`). A lock whose holder cannot be
  verified ends the take-over; nothing is killed then, and a person must look.
- A request that was on its way may still reach the broker, so the longest time-out of one is waited out: also where the
  holder ended by itself meanwhile, or another take-over killed it.
- What follows is the caller's: take the locks, the lease with the next epoch, read the broker's book, then act.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from velox_core.domain.errors import VeloxError
from velox_core.domain.halts import HaltRecord
from velox_core.ports import EndOfHolder, LockHolder

ACKNOWLEDGE_SECONDS_MAX = 10.0
KILL_SECONDS_MAX = 10.0
POLL_SECONDS = 0.2
ACKNOWLEDGED_KEY = "acknowledged_halts"  # of a status: ids of the halts that its process acts on

_log = logging.getLogger("velox.emergency")


class HeldLock(Protocol):
    """A lock of the account, seen from outside."""

    def holder(self) -> LockHolder | None:
        """Return who has it, None when nobody has. Raises VeloxError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOverPorts:
    """What a take-over works with.

    Attributes:
        locks: the account's locks, all of which must be free at its end.
        latch: puts the halt into every store that takes it; returns what failed. Raises VeloxError when none took it.
        statuses: what was published last, each with `pid` and the acknowledged ids; an unreadable one is left out.
        end_holder: kills a verified process and waits for its end, as long as it is told.
        monotonic, sleep: bounds are in real seconds.
    """

    locks: Sequence[HeldLock]
    latch: Callable[[HaltRecord], list[str]]
    statuses: Callable[[], Iterable[Mapping[str, object]]]
    end_holder: Callable[[LockHolder, float], EndOfHolder]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


class TakeOverResult(StrEnum):
    """What a take-over came to.

    NOBODY: no lock was held, nothing was done. ANSWERS: a holder acknowledged the halt and closes by itself; another
    one may have been killed. FREE: the locks are free now, because their holders ended or were killed.
    """

    NOBODY = "NOBODY"
    ANSWERS = "ANSWERS"
    FREE = "FREE"


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """The outcome: `killed` are the ids of processes that were ended, `not_latched` the stores without the halt."""

    result: TakeOverResult
    killed: tuple[int, ...] = ()
    not_latched: tuple[str, ...] = ()


def take_over(
    ports: TakeOverPorts,
    halt: HaltRecord,
    *,
    request_seconds: float,
    acknowledge_seconds: float = ACKNOWLEDGE_SECONDS_MAX,
    stalled_pid: int = 0,
) -> TakeOver:
    """Free the account's locks from a holder that does not answer.

    Args:
        ports: see there.
        halt: the record to latch and to have acknowledged; its id is new.
        request_seconds: the longest that a request of the killed process may still be on its way.
        acknowledge_seconds: how long a living holder has to acknowledge.
        stalled_pid: the process that acknowledges and whose closing gets nowhere: it counts as silent; 0 for none.
    Raises: VeloxError when the halt could not be latched, or a holder cannot be verified or does not end.
    """
    found = _holders(ports)
    if not found:
        return TakeOver(result=TakeOverResult.NOBODY)
    not_latched = tuple(ports.latch(halt))
    _log.critical("[TAKE-OVER] halt %s latched (%s, by %s)", halt.halt_id, halt.reason, halt.by)
    for store in not_latched:
        _log.error("[TAKE-OVER] the halt could not be written to %s", store)
    until = ports.monotonic() + acknowledge_seconds
    while silent := _silent(ports, halt.halt_id, stalled_pid):
        if ports.monotonic() >= until or all(holder.pid == stalled_pid for holder in silent):
            break
        ports.sleep(POLL_SECONDS)
    killed = tuple(holder.pid for holder in silent if _end(ports, holder))
    there = _holders(ports)
    if any(holder not in there for holder in found):
        ports.sleep(request_seconds)
    still_silent = _silent(ports, halt.halt_id, stalled_pid)
    if still_silent:
        raise VeloxError(
            f"the account is held again, by {_text(still_silent)}: look at that process before anything is started"
        )
    result = TakeOverResult.ANSWERS if _holders(ports) else TakeOverResult.FREE
    return TakeOver(result=result, killed=killed, not_latched=not_latched)


def _holders(ports: TakeOverPorts) -> list[LockHolder]:
    """Return the processes that hold a lock, each once."""
    return list(dict.fromkeys(holder for lock in ports.locks if (holder := lock.holder()) is not None))


def _silent(ports: TakeOverPorts, halt_id: str, stalled_pid: int) -> list[LockHolder]:
    """Return the holders that have not acknowledged the halt, or whose word does not count."""
    answering = set()
    for status in ports.statuses():
        acknowledged = status.get(ACKNOWLEDGED_KEY)
        if isinstance(acknowledged, list) and halt_id in acknowledged:
            answering.add(status.get("pid"))
    answering.discard(stalled_pid)
    return [holder for holder in _holders(ports) if holder.pid not in answering]


def _end(ports: TakeOverPorts, holder: LockHolder) -> bool:
    """End one holder. Returns whether it was killed here, False when it had ended. Raises VeloxError."""
    end = ports.end_holder(holder, KILL_SECONDS_MAX)
    if end is EndOfHolder.NOT_VERIFIED:
        raise VeloxError(
            f"the account is held by {_text([holder])}, and it cannot be made sure that this is the process that took the "
            "lock (another host, another user, or an id that was given to another process): nothing was killed. The halt "
            "stands; find who has the lock file open, end it by hand, and try again"
        )
    if end is EndOfHolder.SURVIVED:
        raise VeloxError(f"{_text([holder])} was killed and has not ended after {KILL_SECONDS_MAX:.0f} s; the halt stands")
    _log.critical("[TAKE-OVER] %s: %s", _text([holder]), "killed" if end is EndOfHolder.KILLED else "had ended by itself")
    return end is EndOfHolder.KILLED


def _text(holders: list[LockHolder]) -> str:
    return ", ".join(f"process {h.pid or 'unknown'} of host {h.host or 'unknown'}" for h in holders)
