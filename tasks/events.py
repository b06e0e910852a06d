"""Events of a day, sent to Prefect: for its event feed, and for the automations that stand behind our own first layers.

- Nothing waits for them: `emit_...` puts values into a bounded list and returns; a thread sends, each request bounded.
- A server that is not there costs heartbeats. Everything else is tried again, within a bound; what a run tells once (breach,
  halt, flat, end) is noted in the run's folder when it was taken, so that a flow that attaches later does not repeat it.
- Whatever goes wrong with one event, the thread lives on for the next.
- Two watchers that tell the same thing at once give it the same id: a server keeps one of two.
- Only flows and tasks send; the engine knows nothing of it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import prefect.runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import SettingsContext, get_settings_context
from prefect.exceptions import PrefectException
from prefect.settings import Settings

from velox_core.domain.errors import VeloxError
from velox_core.logs import SYSTEM
from velox_core.operations.checklist import ItemResult, Verdict
from velox_core.operations.closing import with_closing
from velox_core.operations.day import Day
from velox_core.operations.json_file import read_json, write_json
from velox_core.operations.news import Armed, Backup, EventName, Flat, News, Reset, ended_of, heartbeat_of, news_of, subject_of
from velox_core.operations.status import Status, age_seconds

TOLD_FILE: Final = "events.json"
WAITING_MAX: Final = 100
REQUEST_SECONDS: Final = 5.0
QUIET_SECONDS: Final = 10.0  # after a server did not take an event
HURRIED_SECONDS: Final = 0.5  # the same, while somebody waits for the end of it
TRIES_MAX: Final = 30  # of one event; a heartbeat has one
FLUSH_SECONDS: Final = 6.0
JOIN_SECONDS_MAX: Final = 60.0  # a request under way has its own bound; a thread that is torn from one aborts the process
HEARTBEAT_SECONDS: Final = 60.0
STATUS_AGE_SECONDS_MAX: Final = 30.0  # an engine that lives publishes every second
_FAILURES: Final = (httpx.HTTPError, PrefectException, OSError, RuntimeError, ValueError)

_log: Final = logging.getLogger(SYSTEM)

Post = Callable[[Mapping[str, Any]], None]


@dataclass(slots=True, kw_only=True)
class _Letter:
    """One event on its way. `folder` is the run's, where it is noted that the event was told; None for one that may repeat."""

    news: News
    event: dict[str, Any]
    folder: Path | None
    context: Context
    tries: int = 0

    @property
    def tries_max(self) -> int:
        return 1 if self.news.name is EventName.HEARTBEAT else TRIES_MAX


