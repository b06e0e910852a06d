"""EmergencyExitManager: at the day's loss limit everything is closed, and trading stays off.

- The halt is latched before anything is closed: in the file, the journal and the ledger, whichever answer.
- From then on every step asks for everything that is open to be closed, late fills included, until nothing is. An
  engine that starts on such a halt goes on with it.
- Flat is what the broker says: a read that fails is never "flat". What it works that we do not know of is cancelled, what it
  holds is closed (`adoption`), and a person is told each minute until it is flat.
- What another process latched or cleared is taken up while the engine runs: entries stop, those that wait to leave
  included, before the halt is acknowledged; a halt that closes closes,
  and the record is copied to the stores that lack it. A clear is believed only when every store was read and agrees.
- A halt id is used once, or an old clear record would clear a new halt.
- The limit is a trigger, not a cap; the record keeps the loss at which it was noticed.
- A reset writes a clear record to all three stores, or refuses. A LOSS halt is not reset on its own date.
"""

from __future__ import annotations

import logging
import time
from datetime import date
from typing import Final, TypedDict

from velox_core.adoption import Adoption, Look
from velox_core.domain.errors import BrokerError, HaltedError, InvariantError, NotFlatError, VeloxError
from velox_core.domain.halts import HaltKind, HaltRecord, clear_of, named_ids
from velox_core.domain.money import rupees_text
from velox_core.domain.orders import TERMINAL_STATES, ExitRank
from velox_core.emergency_words import alert_of_exit, tell_of_outside_halts, write_block
from velox_core.exit_door import ExitDoor
from velox_core.foreign_orders import cancel_foreign
from velox_core.halt_stores import HaltStores
from velox_core.loss_warnings import LossWarnings
from velox_core.order_manager import OrderManager
from velox_core.ports import Alerts, Broker, Clock, HaltFile, Journal, Severity
from velox_core.risk_manager import RiskManager

NOT_FLAT_ALERT_INTERVAL_MS = 60_000

_log: Final = logging.getLogger("velox.emergency")


class RiskStatus(TypedDict):
    """Where the day stands against its limit. Money in paise; `headroom` is what may still be lost."""

    halted: bool
    halts: list[dict[str, str | int]]
    realised_paise: int
    open_paise: int
    charges_paise: int
    closing_charges_paise: int
    net_paise: int
    loss_limit_paise: int
    headroom_paise: int
    open_positions: int
    live_orders: int
    locked_symbols: dict[str, str]


class DailySummary(TypedDict):
    """The day in numbers. Money in paise; `decisions` counts by reason code, 'OK' being approved entries."""

    trading_date: str
    net_paise: int
    realised_paise: int
    charges_paise: int
    loss_limit_paise: int
    orders: int
    fills: int
    decisions: dict[str, int]
    halts: list[dict[str, str | int]]
    flat: bool


