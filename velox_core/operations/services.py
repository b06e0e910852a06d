"""Keeping services alive: what a service is, and the supervisor that starts what is missing and restarts what died.

- A table of services, started in its order. Each says itself whether it lives; one that somebody else started is watched too.
- Restarts wait 1 s, then twice as long each time up to 60 s; one that does its work after a minute begins at 1 s again.
- One that refuses its configuration (exit code 2) is told once and not started again: that mends nothing.
- One that asks for it (exit code 75) is started again at once, and nobody is alarmed.
- One that lives and does not do its work, for longer than its own bound (`silence`), is asked a last time with patience,
  and killed and started again when it does not answer.
- No clock, no signal, no file here: `step` is given the time and returns what happened, in sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

from velox_core.domain.errors import EXIT_BAD_USAGE, VeloxError
from velox_core.operations.silence import Silence
from velox_core.ports import Alerts, LockHolder, Severity

BACKOFF_SECONDS_FIRST: Final = 1.0
BACKOFF_SECONDS_MAX: Final = 60.0
STEADY_SECONDS: Final = 60.0  # who lived so long starts with the first wait again
FAILURES_ALERTED: Final = 5  # in a row: then it is told as critical, once
SLOW_SECONDS: Final = 5.0  # a start that takes longer is told of
EXIT_AGAIN: Final = 75  # a service's own wish to be started again at once: nothing is wrong with it


class Service(Protocol):
    """One process that is to live. Everything but `start`, `end`, `kill` and `answers_at_last` returns at once."""

    name: str
    is_shared: bool  # whoever starts it, `velox down` may end it when nobody needs it
    unready_seconds_max: float | None  # one that was ready and has not been for so long hangs; None: nobody judges that

    @property
    def where(self) -> str:
        """Return its place for people: address, account."""
        ...

    @property
    def output(self) -> str:
        """Return the file with what it prints."""
        ...

    def life(self) -> LockHolder | None:
        """Return the process that lives, None when there is none. Raises VeloxError when that cannot be found out."""
        ...

    def is_ready(self) -> bool:
        """Return whether it does its work, not only lives."""
        ...

    def answers_at_last(self) -> bool:
        """Return whether it answers at all, asked with patience: the last question before it is killed as one that hangs."""
        ...

    def start(self) -> None:
        """Start it. Raises VeloxError."""
        ...

    def exit_code(self) -> int | None:
        """Return how the last process that was started here ended, None when that is not known."""
        ...

    def needed_by(self) -> list[str]:
        """Return who needs it now, so that it must not be ended. Raises VeloxError when that cannot be found out."""
        ...

    def end(self, holder: LockHolder) -> str:
        """End that very process and say how, in a sentence. Raises VeloxError when it stays."""
        ...

    def kill(self, holder: LockHolder) -> None:
        """Kill that very process, which hangs. Raises VeloxError when it stays."""
        ...


class ServiceState(StrEnum):
    """How a service is. WAITING: for its next start. REFUSED: it does not take its configuration."""

    ABSENT = "ABSENT"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    REFUSED = "REFUSED"


class Kept:
    """What the supervisor knows of one service."""

    __slots__ = (
        "delay",
        "failures",
        "holder",
        "is_slow",
        "is_stuck",
        "lived_from",
        "not_before",
        "ours",
        "reason",
        "restarts",
        "service",
        "silence",
        "state",
    )

    def __init__(self, service: Service, ours: LockHolder | None) -> None:
        self.service = service
        self.state = ServiceState.ABSENT
        self.holder: LockHolder | None = None
        self.ours = ours  # the process that `velox up` started, now or in an earlier life
        self.restarts = 0
        self.failures = 0  # in a row
        self.reason = ""
        self.delay = BACKOFF_SECONDS_FIRST
        self.not_before = 0.0
        self.lived_from = 0.0
        self.silence = Silence()  # of this process
        self.is_slow = False  # it was told that it still starts
        self.is_stuck = False  # a person was told that it hangs and cannot be killed

    def live(self, holder: LockHolder | None, now: float) -> None:
        """Begin to know of another process."""
        self.holder, self.lived_from, self.reason = holder, now, ""
        self.silence, self.is_slow, self.is_stuck = Silence(), False, False

    @property
    def is_ours(self) -> bool:
        """Return whether the process that lives is one that `velox up` started."""
        return self.holder is not None and self.holder == self.ours

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        holder = self.holder
        return {
            "name": self.service.name,
            "state": self.state.value,
            "pid": holder.pid if holder else 0,
            "started": holder.started if holder else "",
            "host": holder.host if holder else "",
            "ours": self.is_ours,
            "restarts": self.restarts,
            "reason": self.reason,
            "output": self.service.output,
        }


class Supervisor:
    """Keeps a table of services alive.

    Args:
        services: in the order of their start.
        alerts: who is told.
        ours: by name, the processes that an earlier supervisor had started and that may still live.
    """

    def __init__(self, services: Sequence[Service], alerts: Alerts, ours: Mapping[str, LockHolder] | None = None) -> None:
        self._alerts = alerts
        self.kept = [Kept(service, (ours or {}).get(service.name)) for service in services]

    @property
    def is_settled(self) -> bool:
        """Return whether every service does its work, or will not without a person."""
        return all(kept.state in (ServiceState.RUNNING, ServiceState.REFUSED) for kept in self.kept)

    @property
    def is_waiting(self) -> bool:
        """Return whether nothing starts at the moment, and some service failed more than once and waits for its next start."""
        states = {kept.state for kept in self.kept}
        waits = any(kept.state is ServiceState.WAITING and kept.failures > 1 for kept in self.kept)
        return waits and not states & {ServiceState.ABSENT, ServiceState.STARTING}

    def step(self, now: float) -> list[str]:
        """Look at every service, start what is due, and say what happened. `now` is monotonic seconds."""
        news: list[str] = []
        for kept in self.kept:
            try:
                news += self._step(kept, now)
            except VeloxError as error:
                news += self._not_started(kept, now, str(error))
        return news

    def _step(self, kept: Kept, now: float) -> list[str]:
        life = kept.service.life()
        if life is not None:
            return self._alive(kept, now, life)
        if kept.state in (ServiceState.RUNNING, ServiceState.STARTING):
            return self._died(kept, now)
        if kept.state is ServiceState.REFUSED or now < kept.not_before:
            return []
        was_there = kept.state is ServiceState.WAITING
        kept.service.start()
        kept.ours = kept.service.life()
        kept.live(kept.ours, now)
        kept.state = ServiceState.STARTING
        kept.restarts += was_there
        return [f"{kept.service.name}: started{' again' * was_there}{_process(kept.holder)}"]

    def _alive(self, kept: Kept, now: float, life: LockHolder) -> list[str]:
        news = []
        if life != kept.holder:
            kept.live(life, now)
            news.append(f"{kept.service.name}: runs already{_process(life)}")
        kept.silence.look(now, is_ready=kept.service.is_ready())
        bound = kept.service.unready_seconds_max
        if bound is not None and kept.silence.is_hang(bound):
            if not kept.service.answers_at_last():
                kept.state = ServiceState.STARTING
                return [*news, *self._end_hung(kept, now, life)]
            kept.silence.look(now, is_ready=True)  # slow is not dead
        return [*news, *self._note(kept, now)]

    @staticmethod
    def _note(kept: Kept, now: float) -> list[str]:
        """Take down how a living process was found."""
        if kept.silence.is_unready:
            kept.state = ServiceState.STARTING
            if kept.silence.was_ready or kept.is_slow or now - kept.lived_from < SLOW_SECONDS:
                return []
            kept.is_slow = True
            return [f"{kept.service.name}: still starting; a first start may take a minute"]
        was_slow, kept.is_slow, kept.state = kept.is_slow, False, ServiceState.RUNNING
        kept.is_stuck = False
        if now - kept.lived_from >= STEADY_SECONDS:
            kept.delay, kept.failures = BACKOFF_SECONDS_FIRST, 0
        return [f"{kept.service.name}: ready after {now - kept.lived_from:.0f} s"] if was_slow else []

    def _end_hung(self, kept: Kept, now: float, life: LockHolder) -> list[str]:
        name, seconds = kept.service.name, kept.silence.seconds
        how = f"did not answer {'' if kept.silence.was_ready else 'once '}for {seconds:.0f} s"
        kept.silence.restart()  # one that stays is not killed at every step
        try:
            kept.service.kill(life)
        except VeloxError as error:
            text = f"{name}: {error}. It {how}; it is tried again as long as it is silent"
            if not kept.is_stuck:
                kept.is_stuck = True
                self._alerts.send(Severity.CRITICAL, f"The {name} hangs and could not be killed", text)
            return [text]
        kept.holder = None
        text = f"{name}: process {life.pid} lived and {how}: killed"
        return self._wait(kept, now, text, Severity.WARNING, title=f"The {name} hung and was killed")

    def _died(self, kept: Kept, now: float) -> list[str]:
        code = kept.service.exit_code() if kept.is_ours or kept.holder is None else None
        how = "" if code is None else f" by signal {-code}" if code < 0 else f" with exit code {code}"
        text = f"{kept.service.name}:{_process(kept.holder).replace(',', '')} ended{how}"
        kept.holder = None
        if code == EXIT_BAD_USAGE:
            kept.state, kept.reason = ServiceState.REFUSED, f"its configuration is refused, see {kept.service.output}"
            text = f"{text}: {kept.reason}. Correct it, then velox down and velox up; it is not started again"
            self._alerts.send(Severity.CRITICAL, f"The {kept.service.name} is not there", text)
            return [text]
        if code == EXIT_AGAIN:
            kept.state, kept.reason, kept.not_before = ServiceState.WAITING, text, now
            return [f"{text}: it asks to be started again, see {kept.service.output}"]
        return self._wait(kept, now, text, Severity.WARNING)

    def _not_started(self, kept: Kept, now: float, why: str) -> list[str]:
        title = f"The {kept.service.name} could not be started or found"
        return self._wait(kept, now, f"{kept.service.name}: {why}", Severity.CRITICAL, title=title)

    def _wait(self, kept: Kept, now: float, text: str, first: Severity, *, title: str = "") -> list[str]:
        """Have a service wait for its next start, and tell a person at the first failure in a row and at the fifth."""
        is_known = kept.reason == text and kept.failures > 0
        kept.state, kept.reason = ServiceState.WAITING, text
        kept.not_before, kept.failures = now + kept.delay, kept.failures + 1
        shown = f"{kept.service.name}: the same again, {kept.failures} times now" if is_known else text
        text, shown = (f"{words}; starts again in {kept.delay:g} s" for words in (text, shown))
        kept.delay = min(kept.delay * 2, BACKOFF_SECONDS_MAX)
        if kept.failures == 1:
            self._alerts.send(first, title or f"The {kept.service.name} died", text)
        elif kept.failures == FAILURES_ALERTED:
            title = f"The {kept.service.name} does not stay alive"
            self._alerts.send(Severity.CRITICAL, title, f"{kept.failures} times in a row. {text}. See {kept.service.output}")
        return [shown]


def end_services(kept: Sequence[Kept], *, ends_shared: bool) -> tuple[list[str], bool]:
    """End the services that `velox up` started, the last one first, except those that somebody needs.

    Args:
        kept: each with the process that `velox up` started.
        ends_shared: also shared ones that somebody else started.
    Returns: what was done, in sentences, and whether nothing of it stays.
    """
    told, all_ended = [], True
    for one in reversed(kept):
        service = one.service
        try:
            life = service.life()
            if life is None:
                told.append(f"{service.name}: does not run")
                continue
            if life != one.ours and not (ends_shared and service.is_shared):
                told.append(f"{service.name}: left{_process(life)}: velox up did not start it")
                continue
            needed = service.needed_by()
            if needed:
                told.append(f"{service.name}: LEFT RUNNING{_process(life)}: {'; '.join(needed)}")
                all_ended = False
                continue
            told.append(f"{service.name}: {service.end(life)}")
        except VeloxError as error:
            told.append(f"{service.name}: left: {error}")
            all_ended = False
    return told, all_ended


def _process(holder: LockHolder | None) -> str:
    return f", process {holder.pid}" if holder is not None and holder.pid else ""
