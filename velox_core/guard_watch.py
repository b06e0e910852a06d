"""One account under guard: it hears the engine, reads the broker's book, follows the market, judges, and closes everything.

- One step looks once and judges once (`guard`); while it closes, a step is one step of the flattener and nothing else.
- A book that cannot be read is not flat: a silent engine is then taken over all the same, and the reads go on.
- What cannot be seen (book, prices, market data) is told once, and once when it can be seen again.
- A closing is bounded in true seconds: its engine time goes on from where it began as the guard's own clock does, so that an
  engine has as long to answer in a fast replay as it has live. A pause of the guard's own counts for no more than a moment.
- While the guard closes, it makes the simulated market too: its engine is gone, and orders must meet prices. A living engine
  makes its own market, the guard only looks at prices then.
- After a closing that did not end flat, or that failed, the account is judged anew: it begins again until it is flat.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from velox_core.closing_progress import ProgressWatch, read_progress
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.errors import BrokerError, VeloxError
from velox_core.domain.money import rupees_text
from velox_core.domain.orders import TERMINAL_STATES, Product
from velox_core.domain.time import MS_PER_SECOND
from velox_core.flat_proof import FlattenState
from velox_core.guard import (
    GuardRules,
    MarketTime,
    Memory,
    RouteSeen,
    Sight,
    Verdict,
    beat_key,
    engine_closes,
    hear,
    judge,
)
from velox_core.guard_account import Price, carried, exposure, read_loss
from velox_core.ports import Alerts, BrokerFill, BrokerOrder, BrokerPosition, Severity

RETRY_SECONDS = 10.0  # after a closing that could not begin, failed, or ended; two closings share no order ids

_log = logging.getLogger("velox.emergency")


class Flattener(Protocol):
    """Closes everything of an account, one step a call."""

    def step(self, now_ms: int) -> FlattenState:
        """Go one step further at engine time `now_ms`. Raises VeloxError when it cannot go on."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class BrokerBook(Protocol):
    """The reads of a broker. Each raises BrokerError."""

    def orders(self) -> list[BrokerOrder]:
        """Return today's order book."""
        ...

    def trades(self) -> list[BrokerFill]:
        """Return today's trades."""
        ...

    def positions(self) -> list[BrokerPosition]:
        """Return net positions."""
        ...


