from __future__ import annotations

import json
import logging
from datetime import date

import pytest

from tests.fakes.outside import FakeClock
from tests.fakes.rig import DAY, NOW_MS, Rig, entry_signal, make_limits
from velox_core.domain.errors import HaltedError, InvariantError, JournalUnavailable, NotFlatError, VeloxError
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord, active_halts
from velox_core.domain.orders import ExitRank, OrderState, Product, Side
from velox_core.emergency_exit_manager import EmergencyExitManager
from velox_core.ports import SendStatus
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.layers import ReasonCode, Refusal

S = OrderState


def record(kind: HaltKind = HaltKind.LOSS, number: int = 1, *, day: date = DAY, clears: str = "") -> HaltRecord:
    halt_id = f"{day:%Y%m%d}-{kind.value}-{number}" if not clears else f"{clears}-CLEAR"
    return HaltRecord(halt_id=halt_id, kind=kind, trading_date=day, reason="before", by="engine", at_ms=1, clears=clears)


def exits(rig: Rig) -> list[ApprovedOrder]:
    return [order for order in rig.broker.placed if order.rank is not None]


def is_closing(rig: Rig) -> bool:
    return rig.emergency.closing


def lose(rig: Rig, paise: int, symbol: str = "AAA") -> None:
    """Mark a held symbol so that the day's loss is this much."""
    position = rig.orders.positions[symbol]
    rig.day_loss.mark(0, position.average_price_paise - paise)


def fill_exits(rig: Rig, price_paise: int = 10_000) -> None:
    for line in list(rig.broker.book.values()):
        if line.state is S.OPEN:
            rig.broker.fill(line.broker_order_id, line.quantity - line.filled, price_paise)
    rig.orders.poll(NOW_MS)


def losing_rig() -> Rig:
    rig = Rig(make_limits(max_daily_loss_paise=5_000))
    rig.hold()
    return rig


# -- the trigger ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "triggers"), [(4_999, False), (5_000, True), (5_001, True)])
def test_check_triggers_at_the_limit(loss: int, triggers: bool) -> None:
    rig = losing_rig()
    lose(rig, loss)
    rig.emergency.check(NOW_MS)
    assert rig.emergency.active is triggers
    assert bool(exits(rig)) is triggers
    assert bool(rig.halt_file.kept) is triggers


def test_breach_latches_the_halt_in_all_three_stores_before_anything_is_closed() -> None:
    rig = losing_rig()
    lose(rig, 5_000)
    seen: list[tuple[int, int, int]] = []
    rig.broker.on_place = lambda order: seen.append(
        (
            len(rig.halt_file.kept),
            sum(1 for e in rig.journal.committed if e.kind is EventKind.HALT),
            len(rig.ledger.inner.snapshot().halts),
        )
    )
    rig.emergency.check(NOW_MS)
    assert seen == [(1, 1, 1)]
    halt = rig.halt_file.kept[0]
    assert (halt.halt_id, halt.kind, halt.trading_date, halt.by, halt.at_ms) == (
        "20240116-LOSS-1",
        HaltKind.LOSS,
        DAY,
        "engine",
        NOW_MS,
    )
    assert "50.00" in halt.reason
    assert [o.rank for o in exits(rig)] == [ExitRank.EMERGENCY]


