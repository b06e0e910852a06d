"""The one loop: a day of minutes or ticks from the feed through breach, exits, strategies and the gate.

- The clock is read once a step; the same `now` judges everything in it. Engine time is never behind the newest bar and
  never goes back: a clock that was set back is replaced by monotonic time (ADR 0017).
- Order of a step: the broker's news, marks, breach, stops and targets, exits, time of day, strategies. On ticks each moment
  is a step without strategies, and each minute built from them one with strategies and without marks.
- Nothing in the loop waits: the feed waits at most a moment, stores and broker have their own bounds. The loop writes
  the status itself, with the longest age that a breach evaluation reached, so that a loop that is stuck is seen.
- Lease, ledger and reconcile are `upkeep`'s. Market data that stays away while a position is open is a
  fault: an alert first, then the position is closed blind.
- Only here is `Exception` caught: it halts trading (FAULT), everything is closed, and the process ends non-zero.
"""

from __future__ import annotations

import gc
import logging
import time
from typing import Final

from velox_core.closing_progress import PROGRESS_KEY
from velox_core.domain.events import EventKind
from velox_core.domain.market.bars import MarketEvent, MinuteRow, TickBatch
from velox_core.domain.orders import ExitRank
from velox_core.domain.positions import FOREIGN
from velox_core.domain.time import MS_PER_SECOND, ist_clock_text
from velox_core.engine.feed_watch import FeedWatch
from velox_core.engine.owed import await_answers
from velox_core.engine.parts import SessionParts, SessionResult
from velox_core.engine.plan import OnStop, SessionPlan
from velox_core.engine.prices import SessionPrices
from velox_core.engine.reset import answer_reset
from velox_core.engine.signal_desk import SignalDesk
from velox_core.engine.status import session_status
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.engine.upkeep import Upkeep
from velox_core.exit_door import NEVER_MS
from velox_core.ports import Severity
from velox_core.strategies.base import StrategySession

FEED_WAIT_SECONDS: Final = 0.25
CONTROL_INTERVAL_SECONDS: Final = 0.5
FINISH_ROUNDS_MAX = 120  # each waits FEED_WAIT_SECONDS on a live feed
CLOCK_BEHIND_MS_MAX = 2_000  # a clock further behind engine time is told
STOP_SECONDS_MAX = 180.0  # so long a stop may take to close everything; then the end of the session goes on with it, bounded

_MARK: Final = EventKind.MARK  # by a module name: reading a member off its class costs 0.09 us

_log: Final = logging.getLogger("velox.system")