class FollowedFeed(Protocol):
    """The guard's own market data."""

    def follow(self, now_ms: int) -> None:
        """Take what the market showed up to an engine time, epoch ms."""
        ...

    def make(self, now_ms: int, after_ms: int) -> None:
        """Let orders at a simulated broker meet the market after one engine time, up to another. A live feed ignores it."""
        ...

    def prices(self) -> Mapping[str, Price]:
        """Return the newest price of each symbol that has one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedAccount:
    """What the guard works with, of one account or run.

    Attributes:
        name: the run's id, for people.
        speed: engine seconds per second.
        rules: by what it is judged.
        routes: each returns the engine's newest status by its way, None when there is none or the way is down.
        book: the guard's own session at the broker.
        feed: the guard's own market data.
        schedule, product, previous_closes: for the loss (`guard_account.read_loss`).
        age_seconds: how old a status is that stood there when the guard began, by the machine's clock; for engine time only.
        holds: whether a status is the last word of an engine that keeps positions on purpose.
        unfinished: whether an earlier guard's closing stands and no engine has the account.
        flattener: begins a closing for a verdict at an engine time. Raises VeloxError.
        alerts: told what a person must know.
    """

    name: str
    speed: float
    rules: GuardRules
    routes: Sequence[Callable[[], Mapping[str, object] | None]]
    book: BrokerBook
    feed: FollowedFeed
    schedule: ChargeSchedule
    product: Product
    previous_closes: Mapping[str, int]
    age_seconds: Callable[[Mapping[str, object]], float]
    holds: Callable[[Mapping[str, object]], bool]
    unfinished: Callable[[], bool]
    flattener: Callable[[Verdict, int], Flattener]
    alerts: Alerts


class AccountGuard:
    """The guard of one account. `step` is called about twice a second with its own monotonic seconds, which count sleep.

    Args:
        account: see there.
        now: the moment it begins; heartbeats count as fresh then.
        before: the guard of the same account that failed, if one did: what it has heard, and when, still counts.
    """

    def __init__(self, account: GuardedAccount, now: float, before: AccountGuard | None = None) -> None:
        self._account = account
        self._seen: list[RouteSeen] = [RouteSeen(since=now) for _ in account.routes] if before is None else list(before._seen)
        self._time: MarketTime = MarketTime(account.speed) if before is None else before._time
        self._memory: Memory = Memory() if before is None else replace(before._memory, judged=now)  # no pause of its own
        self._status: Mapping[str, object] = {} if before is None else before._status
        self._progress: ProgressWatch = ProgressWatch() if before is None else before._progress
        self._flattener: Flattener | None = None
        self._state: FlattenState | None = None
        self._closing_ms = 0  # engine time of the closing
        self._stepped = now
        self._retry_at = now
        self._carried: dict[str, int] = {}
        self._told: dict[str, str] = {}
        self.exposed = False
        self.open_lines: list[str] = []  # what the broker holds and works, as the guard last read it
        self.outcome = ""  # of the newest closing that ended: FLAT or NOT_FLAT
        self.loss_paise: int | None = None

    @property
    def closing(self) -> bool:
        """Return whether a closing is under way."""
        return self._flattener is not None

    def step(self, now: float) -> None:
        """Look, judge and act once. Never raises for what the outside does."""
        self._hear(now)
        now_ms = self._time.at(now)
        self._follow_prices(now_ms)
        if self._flattener is not None:
            self._continue(self._flattener, now, now_ms)
            return
        waited_until = self._memory.waits_until
        self._memory, verdict = judge(self._memory, self._look(now, now_ms), self._account.rules)
        if self._memory.waits_until > waited_until:
            _log.warning(
                "[GUARD] %s: this guard was away for %.1f s; it waits %.0f s before it acts", self._account.name,
                self._memory.paused_seconds, self._account.rules.heartbeat_timeout_seconds, extra={"engine_ms": now_ms},
            )  # fmt: skip
        if verdict is not None and now >= self._retry_at:
            self._begin(verdict, now, now_ms)

    def view(self, now: float) -> dict[str, object]:
        """Return what it does, as JSON values: money in paise, ages in seconds."""
        state = "closing" if self.closing else "waiting after a pause" if now < self._memory.waits_until else "watching"
        return {
            "run_id": self._account.name,
            "state": state,
            "engine_ms": self._time.at(now),
            "beat_ages": [round(now - seen.since, 1) for seen in self._seen],
            "engine": self._engine_life(now),
            "exposed": self.exposed,
            "open": list(self.open_lines),
            "closing": "" if self._state is None or not self.closing else self._state.value,
            "outcome": self.outcome,
            "loss_paise": self.loss_paise,
            "loss_limit_paise": self._account.rules.loss_limit_paise,
            "faults": list(self._told.values()),
        }

    def _engine_life(self, now: float) -> str:
        """Return how the engine is: 'alive', 'closing' (it is left to it), 'ended', 'keeps' (on purpose) or 'silent'."""
        if self._status.get("state") in ("DONE", "FAILED"):
            return "keeps" if self._account.holds(self._status) else "ended"
        if min(now - seen.since for seen in self._seen) > self._account.rules.heartbeat_timeout_seconds:
            return "silent"
        return "closing" if engine_closes(self._status) else "alive"

    def close(self) -> None:
        """Give up what a closing holds; the account is as it is."""
        if self._flattener is not None:
            self._flattener.close()
            self._flattener = None

    # -- seeing -----------------------------------------------------------------------------------------------

    def _follow_prices(self, now_ms: int) -> None:
        """Bring the prices up. Without them the loss is not known; whether the engine lives is judged all the same."""
        try:
            self._account.feed.follow(now_ms)
        except (VeloxError, OSError, ValueError, LookupError) as error:
            self._tell("feed", "The guard has no prices", f"{type(error).__name__}: {error}")
        else:
            self._tell("feed", "", "The guard has prices again")

    def _hear(self, now: float) -> None:
        for index, route in enumerate(self._account.routes):
            status = route()
            key = None if status is None else beat_key(status)
            seen = hear(self._seen[index], key, now)
            if seen is not self._seen[index] and status is not None:
                age = self._account.age_seconds(status) if self._seen[index].key is None else 0.0
                self._seen[index], self._status = seen, status
                engine_ms = status.get("engine_ms")
                if isinstance(engine_ms, int):
                    self._time.note(engine_ms, now - age)

    def _look(self, now: float, now_ms: int) -> Sight:
        self.exposed, self.loss_paise = True, None
        try:
            orders = self._account.book.orders()  # first: what it calls ended is in the positions that are read after it
            positions, trades = self._account.book.positions(), self._account.book.trades()
        except BrokerError as error:
            self._tell("book", "The guard cannot read the broker's book", str(error))
        else:
            self._tell("book", "", "The guard can read the broker's book again")
            self.open_lines = exposure(orders, positions, self._account.product)
            self.exposed = bool(self.open_lines)
            self.loss_paise = self._loss(positions, trades, now_ms)
            self._see_progress(now, orders, positions)
        return Sight(
            now=now,
            market_ms=now_ms,
            beat_ages=tuple(now - seen.since for seen in self._seen),
            exposed=self.exposed,
            loss_paise=self.loss_paise,
            closes=engine_closes(self._status),
            stalled_seconds=self._progress.stalled_seconds,
            holds=self._account.holds(self._status),
            unfinished=self.exposed and self._account.unfinished(),
        )

    def _see_progress(self, now: float, orders: Sequence[BrokerOrder], positions: Sequence[BrokerPosition]) -> None:
        """Judge whether an engine that closes gets anywhere; one that does not close is not judged."""
        if not engine_closes(self._status):
            self._progress = ProgressWatch()
            return
        product = self._account.product
        self._progress.see(
            now,
            [p for p in positions if p.product is product],
            [o for o in orders if o.product is product and o.state not in TERMINAL_STATES],
            read_progress(self._status),
        )

    def _loss(self, positions: Sequence[BrokerPosition], trades: Sequence[BrokerFill], now_ms: int) -> int | None:
        """Return the loss of the day, None when it is not known, which is told."""
        account = self._account
        found = carried(positions, trades, account.product)
        rest = {symbol: quantity for symbol, quantity in found.items() if self._carried.get(symbol) == quantity}
        self._carried = found  # a trade between the two reads looks like one; what is really carried stays
        reading = read_loss(
            trades,
            rest,
            prices=account.feed.prices(),
            previous_closes=account.previous_closes,
            schedule=account.schedule,
            product=account.product,
            now_ms=now_ms,
            price_age_ms_max=account.rules.price_age_ms_max,
        )
        if reading.faults:
            self._tell("loss", "The guard does not know the loss of the day", "; ".join(reading.faults))
        else:
            self._tell("loss", "", "The guard knows the loss of the day again")
        return reading.loss_paise

    def _tell(self, kind: str, title: str, text: str) -> None:
        """Tell a fault once (with a title), or its end once (without)."""
        if title and kind not in self._told:
            _log.error("[GUARD] %s: %s: %s", self._account.name, title, text)
            self._account.alerts.send(Severity.CRITICAL, title, f"{self._account.name}: {text}")
        elif not title and kind in self._told:
            _log.warning("[GUARD] %s: %s", self._account.name, text)
            self._account.alerts.send(Severity.WARNING, text, self._account.name)
        if title:
            self._told[kind] = f"{title}: {text}"
        else:
            self._told.pop(kind, None)

    # -- closing ----------------------------------------------------------------------------------------------

    def _begin(self, verdict: Verdict, now: float, now_ms: int) -> None:
        loss = "not known" if self.loss_paise is None else rupees_text(self.loss_paise)
        text = f"{self._account.name}: {verdict.text} (loss of the day {loss})"
        _log.critical("[GUARD] %s. Everything is closed", text, extra={"engine_ms": now_ms})
        self._account.alerts.send(Severity.CRITICAL, "The guard closes everything", text)
        self._retry_at = now + RETRY_SECONDS
        try:
            self._flattener = self._account.flattener(verdict, now_ms)
        except VeloxError as error:
            self._tell("closing", "The guard cannot close", f"{error}. It begins again in {RETRY_SECONDS:.0f} s")
            return
        self._state, self._closing_ms, self._stepped = None, now_ms, now

    def _continue(self, flattener: Flattener, now: float, now_ms: int) -> None:
        if self._state is FlattenState.CLOSING:
            self._account.feed.make(now_ms, self._time.reached_ms)
        passed = min(now - self._stepped, self._account.rules.pause_seconds_max)
        self._closing_ms, self._stepped = self._closing_ms + int(passed * MS_PER_SECOND), now
        try:
            state = flattener.step(self._closing_ms)
        except VeloxError as error:
            self._tell("closing", "The guard cannot go on closing", f"{error}. It begins again in {RETRY_SECONDS:.0f} s")
            self._end(now)
            return
        if state is not self._state:
            self._state = state
            closing = {"engine_ms": self._closing_ms}  # as the flattener's lines: the market's time goes faster in a replay
            _log.critical("[GUARD] %s: %s", self._account.name, _STATE_TEXT[state], extra=closing)
        if state is FlattenState.FLAT or state is FlattenState.NOT_FLAT:
            self.outcome = state.value
            if state is FlattenState.FLAT:
                self.exposed, self.open_lines = False, []  # until the next look
                self._told.pop("closing", None)
            self._account.alerts.send(Severity.CRITICAL, f"The guard: {_STATE_TEXT[state]}", self._account.name)
            self._end(now)

    def _end(self, now: float) -> None:
        """End a closing. What follows is judged anew, but for an engine's excuse; the closing itself was no pause."""
        self.close()
        self._memory = Memory(excused_since=self._memory.excused_since)
        self._retry_at = now + RETRY_SECONDS


_STATE_TEXT = {
    FlattenState.LATCHING: "the halt is being written",
    FlattenState.ASKING: "halted; an engine that runs is asked to acknowledge it",
    FlattenState.FOLLOWING: "the engine acknowledged the halt and closes by itself; the guard watches it",
    FlattenState.TAKING_OVER: "the account is taken over from whoever holds it and does not answer",
    FlattenState.CLOSING: "this guard closes",
    FlattenState.FLAT: "FLAT, the broker confirms it",
    FlattenState.NOT_FLAT: "NOT FLAT within the bound; it begins again",
}
