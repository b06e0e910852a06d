"""Alerts that leave the machine: every message to each channel that wants it, on a thread per channel.

- `send` writes the log, puts the message into bounded lists and returns. It never raises and never waits for a channel.
- A message goes to every channel whose least severity it reaches. When each of those has failed with it, or is failing, it
  goes to the next channel in the list as well, whatever that one's least severity: somebody is to hear of it.
- A failure is logged, counted and shown in `counters`; the channel tries the message again after `RETRY_SECONDS`, then
  gives it up. Channels do not wait for each other.
- INFO and WARNING that repeat word for word become one message with their number: while the first still waits, and for
  `REPEAT_SECONDS` after it left. CRITICAL is never joined with another.
- Of what waits for a channel, CRITICAL leaves first and has room of its own; where a list is full the oldest lesser
  message, or the newest critical one, is dropped, which is logged and counted.
- `close` lets what waits leave, within a bound.
- A channel that raises has failed like any other: its thread lives on for the next message.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from velox_core.alerts.log import LogAlerts
from velox_core.domain.time import ist_clock_text
from velox_core.ports import Severity

CRITICAL_WAITING_MAX: Final = 200  # per channel
LESSER_WAITING_MAX: Final = 100  # per channel
REPEATS_KNOWN_MAX: Final = 200
REPEAT_SECONDS: Final = 60.0
RETRY_SECONDS: Final = (2.0, 10.0, 30.0)  # pauses of a channel that failed; then the message is given up
WARM_UP_SECONDS: Final = 20.0  # a channel that had nothing to do so long gets ready
FLUSH_SECONDS_MAX: Final = 15.0
TITLE_LENGTH_MAX: Final = 200
TEXT_LENGTH_MAX: Final = 3_000
_RANK: Final = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}

_log: Final = logging.getLogger("velox.system")


class Channel(Protocol):
    """A way to a person. One thread delivers; `kill` comes from another one."""

    name: str
    minimum_severity: Severity

    def warm_up(self) -> str:
        """Get ready. Returns '' or why the channel cannot be used. Never raises."""
        ...

    def deliver(self, severity: Severity, title: str, body: str) -> str:
        """Deliver one message, within a bound of its own. Returns '' or why it failed. Never raises."""
        ...

    def kill(self) -> None:
        """End a delivery that is under way."""
        ...

    def close(self) -> None:
        """Give back what the channel holds."""
        ...


@dataclass(slots=True, eq=False)
class _Message:
    severity: Severity
    title: str
    text: str
    wall_ms: int
    not_before: float = 0.0  # monotonic
    count: int = 1
    left: float = -1.0  # monotonic: when a channel first took it up
    delivered: bool = False
    takers: set[str] = field(default_factory=set)  # channels that were given it
    failures: dict[str, int] = field(default_factory=dict)  # of attempts, by channel


class _Lane:
    """What waits for one channel, and how the channel has fared."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.critical: deque[_Message] = deque()
        self.lesser: deque[_Message] = deque()
        self.busy_with: _Message | None = None
        self.next_try = 0.0  # monotonic
        self.failures_in_row = 0
        self.delivered = 0
        self.failed = 0
        self.last_failure = ""
        self.last_failure_wall_ms = 0

    def carries(self, message: _Message) -> bool:
        return message is self.busy_with or message in self.critical or message in self.lesser

    def take(self, now: float, *, hurried: bool) -> _Message | None:
        """Take out what leaves next, None when nothing may yet."""
        if now < self.next_try and not hurried:
            return None
        if self.critical:
            return self.critical.popleft()
        for message in self.lesser:
            if message.not_before <= now or hurried:
                self.lesser.remove(message)
                return message
        return None

    @property
    def waiting(self) -> int:
        return len(self.critical) + len(self.lesser) + (self.busy_with is not None)


