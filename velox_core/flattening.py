"""Closing the whole account from outside its engine: `velox flatten`, the guard, the emergency_flatten flow.

- In this order: latch the halt, no entries, cancel what works, read the positions, close them, read again, prove flat.
- The halt goes to every store that takes it (`flatten_latch`). None at all keeps nothing open, and is not called FLAT.
- A living engine that acknowledges the halt closes by itself: it is followed, and the broker has the last word. One that
  does not, or whose closing gets nowhere (`closing_progress`), is ended (`take_over`); only then does this process close.
- Whoever closes has the closer's lock. A second flattener waits for it, then for the longest request of whoever had it, reads
  what the first one left, and never reverses.
- It has no strategies and no prices but the broker's: its positions are what the broker says (`adoption`).
- Everything is bounded: a step does what can be done now, the whole ends at `bound_ms` as NOT_FLAT with the reasons. What is
  about processes (the whole, the acknowledgement, silence, another closer) is bounded in real time, which no replay hastens;
  what is about orders in engine time.
- What earlier processes sent and nobody knows the end of is not sent again (`lost_exits`): "replaced once" is of the account.
- FLAT is said when the broker says so, none of our orders is UNKNOWN, no request of a dead process can still arrive, and no
  engine that could not be ended, or not be seen, may go on trading.
- What is sent is on the disk before it leaves, in the journal it is given: a file that needs no SQL.
"""

from __future__ import annotations

import logging
from typing import Final

from velox_core.adoption import Adoption, Look
from velox_core.closer import Closer
from velox_core.closing_progress import STALLED_SECONDS_MAX, ProgressWatch
from velox_core.domain.errors import VeloxError
from velox_core.domain.halts import HaltRecord
from velox_core.domain.market.ticks import Instrument
from velox_core.domain.orders import client_order_id_prefix
from velox_core.domain.time import MS_PER_SECOND
from velox_core.emergency_exit_manager import EmergencyExitManager
from velox_core.exit_door import ExitDoor
from velox_core.flat_proof import ENDED, FlattenResult, FlattenState, SymbolOutcome
from velox_core.flatten_latch import HaltLatch
from velox_core.flatten_lines import FlattenLines
from velox_core.flatten_ports import EngineWord, FlattenPorts, FlattenRules, OwnEvents
from velox_core.foreign_orders import cancel_foreign
from velox_core.lost_exits import SEARCH_MS_MAX, LostExits
from velox_core.order_manager import CANCEL_INTERVAL_MS, OrderManager
from velox_core.order_recovery import OrderRecovery
from velox_core.ports import Severity
from velox_core.risk.breach import DayLoss
from velox_core.risk_manager import RiskManager

ACKNOWLEDGE_MS_MAX: Final = 10_000  # real time, as the next three: so long a running engine has to acknowledge the halt
SILENT_MS_MAX: Final = 15_000  # an engine that acknowledged and then says nothing for so long hangs
CLOSER_WAIT_MS_MAX: Final = 20_000  # after this a closer is asked about that says nothing
NUMBERS_WAIT_MS: Final = 3_000  # so long the account of the loss waits for the broker before it is told without numbers
RECALL_INTERVAL_MS: Final = 5_000  # real time, between two reads of what a followed engine has on record

_log: Final = logging.getLogger("velox.emergency")


