"""The rarer troubles of an episode, drawn apart from the others so that those stay as they are.

- journal full: nothing can be written, reading goes on. reply: the ledger takes a change and its answer is lost.
- clock: the engine's clock is off by seconds or minutes for a while, or for good; the market's and the broker's are right.
- gap: a price jumps by up to a fifth and nobody takes the side that could close, as at a circuit limit.
- closer: another process has the closer's lock for a while and closes something. take-over: one halts, then kills the engine.
- reset: a person asks the engine to clear its halts. clear: another process clears the one it latched.
- cut-off: the broker squares off by itself after the hard stop, a symbol that nobody could close before included; risk
  desk: it does so in the middle of the day. It announces nothing of it: only its book knows.
- crash after news, after cancel: the engine dies with what it just heard, or right after it asked for a cancel.
- crash without journal: the journal is locked until the engine has sent an exit all the same, and died of it.
"""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.market import DAY, MINUTES, OPEN_MS, TICK_PAISE
from tests.simulation.stores import Crash
from velox_core.brokers.faults import Fault, FaultKind
from velox_core.domain.errors import BrokerError, VeloxError
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord, clear_of
from velox_core.domain.orders import TERMINAL_STATES, Side
from velox_core.domain.time import MS_PER_MINUTE, MS_PER_SECOND
from velox_core.ports import ControlRequest

if TYPE_CHECKING:
    from tests.simulation.world import World

KINDS = (
    "journal full", "reply", "clock", "gap", "closer", "take-over", "reset", "clear", "cut-off", "risk desk",
    "crash after news", "crash after cancel", "crash without journal",
)  # fmt: skip
SHARE = 0.08  # of the episodes that have a trouble, each kind for itself
CUT_OFF_MINUTE = 27
OTHER_CLOSER = "another closer"
OTHER_CLOSERS_TAG = "240115G00010000001"