class ChannelAlerts:
    """`ports.Alerts` over the log and channels.

    Args:
        log: takes every message first.
        channels: in the order of falling back.
        label: names this system in titles, such as 'production/primary'.
        footer: a line below critical messages, such as whom to call; '' for none.
        monotonic, wall_ms: clocks.
    """

    def __init__(
        self,
        log: LogAlerts,
        channels: Sequence[Channel],
        *,
        label: str,
        footer: str = "",
        monotonic: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._log = log
        self._lanes = [_Lane(channel) for channel in channels]
        self._label = label
        self._footer = footer
        self._monotonic = monotonic
        self._wall_ms = wall_ms
        self._changed = threading.Condition()
        self._repeats: dict[tuple[Severity, str, str], _Message] = {}
        self._threads: list[threading.Thread] = []
        self._joined = 0
        self._dropped = 0
        self._lost = 0  # no channel took them
        self._closing = False
        self._closed = not channels

    def start(self) -> None:
        """Start a thread for each channel."""
        for lane in self._lanes:
            thread = threading.Thread(target=self._serve, args=(lane,), name=f"alerts-{lane.channel.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def send(self, severity: Severity, title: str, text: str) -> None:
        """Log one message and queue it for the channels."""
        self._log.send(severity, title, text)
        if self._closed or not any(_reaches(severity, lane) for lane in self._lanes):
            return
        title, text = title[:TITLE_LENGTH_MAX], text[:TEXT_LENGTH_MAX]
        with self._changed:
            now = self._monotonic()
            message = _Message(severity, title, text, self._wall_ms())
            if severity is not Severity.CRITICAL and self._joins(message, now):
                self._joined += 1
                return
            for lane in self._lanes:
                if _reaches(severity, lane):
                    self._queue(lane, message)
            self._fall_back(message)
            self._changed.notify_all()

    def counters(self) -> dict[str, object]:
        """Return what became of messages, as JSON values: for the status."""
        with self._changed:
            return {
                "sent": self._log.sent,
                "joined": self._joined,
                "delivered": sum(lane.delivered for lane in self._lanes),
                "failed": sum(lane.failed for lane in self._lanes),
                "dropped": self._dropped,
                "lost": self._lost,
                "channels": [
                    {
                        "name": lane.channel.name,
                        "minimum_severity": lane.channel.minimum_severity.value,
                        "delivered": lane.delivered,
                        "failed": lane.failed,
                        "waiting": lane.waiting,
                        "failing": lane.failures_in_row > 0,
                        "last_failure": lane.last_failure,
                        "last_failure_wall_ms": lane.last_failure_wall_ms,
                    }
                    for lane in self._lanes
                ],
            }

    def close(self, seconds: float = FLUSH_SECONDS_MAX) -> bool:
        """Let what waits leave, within a bound, then end. Returns whether nothing was left over."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            deadline = self._monotonic() + seconds
            while any(lane.waiting for lane in self._lanes) and (left := deadline - self._monotonic()) > 0:
                self._changed.wait(min(left, 0.5))
            self._closed = True
            remains = sum(lane.waiting for lane in self._lanes)
            self._changed.notify_all()
        if remains:
            _log.error("[ALERT] %s deliveries had not succeeded when the process ended; the messages are above", remains)
            for lane in self._lanes:
                lane.channel.kill()
        for thread in self._threads:
            thread.join(timeout=2.0)
        return not remains

    # -- with the lock held -----------------------------------------------------------------------------------

    def _joins(self, message: _Message, now: float) -> bool:
        """Return whether a message is told by one that still waits; otherwise remember it, and when it may leave."""
        key = (message.severity, message.title, message.text)
        before = self._repeats.pop(key, None)
        if before is not None and before.left < 0:
            before.count += 1
            self._repeats[key] = before
            return True
        if before is not None and now - before.left < REPEAT_SECONDS:
            message.not_before = before.left + REPEAT_SECONDS
        self._repeats[key] = message
        while len(self._repeats) > REPEATS_KNOWN_MAX:
            del self._repeats[next(iter(self._repeats))]
        return False

    def _queue(self, lane: _Lane, message: _Message) -> None:
        message.takers.add(lane.channel.name)
        if message.severity is Severity.CRITICAL:
            if len(lane.critical) >= CRITICAL_WAITING_MAX:
                self._drop(lane, message)
            else:
                lane.critical.append(message)
            return
        if len(lane.lesser) >= LESSER_WAITING_MAX:
            dropped = lane.lesser.popleft()
            dropped.left = max(dropped.left, 0.0)  # nothing joins it any more
            self._drop(lane, dropped)
        lane.lesser.append(message)

    def _drop(self, lane: _Lane, message: _Message) -> None:
        self._dropped += 1
        _log.error("[ALERT] %s: too many messages wait, one was dropped: %s", lane.channel.name, message.title)

    def _settle(self, lane: _Lane, message: _Message, why: str) -> None:
        """Note what became of one attempt, and what follows."""
        lane.busy_with = None
        if not why:
            message.delivered = True
            lane.delivered += 1
            if lane.failures_in_row:
                _log.warning("[ALERT] %s works again", lane.channel.name)
            lane.failures_in_row, lane.next_try = 0, 0.0
            return
        name = lane.channel.name
        lane.failed += 1
        lane.last_failure, lane.last_failure_wall_ms = why, self._wall_ms()
        _log.error("[ALERT] %s: %s: %s", name, message.title, why)
        pause = RETRY_SECONDS[min(lane.failures_in_row, len(RETRY_SECONDS) - 1)]
        lane.failures_in_row += 1
        lane.next_try = self._monotonic() + pause
        failures = message.failures[name] = message.failures.get(name, 0) + 1
        if failures <= (1 if self._closing else len(RETRY_SECONDS)):
            (lane.critical if message.severity is Severity.CRITICAL else lane.lesser).appendleft(message)
        self._fall_back(message)
        if not message.delivered and not any(other.carries(message) for other in self._lanes):
            self._lost += 1
            _log.error("[ALERT] no channel took the message: %s", message.title)

    def _fall_back(self, message: _Message) -> None:
        """Give a message to the next channel that has not had it, when nobody has taken it and nobody is likely to."""
        if message.delivered:
            return
        given = [lane for lane in self._lanes if lane.channel.name in message.takers]
        if any(not lane.failures_in_row and lane.carries(message) for lane in given):
            return
        place = self._lanes.index(given[-1])
        for lane in [*self._lanes[place + 1 :], *self._lanes[:place]]:
            if lane not in given:
                self._queue(lane, message)
                self._changed.notify_all()
                return

    # -- on a channel's thread --------------------------------------------------------------------------------

    def _serve(self, lane: _Lane) -> None:
        while (message := self._await_message(lane)) is not None:
            why = _guarded(partial(lane.channel.deliver, message.severity, self._title(message), self._body(message)))
            with self._changed:
                self._settle(lane, message, why)
                self._changed.notify_all()
        lane.channel.close()

    def _await_message(self, lane: _Lane) -> _Message | None:
        """Wait for what leaves next, and get ready when there is nothing. Returns None at the end."""
        idle_since, is_warm = self._monotonic(), False
        while True:
            with self._changed:
                now = self._monotonic()
                if self._closed:
                    return None
                message = lane.take(now, hurried=self._closing)
                if message is not None:
                    lane.busy_with = message
                    if message.left < 0:
                        message.left = now
                    return message
                if is_warm or now - idle_since < WARM_UP_SECONDS:
                    self._changed.wait(1.0 if lane.waiting else WARM_UP_SECONDS)
                    continue
            is_warm = True
            self._note_readiness(lane, _guarded(lane.channel.warm_up))

    def _note_readiness(self, lane: _Lane, why: str) -> None:
        if why:
            with self._changed:
                lane.last_failure, lane.last_failure_wall_ms = why, self._wall_ms()
            _log.error("[ALERT] %s cannot be used: %s", lane.channel.name, why)

    def _title(self, message: _Message) -> str:
        return f"[VELOX {self._label}] {message.title}"

    def _body(self, message: _Message) -> str:
        lines = [message.text, f"{message.severity.value}, {ist_clock_text(message.wall_ms)} IST"]
        if message.count > 1:
            lines[-1] += f", {message.count} times since"
        if message.severity is Severity.CRITICAL and self._footer:
            lines.append(self._footer)
        return "\n".join(lines)


def _guarded(call: Callable[[], str]) -> str:
    """Return what a channel says, or that it raised and where: its error's text may hold the URL, and is not passed on."""
    try:
        return call()
    except Exception as error:  # of the thread's outermost loop: without it no later message would leave
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"a fault of this program: {type(error).__name__} at {Path(place.filename).name}:{place.lineno}"


def _reaches(severity: Severity, lane: _Lane) -> bool:
    return _RANK[severity] >= _RANK[lane.channel.minimum_severity]
