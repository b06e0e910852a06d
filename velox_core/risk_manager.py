"""RiskManager: the gate joined to the ledger and the journal, and the only maker of an ApprovedOrder.

- An entry is judged on the newest snapshot, claimed in the ledger in one round trip, and only then approved.
  A conflict is judged again on the fresh snapshot; a ledger that does not answer refuses.
- An exit is never refused by a limit, a halt, a stale price or a store that is down.
- Every answer to a signal is journaled with the numbers that made it, and logged in the safety guide's words.
- After a ledger fault entries stay refused until the ledger was read or rebuilt. What has happened and could not be
  brought into the ledger is such a fault.
- A halt that the ledger could not take is remembered here and joins every snapshot.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from velox_core.decision_journal import DecisionJournal
from velox_core.domain.errors import InvariantError, LedgerUnavailable
from velox_core.domain.events import Body, EventKind
from velox_core.domain.halts import HaltRecord
from velox_core.domain.market.ticks import Instrument
from velox_core.domain.orders import OrderType, Product, Signal, client_order_id
from velox_core.entry_faults import EntryFaults
from velox_core.ports import Alerts, Journal, Lease, RiskLedger, Severity
from velox_core.risk.approval import ApprovedOrder, approve
from velox_core.risk.gate import (
    ExitRequest,
    OrderRate,
    Quote,
    Readiness,
    check_day,
    check_signal,
    check_symbol,
    judge_entry,
    judge_exit,
)
from velox_core.risk.layers import EntryRequest, ReasonCode, Refusal
from velox_core.risk.ledger import (
    Claim,
    Committed,
    Fenced,
    LedgerChange,
    OpenPosition,
    RiskSnapshot,
    apply_change,
    replace_snapshot,
)
from velox_core.risk.limits import RiskLimits
from velox_core.risk.sizing import entry_quantity, worst_price_paise

if TYPE_CHECKING:
    from velox_core.emergency_exit_manager import EmergencyExitManager

COMMIT_ATTEMPTS_MAX: Final = 5

# Members by a module name: reading one off its class costs 0.09 us, and every order passes here.
_MARKET: Final = OrderType.MARKET
_LIMIT: Final = OrderType.LIMIT

_log: Final = logging.getLogger("velox.risk")


class RiskManager:
    """The gate of one account. One instance per engine process.

    Args:
        limits: the configured limits.
        ledger, journal: the stores.
        id_prefix: fixed part of the client order ids (`client_order_id_prefix`).
        epoch: the lease epoch under which this engine commits.
        product: the exchange product of every order.
        first_sequence: where the order numbers of this epoch begin.
        alerts: told once when a store or the lease is lost, when a store is back, and of a position without a price.
        lease: the one that the ledger gave; None renews by the ledger alone, and sends at any age.
    """

    def __init__(
        self,
        *,
        limits: RiskLimits,
        ledger: RiskLedger,
        journal: Journal,
        id_prefix: str,
        epoch: int,
        product: Product = Product.MIS,
        first_sequence: int = 1,
        alerts: Alerts | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.limits = limits
        self.readiness = Readiness()
        self.faults = EntryFaults(self.readiness, alerts)
        self.locks: dict[str, str] = {}  # symbol to every reason for which it is locked
        self.unexplained: dict[str, OpenPosition] = {}  # what the broker holds beyond our books, by symbol
        self._ledger = ledger
        self._lease = lease
        self._journal = journal
        self._decisions = DecisionJournal(journal, limits)
        self.decision_counts = self._decisions.counts
        self.recent_decisions = self._decisions.recent
        self._id_prefix = id_prefix
        self._sequence = first_sequence - 1
        self._epoch = epoch
        self._product = product
        self._rate = OrderRate()
        self._snapshot = self._judged = RiskSnapshot()  # the newest, and the one that the last entry was judged on
        self._emergency: EmergencyExitManager | None = None
        self._recent_exit_refusals: dict[str, ReasonCode] = {}
        self.lock_reasons: dict[str, list[str]] = {}
        self._noted_halts: dict[str, HaltRecord] = {}
        self.ledger_halts: tuple[HaltRecord, ...] = ()  # as the ledger itself last showed them

    # -- the ledger -------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> RiskSnapshot:
        """Return the newest snapshot this process knows."""
        return self._snapshot

    @property
    def product(self) -> Product:
        """Return the exchange product of every order."""
        return self._product

    def open_ledger(self) -> RiskSnapshot:
        """Read the ledger and trust it. Raises LedgerUnavailable."""
        self._take(self._ledger.snapshot())
        self.faults.ledger_is_back()
        return self._snapshot

    def rebuild_ledger(self, snapshot: RiskSnapshot) -> None:
        """Replace the ledger's content by what journal and broker say, and trust it. Raises LedgerUnavailable."""
        self._take(self._ledger.rebuild(snapshot))
        self.faults.ledger_is_back()

    def continue_after(self, order_ids: Iterable[str]) -> None:
        """Number the next order above every given id of this engine's own date, actor and epoch."""
        prefix = self._id_prefix
        for order_id in order_ids:
            number = order_id.removeprefix(prefix)
            if number != order_id and number.isdecimal():
                self._sequence = max(self._sequence, int(number))

    def renew_lease(self) -> None:
        """Keep the lease. One that another engine took stops entries for good; a ledger that is down stops them for now."""
        if self.readiness.fenced or self.readiness.ledger_fault:
            return
        try:
            lease = self._lease
            if not (self._ledger.renew_lease(self._epoch) if lease is None else lease.renew()):
                self.faults.lease_lost(self._epoch, "it was taken over or given back")
        except LedgerUnavailable as error:
            self.faults.ledger_failed(error)

    def _confirm_lease(self) -> Refusal | None:
        """Renew a lease that was not confirmed for a while: an entry decided on an old one would not leave."""
        self.renew_lease()
        if self.readiness.fenced:
            return Refusal(0, ReasonCode.LEASE_LOST, "Another engine holds the lease")
        if self.readiness.ledger_fault:
            return Refusal(0, ReasonCode.LEDGER_UNAVAILABLE, f"Risk ledger unavailable: {self.readiness.ledger_fault}")
        return None

    def latch(self, record: HaltRecord) -> None:
        """Put a halt or clear record into the ledger and read it back. Raises LedgerUnavailable."""
        self._ledger.latch_halt(record)
        self._noted_halts.pop(record.clears, None)
        self._take(self._ledger.snapshot())

    def refresh(self) -> None:
        """Read the ledger for halts that came from elsewhere. One that fails is a fault, until it was rebuilt."""
        if self.readiness.ledger_fault:
            return
        try:
            self._take(self._ledger.snapshot())
        except LedgerUnavailable as error:
            self.faults.ledger_failed(error)

    def note_halt(self, record: HaltRecord) -> None:
        """Refuse entries on a halt whether the ledger could take it or not, until a clear record of it is latched."""
        self._noted_halts[record.halt_id] = record
        self._snapshot = self._with_noted(self._snapshot)

    def forget_halt(self, halt_id: str) -> None:
        """Go by what the ledger says of a halt that a clear record ended in every store."""
        self._noted_halts.pop(halt_id, None)
        self.refresh()

    def _take(self, snapshot: RiskSnapshot) -> None:
        """Trust a snapshot, with every halt in it that this process knows of and the ledger does not."""
        self.ledger_halts = snapshot.halts
        self._snapshot = self._with_noted(snapshot)

    def _with_noted(self, snapshot: RiskSnapshot) -> RiskSnapshot:
        present = {halt.halt_id for halt in snapshot.halts}
        missing = [halt for halt_id, halt in self._noted_halts.items() if halt_id not in present]
        return replace_snapshot(snapshot, halts=(*snapshot.halts, *missing)) if missing else snapshot

    def _commit(self, change: LedgerChange, change_id: str, request: EntryRequest | None = None) -> Refusal | None:
        """Commit a change on the newest snapshot, again after a conflict. Returns a refusal, or None.

        An entry's `request` is judged before each attempt, on the snapshot of that attempt. A fact conflicts only with a
        ledger that was rebuilt.
        """
        for _ in range(COMMIT_ATTEMPTS_MAX):
            known = self._snapshot
            if request is not None:
                self._judged = known
                refusal = judge_entry(request, known, self.limits)
                if refusal is not None:
                    return refusal
            try:
                result = self._ledger.commit(known.version, self._epoch, change, change_id)
            except LedgerUnavailable as error:
                self.faults.ledger_failed(error)
                return Refusal(0, ReasonCode.LEDGER_UNAVAILABLE, f"Risk ledger unavailable: {error}")
            if isinstance(result, Committed):
                if result.snapshot is not None and result.version != known.version + 1:  # a fact, on what others committed
                    self._take(result.snapshot)
                    return None
                after = result.snapshot
                if after is None or self._noted_halts:
                    after = apply_change(known, change)
                if after.version == result.version:
                    self._snapshot = after
                    return None
                text = f"change {change_id} was answered with version {result.version} where {after.version} was due"
                self.faults.ledger_failed(LedgerUnavailable(text))
                return Refusal(0, ReasonCode.LEDGER_UNAVAILABLE, f"Risk ledger unavailable: {text}")
            if isinstance(result, Fenced):
                if self._lease is not None and result.epoch > self._epoch:
                    self._lease.lose()
                self.faults.lease_lost(self._epoch, f"epoch {result.epoch} took it over")
                return Refusal(0, ReasonCode.LEASE_LOST, "Another engine holds the lease")
            self._take(result.snapshot)
        return Refusal(0, ReasonCode.LEDGER_UNAVAILABLE, f"Risk ledger changed {COMMIT_ATTEMPTS_MAX} times while deciding")

    def _commit_fact(self, change: LedgerChange, change_id: str) -> None:
        """Commit what has happened already. What does not get in leaves the ledger behind: a fault, never raised."""
        if self.readiness.ledger_fault:
            return
        refusal = self._commit(change, change_id)
        if refusal is not None and refusal.code is ReasonCode.LEDGER_UNAVAILABLE and not self.readiness.ledger_fault:
            self.faults.ledger_failed(LedgerUnavailable(refusal.text))

    # -- entries ----------------------------------------------------------------------------------------------

    def request_entry(
        self,
        signal: Signal,
        instrument: Instrument | None,
        quote: Quote | None,
        *,
        loss_paise: int,
        cost_paise: int,
        now_ms: int,
    ) -> ApprovedOrder | Refusal:
        """Judge one entry signal and, when every check passes, claim it and approve the order.

        Args:
            signal: what the strategy wants; its quantity is replaced by the fixed lot.
            instrument, quote: the symbol and its newest price, None when unknown.
            loss_paise: the day's loss, marked now.
            cost_paise: round-trip charges and spread of this entry.
            now_ms: engine time, read once for the whole decision.
        Returns: the sealed order, or why not. Either way the decision is appended to the journal.
        """
        limits = self.limits
        quantity = entry_quantity(limits)
        if quantity != signal.quantity:
            _log.info(
                "[RISK_CHECK] %s/%s: Lot size adjusted %s -> %s (fixed lot size)",
                signal.strategy_id, signal.symbol, signal.quantity, quantity,
                extra={"engine_ms": now_ms},
            )  # fmt: skip
        refusal = (
            check_day(self.readiness, limits, now_ms)
            or check_symbol(instrument, quote, self.locks.get(signal.symbol, ""), limits, now_ms)
            or check_signal(signal, quote)
        )
        if refusal is None and not self._rate.left(now_ms, limits.orders_per_second_max):
            refusal = Refusal(0, ReasonCode.ORDER_RATE, f"{limits.orders_per_second_max} entries left in this second already")
        worst_paise = 0 if quote is None else worst_price_paise(quote.price_paise, limits.protection_bps)
        request = EntryRequest(
            signal.strategy_id, signal.symbol, signal.side, quantity, worst_paise, now_ms, loss_paise, cost_paise
        )
        if refusal is None and self._lease is not None and self._lease.is_due:
            refusal = self._confirm_lease()
        self._judged = self._snapshot
        order_id = ""
        if refusal is None:
            order_id = client_order_id(self._id_prefix, self._sequence + 1)
            refusal = self._claim(request, order_id)
            if refusal is None or refusal.code is ReasonCode.LEDGER_UNAVAILABLE:
                self._sequence += 1  # an id whose claim may have reached the ledger is never used for another order
        if refusal is not None:
            self._decisions.note_entry(signal, request, self._judged, refusal, "")
            return refusal
        self._rate.take(now_ms)
        self._decisions.note_entry(signal, request, self._judged, None, order_id)
        return approve(
            client_order_id=order_id,
            symbol=signal.symbol,
            side=signal.side,
            quantity=quantity,
            order_type=_MARKET,
            limit_price_paise=0,
            product=self._product,
            rank=None,
            protection_bps=limits.protection_bps,
        )

    def _claim(self, request: EntryRequest, order_id: str) -> Refusal | None:
        """Judge an entry by the seven layers and hold its slot in the ledger. Returns why not, or None."""
        claim = Claim(
            order_id,
            request.strategy_id,
            request.symbol,
            request.side,
            request.quantity,
            request.quantity * request.worst_price_paise,
            request.now_ms,
        )
        return self._commit(LedgerChange(opens_risk=True, put_claim=claim), order_id, request)

    def refuse(self, signal: Signal, refusal: Refusal, now_ms: int) -> None:
        """Journal and log a signal that was refused before it could be judged (malformed, or of a disabled strategy)."""
        request = EntryRequest(signal.strategy_id, signal.symbol, signal.side, 0, 0, now_ms, 0, 0)
        self._decisions.note_entry(signal, request, self._snapshot, refusal, "")

    # -- exits ------------------------------------------------------------------------------------------------

    def request_exit(self, request: ExitRequest, now_ms: int) -> ApprovedOrder | Refusal:
        """Let a reduce-only order leave, for the open quantity less the exits already working.

        Never asks the ledger or the journal. A refusal of the same reason is journaled once, until it changes.
        """
        quantity, refusal = judge_exit(request.open_quantity, request.working_quantity, request.working_rank, request.rank)
        if refusal is not None:
            if self._recent_exit_refusals.get(request.symbol) is not refusal.code:
                self._recent_exit_refusals[request.symbol] = refusal.code
                self._decisions.note_exit(request, quantity, refusal, "", now_ms)
            return refusal
        self._recent_exit_refusals.pop(request.symbol, None)
        self._sequence += 1
        order_id = client_order_id(self._id_prefix, self._sequence)
        self._decisions.note_exit(request, quantity, None, order_id, now_ms)
        return approve(
            client_order_id=order_id,
            symbol=request.symbol,
            side=request.side,
            quantity=quantity,
            order_type=_LIMIT if request.limit_price_paise else _MARKET,
            limit_price_paise=request.limit_price_paise,
            product=self._product,
            rank=request.rank,
            protection_bps=self.limits.protection_bps,
        )

    # -- what happened to orders ------------------------------------------------------------------------------

    def record_fill(
        self,
        change_id: str,
        *,
        symbol: str,
        position: OpenPosition | None,
        resolved_claim: str | None,
        realised_paise: int,
        charges_paise: int,
    ) -> None:
        """Bring the ledger up to a fill. A fault is remembered (entries refused), never raised: the fill has happened.

        Args:
            change_id: unique per trade.
            symbol: the symbol traded.
            position: its position after the fill, None when flat.
            resolved_claim: the intent whose entry is terminal with this fill, None when it is not.
            realised_paise, charges_paise: the day's totals after the fill.
        """
        if position is None and self.unexplained:
            position = self.unexplained.get(symbol)  # it keeps the slot
        change = LedgerChange(
            is_fact=True,
            drop_claim=resolved_claim,
            put_position=position,
            drop_position=symbol if position is None else None,
            realised_paise=realised_paise,
            charges_paise=charges_paise,
        )
        self._commit_fact(change, change_id)

    def resolve_claim(self, intent_id: str) -> None:
        """Free the slot of an entry that ended without filling further. A ledger fault is remembered, not raised."""
        if intent_id in self._snapshot.claims:
            self._commit_fact(LedgerChange(is_fact=True, drop_claim=intent_id), f"{intent_id}:end")

    def count_unexplained(self, symbol: str, rest: OpenPosition | None, *, is_held: bool) -> None:
        """Give what the broker holds beyond our books a slot of nobody's, unless a position of ours has one; None ends it."""
        self.unexplained.pop(symbol, None)
        if rest is not None:
            self.unexplained[symbol] = rest
        if is_held or (rest is None and symbol not in self._snapshot.positions):
            return
        change = LedgerChange(is_fact=True, put_position=rest, drop_position=symbol if rest is None else None)
        self._commit_fact(change, f"unexplained:{symbol}:{self._epoch}:{self._snapshot.version}")

    def lock(self, symbol: str, reason: str, now_ms: int, *, alert: bool = False, facts: Body | None = None) -> bool:
        """Refuse entries in a symbol until each reason to is gone; exits are untouched. Returns whether the reason is new.

        `alert` tells a person, once for a reason; the journal keeps `facts` beside it.
        """
        if not self.note_lock(symbol, reason):
            return False
        self._journal.append(EventKind.LOCK, now_ms, {"symbol": symbol, "reason": reason, **(facts or {})})
        _log.warning("[LOCK] %s: %s", symbol, reason, extra={"engine_ms": now_ms})
        if alert:
            self.faults.tell(Severity.CRITICAL, f"{symbol} is locked", f"{reason}. No entries in it; exits go on.")
        return True

    def unlock(self, symbol: str, reason: str, now_ms: int, *, why: str = "") -> None:
        """Take one reason back; entries are allowed again when it was the last. `why` goes into the journal."""
        if self.note_unlock(symbol, reason):
            body: Body = {"symbol": symbol, "reason": reason}
            self._journal.append(EventKind.UNLOCK, now_ms, {**body, "why": why} if why else body)
            _log.warning("[UNLOCK] %s: %s%s", symbol, reason, f" - {why}" if why else "", extra={"engine_ms": now_ms})

    def note_lock(self, symbol: str, reason: str) -> bool:
        """Lock without journaling, as when a journal is read back. Returns whether the reason is new."""
        reasons = self.lock_reasons.setdefault(symbol, [])
        if reason in reasons:
            return False
        reasons.append(reason)
        self.locks[symbol] = "; ".join(reasons)
        return True

    def note_unlock(self, symbol: str, reason: str) -> bool:
        """Unlock without journaling. Returns whether the reason was there."""
        reasons = self.lock_reasons.get(symbol, [])
        if reason not in reasons:
            return False
        reasons.remove(reason)
        self.locks[symbol] = "; ".join(reasons)
        if not reasons:
            del self.locks[symbol], self.lock_reasons[symbol]
        return True

    # -- the emergency exit -----------------------------------------------------------------------------------

    def attach_emergency_exit_manager(self, manager: EmergencyExitManager) -> None:
        """Make the emergency exit manager reachable from here, as the safety guide shows it."""
        self._emergency = manager

    def get_emergency_exit_manager(self) -> EmergencyExitManager:
        """Return the emergency exit manager. Raises InvariantError before one is attached."""
        if self._emergency is None:
            raise InvariantError("no emergency exit manager is attached to this risk manager")
        return self._emergency