class EmergencyExitManager:
    """The account's circuit breaker. One instance per engine.

    Args:
        trading_date: the session's date; halts belong to it.
        risk_manager, order_manager, exit_door: what it acts through.
        broker: asked whether the account is flat.
        journal, halt_file: two of the three halt stores (the ledger is reached through the risk manager).
        alerts: told on warning shares, on the trigger and at the end.
        clock: engine time for callers of `trigger` and `reset` who do not name it, None where all of them do; and monotonic
            time for the looks at the journal's halts.
        adoption: brings our books to the broker's positions; None makes one that closes everything.
    """

    def __init__(
        self,
        *,
        trading_date: date,
        risk_manager: RiskManager,
        order_manager: OrderManager,
        exit_door: ExitDoor,
        broker: Broker,
        journal: Journal,
        halt_file: HaltFile,
        alerts: Alerts,
        clock: Clock | None = None,
        adoption: Adoption | None = None,
    ) -> None:
        self.adoption = adoption or Adoption(broker=broker, order_manager=order_manager, risk_manager=risk_manager)
        self.no_proof_before_ms = 0  # engine time; something that was sent may arrive until then
        self._trading_date = trading_date
        self._clock = clock
        self._risk = risk_manager
        self._orders = order_manager
        self._exits = exit_door
        self._broker = broker
        self._halt_file = halt_file
        self._stores = HaltStores(
            halt_file=halt_file,
            journal=journal,
            risk_manager=risk_manager,
            commit_journal=order_manager.commit_journal,
            monotonic=time.monotonic if clock is None else clock.monotonic,
        )
        self._alerts = alerts
        self._closing = False
        self._must_close = False
        self._loss_halted = False  # a LOSS halt of this date is known: the limit is not judged again
        self._next_alert_ms = 0
        self._squared = False  # books and positions agreed once after the square-off began
        self.warnings = LossWarnings(risk_manager.limits.loss_limit_paise)
        self._known: dict[str, HaltRecord] = {}
        self._used_ids: set[str] = set()
        self._number_prefix = ""  # of new halt ids
        self._doubted: frozenset[str] = frozenset()  # damage of the halt file that one look found

    # -- the trigger ------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Return whether any halt is known to be active."""
        return bool(self._known)

    @property
    def closing(self) -> bool:
        """Return whether an emergency exit is under way and not yet proven flat."""
        return self._closing

    @property
    def halt_ids(self) -> list[str]:
        """Return the ids of the halts that this engine heeds, oldest first."""
        return list(self._known)

    def load(self) -> tuple[HaltRecord, ...]:
        """Read the three stores; the strictest rules. A journal that cannot be read means halted.

        With a halt among them that closes, `check` goes on closing what is open.
        """
        reading = self._stores.read()
        self._used_ids.update(reading.used_ids)
        found = dict(reading.active)
        if reading.journal_problem:
            self._number_prefix = "U"  # what the journal has cleared is not known: a series of its own
            record = self._record(HaltKind.FAULT, reading.journal_problem, "engine", 0)
            found[record.halt_id] = record
        self._known = found
        self._judge_known()
        for halt in found.values():
            self._risk.note_halt(halt)
        self._stores.complete(reading, list(reading.active.values()), although_unread=False)
        return tuple(found.values())

    def _judge_known(self) -> None:
        """Decide what the known halts ask for together: the strictest of them rules."""
        self._must_close = any(halt.closes for halt in self._known.values())
        self._loss_halted = any(self._is_todays_loss(halt) for halt in self._known.values())

    def take_up(self, now_ms: int) -> bool:
        """Take up what other processes latched or cleared. Returns whether anything did; cheap when nothing did."""
        if not self._stores.has_news():
            return False
        reading = self._stores.read()
        self._used_ids.update(reading.used_ids)
        fresh = self._believed([halt for halt_id, halt in reading.active.items() if halt_id not in self._known])
        ended = [h for h in self._known.values() if reading.proves_cleared(h.halt_id) and not self._is_todays_loss(h)]
        must_have_closed = self._must_close
        for halt in fresh:
            self._known[halt.halt_id] = halt
            self._risk.note_halt(halt)
        for halt in ended:
            del self._known[halt.halt_id]
            self._risk.forget_halt(halt.halt_id)
            _log.warning("Halt %s was cleared from outside", halt.halt_id, extra={"engine_ms": now_ms})
        self._judge_known()
        if fresh:
            self._orders.sends.withdraw_entries()
            self._stores.complete(reading, fresh, although_unread=True)
            loss_paise = self._orders.day_loss.loss_paise
            tell_of_outside_halts(self._alerts, fresh, loss_paise=loss_paise, now_ms=now_ms)
        if self._must_close and not must_have_closed:
            limit_paise = self._risk.limits.loss_limit_paise
            cause = next(halt for halt in self._known.values() if halt.closes)
            write_block(cause, (), loss_paise=self._orders.day_loss.loss_paise, limit_paise=limit_paise, now_ms=now_ms)
            self._begin_closing(now_ms)
        return bool(fresh or ended)

    def _believed(self, fresh: list[HaltRecord]) -> list[HaltRecord]:
        """Return the new halts, without damage of the halt file that is seen for the first time: a line may be on its way."""
        damage = frozenset(halt.halt_id for halt in fresh if halt.is_damage)
        first_seen, self._doubted = damage - self._doubted, damage
        if first_seen:
            self._stores.read_again()
        return [halt for halt in fresh if halt.halt_id not in first_seen]

    def check(self, now_ms: int) -> None:
        """Judge the loss after a price or a fill, and act when it reaches the limit. O(1) while it does not.

        A halt of another kind leaves positions open, or closes them slowly: the limit is judged all the same.
        """
        if not self._loss_halted:
            loss = self._orders.day_loss
            if loss.loss_at_most_paise >= self.warnings.next_paise:
                limit_paise = self._risk.limits.loss_limit_paise
                if loss.reaches(limit_paise):
                    self.trigger_loss(now_ms)
                elif loss.reaches(self.warnings.next_paise):
                    self._warn(loss.loss_paise, limit_paise, now_ms)
        if self._must_close and not (self._is_flat() and self._risk.unexplained.keys() <= self.adoption.kept.keys()):
            self._closing = True
        if self._closing:
            self._continue_closing(now_ms)

    def _is_todays_loss(self, halt: HaltRecord) -> bool:
        return halt.kind is HaltKind.LOSS and halt.trading_date == self._trading_date

    def _warn(self, loss_paise: int, limit_paise: int, now_ms: int) -> None:
        reached = self.warnings.passed(loss_paise)
        if reached:
            text = f"Daily loss {rupees_text(loss_paise)} is past {reached} % of the limit {rupees_text(limit_paise)}"
            _log.warning("[LOSS] %s", text, extra={"engine_ms": now_ms})
            self._alerts.send(Severity.WARNING, f"Daily loss past {reached} % of the limit", text)

    def trigger_loss(self, now_ms: int) -> HaltRecord:
        """Halt for the day because the loss reached the limit, and close everything."""
        loss_paise = self._orders.day_loss.loss_paise
        limit_paise = self._risk.limits.loss_limit_paise
        reason = f"daily loss {rupees_text(loss_paise)} reached the limit {rupees_text(limit_paise)}"
        return self._trigger(HaltKind.LOSS, reason, "engine", now_ms)

    def trigger(self, reason: str, by: str, now_ms: int | None = None) -> HaltRecord:
        """Halt because a person or another part asks for it, and close everything.

        Args:
            reason, by: one sentence for people, and who asks; both are in the record.
            now_ms: engine time, epoch ms; the clock's when it is left out.
        Returns: the halt, as it was latched.
        """
        return self._trigger(HaltKind.MANUAL, reason, by, self._time(now_ms))

    def fault(self, reason: str, now_ms: int) -> HaltRecord:
        """Halt because this system can no longer be trusted, and close everything."""
        return self._trigger(HaltKind.FAULT, reason, "engine", now_ms)

    def _time(self, now_ms: int | None) -> int:
        if now_ms is not None:
            return now_ms
        if self._clock is None:
            raise InvariantError("this emergency exit manager has no clock: name the engine time")
        return self._clock.now_ms()

    def _trigger(self, kind: HaltKind, reason: str, by: str, now_ms: int) -> HaltRecord:
        self._orders.sends.withdraw_entries()
        record = self._record(kind, reason, by, now_ms)
        self._known[record.halt_id] = record
        self._loss_halted = self._loss_halted or kind is HaltKind.LOSS
        failed = self._stores.latch(record)
        self._risk.note_halt(record)
        self.close_for(record, failed, now_ms)
        return record

    def close_for(self, record: HaltRecord, failed: list[str], now_ms: int, *, is_told: bool = False) -> None:
        """Tell of a halt that is latched, and begin to close everything.

        Args:
            record: the halt; entries are refused on it from here on.
            failed: the stores that did not take it, with why.
            now_ms: engine time.
            is_told: whoever closed before told of this emergency already.
        """
        self._known[record.halt_id] = record
        self._risk.note_halt(record)
        if not is_told:
            loss_paise, limit_paise = self._orders.day_loss.loss_paise, self._risk.limits.loss_limit_paise
            write_block(record, failed, loss_paise=loss_paise, limit_paise=limit_paise, now_ms=now_ms)
            alert_of_exit(self._alerts, record, loss_paise=loss_paise, limit_paise=limit_paise)
        self._must_close = True
        self._begin_closing(now_ms)

    def _begin_closing(self, now_ms: int) -> None:
        self._closing = True
        self._next_alert_ms = now_ms + NOT_FLAT_ALERT_INTERVAL_MS
        self.adoption.look_again()  # close what the broker holds, not what we last heard of
        self._continue_closing(now_ms)

    def _record(self, kind: HaltKind, reason: str, by: str, now_ms: int) -> HaltRecord:
        day = self._trading_date
        self._used_ids.update(named_ids(self._halt_file.records()))
        self._used_ids.update(named_ids(self._risk.snapshot.halts))
        number = 1
        while (halt_id := f"{day:%Y%m%d}-{kind.value}-{self._number_prefix}{number}") in self._used_ids:
            number += 1
        self._used_ids.add(halt_id)
        return HaltRecord(halt_id=halt_id, kind=kind, trading_date=day, reason=reason, by=by, at_ms=now_ms)

    def _continue_closing(self, now_ms: int) -> None:
        found = self.bring_books_up(now_ms)
        self._exits.want_all(ExitRank.EMERGENCY, "emergency exit")
        self._exits.work(now_ms)
        if found is not None and self._is_flat():
            if found.working:
                cancel_foreign(self._orders, now_ms, left_alone=self._exits.left_alone)
            elif not found.lines and not self.adoption.converted and now_ms >= self.no_proof_before_ms:
                self._finish_closing(now_ms)
                return
        if now_ms >= self._next_alert_ms:
            self._next_alert_ms = now_ms + NOT_FLAT_ALERT_INTERVAL_MS
            held = ", ".join(f"{p.quantity} {p.symbol}" for p in self._orders.open_positions())
            gone = "".join(f" {shares} {symbol} were CONVERTED." for symbol, shares in self.adoption.converted.items())
            text = f"By our books: {held or 'no position'}, {len(self._orders.live)} live orders.{gone} Closing goes on."
            text = " ".join((text, *(f"{why}." for why in self._orders.unresolved_exits.values())))
            self._alerts.send(Severity.CRITICAL, "Emergency exit: NOT FLAT yet", text)

    def continue_closing(self, now_ms: int) -> bool:
        """Take the closing one step further, without judging the loss. Returns whether it still goes on."""
        if self._closing:
            self._continue_closing(now_ms)
        return self._closing

    def bring_books_up(self, now_ms: int) -> Look | None:
        """Ask the broker what it holds, at most once a second, and have the exits go by it. Returns its answer, if any."""
        found = self.adoption.look(now_ms)
        self._exits.held_back = self.adoption.unsettled
        self._exits.left_alone = self.adoption.left_alone
        return found

    def square_off_books(self, now_ms: int) -> None:
        """Bring our books to the broker's positions before a square-off, until they agree once."""
        if not self._squared and not self._closing:
            self.bring_books_up(now_ms)
            self._squared = self.adoption.agrees

    def _is_flat(self) -> bool:
        """Return whether, by our own books, nothing is live or held but what is left alone."""
        kept = self.adoption.kept
        orders = self._orders
        return orders.is_flat() or (bool(kept) and not orders.live and all(p.symbol in kept for p in orders.open_positions()))

    def prove_now(self) -> None:
        """Have the next check ask the broker at once whether all is flat, if our own books say so."""
        self.adoption.look_again()

    def _finish_closing(self, now_ms: int) -> None:
        self._closing = False
        loss_paise = self._orders.day_loss.loss_paise
        text = f"The broker confirms: no position, no working order. Daily P&L {rupees_text(-loss_paise)}. Trading is off."
        _log.critical("FLAT: %s", text, extra={"engine_ms": now_ms})
        self._alerts.send(Severity.CRITICAL, "Emergency exit finished: FLAT", text)

    def broker_exposure(self) -> list[str] | None:
        """Return what the broker still holds or works for the day's product, as text; None when it does not answer."""
        try:
            orders = self._broker.orders()  # first: what it calls ended is in the positions that are read after it
            positions = self._broker.positions()
        except BrokerError as error:
            _log.error("The broker's book could not be read: %s", error)
            return None
        product = self._risk.product
        held = [f"{p.quantity} {p.symbol} {p.product.value}" for p in positions if p.quantity and p.product is product]
        working = [o for o in orders if o.state not in TERMINAL_STATES and o.product is product]
        return held + [f"{o.state.value} order {o.broker_order_id} {o.symbol}" for o in working]

    # -- the end ----------------------------------------------------------------------------------------------

    def reset(self, reason: str, by: str, now_ms: int | None = None, *, session_over: bool = False) -> list[HaltRecord]:
        """Clear every active halt, in all three stores; the end of a session leaves those of a later date.

        Args:
            reason, by: for the record.
            now_ms: engine time, epoch ms; the clock's when it is left out.
            session_over: True when the halts' own session has ended; without it a LOSS halt stays.
        Returns: the clear records.
        Raises: NotFlatError while anything is open; HaltedError for a LOSS halt on its own date; VeloxError when a
            store cannot be read, or does not take the record (the halt then stays).
        """
        now_ms = self._time(now_ms)
        exposure = self.broker_exposure()
        if exposure is None:
            raise VeloxError("reset refused: the broker does not answer, so flat cannot be proven; try again when it does")
        if exposure or not self._orders.is_flat():
            raise NotFlatError(
                f"reset refused: not flat ({'; '.join(exposure) or 'orders are live'}); "
                "run the engine again first, it squares off"
            )
        self._read_to_reset(now_ms)
        active = tuple(halt for halt in self._known.values() if not session_over or halt.trading_date <= self._trading_date)
        for halt in active:
            if halt.kind is HaltKind.LOSS and not session_over and halt.trading_date == self._trading_date:
                raise HaltedError(
                    f"reset refused: {halt.halt_id} is a LOSS halt of {halt.trading_date}; it ends with that day's end of day"
                )
        clears = []
        for halt in active:
            record = clear_of(halt, reason=reason, by=by, at_ms=now_ms)
            failed = self._stores.clear(halt, record)
            if failed:
                self._risk.note_halt(halt)
                raise VeloxError(f"reset of {halt.halt_id} is incomplete, it stays halted: {failed}")
            del self._known[halt.halt_id]
            clears.append(record)
            _log.warning("Halt %s cleared by %s: %s", halt.halt_id, by, reason, extra={"engine_ms": now_ms})
        self._closing = self._must_close = self._loss_halted = False
        return clears

    def _read_to_reset(self, now_ms: int) -> None:
        """Read the stores, all of them, before one of their halts is cleared.

        Raises: VeloxError when one cannot be read: it may hold a halt that nobody sees; HaltedError when another process
            latched one just now: whoever asked for the reset has not seen it.
        """
        known = set(self._known)
        self.take_up(now_ms)
        self._risk.refresh()
        reading = self._stores.read()
        self._stores.read_again()
        problems = [problem for problem in (reading.journal_problem, reading.ledger_problem) if problem]
        if problems:
            raise VeloxError(f"reset refused, it stays halted: {'; '.join(problems)}; try again when all three stores answer")
        fresh = sorted((self._known.keys() | reading.active.keys()) - known)
        if fresh:
            raise HaltedError(f"reset refused: {', '.join(fresh)} came meanwhile; see velox status, then ask again")

    # -- views ------------------------------------------------------------------------------------------------

    def get_risk_status(self) -> RiskStatus:
        """Return where the day stands against its limit."""
        loss = self._orders.day_loss
        loss_paise = loss.loss_paise
        limit_paise = self._risk.limits.loss_limit_paise
        return RiskStatus(
            halted=self.active,
            halts=[halt.to_body() for halt in self._known.values()],
            realised_paise=loss.realised_paise,
            open_paise=loss.open_paise,
            charges_paise=loss.charges_paise,
            closing_charges_paise=loss.closing_charges_paise(),
            net_paise=-loss_paise,
            loss_limit_paise=limit_paise,
            headroom_paise=max(limit_paise - loss_paise, 0),
            open_positions=len(self._orders.open_positions()),
            live_orders=len(self._orders.live),
            locked_symbols=dict(self._risk.locks),
        )

    def get_daily_summary(self) -> DailySummary:
        """Return the day in numbers."""
        loss = self._orders.day_loss
        return DailySummary(
            trading_date=self._trading_date.isoformat(),
            net_paise=-loss.loss_paise,
            realised_paise=loss.realised_paise,
            charges_paise=loss.charges_paise,
            loss_limit_paise=self._risk.limits.loss_limit_paise,
            orders=len(self._orders.orders),
            fills=self._orders.fill_count,
            decisions=dict(sorted(self._risk.decision_counts.items())),
            halts=[halt.to_body() for halt in self._known.values()],
            flat=self._orders.is_flat(),
        )