class Troubles:
    """The rarer troubles of one episode. `forced` kinds happen for certain."""

    def __init__(self, world: World, forced: tuple[str, ...] = ()) -> None:
        self.happened: list[str] = []
        self.is_silent = False  # the broker announces nothing of what it did itself
        self.holding_minutes = 0  # for which the other closer will have, or already has, its lock
        self._world = world
        self._random = Random(f"rarer {world.seed}")
        self._script: dict[int, list[str]] = {}
        self._halt: HaltRecord | None = None
        for kind in KINDS:
            if (self._random.random() < SHARE) | (kind in forced):
                self._plan(kind)

    def _plan(self, kind: str) -> None:
        random = self._random
        minute = random.randrange(3, MINUTES - 8)
        if kind == "cut-off":
            self._world.hard_stop_minute = CUT_OFF_MINUTE
            minute = random.randrange(CUT_OFF_MINUTE, MINUTES)
            self._lock(random.choice(self._world.universe), None, CUT_OFF_MINUTE - 4, minute)
        self._at(minute, kind)
        if kind in ("journal full", "clock") and random.random() < 0.8:
            self._at(minute + random.randrange(1, 8), f"{kind} over")
        if kind in ("clear", "reset"):
            self._at(minute + random.randrange(1, 6), f"{kind} now")
        if kind == "gap":
            self._gap(minute)
        if kind == "crash without journal":
            self._at(minute + random.randrange(4, 8), f"{kind} over")

    def _at(self, minute: int, what: str) -> None:
        self._script.setdefault(minute, []).append(what)

    def _gap(self, minute: int) -> None:
        """Move a symbol's prices from a minute on, and lock the side that holders of the other would need."""
        random, world = self._random, self._world
        column = random.randrange(len(world.universe))
        percent = random.choice((80, 90, 110, 120))
        for row in world.rows[minute:]:
            for prices in (row.opens, row.highs, row.lows, row.closes):
                prices[column] = prices[column] * percent // 100 // TICK_PAISE * TICK_PAISE
        side = Side.SELL if percent < 100 else Side.BUY
        self._lock(world.universe[column], side, minute, minute + random.randrange(1, 6))

    def _lock(self, symbol: str, side: Side | None, minute: int, until_minute: int) -> None:
        from_ms, until_ms = (OPEN_MS + number * MS_PER_MINUTE for number in (minute, until_minute))
        self._world.faults.add(Fault(kind=FaultKind.LOCKED, symbol=symbol, side=side, from_ms=from_ms, until_ms=until_ms))

    def before_minute(self, minute: int) -> None:
        """Let the troubles of a minute happen, each once. Raises Crash where the engine is killed."""
        self._other_closer()
        due = self._script.pop(minute, [])
        while due:
            what = due.pop(0)
            self.happened.append(what)
            if what == "take-over":
                self._script.setdefault(minute, []).extend(due)  # for the engine that comes after
                self._latch(HaltKind.FAULT, keeps_positions=False)
                raise Crash(what)
            self._let_happen(what)

    def _let_happen(self, what: str) -> None:
        world, random = self._world, self._random
        outages = world.outages
        match what:
            case "journal full" | "journal full over":
                outages.journal_full = what == "journal full"
            case "reply":
                outages.reply_lost = True
            case "clock":
                seconds = random.choice((3, 30, 90, 600)) * random.choice((1, -1))
                world.engine_clock.set_off(seconds * MS_PER_SECOND)
            case "clock over":
                world.engine_clock.set_off(0)
            case "closer":
                self.holding_minutes = random.randrange(1, 5)
                self._other_closer()
            case "reset" | "clear":
                self._latch(HaltKind.MANUAL, keeps_positions=random.random() < 0.7)
            case "reset now":
                world.control.requests.append(ControlRequest("reset", "episode", "asked for", "1"))
            case "clear now":
                self._clear()
            case "cut-off" | "risk desk":
                self._square_off(by_hand=what == "risk desk")
            case "crash after news" | "crash after cancel":
                outages.crash_at = what.removeprefix("crash ")
            case "crash without journal":
                outages.journal, outages.journal_back_after_crash, outages.crash_at = True, True, "after send"
            case "crash without journal over":
                outages.journal = False

    # -- halts of other processes -------------------------------------------------------------------------------

    def _latch(self, kind: HaltKind, *, keeps_positions: bool) -> None:
        world = self._world
        self._halt = record = HaltRecord(
            halt_id=f"{DAY:%Y%m%d}-{kind.value}-rarer",
            kind=kind,
            trading_date=DAY,
            reason="asked for",
            by="episode",
            at_ms=world.clock.now_ms(),
            keeps_positions=keeps_positions,
        )
        if world.outages.ledger:  # without it a running engine learns of it a moment later: an entry may slip in between
            self._halt = None
            return
        with suppress(VeloxError):
            world.halt_file.append(record)
        world.journal.write_outside(EventKind.HALT, record.at_ms, record.to_body())
        world.ledger.latch_halt(record)

    def _clear(self) -> None:
        """Clear the halt, as a reset does while no engine runs: everywhere, or not at all."""
        world, halt = self._world, self._halt
        outages = world.outages
        if halt is None or world.invariants.held() or outages.ledger or outages.halt_file or outages.journal_blocked:
            return
        record = clear_of(halt, reason="asked for", by="episode", at_ms=world.clock.now_ms())
        world.journal.write_outside(EventKind.HALT_CLEARED, record.at_ms, record.to_body())
        world.ledger.latch_halt(record)
        world.halt_file.append(record)

    # -- other hands --------------------------------------------------------------------------------------------

    def _other_closer(self) -> None:
        """Have the lock as soon as nobody has it, close one position under it, and give it back in time."""
        world = self._world
        closer = world.closer
        if closer.holder == OTHER_CLOSER:
            self.holding_minutes -= 1
            if not self.holding_minutes:
                closer.holder = ""
        elif self.holding_minutes and not closer.holder:
            closer.holder = closer.last = OTHER_CLOSER
            self._close_one()

    def _close_one(self) -> None:
        world = self._world
        live = [o for o in world.broker.exchange.orders.values() if o.state not in TERMINAL_STATES]
        for symbol, quantity in world.invariants.held().items():
            if not any(order.position.symbol == symbol for order in live):
                side = Side.SELL if quantity > 0 else Side.BUY
                with suppress(BrokerError):
                    world.broker.desk.place_foreign(symbol, side, abs(quantity), world.clock.now_ms(), tag=OTHER_CLOSERS_TAG)
                    self.happened.append("closed by another")
                return

    def _square_off(self, *, by_hand: bool) -> None:
        world = self._world
        now_ms = world.clock.now_ms()
        held = world.invariants.held()
        with suppress(BrokerError):
            world.broker.desk.square_off_by_broker(now_ms)
        if by_hand:
            world.hand_ms.update(dict.fromkeys(held, now_ms))
        self.is_silent = True
        if held:
            self.happened.append("squared off by the broker")