class Sender:
    """The thread that sends, and what waits for it.

    Args:
        post: sends one event as JSON values; may raise what an absent server raises, and takes a bounded time.
        quiet_seconds: the pause after a failure.
        monotonic: seconds, for the time between heartbeats.
    """

    def __init__(
        self, post: Post, *, quiet_seconds: float = QUIET_SECONDS, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._post = post
        self._quiet_seconds = quiet_seconds
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._waiting: deque[_Letter] = deque()
        self._pending: set[tuple[Path, str]] = set()
        self._told: dict[Path, set[str]] = {}
        self._heartbeats: dict[str, float] = {}
        self._hurried = 0  # who waits for the end of it
        self._closing = False
        self._thread: threading.Thread | None = None
        self._busy = False
        self.sent = 0
        self.failed = 0
        self.dropped = 0

    def offer(self, news: News, folder: Path | None = None) -> bool:
        """Have an event sent. Returns False for one that is known or on its way, or when too many wait. Never waits."""
        with self._changed:
            place = (folder, news.key) if folder is not None and news.key else None
            if place is not None and (place in self._pending or news.key in self._told_in(place[0])):
                return False
            if self._closing or len(self._waiting) >= WAITING_MAX:
                self.dropped += 1
                return False
            if place is not None:
                self._pending.add(place)
            self._waiting.append(_Letter(news=news, event=_event(news), folder=folder, context=copy_context()))
            if self._thread is None:
                self._start()
            self._changed.notify_all()
        return True

    def _start(self) -> None:
        thread = threading.Thread(target=self._serve, name="velox-events", daemon=True)
        with suppress(RuntimeError):  # the system has no thread left: the event waits, and the next one tries again
            thread.start()
            self._thread = thread

    def heartbeat_is_due(self, subject: str) -> bool:
        """Return whether the subject's last heartbeat is long enough ago, and count this one."""
        with self._changed:
            now = self._monotonic()
            if now - self._heartbeats.get(subject, float("-inf")) < HEARTBEAT_SECONDS:
                return False
            self._heartbeats[subject] = now
        return True

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait within a bound until nothing waits, with shorter pauses after failures. Returns whether that came."""
        with self._changed:
            self._hurried += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._waiting and not self._busy, seconds)
            finally:
                self._hurried -= 1

    def _told_in(self, folder: Path) -> set[str]:
        if folder not in self._told:
            keys = read_json(folder / TOLD_FILE).get("told", [])
            self._told[folder] = {str(key) for key in keys} if isinstance(keys, list) else set()
        return self._told[folder]

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Let what waits leave within a bound, then end the thread after the request that is under way."""
        self.flush(seconds)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS_MAX)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or bool(self._waiting))
                if self._closing:
                    return
                letter, self._busy = self._waiting.popleft(), True
            taken = self._send(letter)
            with self._changed:
                self._busy = False
                self._finish(letter, taken=taken)
                self._changed.notify_all()
                if not taken:
                    self._rest()

    def _rest(self) -> None:
        """Leave the server alone for a while, a short one when somebody waits for the end."""
        until = time.monotonic() + self._quiet_seconds
        while (left := until - time.monotonic()) > 0 and not self._hurried and not self._closing:
            self._changed.wait(left)
        if left > 0:
            hurried_until = time.monotonic() + min(left, HURRIED_SECONDS)
            while (left := hurried_until - time.monotonic()) > 0 and not self._closing:
                self._changed.wait(left)

    def _send(self, letter: _Letter) -> bool:
        try:
            letter.context.run(self._post, letter.event)
        except _FAILURES:
            return False
        except Exception:  # the thread's outermost loop: no later event may be lost to what one of them met
            _log.exception("an event for Prefect, %s, could not be sent; it is tried again", letter.news.name.value)
            return False
        return True

    def _finish(self, letter: _Letter, *, taken: bool) -> None:
        """Note what was taken, and put back at its place what was not, but for what was tried often enough."""
        folder, key = letter.folder, letter.news.key
        letter.tries += 1
        if not taken and letter.tries < letter.tries_max:
            self._waiting.appendleft(letter)
            return
        self.sent += taken
        self.failed += not taken
        if folder is None or not key:
            return
        self._pending.discard((folder, key))
        if taken:
            told = self._told_in(folder)
            told.add(key)
            with suppress(VeloxError):  # another watcher may then tell it once more, under the same id
                write_json(folder / TOLD_FILE, {"told": sorted(told)})


def _event(news: News) -> dict[str, Any]:
    """Return an event as Prefect's API takes it."""
    subject = news.subject
    resource = {
        "prefect.resource.id": subject.resource_id,
        "prefect.resource.name": f"{subject.broker}/{subject.account}",
        "velox.broker": subject.broker,
        "velox.account": subject.account,
        "velox.trading-date": subject.trading_date,
        "velox.run": subject.run_id,
    }
    related = []
    if prefect.runtime.flow_run.id:
        flow_run = f"prefect.flow-run.{prefect.runtime.flow_run.id}"
        related.append({"prefect.resource.id": flow_run, "prefect.resource.role": "flow-run"})
    return {
        "id": str(news.event_id()),
        "event": news.name.value,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": resource,
        "related": related,
        "payload": news.body(),
    }


