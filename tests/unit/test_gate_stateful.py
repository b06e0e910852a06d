"""The gate under any sequence of entries, fills, exits, halts and outages, against rules written down a second time.

The rules here are a plain list of conditions over plain sets. After each step no limit is passed, whatever the ledger,
the journal or another process did; a refused entry has changed nothing; and an exit was never refused by anything but the
absence of something to exit.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes.rig import DAY, NOW_MS, UNIVERSE, Rig, entry_signal, make_limits
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.orders import ExitRank, Side
from velox_core.ledger.memory import MemoryLedger
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.gate import ExitRequest, Quote
from velox_core.risk.layers import ReasonCode
from velox_core.risk.ledger import Claim, LedgerChange, OpenPosition

LOT, WINDOW_MS, RATE = 2, 5_000, 3
PER_STRATEGY, IN_ALL, SIZE_PAISE, LOSS_PAISE = 2, 3, 25_000, 200_000
STRATEGIES = ("alpha", "beta")
SYMBOLS = st.sampled_from(UNIVERSE)
OWNERS = st.sampled_from(STRATEGIES)
SIDES = st.sampled_from(Side)
# at 1 % protection and a lot of 2, a price of 123.75 makes 249.98 rupees, 123.80 makes 250.08
PRICES = st.sampled_from((10_000, 10_000, 10_000, 5, 12_370, 12_375, 12_380))
LOSSES = st.sampled_from((0, 0, 0, 0, -50_000, LOSS_PAISE - 101, LOSS_PAISE - 100))
COST_PAISE = 100


class GateMachine(RuleBasedStateMachine):
    """One gate, and what a careful person would have written on paper."""

    def __init__(self) -> None:
        super().__init__()
        limits = make_limits(
            fixed_lot_size=LOT,
            dedup_window_ms=WINDOW_MS,
            max_position_size_paise=SIZE_PAISE,
            max_positions_per_strategy=PER_STRATEGY,
            max_total_positions=IN_ALL,
            max_daily_loss_paise=LOSS_PAISE,
            orders_per_second_max=RATE,
        )
        self.rig = Rig(limits)
        self.now_ms = NOW_MS
        self.pending: dict[str, tuple[str, str, Side]] = {}  # claims: strategy, symbol, side
        self.stranded: set[str] = set()  # claims whose reply was lost: nobody resolves them in this epoch
        self.held: dict[str, tuple[str, int]] = {}  # symbol: strategy, signed quantity
        self.entered_ms: dict[tuple[str, str, Side], int] = {}
        self.sent_ms: list[int] = []
        self.halts: list[HaltRecord] = []
        self.locked: set[str] = set()
        self.number = 0

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def content(self) -> tuple[Any, ...]:
        """Return everything that a decision reads or changes, but for the journal of decisions."""
        snapshot = self.rig.ledger.inner.snapshot()
        readiness = {name: getattr(self.rig.risk.readiness, name) for name in self.rig.risk.readiness.__slots__}
        return (
            snapshot.version,
            dict(snapshot.claims),
            dict(snapshot.positions),
            snapshot.halts,
            readiness,
            dict(self.rig.risk.locks),
        )

    # -- the rules, a second time ---------------------------------------------------------------------------------

    def occupied(self, strategy: str | None = None) -> set[str]:
        """Return the symbols that are held or being entered, by one strategy or by anybody."""
        held = {symbol for symbol, (owner, _) in self.held.items() if strategy in (None, owner)}
        entering = {s for owner, s, _ in self.pending.values() if strategy in (None, owner) and s not in self.held}
        return held | entering

    def forbidden(self, strategy: str, symbol: str, side: Side, price: int, loss: int) -> bool:
        readiness = self.rig.risk.readiness
        last_ms = self.entered_ms.get((strategy, symbol, side))
        worst_paise = -(-price * 10_100 // 10_000)
        return bool(
            readiness.ledger_fault
            or readiness.journal_fault
            or readiness.stopping
            or symbol in self.locked
            or sum(1 for at_ms in self.sent_ms if self.now_ms - at_ms < 1_000) >= RATE
            or self.halts
            or (last_ms is not None and self.now_ms - last_ms < WINDOW_MS)
            or symbol in self.occupied()
            or LOT * worst_paise > SIZE_PAISE
            or len(self.occupied(strategy)) >= PER_STRATEGY
            or len(self.occupied()) >= IN_ALL
            or loss + COST_PAISE >= LOSS_PAISE
        )

    # -- entries ----------------------------------------------------------------------------------------------------

    @rule(strategy=OWNERS, symbol=SYMBOLS, side=SIDES, price=PRICES, loss=LOSSES, asked=st.integers(1, 50))
    def enter(self, strategy: str, symbol: str, side: Side, price: int, loss: int, asked: int) -> None:
        before, sent = self.content(), len(self.rig.broker.placed)
        refused = self.forbidden(strategy, symbol, side, price, loss)
        answer = self.ask(strategy, symbol, side, price, loss, asked)
        assert len(self.rig.broker.placed) == sent, "a decision sent something"
        if not isinstance(answer, ApprovedOrder):
            assert refused, f"refused for no reason on paper: {answer.text}"
            assert self.content() == before, f"{answer.code} left something changed"
            return
        assert not refused, "approved against the paper"
        assert (answer.quantity, answer.symbol, answer.side, answer.rank) == (LOT, symbol, side, None)
        assert answer.client_order_id not in self.pending
        self.note_entry(answer.client_order_id, strategy, symbol, side)
        self.sent_ms.append(self.now_ms)

    @rule(owners=st.sampled_from((("alpha",) * 5, ("beta",) * 5, ("alpha", "beta") * 3)), price=PRICES, side=SIDES, loss=LOSSES)
    def enter_everything(self, owners: tuple[str, ...], price: int, side: Side, loss: int) -> None:
        """Run against every limit when all is well: all symbols, one after another."""
        self.everything_is_mended()
        for symbol, owner in zip(UNIVERSE, owners, strict=False):
            self.enter(strategy=owner, symbol=symbol, side=side, price=price, loss=loss, asked=1)
            self.time_passes(400)

    @rule(strategy=OWNERS, symbol=SYMBOLS, side=SIDES, ms=st.sampled_from((WINDOW_MS - 1, WINDOW_MS)))
    def enter_leave_and_enter_again(self, strategy: str, symbol: str, side: Side, ms: int) -> None:
        """The same signal again at the edge of the window, after the first was filled and closed."""
        known = set(self.pending)
        self.enter(strategy=strategy, symbol=symbol, side=side, price=10_000, loss=0, asked=1)
        for intent_id in set(self.pending) - known:
            del self.pending[intent_id]
            self.rig.risk.resolve_claim(intent_id)
        self.time_passes(ms)
        self.enter(strategy=strategy, symbol=symbol, side=side, price=10_000, loss=0, asked=1)

    def ask(self, strategy: str, symbol: str, side: Side, price: int, loss: int, asked: int) -> Any:
        signal = entry_signal(symbol, side, strategy=strategy, quantity=asked)
        return self.rig.ask(signal, self.now_ms, quote=Quote(price, self.now_ms), loss_paise=loss, cost_paise=COST_PAISE)

    def note_entry(self, intent_id: str, strategy: str, symbol: str, side: Side) -> None:
        self.pending[intent_id] = (strategy, symbol, side)
        self.entered_ms[strategy, symbol, side] = self.now_ms

    @rule(strategy=OWNERS, symbol=SYMBOLS, side=SIDES)
    def enter_while_another_process_enters_first(self, strategy: str, symbol: str, side: Side) -> None:
        """Another engine takes the symbol between our look and our commit: the answer is for the fresh state."""
        if self.forbidden(strategy, symbol, side, 10_000, 0) or self.forbidden("alpha", symbol, Side.BUY, 10_000, 0):
            return
        rival_id = f"RIVAL{self.next_number()}"

        def rival(ledger: MemoryLedger) -> None:
            claim = Claim(rival_id, "alpha", symbol, Side.BUY, LOT, 20_200, self.now_ms)
            ledger.commit(ledger.snapshot().version, self.rig.epoch, LedgerChange(opens_risk=True, put_claim=claim), rival_id)

        self.rig.ledger.conflicts, self.rig.ledger.rival = 1, rival
        answer = self.ask(strategy, symbol, side, 10_000, 0, 1)
        self.rig.ledger.rival = None
        self.note_entry(rival_id, "alpha", symbol, Side.BUY)
        assert not isinstance(answer, ApprovedOrder), "two entries in one symbol"
        assert answer.code in (ReasonCode.DUPLICATE_ORDER, ReasonCode.POSITION_EXISTS)

    @rule(strategy=OWNERS, symbol=SYMBOLS, side=SIDES)
    def enter_and_lose_the_reply(self, strategy: str, symbol: str, side: Side) -> None:
        """The claim may be in: its slot stays taken, nothing is sent, and nothing else is until the ledger was read."""
        if self.forbidden(strategy, symbol, side, 10_000, 0):
            return
        self.rig.ledger.lose_reply = True
        known = set(self.rig.ledger.inner.snapshot().claims)
        answer = self.ask(strategy, symbol, side, 10_000, 0, 1)
        assert not isinstance(answer, ApprovedOrder)
        assert answer.code is ReasonCode.LEDGER_UNAVAILABLE
        (intent_id,) = set(self.rig.ledger.inner.snapshot().claims) - known
        self.note_entry(intent_id, strategy, symbol, side)
        self.stranded.add(intent_id)

    # -- what becomes of them ---------------------------------------------------------------------------------------

    def resolvable(self) -> list[str]:
        return sorted(set(self.pending) - self.stranded)

    @precondition(lambda self: self.resolvable() and not self.rig.risk.readiness.ledger_fault)
    @rule(data=st.data(), quantity=st.integers(0, LOT))
    def entry_ends(self, data: st.DataObject, quantity: int) -> None:
        """Filled, or partly, or not at all."""
        intent_id = data.draw(st.sampled_from(self.resolvable()))
        strategy, symbol, side = self.pending.pop(intent_id)
        if quantity:
            self.held[symbol] = (strategy, quantity * side.sign)
            self.record(symbol, resolved=intent_id)
        else:
            self.rig.risk.resolve_claim(intent_id)

    @precondition(lambda self: self.resolvable() and not self.rig.risk.readiness.ledger_fault)
    @rule(data=st.data())
    def entry_fills_a_part_and_works_on(self, data: st.DataObject) -> None:
        strategy, symbol, side = self.pending[data.draw(st.sampled_from(self.resolvable()))]
        self.held[symbol] = (strategy, side.sign)
        self.record(symbol, resolved=None)

    def record(self, symbol: str, resolved: str | None) -> None:
        position = None
        if symbol in self.held:
            owner, quantity = self.held[symbol]
            position = OpenPosition(symbol, owner, quantity, quantity * 10_000, self.now_ms)
        self.rig.risk.record_fill(
            f"T{self.next_number()}",
            symbol=symbol,
            position=position,
            resolved_claim=resolved,
            realised_paise=0,
            charges_paise=0,
        )

    @precondition(lambda self: self.held and not self.rig.risk.readiness.ledger_fault)
    @rule(data=st.data())
    def position_is_closed(self, data: st.DataObject) -> None:
        symbol = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[symbol]
        self.record(symbol, resolved=None)

    # -- exits --------------------------------------------------------------------------------------------------------

    @rule(symbol=SYMBOLS, rank=st.sampled_from(ExitRank), open_quantity=st.integers(0, 9), working=st.integers(0, 9))
    def leave(self, symbol: str, rank: ExitRank, open_quantity: int, working: int) -> None:
        """Whatever is down, halted, locked or late: what is open and not yet on its way out may leave."""
        before = self.content()
        request = ExitRequest(
            strategy_id="alpha",
            symbol=symbol,
            side=Side.SELL,
            open_quantity=open_quantity,
            working_quantity=working,
            working_rank=ExitRank.STOP if working else None,
            rank=rank,
            reason="test",
        )
        answer = self.rig.risk.request_exit(request, self.now_ms)
        if open_quantity > working:
            assert isinstance(answer, ApprovedOrder)
            assert (answer.quantity, answer.rank) == (open_quantity - working, rank)
        else:
            assert not isinstance(answer, ApprovedOrder)
            assert answer.code in (ReasonCode.NOTHING_TO_EXIT, ReasonCode.EXIT_WORKING)
        assert self.content() == before, "an exit asked or changed a store"

    # -- the world ----------------------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from((0, 1, 999, 1_000, WINDOW_MS - 1, WINDOW_MS, 60_000)))
    def time_passes(self, ms: int) -> None:
        self.now_ms = min(self.now_ms + ms, NOW_MS + 5 * 3_600_000)
        self.rig.risk.readiness.feed_ts_ms = self.now_ms

    @rule(known_to_ledger=st.booleans())
    def halt(self, known_to_ledger: bool) -> None:
        record = HaltRecord(
            halt_id=f"H{self.next_number()}",
            kind=HaltKind.MANUAL,
            trading_date=DAY,
            reason="test",
            by="test",
            at_ms=self.now_ms,
        )
        if known_to_ledger:
            self.rig.ledger.inner.latch_halt(record)  # another process did
            self.rig.risk.open_ledger() if not self.rig.ledger.down else self.rig.risk.note_halt(record)
        else:
            self.rig.risk.note_halt(record)
        self.halts.append(record)

    @precondition(lambda self: self.halts and not self.rig.ledger.down)
    @rule()
    def clear_every_halt(self) -> None:
        for record in self.halts:
            self.rig.risk.latch(record)
            self.rig.risk.latch(
                HaltRecord(
                    halt_id=f"{record.halt_id}-CLEAR",
                    kind=record.kind,
                    trading_date=DAY,
                    reason="test",
                    by="test",
                    at_ms=self.now_ms,
                    clears=record.halt_id,
                )
            )
        self.halts.clear()

    def everything_is_mended(self) -> None:
        self.ledger_comes_back_and_is_read()
        self.clear_every_halt()
        self.journal_answers_or_does_not("")
        for symbol in sorted(self.locked):
            self.symbol_is_locked_or_freed(symbol)

    @rule()
    def ledger_goes_down(self) -> None:
        self.rig.ledger.down = True
        self.rig.risk.renew_lease()  # the next heartbeat sees it

    @precondition(lambda self: self.rig.risk.readiness.ledger_fault)
    @rule()
    def ledger_comes_back_and_is_read(self) -> None:
        self.rig.ledger.down = False
        self.rig.risk.open_ledger()

    @rule(fault=st.sampled_from(("", "the disk is full")))
    def journal_answers_or_does_not(self, fault: str) -> None:
        self.rig.risk.readiness.journal_fault = fault

    @rule(symbol=SYMBOLS)
    def symbol_is_locked_or_freed(self, symbol: str) -> None:
        if symbol in self.locked:
            self.locked.discard(symbol)
            self.rig.risk.unlock(symbol, "test", self.now_ms)
        else:
            self.locked.add(symbol)
            self.rig.risk.lock(symbol, "test", self.now_ms)

    # -- what always holds ----------------------------------------------------------------------------------------------

    @invariant()
    def ledger_holds_what_the_paper_says(self) -> None:
        snapshot = self.rig.ledger.inner.snapshot()
        assert {key: (c.strategy_id, c.symbol, c.side) for key, c in snapshot.claims.items()} == self.pending
        assert {symbol: (p.strategy_id, p.quantity) for symbol, p in snapshot.positions.items()} == self.held

    @invariant()
    def no_limit_is_ever_passed(self) -> None:
        snapshot = self.rig.ledger.inner.snapshot()
        symbols = set(snapshot.positions) | {claim.symbol for claim in snapshot.claims.values()}
        assert len(symbols) <= IN_ALL
        for strategy in STRATEGIES:
            own = {p.symbol for p in snapshot.positions.values() if p.strategy_id == strategy}
            own |= {c.symbol for c in snapshot.claims.values() if c.strategy_id == strategy}
            assert len(own) <= PER_STRATEGY
        assert len({claim.symbol for claim in snapshot.claims.values()}) == len(snapshot.claims), "two entries in one symbol"
        assert all(claim.notional_paise <= SIZE_PAISE for claim in snapshot.claims.values())
        assert all(sum(1 for at in self.sent_ms if ms <= at < ms + 1_000) <= RATE for ms in self.sent_ms)


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=45, stateful_step_count=40, deadline=None, derandomize=True)