class TradingSession:
    """One day of one engine."""

    def __init__(self, plan: SessionPlan, parts: SessionParts) -> None:
        self._plan = plan
        self._parts = parts
        self._columns = {symbol: column for column, symbol in enumerate(plan.universe)}
        self._hosts = {host.strategy.strategy_id: host for host in parts.strategies}
        self._on_ticks = plan.on_ticks
        self._prices = SessionPrices(plan, parts)
        self._signals = SignalDesk(plan, parts, self._prices)
        self._upkeep = Upkeep(
            broker=parts.broker,
            order_manager=parts.order_manager,
            risk_manager=parts.risk_manager,
            alerts=parts.alerts,
            reconcile_seconds=plan.reconcile_seconds,
            revive=parts.revive,
            guard=parts.guard,
        )
        self._square_off_ms = plan.flat_by_ms if plan.square_off else NEVER_MS
        self._stop_reason = ""
        self._ending = False
        self._is_unclosed = False  # closing after a fault failed: what is open is not known
        self._rows = 0
        self._now_ms = 0
        self._next_status = 0.0
        self._next_control = 0.0
        self._stepped = 0.0  # monotonic seconds of the last step's end
        self._clock_alarmed = False
        self._feed_watch = FeedWatch(parts)
        self._stop_until = 0.0  # monotonic seconds; 0 while no stop is under way
        self._last_mark: tuple[int, int, int] | None = None
        self._reset_answer: dict[str, object] = {}
        self._feed_wait_seconds = FEED_WAIT_SECONDS
        self._breach_age_ms = 0  # the longest between two evaluations, of those before the newest status

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> SessionResult:
        """Trade the day. Returns when the feed has ended or a stop is through; never raises."""
        fault = ""
        gc.freeze()
        gc.disable()
        try:
            self._start()
            self._hurry(True)
            self._loop()
            self._finish()
        except Exception as error:  # the outermost loop: halt, close, end non-zero
            fault = f"{type(error).__name__}: {error}"
            _log.critical("the engine failed; trading is halted and everything is closed", exc_info=error)
            self._close_after_fault(fault)
        finally:
            gc.enable()
            gc.unfreeze()
        orders = self._parts.order_manager
        flat = orders.is_flat() and not self._parts.emergency.closing and not self._is_unclosed
        self._publish("FAILED" if fault else "DONE")
        return SessionResult(
            flat=flat,
            halted=self._parts.emergency.active,
            stopped=self._stop_reason,
            fault=fault,
            rows=self._rows,
        )

    def request_stop(self, reason: str) -> None:
        """Ask the loop to stop: no entries from the next step on, then the plan's `on_stop`. Safe from a signal handler."""
        self._stop_reason = self._stop_reason or reason

    def _start(self) -> None:
        plan, parts = self._plan, self._parts
        self._now_ms = parts.clock.now_ms()
        self._feed_watch.started_ms = self._now_ms
        parts.exit_door.hard_stop_ms = plan.hard_stop_ms
        self._upkeep.start(self._now_ms)
        readiness = parts.risk_manager.readiness
        readiness.entries_from_ms = plan.entries_from_ms
        readiness.entry_until_ms = plan.entry_until_ms
        for host in parts.strategies:
            if host.disabled:  # by an earlier process of this run
                self._close_disabled(host)
            else:
                self._start_strategy(host)
        for position in parts.order_manager.open_positions():
            self.on_position(position.symbol)
        parts.exit_door.take_up()
        self._publish("RUNNING")

    def _start_strategy(self, host: HostedStrategy) -> None:
        plan = self._plan
        host.start(
            StrategySession(
                trading_date=plan.trading_date,
                universe=plan.universe,
                columns=host.columns,
                open_ms=plan.open_ms,
                entry_until_ms=plan.entry_until_ms,
                tick_paise=plan.tick_paise,
            )
        )
        if host.disabled:
            self._report_disabled(host)

    def _loop(self) -> None:
        feed, clock = self._parts.feed, self._parts.clock
        longest, self._stepped = 0.0, clock.monotonic()
        while not feed.ended:
            row = feed.next_row(self._feed_wait_seconds)
            self._now_ms = self._read_clock(0 if row is None else row.ts_ms)
            if row is None:
                self._idle(self._now_ms)
            elif row.ts_ms <= self._plan.resume_after_ms:
                self._warm_up(row)
            elif self._on_ticks:
                self._on_tick_event(row, self._now_ms)
            elif isinstance(row, MinuteRow):
                self._on_row(row, self._now_ms)
            monotonic = clock.monotonic()
            if monotonic - self._stepped > longest:
                longest = monotonic - self._stepped
            self._stepped = monotonic
            if monotonic >= self._next_control:
                self._next_control = monotonic + CONTROL_INTERVAL_SECONDS
                self._take_request()
                if self._parts.emergency.take_up(self._now_ms):
                    self._next_status = 0.0  # whoever latched it waits for the acknowledgement
                self._upkeep.maintain(monotonic, self._now_ms)
            if monotonic >= self._next_status:
                self._next_status = monotonic + self._plan.heartbeat_seconds
                self._breach_age_ms, longest = round(longest * MS_PER_SECOND), 0.0
                self._publish("STOPPING" if self._stop_reason else "FLATTENING" if self._parts.emergency.closing else "RUNNING")
            if self._stop_reason and self._stopped():
                return

    def _read_clock(self, newest_bar_ms: int) -> int:
        """Return engine time, epoch ms. What waits for a time to come must not wait as long as a clock was set back."""
        now_ms = self._parts.clock.now_ms()
        if now_ms < self._now_ms:
            behind_ms = self._now_ms - now_ms
            monotonic = self._parts.clock.monotonic()
            now_ms = self._now_ms + (int((monotonic - self._stepped) * MS_PER_SECOND) if self._stepped else 0)
            self._stepped = monotonic
            if behind_ms > CLOCK_BEHIND_MS_MAX and not self._clock_alarmed:
                self._clock_alarmed = True
                text = f"It is {behind_ms} ms behind what it was. This engine goes on by monotonic time until it ends."
                _log.error("[CLOCK] set back: %s", text, extra={"engine_ms": now_ms})
                self._parts.alerts.send(Severity.CRITICAL, "The clock was set back", text)
        return max(now_ms, newest_bar_ms)

    def _on_row(self, row: MinuteRow, now_ms: int) -> None:
        self._rows += 1
        self._parts.risk_manager.readiness.feed_ts_ms = row.ts_ms
        self._begin_step(now_ms)
        self._prices.take_row(row, now_ms)
        self._work(now_ms)
        self._ask_strategies(row, now_ms)
        self._journal_mark(now_ms)

    def _on_tick_event(self, event: MarketEvent, now_ms: int) -> None:
        """Take the ticks of one moment, or a minute that ended: built from ticks that were all taken before.

        Only ticks say that the feed lives; a minute also ends when no tick comes any more.
        """
        if isinstance(event, TickBatch):
            self._parts.risk_manager.readiness.feed_ts_ms = event.ts_ms
            self._begin_step(now_ms)
            self._prices.take_ticks(event, now_ms)
            self._work(now_ms)
            self._parts.order_manager.commit_journal()
        else:
            self._rows += 1
            self._begin_step(now_ms)
            self._parts.emergency.check(now_ms)
            self._work(now_ms)
            self._ask_strategies(event, now_ms)
            self._journal_mark(now_ms)

    def _begin_step(self, now_ms: int) -> None:
        self._parts.order_manager.poll(now_ms)
        if now_ms >= self._upkeep.next_reconcile_ms:
            self._upkeep.reconcile(now_ms)

    def _ask_strategies(self, row: MinuteRow, now_ms: int) -> None:
        if self._ending:
            return
        for host in self._parts.strategies:
            if not host.disabled:
                signals = host.on_minute(row.ts_ms, row)
                if signals:
                    self._signals.take(signals, now_ms)
                elif signals is None:
                    self._report_disabled(host)
                    self._parts.exit_door.work(now_ms)

    def _work(self, now_ms: int) -> None:
        parts = self._parts
        if not self._ending and now_ms >= self._square_off_ms:
            self._ending = True
            parts.risk_manager.readiness.stopping = "square-off time"
            _log.info("[SESSION] square-off at %s", ist_clock_text(now_ms), extra={"engine_ms": now_ms})
        if self._ending:
            parts.emergency.square_off_books(now_ms)
            if not parts.order_manager.is_flat():
                parts.exit_door.want_all(ExitRank.SQUARE_OFF, "square-off")
        if parts.order_manager.live or parts.order_recovery.watching:
            parts.order_recovery.work(now_ms)
        if parts.exit_door.goals:
            parts.exit_door.work(now_ms)
            self._feed_wait_seconds = 0.0 if parts.exit_door.is_behind else FEED_WAIT_SECONDS

    def _idle(self, now_ms: int) -> None:
        parts = self._parts
        self._feed_wait_seconds = FEED_WAIT_SECONDS
        if now_ms >= self._upkeep.next_reconcile_ms:
            self._upkeep.reconcile(now_ms)
        parts.order_manager.poll(now_ms)
        parts.emergency.check(now_ms)
        if parts.order_manager.day_loss.open_marks:
            self._feed_watch.judge(now_ms)
        self._work(now_ms)

    def _warm_up(self, event: MarketEvent) -> None:
        """Let strategies see what an earlier process of this run already traded on; their signals are history.

        Its prices mark what is open: the newest of them may be the last that comes.
        """
        self._prices.mark_only(event)
        if isinstance(event, MinuteRow):
            for host in self._parts.strategies:
                if not host.disabled and host.on_minute(event.ts_ms, event) is None:
                    self._report_disabled(host)

    # -- positions ---------------------------------------------------------------------------------------------

    def _report_disabled(self, host: HostedStrategy) -> None:
        strategy_id = host.strategy.strategy_id
        parts = self._parts
        parts.journal.append(EventKind.STRATEGY_DISABLED, self._now_ms, {"strategy": strategy_id, "reason": host.disabled})
        parts.alerts.send(
            Severity.CRITICAL, f"Strategy {strategy_id} is disabled for the day", f"{host.disabled}. Its positions are closed."
        )
        self._close_disabled(host)

    def _close_disabled(self, host: HostedStrategy) -> None:
        """Ask for what a disabled strategy holds, or has on its way in, to be closed."""
        orders = self._parts.order_manager
        held = [p.symbol for p in orders.open_positions() if p.strategy_id == host.strategy_id]
        entering = [o.symbol for o in orders.live.values() if o.rank is None and o.strategy_id == host.strategy_id]
        for symbol in (*held, *entering):
            self._parts.exit_door.want(symbol, ExitRank.STOP, f"strategy disabled: {host.disabled}")

    def on_position(self, symbol: str) -> None:
        """Bring what follows from a symbol's position and orders up to date. Called by the order manager."""
        orders = self._parts.order_manager
        if symbol in orders.overshot:
            self._parts.exit_door.want(symbol, ExitRank.STOP, "an exit traded past the position")
        column = self._columns.get(symbol)
        if column is None:
            return
        quantity, owner = 0, FOREIGN
        position = orders.positions.get(symbol)
        if position is not None and position.quantity:
            quantity, owner = position.quantity, position.strategy_id
        self._prices.protect(symbol, position)
        for host in self._parts.strategies:
            host.positions[column] = quantity if owner == host.strategy_id else 0
            if host.disabled and host.positions[column]:  # an entry that traded after all
                self._close_disabled(host)
        for order in orders.live.values():
            if order.symbol == symbol and order.rank is None and order.strategy_id in self._hosts:
                self._hosts[order.strategy_id].positions[column] += order.side.sign * order.open_quantity

    # -- stopping and ending ----------------------------------------------------------------------------------

    def _take_request(self) -> None:
        request = self._parts.control.poll()
        if request is None:
            return
        if request.action == "stop":
            _log.warning("[SESSION] stop asked for by %s: %s", request.by, request.reason)
            self.request_stop(f"{request.reason} (by {request.by})")
        elif request.action == "reset":
            self._reset_answer = answer_reset(self._parts.emergency, request, self._now_ms)
            self._next_status = 0.0

    def _stopped(self) -> bool:
        """Take a stop one step further. Returns whether it is through."""
        parts = self._parts
        readiness = parts.risk_manager.readiness
        if not self._stop_until:
            self._stop_until = parts.clock.monotonic() + STOP_SECONDS_MAX
            readiness.stopping = readiness.stopping or self._stop_reason
            fate = "are KEPT" if self._plan.on_stop is OnStop.HOLD else "are closed"
            _log.warning("[SESSION] stopping: %s; positions %s", self._stop_reason, fate, extra={"engine_ms": self._now_ms})
        parts.order_manager.sends.withdraw_entries()
        if self._plan.on_stop is OnStop.HOLD:
            return not parts.emergency.closing
        if not self._ending:
            self._ending = True
            parts.feed.hasten()
            parts.exit_door.want_all(ExitRank.SQUARE_OFF, f"stop: {self._stop_reason}")
            parts.exit_door.work(self._now_ms)
        return parts.order_manager.is_flat() or parts.clock.monotonic() >= self._stop_until

    def _finish(self, *, after_fault: bool = False) -> None:
        """Close what is open at the end, unless the plan carries positions or a stop holds them, and no emergency is on."""
        parts, plan = self._parts, self._plan
        orders = parts.order_manager
        self._hurry(False)
        parts.emergency.prove_now()  # whatever a hurried read could not say: engine time may stand still from here on
        holds = not plan.square_off or (bool(self._stop_reason) and plan.on_stop is OnStop.HOLD)
        if holds and not after_fault and not parts.emergency.closing:
            await_answers(orders, self._now_ms)
            orders.poll(self._now_ms)
            orders.commit_journal()
            return
        self._ending = True
        for _ in range(FINISH_ROUNDS_MAX):
            orders.poll(self._now_ms)
            if parts.emergency.take_up(self._now_ms):
                self._publish("FLATTENING")
            parts.emergency.check(self._now_ms)
            if orders.is_flat() and not parts.emergency.closing:
                break
            parts.exit_door.want_all(ExitRank.SQUARE_OFF, "end of data")
            self._work(self._now_ms)
            await_answers(orders, self._now_ms)
            self._publish("FLATTENING" if parts.emergency.closing else "STOPPING")  # a guard must not take it for dead
            self._let_time_pass()
        parts.emergency.check(self._now_ms)
        self._journal_mark(self._now_ms)
        if not orders.is_flat() or parts.emergency.closing:
            held = ", ".join(f"{p.quantity} {p.symbol}" for p in orders.open_positions())
            held = held or ("orders are live" if orders.live else "the broker did not confirm that it is flat")
            parts.alerts.send(Severity.CRITICAL, "NOT FLAT at the end of the session", held)

    def _hurry(self, wanted: bool) -> None:
        """Say whether reads of the broker keep the loop waiting now."""
        if self._parts.sends is not None:
            self._parts.sends.hurry(wanted)

    def _let_time_pass(self) -> None:
        """Wait a moment on the feed; what it says still marks. A feed that fails keeps no position from being closed."""
        try:
            row = self._parts.feed.next_row(FEED_WAIT_SECONDS)
        except Exception as error:  # closing goes on without prices
            row = None
            _log.error("the feed failed while everything is closed: %s", error)
            time.sleep(FEED_WAIT_SECONDS)
        if row is not None and row.ts_ms > self._plan.resume_after_ms:
            self._parts.risk_manager.readiness.feed_ts_ms = row.ts_ms
            self._prices.mark_only(row)
        self._now_ms = self._read_clock(0)

    def _close_after_fault(self, fault: str) -> None:
        try:
            self._now_ms = self._read_clock(0)
            self._parts.order_manager.doubt_submitting(self._now_ms)
            self._parts.emergency.fault(f"engine failure: {fault}", self._now_ms)
            self._finish(after_fault=True)
        except Exception as error:  # the last resort: say so, end non-zero, the guard takes over
            self._is_unclosed = True
            _log.critical("closing after the failure failed too; close the positions by hand", exc_info=error)
            self._parts.alerts.send(Severity.CRITICAL, "The engine failed and could not close", f"{fault}; then {error}")

    # -- what it shows ----------------------------------------------------------------------------------------

    def _journal_mark(self, now_ms: int) -> None:
        loss = self._parts.order_manager.day_loss
        mark = (loss.realised_paise, loss.open_paise, loss.charges_paise)
        if mark != self._last_mark:
            self._last_mark = mark
            self._parts.journal.append(_MARK, now_ms, {"realised": mark[0], "open": mark[1], "charges": mark[2]})
        self._parts.order_manager.commit_journal()

    def _publish(self, state: str) -> None:
        self._parts.control.publish(self.status(state))

    def status(self, state: str) -> dict[str, object]:
        """Return what a person wants to see of the running day. Money in paise, progress 0 to 1."""
        parts = self._parts
        shown = session_status(self._plan, parts.risk_manager, parts.order_manager, parts.emergency, self._now_ms)
        phase = "stopping" if self._stop_reason and not shown["halted"] else shown["phase"]
        own = {"rows": self._rows, "reset": self._reset_answer, "breach_age_ms": self._breach_age_ms}
        own["ticks"] = self._prices.ticks_taken
        own[PROGRESS_KEY] = parts.exit_door.tally.to_status(parts.emergency.adoption.newest, self._now_ms)
        own["differences"] = self._upkeep.differences
        return {"state": state, **shown, "phase": phase, **own}