class Flattener:
    """One flattening. Call `step` until it has ended; between two calls a moment of engine time should pass."""

    def __init__(self, ports: FlattenPorts, rules: FlattenRules) -> None:
        self.state = FlattenState.LATCHING
        self._ports = ports
        self._rules = rules
        self._instruments: dict[str, Instrument] = {}
        self._join(ports, rules)
        self._halts: HaltLatch | None = None
        self._started_ms = self._ended_ms = self._now_ms = self._engine_ms = 0  # engine time; the last two are of this step
        self._real_ms = round(ports.monotonic() * MS_PER_SECOND)  # of this step
        self._began_ms = self._since_ms = self._real_ms  # real: when it began, and when this state did
        self._beat: object = None
        self._beat_ms = 0
        self._progress = ProgressWatch()
        self._stalled_pid = 0  # of an engine that answers and closes nothing
        self._closed_by = "nobody"
        self._reason = ""
        self._not_recalled = ""  # why the record of earlier processes is not whole
        self._trouble = ""  # the newest thing that went wrong around the engine or the lock
        self._announced = False
        self._engine_ran = self._engine_told = False  # whether an engine had the account, and told of the emergency
        self._may_trade = ""  # what an engine that could not be ended, or seen, does beside this process
        self._is_handed_over = False  # another process closed until a moment ago
        self._send_from_ms = 0  # real: what it sent has arrived by then
        self._recall_from_ms = 0  # real: when a followed engine's record is read again
        self._cancelled_ms = -CANCEL_INTERVAL_MS
        self._left_ms: dict[str, int] = {}  # by tag: the step after its request, which may have taken long in its own step
        self._before: dict[str, int] = {}
        self._shown: dict[str, str] = {}
        self._news: list[str] = []

    def _join(self, ports: FlattenPorts, rules: FlattenRules) -> None:
        """Put gate, order manager, exit door and emergency exit manager together, as an engine does."""
        prefix = client_order_id_prefix(f"{rules.trading_date:%y%m%d}", rules.actor, rules.epoch)
        broker, alerts = ports.broker, ports.alerts
        self._journal = journal = OwnEvents(ports.journal)
        self._risk = risk = RiskManager(
            limits=rules.limits,
            ledger=ports.ledger,
            journal=journal,
            id_prefix=prefix,
            epoch=rules.epoch,
            first_sequence=rules.first_sequence,
        )
        risk.readiness.ledger_fault = "this process has no lease"  # no fill is brought into it: the engine does that
        self._orders = orders = OrderManager(
            broker=broker,
            journal=journal,
            risk_manager=risk,
            day_loss=DayLoss(rules.schedule),
            columns={},
            schedule=rules.schedule,
            sends=ports.sends,
        )
        self._lost = lost = LostExits(ports.recall)
        self._closer = closer = Closer(
            lock=ports.closer_lock,
            order_manager=orders,
            risk_manager=risk,
            journal=journal,
            alerts=alerts,
            name=prefix,
            lost=lost,
            goes_by_positions=True,
        )
        self._door = ExitDoor(
            risk_manager=risk, order_manager=orders, instruments=self._instruments, alerts=alerts, closer=closer
        )
        self._recovery = OrderRecovery(orders, alerts, lost)
        self._adoption = Adoption(
            broker=broker, order_manager=orders, risk_manager=risk, close_foreign=rules.close_foreign, marks=True, lost=lost
        )
        self._symbols = FlattenLines(
            orders=orders, adoption=self._adoption, door=self._door, closer=closer, instruments=self._instruments
        )
        self._emergency = EmergencyExitManager(
            trading_date=rules.trading_date,
            risk_manager=risk,
            order_manager=orders,
            exit_door=self._door,
            broker=broker,
            journal=journal,
            halt_file=ports.halt_file,
            alerts=alerts,
            adoption=self._adoption,
        )

    # -- from outside -----------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Return whether the result stands."""
        return self.state in ENDED

    def step(self, now_ms: int) -> FlattenState:
        """Do what can be done now, and return how far it is. Never raises an operating error; bounded.

        Args:
            now_ms: engine time, epoch ms; it never goes back.
        """
        if self.ended:
            return self.state
        self._now_ms = now_ms
        self._real_ms = round(self._ports.monotonic() * MS_PER_SECOND)
        self._engine_ms = now_ms
        if not self._started_ms:
            self._started_ms, self._began_ms = now_ms, self._real_ms
        halts = self._halts or self._latch(now_ms)
        halts.retry(self._real_ms)
        if self.state is FlattenState.ASKING or self.state is FlattenState.FOLLOWING:
            self._watch_engine(halts, now_ms)
        if self.state is FlattenState.TAKING_OVER:
            self._take_over(halts.record)
        if self.state is FlattenState.CLOSING:
            self._close(halts, now_ms)
        self._show(now_ms)
        if not self.ended and self._real_ms - self._began_ms >= self._rules.bound_ms:
            self._give_up(now_ms)
        return self.state

    def news(self) -> list[str]:
        """Return what happened since the last call, one sentence each, for people."""
        news, self._news = self._news, []
        return news

    def result(self) -> FlattenResult:
        """Return the outcome, or how far it is."""
        return FlattenResult(
            state=self.state,
            reason=self._reason,
            lines=tuple(self._symbols.lines(self._before, self._now_ms)),
            halt_id=self._rules.halt_id,
            not_latched=() if self._halts is None else tuple(self._halts.missing),
            halt_stands=self._halts is not None and self._halts.stands,
            closed_by=self._closed_by,
            not_recalled=self._lost.missing,
            loss_paise=self._orders.day_loss.loss_paise if self._has_looked else None,
            started_ms=self._started_ms,
            ended_ms=self._ended_ms,
        )

    # -- the halt, and the engine -----------------------------------------------------------------------------

    def _latch(self, now_ms: int) -> HaltLatch:
        """Write the halt. With no store at all it is closed all the same, and an engine that cannot hear of it is ended."""
        self._halts = halts = HaltLatch(self._ports, self._rules, self._journal, now_ms)
        halts.to_files(self._real_ms)
        if not halts.stands:
            halts.to_rest()
        told = f"halt {halts.record.halt_id} is latched"
        self._say(told if halts.stands else "NO store took the halt: it is tried again, and closed all the same")
        self._enter(FlattenState.ASKING)
        return halts

    def _look_at_engine(self) -> EngineWord:
        try:
            word = self._ports.engine.look(self._rules.halt_id)
        except VeloxError as error:
            self._may_trade = f"whether an engine runs and may still trade is not known: {error}"
            self._note(self._may_trade)
            return EngineWord(runs=False)  # the closer's lock still keeps two closers apart
        self._engine_ran = self._engine_ran or word.runs
        if word.beat != self._beat:
            self._beat, self._beat_ms = word.beat, self._real_ms
        return word

    def _watch_engine(self, halts: HaltLatch, now_ms: int) -> None:
        """Wait for the engine's acknowledgement, then follow it until the broker says flat."""
        word = self._look_at_engine()
        if not word.runs:
            self._is_handed_over = self._engine_ran  # its last request may be on its way
            if self.state is FlattenState.FOLLOWING:
                self._say("the engine ended before all was flat: this process closes")
            self._enter(FlattenState.CLOSING)
            return
        if self.state is FlattenState.ASKING:
            self._closed_by = "engine"
            halts.to_rest()
            if word.acknowledges:
                self._engine_told = True  # it writes the block before it acknowledges
                self._say("the engine acknowledges the halt and closes; it is followed")
                self._enter(FlattenState.FOLLOWING)
            elif self._real_ms - self._since_ms >= ACKNOWLEDGE_MS_MAX:
                self._say(f"the engine did not acknowledge the halt within {ACKNOWLEDGE_MS_MAX // 1_000} s: it is taken over")
                self._enter(FlattenState.TAKING_OVER)
            return
        found = self._look(now_ms)
        if found is not None:
            self._progress.see(self._real_ms / MS_PER_SECOND, found.positions, found.working, word.progress)
        if found is not None and not found.lines and not self._adoption.converted and word.says_flat:
            if self._engine_lost_nothing(now_ms):
                self._prove(now_ms)
        elif self._real_ms - max(self._beat_ms, self._since_ms) >= SILENT_MS_MAX:
            self._say(f"the engine has said nothing for {SILENT_MS_MAX // 1_000} s: it is taken over")
            self._enter(FlattenState.TAKING_OVER)
        elif self._progress.is_stalled:
            self._say(f"the engine answers, and has closed nothing for {STALLED_SECONDS_MAX:.0f} s: it is taken over")
            self._stalled_pid = word.pid
            self._enter(FlattenState.TAKING_OVER)

    def _engine_lost_nothing(self, now_ms: int) -> bool:
        """Return whether no order that the engine gave up, or says nothing of, may still appear."""
        if self._real_ms >= self._recall_from_ms:
            self._recall_from_ms = self._real_ms + RECALL_INTERVAL_MS
            self._lost.recall_again()
            self._lost.recall(self._orders.orders, now_ms)
        return now_ms >= self._lost.no_proof_before_ms

    def _take_over(self, halt: HaltRecord) -> None:
        try:
            is_free = self._ports.engine.take_over(halt, stalled_pid=self._stalled_pid)
            for pid in self._ports.engine.killed:
                self._say(
                    f"process {pid} was killed: it {'closed nothing' if self._stalled_pid == pid > 0 else 'did not answer'}"
                )
        except VeloxError as error:
            self._note(str(error))
            self._may_trade = str(error)
            is_free = True  # what the closer's lock allows is done: a position left open is worse
        self._progress, self._stalled_pid = ProgressWatch(), 0
        self._say("this process closes" if is_free else "the engine answers after all; it is followed")
        self._enter(FlattenState.CLOSING if is_free else FlattenState.FOLLOWING)

    # -- closing ----------------------------------------------------------------------------------------------

    def _close(self, halts: HaltLatch, now_ms: int) -> None:
        orders, emergency = self._orders, self._emergency
        self._closed_by = "this process"
        for tag in orders.live:
            self._left_ms.setdefault(tag, now_ms)
        orders.poll(now_ms)
        if orders.live or self._recovery.watching:
            self._recovery.work(now_ms)
        was_ours = self._closer.is_ours
        if not self._closer.may_send(now_ms):
            self._is_handed_over = self._is_handed_over or not self._closer.is_ours
            self._wait_for_closer()
            return
        if not was_ours and self._orders.tradeless.lasts(now_ms):
            self._adoption.look_again()
        if self._is_handed_over:
            self._is_handed_over, self._send_from_ms = False, self._real_ms + self._rules.request_ms
        if self._real_ms < self._send_from_ms:
            return
        if self._send_from_ms:
            self._send_from_ms = 0
            self._closer.look_again()  # what was on its way is in the book by now
            if not self._closer.may_send(now_ms):
                return
        if self._lost.missing and not self._not_recalled:
            self._not_recalled = self._lost.missing
            self._say(
                f"what earlier processes sent is not all known, it is closed by the broker's book alone: {self._not_recalled}"
            )
        if not self._announced and not self._announce(halts, now_ms):
            return
        emergency.no_proof_before_ms = self._earliest_proof_ms(now_ms)
        if not emergency.continue_closing(now_ms):
            self._prove(now_ms)
            return
        newest = self._adoption.newest
        if newest is None:
            return
        self._learn(newest)
        if any(line.tag not in orders.live for line in newest.working):
            self._cancel_foreign(now_ms)
        if not newest.lines and not orders.live and self._adoption.converted:
            self._give_up(now_ms)

    def _announce(self, halts: HaltLatch, now_ms: int) -> bool:
        """Read the book for the first time, tell of the exit with its numbers, cancel what works, and begin to close."""
        found = self._look(now_ms)
        if found is None and self._real_ms - self._since_ms < NUMBERS_WAIT_MS:
            return False
        halts.to_rest()
        if found is not None and found.working:
            self._cancel_foreign(now_ms)
        self._announced = True
        self._emergency.no_proof_before_ms = self._earliest_proof_ms(now_ms)
        self._emergency.close_for(halts.record, halts.missing, now_ms, is_told=self._engine_told)
        return True

    def _look(self, now_ms: int) -> Look | None:
        found = self._emergency.bring_books_up(now_ms)
        if found is not None:
            self._learn(found)
        return found

    def _learn(self, found: Look) -> None:
        """Note what is held for the first time, and what is known of its symbol."""
        held = {p.symbol: p.quantity for p in found.positions}
        held.update((p.symbol, p.quantity) for p in self._orders.open_positions() if p.symbol not in held)
        for symbol, quantity in held.items():
            self._before.setdefault(symbol, quantity)
            if symbol not in self._instruments:
                instrument = self._ports.instrument(symbol, self._orders.mark_of(symbol))
                if instrument is not None:
                    self._instruments[symbol] = instrument
        for order in found.working:
            self._before.setdefault(order.symbol, 0)

    def _cancel_foreign(self, now_ms: int) -> None:
        if now_ms - self._cancelled_ms >= CANCEL_INTERVAL_MS:
            self._cancelled_ms = now_ms
            cancel_foreign(self._orders, now_ms, left_alone=self._adoption.left_alone)

    def _wait_for_closer(self) -> None:
        """Wait for another closer; one that shows no sign of life is ended."""
        self._note(f"{self._ports.closer_lock.holder} closes; this process waits for it")
        if self._real_ms - self._since_ms >= CLOSER_WAIT_MS_MAX and self._ports.engine.closer_hangs():
            self._say("the process that has the closer's lock gives no sign of life: it is taken over")
            self._enter(FlattenState.TAKING_OVER)

    def _earliest_proof_ms(self, now_ms: int) -> int:
        """Return before when nothing is called flat: a request may be on its way, or an order be given up too early."""
        orders = self._orders
        given_up = [
            self._left_ms.get(tag, order.created_ms) for tag, order in orders.not_placed.items() if tag not in orders.found_late
        ]
        travels_ms = max(self._began_ms + self._rules.request_ms - self._real_ms, 0)
        lost_ms = self._lost.no_proof_before_ms
        return max([now_ms + travels_ms, lost_ms, *(left_ms + SEARCH_MS_MAX for left_ms in given_up)])

    # -- the end ----------------------------------------------------------------------------------------------

    def _prove(self, now_ms: int) -> None:
        """End: FLAT, unless an engine that was not ended, or is started without the halt, may open something."""
        is_beside = self._is_beside_an_engine()
        if is_beside or not self._halt_stands():
            self._trouble = self._may_trade if is_beside else ""
            self._give_up(now_ms, is_confirmed=True)
            return
        self._show(now_ms)
        self._reason = ""
        self._enter(FlattenState.FLAT)
        self._finish(now_ms)
        kept = "".join(f"; {line.symbol}: {line.text}" for line in self.result().lines if line.outcome is SymbolOutcome.KEPT)
        self._say(f"FLAT: the broker confirms: no position, no working order{kept}")
        if self._closed_by == "engine":
            _log.critical("FLAT: closed by the engine, confirmed by the broker", extra={"engine_ms": now_ms})

    def _is_beside_an_engine(self) -> bool:
        """Return whether an engine that could not be ended or seen may still trade: it runs unheard, or is not seen now."""
        if not self._may_trade:
            return False
        try:
            word = self._ports.engine.look(self._rules.halt_id)
        except VeloxError:
            return True
        if not word.runs or word.acknowledges:
            return False
        named = f"process {word.pid}" if word.pid else "an engine"
        self._may_trade = f"{named} runs, has not acknowledged the halt and may still trade: {self._may_trade}"
        return True

    def _halt_stands(self) -> bool:
        """Try the stores that miss the halt once more. Returns whether one of them has it."""
        if self._halts is None:
            return False
        self._halts.finish()
        return self._halts.stands

    def _give_up(self, now_ms: int, *, is_confirmed: bool = False) -> None:
        self._show(now_ms)
        left = [
            line
            for line in self._symbols.lines(self._before, now_ms)
            if line.outcome not in (SymbolOutcome.FLAT, SymbolOutcome.KEPT)
        ]
        parts = [f"{line.symbol} {line.outcome.value} ({line.text})" for line in left]
        if not self._has_looked:
            parts.append("the broker never answered")
        elif not parts:
            held = "the broker holds nothing and works nothing now" if is_confirmed else "the broker did not confirm it"
            parts.append(held)
        if self._trouble:
            parts.append(self._trouble)
        stands = "The halt stands"
        if not self._halt_stands():
            stands = "The halt stands nowhere"
            parts.append("no store took the halt, so an engine that starts would trade: free the disk and flatten again")
        self._reason = "; ".join(parts)
        self._enter(FlattenState.NOT_FLAT)
        self._finish(now_ms)
        _log.critical("NOT FLAT: %s", self._reason, extra={"engine_ms": now_ms})
        self._ports.alerts.send(
            Severity.CRITICAL,
            "Flatten ended: NOT FLAT",
            f"{self._reason}. {stands}. Close what is left in the broker's app, or flatten again.",
        )

    def _finish(self, now_ms: int) -> None:
        self._ended_ms = now_ms
        if not self._orders.live:
            self._closer.rest()
        self._orders.commit_journal()

    # -- what it shows ----------------------------------------------------------------------------------------

    @property
    def _has_looked(self) -> bool:
        return bool(self._before) or self._adoption.newest is not None

    def _enter(self, state: FlattenState) -> None:
        self.state = state
        self._since_ms = self._real_ms

    def _note(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._say(trouble)

    def _say(self, text: str) -> None:
        self._news.append(text)
        _log.warning("[FLATTEN] %s", text, extra={"engine_ms": self._engine_ms})

    def _show(self, now_ms: int) -> None:
        """Tell of each symbol whose way to zero went on."""
        for line in self._symbols.lines(self._before, now_ms):
            if self._shown.get(line.symbol) != line.text:
                self._shown[line.symbol] = line.text
                self._news.append(f"{line.symbol}: {line.text}")
                _log.warning("[FLATTEN] %s: %s", line.symbol, line.text, extra={"engine_ms": now_ms})