class Line:
    """The way to the API of the surrounding settings: a client, and settings that have it try once, made at the first event.

    A client takes up to 0.05 s of processor to make, 2 ms to send an event. A failure ends it. One thread may use it.
    """

    def __init__(self) -> None:
        self._around: Settings | None = None
        self._once: Settings | None = None
        self._client: SyncPrefectClient | None = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Send one event, tried once. Raises what an absent server raises."""
        around = get_settings_context()
        route: Any = "/events"
        with ExitStack() as failed:
            failed.callback(self.close)
            client, once = self._made(around)
            with SettingsContext(profile=around.profile, settings=once):
                client.request("POST", route, json=[dict(event)]).raise_for_status()
            failed.pop_all()

    def close(self) -> None:
        """Let the connection go; the next event makes another."""
        client, self._client = self._client, None
        if client is not None:
            client.__exit__(None, None, None)

    def _made(self, around: SettingsContext) -> tuple[SyncPrefectClient, Settings]:
        if self._client is not None and self._once is not None and self._around is around.settings:
            return self._client, self._once
        self.close()
        own = {"timeout": httpx.Timeout(REQUEST_SECONDS)}  # else a task's client is handed out again, which ends with the task
        self._client = get_client(httpx_settings=own, sync_client=True).__enter__()
        once = around.settings.client.model_copy(update={"max_retries": 0})  # settings made anew would read the environment
        self._around, self._once = around.settings, around.settings.model_copy(update={"client": once})
        return self._client, self._once


_line: Final = Line()
_sender: Final = Sender(_line)


def flush_events(seconds: float = FLUSH_SECONDS) -> bool:
    """Wait within a bound until what was emitted has left or failed. Returns whether that came."""
    return _sender.flush(seconds)


atexit.register(_line.close)  # after the next line's: the last registered is called first
atexit.register(_sender.close)  # the last events of a flow leave with it, within the bound


def emit_news(day: Day, before: Status | None, now: Status, *, sender: Sender | None = None) -> list[str]:
    """Emit what an engine's newest status tells: a heartbeat, and breach, halts and flat once for the run.

    Args:
        day: the day that is watched.
        before: the status of the look before, None at the first look.
        now: the newest status.
        sender: another sender than this process's.
    Returns: what `now` tells that `before` did not, in sentences for a person.
    """
    sender = sender or _sender
    now = with_closing(now)
    subject = subject_of(
        day.settings, trading_date=now.text("trading_date") or day.trading_date.isoformat(), run_id=_run_of(now)
    )
    if not now.ended and age_seconds(now) <= STATUS_AGE_SECONDS_MAX and sender.heartbeat_is_due(str(now.folder)):
        sender.offer(heartbeat_of(subject, now))
    known = {news.key for news in news_of(subject, before)} if before is not None else set()
    told = news_of(subject, now)
    for news in told:
        sender.offer(news, now.folder)
    return [news.sentence for news in told if news.key not in known]


def emit_end(day: Day, status: Status | None, exit_code: int | None, *, cause: str = "", sender: Sender | None = None) -> str:
    """Emit that the engine is gone, once for each engine process, with what its last status still tells.

    Args:
        day: the day that is watched.
        status: the engine's last, None when it never published.
        exit_code: None where nobody knows it.
        cause: why it failed, '' for none.
        sender: another sender than this process's.
    Returns: the end in a sentence for a person.
    """
    sender = sender or _sender
    run_id = ""
    if status is not None:
        status = with_closing(status)
        emit_news(day, status, status, sender=sender)
        run_id = _run_of(status)
    subject = subject_of(day.settings, trading_date=day.trading_date.isoformat(), run_id=run_id)
    ended = ended_of(subject, status, exit_code=exit_code, cause=cause)
    sender.offer(ended, status.folder if status is not None else None)
    return ended.sentence


def emit_armed(day: Day, results: Sequence[ItemResult], *, sender: Sender | None = None) -> None:
    """Emit that the day has its pass."""
    warnings = sum(result.verdict is Verdict.WARNED for result in results)
    _emit(day, Armed(checks=len(results), warnings=warnings), sender)


def emit_reset(day: Day, halt_ids: Sequence[str], *, reason: str, by: str, run_id: str, sender: Sender | None = None) -> None:
    """Emit that halts were cleared; nothing when there were none."""
    if halt_ids:
        _emit(day, Reset(halt_ids=tuple(halt_ids), reason=reason, by=by), sender, run_id)


def emit_proven_flat(day: Day, *, net_paise: int, run_id: str, sender: Sender | None = None) -> None:
    """Emit that the broker says flat, at the end of the day."""
    _emit(day, Flat(after="end of day", said_by="broker", net_paise=net_paise), sender, run_id)


def emit_backup(day: Day, name: str, *, verified: bool, message: str = "", sender: Sender | None = None) -> None:
    """Emit that the databases were backed up, or could not be verified."""
    _emit(day, Backup(name=name, verified=verified, message=message), sender)


def _emit(day: Day, payload: Armed | Flat | Reset | Backup, sender: Sender | None, run_id: str = "") -> None:
    subject = subject_of(day.settings, trading_date=day.trading_date.isoformat(), run_id=run_id)
    (sender or _sender).offer(News(subject=subject, payload=payload))


def _run_of(status: Status) -> str:
    return status.run_id or status.folder.name