def test_breach_logs_the_guides_block(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(make_limits(max_daily_loss_paise=200_000, max_position_size_paise=10**9))
    rig.hold(price_paise=500_000)
    lose(rig, 215_000)
    rig.emergency.check(NOW_MS)
    lines = [r.getMessage() for r in caplog.records if r.name == "velox.emergency"]
    assert lines[:3] == ["🚨 EMERGENCY EXIT TRIGGERED 🚨", "Daily P&L: -2150.00", "Max Daily Loss: -2000.00"]
    assert {r.levelno for r in caplog.records if r.name == "velox.emergency"} == {logging.CRITICAL}


def test_breach_closes_everything_cancels_entries_and_ends_flat_when_the_broker_says_so() -> None:
    rig = losing_rig()
    rig.hold("BBB", Side.SELL)
    rig.enter(entry_signal("CCC"))
    lose(rig, 5_000)
    rig.emergency.check(NOW_MS)
    assert {(o.symbol, o.side) for o in exits(rig)} == {("AAA", Side.SELL), ("BBB", Side.BUY)}
    assert rig.orders.live_orders("CCC", entries=True) == []
    assert is_closing(rig)
    fill_exits(rig)
    rig.emergency.check(NOW_MS + 1_000)
    assert not is_closing(rig)
    assert rig.emergency.active
    assert rig.alerts.titles[-2:] == ["EMERGENCY EXIT TRIGGERED", "Emergency exit finished: FLAT"]


def test_after_a_breach_entries_are_refused_and_the_breach_is_not_repeated() -> None:
    rig = losing_rig()
    lose(rig, 9_000)
    for after_ms in (0, 60_000, 120_000):
        rig.emergency.check(NOW_MS + after_ms)
    assert len(rig.halt_file.kept) == 1
    answer = rig.ask(entry_signal("BBB"))
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.EMERGENCY_EXIT_ACTIVE


@pytest.mark.parametrize("broken", ["file", "journal", "ledger", "all"])
def test_breach_with_stores_down_still_closes_and_refuses_entries(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    rig = losing_rig()
    rig.halt_file.full = broken in ("file", "all")
    rig.journal.error = JournalUnavailable("disk full") if broken in ("journal", "all") else None
    rig.ledger.down = broken in ("ledger", "all")
    lose(rig, 5_000)
    rig.emergency.check(NOW_MS)
    assert len(exits(rig)) == 1
    assert rig.emergency.active
    missing = [r.getMessage() for r in caplog.records if "could not be written to" in r.getMessage()]
    assert len(missing) == (3 if broken == "all" else 1)
    rig.ledger.down, rig.journal.error = False, None
    rig.orders.commit_journal()
    rig.risk.readiness.ledger_fault = ""
    answer = rig.ask(entry_signal("BBB"))
    assert isinstance(answer, Refusal)
    assert answer.code is ReasonCode.EMERGENCY_EXIT_ACTIVE


def test_breach_reads_the_trades_first_and_closes_what_is_left_only() -> None:
    rig = losing_rig()
    rig.broker.foreign("AAA", Side.SELL, 1, 4_000, told=False)
    lose(rig, 6_000)
    rig.emergency.check(NOW_MS)
    assert exits(rig) == []
    assert rig.quantity() == 0
    assert not is_closing(rig)


@pytest.mark.parametrize(("method", "kind"), [("trigger", HaltKind.MANUAL), ("fault", HaltKind.FAULT)])
def test_manual_and_fault_triggers_close_everything_too(method: str, kind: HaltKind) -> None:
    rig = Rig()
    rig.hold()
    halt = rig.emergency.trigger("asked", "a person", NOW_MS) if method == "trigger" else rig.emergency.fault("broken", NOW_MS)
    assert (halt.kind, halt.halt_id) == (kind, f"20240116-{kind.value}-1")
    assert len(exits(rig)) == 1


def test_warnings_come_once_per_share() -> None:
    rig = losing_rig()
    for loss in (2_499, 2_500, 2_600, 3_750, 2_500, 4_500, 4_600):
        lose(rig, loss)
        rig.emergency.check(NOW_MS)
    assert rig.alerts.titles == [f"Daily loss past {share} % of the limit" for share in (50, 75, 90)]
    assert exits(rig) == []


# -- until it is flat ----------------------------------------------------------------------------------------------


def test_broker_that_does_not_answer_is_never_flat() -> None:
    rig = losing_rig()
    lose(rig, 5_000)
    rig.emergency.check(NOW_MS)
    fill_exits(rig)
    rig.broker.failing = {"positions"}
    rig.emergency.check(NOW_MS + 1_000)
    assert is_closing(rig)
    rig.broker.failing = set()
    rig.emergency.check(NOW_MS + 2_000)
    assert not is_closing(rig)


def test_broker_is_asked_for_proof_at_most_once_a_second() -> None:
    rig = losing_rig()
    lose(rig, 5_000)
    rig.emergency.check(NOW_MS)
    fill_exits(rig)
    rig.broker.failing = {"positions"}
    rig.broker.reads.clear()
    for after_ms in range(250, 2_250, 250):
        rig.emergency.check(NOW_MS + after_ms)
    assert rig.broker.reads.count("positions") == 2


def test_foreign_order_and_position_are_closed_before_it_is_flat() -> None:
    rig = losing_rig()
    foreign_id = rig.broker.foreign("BBB", Side.BUY, 2, 0, works=True)
    lose(rig, 5_000)
    rig.emergency.check(NOW_MS)
    fill_exits_of(rig, "AAA")
    rig.emergency.check(NOW_MS + 1_000)
    assert rig.broker.cancels == [foreign_id]
    assert is_closing(rig)
    rig.broker.foreign("CCC", Side.BUY, 2, 500, told=False)
    rig.emergency.check(NOW_MS + 2_000)
    rig.emergency.check(NOW_MS + 3_000)
    assert [(o.symbol, o.quantity) for o in exits(rig)] == [("AAA", 1), ("CCC", 2)]
    fill_exits(rig)
    rig.emergency.check(NOW_MS + 5_000)
    assert not is_closing(rig)


def fill_exits_of(rig: Rig, symbol: str) -> None:
    for line in list(rig.broker.book.values()):
        if line.symbol == symbol and line.state is S.OPEN:
            rig.broker.fill(line.broker_order_id, line.quantity, 10_000)
    rig.orders.poll(NOW_MS)


def test_owners_holdings_and_their_orders_are_left_alone() -> None:
    rig = losing_rig()
    rig.broker.foreign("BBB", Side.BUY, 50, 10_000, product=Product.CNC)
    rig.broker.foreign("CCC", Side.BUY, 50, 10_000, product=Product.CNC, works=True)
    lose(rig, 5_000)
    rig.emergency.check(NOW_MS)
    fill_exits_of(rig, "AAA")
    rig.emergency.check(NOW_MS + 1_000)
    assert not is_closing(rig)
    assert rig.broker.cancels == []
    assert {o.symbol for o in exits(rig)} == {"AAA"}


def test_late_fill_after_it_was_flat_is_closed_too() -> None:
    rig = losing_rig()
    rig.broker.answers.append(rig.broker.LOST)
    late = rig.enter(entry_signal("BBB"))
    rig.orders.settle_not_placed(late, NOW_MS)
    rig.broker.book["B2"].state = S.CANCELLED
    lose(rig, 5_000)
    rig.emergency.check(NOW_MS)
    fill_exits_of(rig, "AAA")
    rig.emergency.check(NOW_MS + 1_000)
    assert not is_closing(rig)
    rig.broker.fill("B2", 1, 10_000)
    rig.orders.poll(NOW_MS)
    rig.emergency.check(NOW_MS + 2_000)
    assert is_closing(rig)
    assert [o.symbol for o in exits(rig)] == ["AAA", "BBB"]


def test_not_flat_is_said_again_each_minute() -> None:
    rig = losing_rig()
    lose(rig, 5_000)
    for after_ms in range(0, 180_001, 20_000):
        rig.emergency.check(NOW_MS + after_ms)
    assert rig.alerts.titles.count("Emergency exit: NOT FLAT yet") == 3


def test_rejected_exit_does_not_end_the_closing() -> None:
    rig = losing_rig()
    rig.broker.answers.append(SendStatus.REJECTED)
    lose(rig, 5_000)
    rig.emergency.check(NOW_MS)
    rig.emergency.check(NOW_MS + 1_000)
    assert len(exits(rig)) == 2
    assert is_closing(rig)


def test_symbol_with_a_stuck_entry_cancel_delays_no_other() -> None:
    rig = losing_rig()
    rig.broker.cancel_answers.extend([SendStatus.UNKNOWN] * 9)
    rig.enter(entry_signal("BBB"))
    lose(rig, 5_000)
    rig.emergency.check(NOW_MS)
    assert [o.symbol for o in exits(rig)] == ["AAA"]


# -- halts at the start --------------------------------------------------------------------------------------------


def test_load_without_any_halt_is_not_halted() -> None:
    rig = Rig()
    assert rig.emergency.load() == ()
    assert not rig.emergency.active


@pytest.mark.parametrize("store", ["file", "journal", "ledger"])
def test_load_of_a_halt_in_one_store_is_enough(store: str) -> None:
    rig = Rig()
    halt = record()
    if store == "file":
        rig.halt_file.kept.append(halt)
    elif store == "journal":
        rig.journal.append(EventKind.HALT, 1, dict(halt.to_body()))
        rig.journal.commit()
    else:
        rig.ledger.inner.latch_halt(halt)
        rig.risk.open_ledger()
    assert rig.emergency.load() == (halt,)
    assert isinstance(rig.ask(), Refusal)


def test_load_of_a_halt_that_was_cleared_in_one_store_only_is_halted() -> None:
    rig = Rig()
    halt = record(HaltKind.MANUAL)
    clear = record(HaltKind.MANUAL, clears=halt.halt_id)
    rig.halt_file.kept.extend([halt, clear])
    rig.journal.append(EventKind.HALT, 1, dict(halt.to_body()))
    rig.journal.commit()
    assert rig.emergency.load() == (halt,)
    rig.journal.append(EventKind.HALT_CLEARED, 2, dict(clear.to_body()))
    rig.journal.commit()
    rig.restart()
    assert rig.emergency.load() == ()


@pytest.mark.parametrize("broken", ["unreadable", "garbage"])
def test_load_with_a_journal_that_cannot_be_read_is_halted_and_closes_everything(broken: str) -> None:
    rig = Rig()
    rig.hold()
    if broken == "garbage":
        rig.journal.append(EventKind.HALT, 1, {"halt_id": "x"})
        rig.journal.commit()
    rig.journal.unreadable = broken == "unreadable"
    (halt,) = rig.emergency.load()
    assert halt.kind is HaltKind.FAULT
    assert isinstance(rig.ask(entry_signal("BBB")), Refusal)
    rig.emergency.check(NOW_MS)
    assert [o.rank for o in exits(rig)] == [ExitRank.EMERGENCY]


@pytest.mark.parametrize("kind", [HaltKind.RECONCILE, HaltKind.MANUAL])
def test_loss_at_the_limit_under_a_halt_of_another_kind_is_a_loss_halt_once(kind: HaltKind) -> None:
    rig = losing_rig()
    rig.halt_file.kept.append(record(kind))
    rig.emergency.load()
    lose(rig, 4_999)
    rig.emergency.check(NOW_MS)
    assert [halt.kind for halt in rig.halt_file.kept] == [kind]
    lose(rig, 5_000)
    for after_ms in (1_000, 2_000):
        rig.emergency.check(NOW_MS + after_ms)
    assert [halt.kind for halt in rig.halt_file.kept] == [kind, HaltKind.LOSS]
    assert ExitRank.EMERGENCY in {o.rank for o in exits(rig)}


@pytest.mark.parametrize(("day", "again"), [(DAY, False), (date(2024, 1, 15), True)])
def test_loss_is_judged_again_unless_the_loss_halt_is_of_this_date(day: date, again: bool) -> None:
    rig = losing_rig()
    rig.halt_file.kept.append(record(HaltKind.LOSS, day=day))
    rig.emergency.load()
    lose(rig, 5_000)
    rig.emergency.check(NOW_MS)
    assert (len(rig.halt_file.kept) == 2) is again


@pytest.mark.parametrize(
    ("kind", "closes"), [(HaltKind.LOSS, True), (HaltKind.FAULT, True), (HaltKind.MANUAL, True), (HaltKind.RECONCILE, False)]
)
@pytest.mark.parametrize("store", ["file", "journal"])
def test_engine_that_starts_on_a_halt_goes_on_closing(kind: HaltKind, closes: bool, store: str) -> None:
    rig = Rig()
    rig.hold()
    if store == "file":
        rig.halt_file.kept.append(record(kind))
    else:
        rig.journal.append(EventKind.HALT, 1, dict(record(kind).to_body()))
        rig.journal.commit()
    rig.emergency.load()
    rig.emergency.check(NOW_MS)
    assert rig.emergency.closing is closes
    assert bool(exits(rig)) is closes


def test_halt_id_is_never_used_twice_even_after_it_was_cleared() -> None:
    rig = Rig()
    first = rig.emergency.trigger("first", "p", NOW_MS)
    rig.emergency.reset("over", "p", NOW_MS, session_over=False)
    second = rig.emergency.trigger("second", "p", NOW_MS)
    assert (first.halt_id, second.halt_id) == ("20240116-MANUAL-1", "20240116-MANUAL-2")
    assert [halt.halt_id for halt in active_halts(rig.halt_file.records())] == ["20240116-MANUAL-2"]
    rig.halt_file.kept.append(record(HaltKind.MANUAL, 3))  # by another process
    rig.restart()
    assert rig.emergency.trigger("third", "p", NOW_MS).halt_id == "20240116-MANUAL-4"


def test_halt_id_known_to_the_journal_alone_is_not_used_again() -> None:
    rig = Rig()
    rig.journal.append(EventKind.HALT, 1, dict(record(HaltKind.MANUAL).to_body()))
    rig.journal.append(EventKind.HALT_CLEARED, 2, dict(record(HaltKind.MANUAL, clears="20240116-MANUAL-1").to_body()))
    rig.journal.commit()
    assert rig.emergency.load() == ()
    assert rig.emergency.trigger("again", "p", NOW_MS).halt_id == "20240116-MANUAL-2"


# -- the reset -----------------------------------------------------------------------------------------------------


def test_reset_clears_in_all_three_stores() -> None:
    rig = Rig()
    rig.emergency.trigger("why", "p", NOW_MS)
    (clear,) = rig.emergency.reset("over", "someone", NOW_MS + 5, session_over=False)
    assert (clear.clears, clear.by, clear.reason, clear.at_ms) == ("20240116-MANUAL-1", "someone", "over", NOW_MS + 5)
    assert not rig.emergency.active
    assert active_halts(rig.halt_file.records()) == ()
    assert len(rig.journal.bodies(EventKind.HALT_CLEARED)) == 1
    assert rig.ledger.inner.snapshot().halts == ()
    assert isinstance(rig.ask(), ApprovedOrder)


def test_reset_without_halts_changes_nothing() -> None:
    rig = Rig()
    assert rig.emergency.reset("r", "p", NOW_MS, session_over=False) == []
    assert (rig.halt_file.kept, rig.journal.length) == ([], 0)


@pytest.mark.parametrize(
    ("day", "session_over", "allowed"), [(DAY, False, False), (DAY, True, True), (date(2024, 1, 15), False, True)]
)
def test_reset_of_a_loss_halt_is_not_for_its_own_date(day: date, session_over: bool, allowed: bool) -> None:
    rig = Rig()
    rig.halt_file.kept.append(record(day=day))
    rig.emergency.load()
    if allowed:
        assert len(rig.emergency.reset("r", "p", NOW_MS, session_over=session_over)) == 1
        return
    with pytest.raises(HaltedError, match="LOSS halt"):
        rig.emergency.reset("r", "p", NOW_MS, session_over=session_over)
    assert rig.emergency.active
    assert len(rig.halt_file.kept) == 1
    assert rig.journal.bodies(EventKind.HALT_CLEARED) == []


def test_end_of_a_session_clears_its_own_and_earlier_halts_and_leaves_those_of_a_later_date() -> None:
    rig = Rig()
    halts = [record(HaltKind.LOSS, n, day=day) for n, day in enumerate((date(2024, 1, 15), DAY, date(2024, 1, 17)), start=1)]
    rig.halt_file.kept.extend(halts)
    rig.emergency.load()
    cleared = rig.emergency.reset("over", "end of day", NOW_MS, session_over=True)
    assert [clear.clears for clear in cleared] == [halt.halt_id for halt in halts[:2]]
    assert rig.emergency.halt_ids == [halts[2].halt_id]
    assert rig.emergency.active


def test_reset_while_not_flat_is_refused() -> None:
    rig = Rig()
    rig.hold()
    rig.emergency.trigger("why", "p", NOW_MS)
    with pytest.raises(NotFlatError, match="1 AAA MIS"):
        rig.emergency.reset("r", "p", NOW_MS, session_over=True)
    assert rig.emergency.active


def test_reset_with_an_order_that_only_we_know_of_is_refused() -> None:
    rig = Rig()
    rig.emergency.trigger("why", "p", NOW_MS)
    other = Rig()
    other.broker.answers.append(SendStatus.UNKNOWN)
    rig.orders.live["X"] = other.enter()
    with pytest.raises(NotFlatError, match="orders are live"):
        rig.emergency.reset("r", "p", NOW_MS, session_over=True)


def test_reset_with_a_silent_broker_is_refused() -> None:
    rig = Rig()
    rig.emergency.trigger("why", "p", NOW_MS)
    rig.broker.failing = {"orders"}
    with pytest.raises(VeloxError, match="flat cannot be proven"):
        rig.emergency.reset("r", "p", NOW_MS, session_over=True)
    assert rig.emergency.active


@pytest.mark.parametrize("broken", ["file", "journal", "ledger"])
def test_reset_that_one_store_does_not_take_stays_halted(broken: str) -> None:
    rig = Rig()
    rig.emergency.trigger("why", "p", NOW_MS)
    rig.halt_file.full = broken == "file"
    rig.journal.error = JournalUnavailable("disk full") if broken == "journal" else None
    rig.ledger.latch_down = broken == "ledger"
    with pytest.raises(VeloxError, match="it stays halted"):
        rig.emergency.reset("r", "p", NOW_MS, session_over=False)
    assert rig.emergency.active
    rig.halt_file.full, rig.journal.error, rig.ledger.latch_down = False, None, False
    rig.emergency.reset("r", "p", NOW_MS, session_over=False)
    rig.orders.commit_journal()
    assert rig.risk.snapshot.halts == ()
    assert isinstance(rig.ask(), ApprovedOrder)


# -- views ---------------------------------------------------------------------------------------------------------


def test_risk_status_shows_the_day_against_its_limit() -> None:
    rig = losing_rig()
    lose(rig, 1_200)
    status = rig.emergency.get_risk_status()
    assert (status["net_paise"], status["open_paise"], status["headroom_paise"]) == (-1_200, -1_200, 3_800)
    assert (status["halted"], status["halts"], status["open_positions"], status["live_orders"]) == (False, [], 1, 0)
    rig.risk.note_lock("AAA", "why")
    lose(rig, 9_000)
    rig.emergency.check(NOW_MS)
    status = rig.emergency.get_risk_status()
    assert (status["halted"], status["headroom_paise"], status["live_orders"]) == (True, 0, 1)
    assert status["halts"][0]["halt_id"] == "20240116-LOSS-1"
    assert status["locked_symbols"] == {"AAA": "why"}


def test_daily_summary_counts_the_day() -> None:
    rig = Rig()
    rig.hold()
    rig.ask()
    order = rig.exit_now()
    rig.broker.fill(order.broker_order_id, 1, 10_300)
    rig.orders.poll(NOW_MS)
    summary = rig.emergency.get_daily_summary()
    assert (summary["trading_date"], summary["net_paise"], summary["realised_paise"]) == ("2024-01-16", 300, 300)
    assert (summary["orders"], summary["fills"], summary["flat"], summary["halts"]) == (2, 2, True, [])
    assert summary["decisions"] == {"DUPLICATE_ORDER": 1, "EXIT_OK": 1, "OK": 1}
    assert (summary["charges_paise"], summary["loss_limit_paise"]) == (0, 200_000)


def test_reset_while_the_file_lacks_the_halt_and_is_full_writes_nothing_and_stays_halted() -> None:
    rig = Rig()
    rig.halt_file.full = True
    rig.emergency.trigger("asked for", "someone", NOW_MS)
    assert rig.halt_file.kept == []
    with pytest.raises(VeloxError, match="disk is full"):
        rig.emergency.reset("over", "p", NOW_MS, session_over=False)
    rig.emergency.take_up(NOW_MS)
    assert rig.emergency.active
    assert rig.journal.bodies(EventKind.HALT_CLEARED) == []
    rig.halt_file.full = False
    assert len(rig.emergency.reset("over", "p", NOW_MS, session_over=False)) == 1
    assert [bool(record.clears) for record in rig.halt_file.kept] == [False, True]
    assert not rig.emergency.active


# -- as the safety guide calls it ------------------------------------------------------------------------------------


def with_clock(clock: FakeClock | None) -> tuple[Rig, EmergencyExitManager]:
    """Return a rig whose risk manager leads to an emergency exit manager that has a clock of its own, or none."""
    rig = Rig()
    rig.emergency = EmergencyExitManager(
        trading_date=DAY,
        risk_manager=rig.risk,
        order_manager=rig.orders,
        exit_door=rig.door,
        broker=rig.broker,
        journal=rig.journal,
        halt_file=rig.halt_file,
        alerts=rig.alerts,
        clock=clock,
    )
    rig.risk.attach_emergency_exit_manager(rig.emergency)
    return rig, rig.risk.get_emergency_exit_manager()


def test_guides_calls_take_a_reason_and_a_name_and_read_the_clock_themselves() -> None:
    rig, manager = with_clock(FakeClock(NOW_MS + 7_000))
    rig.hold()
    halt = manager.trigger("enough for today", "a person")
    assert (halt.at_ms, halt.reason, halt.by, halt.kind) == (NOW_MS + 7_000, "enough for today", "a person", HaltKind.MANUAL)
    assert [(o.symbol, o.side) for o in exits(rig)] == [("AAA", Side.SELL)]
    with pytest.raises(NotFlatError):
        manager.reset("too early", "a person")
    fill_exits(rig)
    (clear,) = manager.reset("it is over", "a person")
    assert (clear.clears, clear.at_ms, clear.by) == (halt.halt_id, NOW_MS + 7_000, "a person")
    assert not manager.active


def test_reset_by_reason_and_name_never_ends_a_loss_halt_of_its_own_date() -> None:
    _, manager = with_clock(FakeClock(NOW_MS + 7_000))
    manager.trigger_loss(NOW_MS)
    with pytest.raises(HaltedError, match="LOSS"):
        manager.reset("please", "a person")


def test_manager_without_a_clock_wants_the_time_named() -> None:
    rig, manager = with_clock(None)
    with pytest.raises(InvariantError, match="clock"):
        manager.trigger("r", "b")
    assert rig.halt_file.kept == []


def test_both_views_are_json_with_ints_for_money() -> None:
    rig, manager = with_clock(FakeClock(NOW_MS + 7_000))
    rig.hold()
    manager.trigger("enough", "me")
    status, summary = manager.get_risk_status(), manager.get_daily_summary()
    assert json.loads(json.dumps(status)) == status
    assert json.loads(json.dumps(summary)) == summary
    money = {name: value for view in (status, summary) for name, value in view.items() if name.endswith("_paise")}
    assert len(money) == 7
    assert {type(value) for value in money.values()} == {int}
    assert (status["halted"], status["open_positions"], summary["flat"]) == (True, 1, False)
