from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.outside import FakeControl
from tests.fakes.rig import DAY, NOW_MS, OPEN_MS, Rig, entry_signal, exit_signal, make_limits
from tests.fakes.session import MINUTE_MS, Day, ScriptedStrategy, make_plan, row, rows
from velox_core.closing_progress import PROGRESS_KEY
from velox_core.decision_journal import RECENT_MAX
from velox_core.domain.errors import DataError
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.domain.orders import ExitRank, OrderState, Side, SignalKind
from velox_core.engine.plan import OnStop
from velox_core.engine.session import FINISH_ROUNDS_MAX, STOP_SECONDS_MAX
from velox_core.ports import ControlRequest, SendStatus

BUY_AT_10 = {10: [entry_signal()]}


def last_sent(day: Day) -> tuple[str, str, int, str]:
    return day.sent[-1]


# -- the way of a bar ----------------------------------------------------------------------------------------------


def test_session_without_rows_is_flat_and_sends_nothing() -> None:
    day = Day([], ScriptedStrategy())
    result = day.run()
    assert (result.flat, result.halted, result.fault, result.stopped, result.rows) == (True, False, "", "", 0)
    assert day.sent == []
    assert day.control.states == ["RUNNING", "DONE"]


def test_entry_is_decided_on_one_minute_and_filled_in_the_next() -> None:
    strategy = ScriptedStrategy("alpha", BUY_AT_10)
    day = Day(rows(10_000, 10_050, 10_100), strategy)
    result = day.run()
    assert day.rig.broker.trade_list[0].price_paise == 10_050
    assert day.sent == [("AAA", "BUY", 1, "ENTRY"), ("AAA", "SELL", 1, "SQUARE_OFF")]
    assert strategy.positions_seen[1][0] == 1
    assert result.rows == 3


def test_strategy_sees_an_entry_on_its_way_as_its_position() -> None:
    strategy = ScriptedStrategy("alpha", BUY_AT_10)
    other = ScriptedStrategy("beta")
    day = Day(rows(10_000, 10_000), strategy, other, fills=False)
    day.run()
    assert [seen[0] for seen in strategy.positions_seen] == [0, 1]
    assert [seen[0] for seen in other.positions_seen] == [0, 0]


def test_exit_signal_closes_the_strategys_own_position() -> None:
    strategy = ScriptedStrategy("alpha", {10: [entry_signal()], 12: [exit_signal(rank=ExitRank.STOP)]})
    day = Day(rows(10_000, 10_000, 10_000, 10_000), strategy)
    result = day.run()
    assert last_sent(day) == ("AAA", "SELL", 1, "STOP")
    assert result.flat


def test_exit_signal_while_the_entry_is_on_its_way_cancels_it() -> None:
    strategy = ScriptedStrategy("alpha", {10: [entry_signal()], 11: [exit_signal()]})
    day = Day(rows(10_000, 10_000, 10_000), strategy, fills=False)
    result = day.run()
    assert day.sent == [("AAA", "BUY", 1, "ENTRY")]
    assert day.rig.broker.cancels == ["B1"]
    assert result.flat


@pytest.mark.parametrize(
    "signal",
    [exit_signal("BBB"), exit_signal("AAA", Side.BUY), exit_signal("AAA", strategy="beta")],
    ids=["none", "side", "owner"],
)
def test_exit_signal_for_what_is_not_the_strategys_is_refused_and_journaled(signal: object) -> None:
    alpha = ScriptedStrategy("alpha", {10: [entry_signal()]})
    beta = ScriptedStrategy("beta")
    target = beta if getattr(signal, "strategy_id", "") == "beta" else alpha
    target.script[12] = [signal]
    day = Day(rows(10_000, 10_000, 10_000), alpha, beta)
    day.run()
    refused = [body for body in day.rig.journal.bodies(EventKind.DECISION) if body["code"] == "NOTHING_TO_EXIT"]
    assert [body["kind"] for body in refused] == [SignalKind.EXIT.value]
    assert last_sent(day)[3] == "SQUARE_OFF"


@pytest.mark.parametrize(("low", "high", "rank"), [(9_900, 0, "STOP"), (0, 10_200, "TARGET"), (9_900, 10_200, "STOP")])
def test_stop_and_target_close_the_position(low: int, high: int, rank: str) -> None:
    strategy = ScriptedStrategy("alpha", {10: [entry_signal(stop=9_900, target=10_200)]})
    day = Day([*rows(10_000, 10_000), row(12, 10_000, low=low, high=high), row(13, 10_000), row(14, 10_000)], strategy)
    day.run()
    assert day.sent[1] == ("AAA", "SELL", 1, rank)
    assert len(day.sent) == 2


def test_stop_reached_before_the_entry_filled_does_nothing() -> None:
    strategy = ScriptedStrategy("alpha", {10: [entry_signal(stop=9_900)]})
    day = Day([row(10, 10_000), row(11, 9_500)], strategy, fills=False)
    day.run()
    assert day.sent == [("AAA", "BUY", 1, "ENTRY")]


def test_entry_without_a_recent_price_is_refused() -> None:
    strategy = ScriptedStrategy("alpha", {14: [entry_signal()]})
    day = Day([row(10, 10_000), *(row(number, 0, 10_000) for number in range(11, 15))], strategy)
    day.run()
    assert [b["code"] for b in day.rig.journal.bodies(EventKind.DECISION)] == ["STALE_PRICE"]
    assert day.sent == []


@pytest.mark.parametrize(("minute", "sent"), [(59, 1), (60, 0)])
def test_entries_end_at_the_plans_time(minute: int, sent: int) -> None:
    day = Day(rows(10_000, start=minute), ScriptedStrategy("alpha", {minute: [entry_signal()]}), fills=False)
    day.run()
    assert len(day.sent) == sent


def test_minute_marks_are_journaled_when_they_change_and_committed() -> None:
    day = Day(rows(10_000, 10_000, 9_990, 9_990), ScriptedStrategy("alpha", BUY_AT_10))
    day.run()
    marks = day.rig.journal.bodies(EventKind.MARK)
    assert [body["open"] for body in marks] == [0, -10, 0]
    assert day.rig.journal.buffer == []


# -- loss ----------------------------------------------------------------------------------------------------------


def test_loss_at_the_limit_closes_everything_and_stays_off() -> None:
    rig = Rig(make_limits(max_daily_loss_paise=1_000))
    script = {10: [entry_signal()], 13: [entry_signal("BBB")], 14: [entry_signal("CCC")]}
    day = Day(rows(10_000, 10_000, 9_000, 9_000, 9_000), ScriptedStrategy("alpha", script), rig=rig)
    result = day.run()
    assert day.sent == [("AAA", "BUY", 1, "ENTRY"), ("AAA", "SELL", 1, "EMERGENCY")]
    assert (result.halted, result.flat) == (True, True)
    refused = [b["code"] for b in rig.journal.bodies(EventKind.DECISION) if not b["approved"]]
    assert refused == ["EMERGENCY_EXIT_ACTIVE", "EMERGENCY_EXIT_ACTIVE"]
    assert "halted" in [status["phase"] for status in day.control.published]
    closing = day.control.published[-1][PROGRESS_KEY]
    assert (closing["exits"], closing["acknowledged"]) == (1, 1)
    assert not {"closing", "engine_said"} & set(day.control.published[-1])  # the words of a closing from outside
    assert closing["looks"] >= 1
    assert 0 < closing["last_exit_ms"] <= closing["last_acknowledged_ms"]


# -- the end of the day --------------------------------------------------------------------------------------------


def test_square_off_closes_at_its_time_and_strategies_are_not_asked_again() -> None:
    strategy = ScriptedStrategy("alpha", {10: [entry_signal()], 71: [entry_signal("BBB")]})
    day = Day([*rows(10_000, 10_000), *rows(10_000, 10_000, start=70)], strategy)
    result = day.run()
    assert day.sent == [("AAA", "BUY", 1, "ENTRY"), ("AAA", "SELL", 1, "SQUARE_OFF")]
    assert strategy.seen == [10, 11]
    assert (result.flat, result.halted) == (True, False)
    assert day.rig.halt_file.kept == []


def test_square_off_that_is_switched_off_carries_the_position() -> None:
    day = Day(rows(10_000, 10_000, start=68) + rows(10_000, start=71), ScriptedStrategy("alpha", {58: []}), square_off=False)
    day.rig.hold()
    result = day.run()
    assert not result.flat
    assert [o.rank for o in day.rig.broker.placed] == [None]


def test_end_of_data_that_cannot_be_closed_is_said() -> None:
    day = Day(rows(10_000, 10_000), ScriptedStrategy("alpha", BUY_AT_10))
    day.rig.broker.answers.extend([SendStatus.ACKNOWLEDGED] + [SendStatus.REJECTED] * 500)
    result = day.run()
    assert not result.flat
    assert "NOT FLAT at the end of the session" in day.rig.alerts.titles
    assert day.control.states.count("STOPPING") == FINISH_ROUNDS_MAX  # or a guard would take it for dead


def test_hard_stop_of_the_plan_reaches_the_exit_door() -> None:
    day = Day([], ScriptedStrategy())
    day.run()
    assert day.rig.door.hard_stop_ms == day.plan.hard_stop_ms


# -- stopping ------------------------------------------------------------------------------------------------------


def stop_request() -> FakeControl:
    return FakeControl(ControlRequest("stop", "someone", "enough"))


def test_stop_request_closes_and_ends_before_the_data_does() -> None:
    strategy = ScriptedStrategy("alpha", {10: [entry_signal()], 12: [entry_signal("BBB")]})
    day = Day(rows(*[10_000] * 20), strategy)

    def ask_at_two(position: int) -> None:
        if position == 2:
            day.control.requests.extend(stop_request().requests)

    day._user_before = ask_at_two
    result = day.run()
    assert result.stopped == "enough (by someone)"
    assert result.flat
    assert day.feed.hastened
    assert not day.feed.ended
    assert day.sent[-1] == ("AAA", "SELL", 1, "SQUARE_OFF")
    assert not result.halted


def test_stop_request_with_hold_leaves_the_position() -> None:
    day = Day(rows(*[10_000] * 20), ScriptedStrategy(), control=stop_request(), on_stop=OnStop.HOLD)
    day.rig.hold()
    result = day.run()
    assert not result.flat
    assert [o.rank for o in day.rig.broker.placed] == [None]
    assert day.feed.position == 1


def test_stop_with_hold_does_not_leave_an_emergency_exit_half_done() -> None:
    rig = Rig(make_limits(max_daily_loss_paise=1_000))
    rig.hold()
    day = Day(rows(9_000, 9_000, 9_000), ScriptedStrategy(), rig=rig, control=stop_request(), on_stop=OnStop.HOLD)
    result = day.run()
    assert (result.flat, result.halted) == (True, True)
    assert last_sent(day) == ("AAA", "SELL", 1, "EMERGENCY")


def test_other_requests_and_a_second_stop_change_nothing() -> None:
    control = FakeControl(ControlRequest("dance", "x", "y"))
    day = Day(rows(10_000, 10_000), ScriptedStrategy(), control=control)
    assert day.run().stopped == ""
    day.session.request_stop("first")
    day.session.request_stop("second")
    assert day.session._stop_reason == "first"


def test_stop_whose_exits_never_trade_ends_within_its_bound_and_is_not_flat() -> None:
    rig = Rig()
    rig.hold()
    day = Day([*rows(10_000), *[None] * 5_000], ScriptedStrategy(), rig=rig, fills=False, control=stop_request())
    result = day.run()
    assert result.flat is False
    assert STOP_SECONDS_MAX / 10 < day.feed.position < 1_000
    assert "NOT FLAT at the end of the session" in rig.alerts.titles


# -- halts from outside --------------------------------------------------------------------------------------------


def outside_halt(*, keeps: bool) -> HaltRecord:
    return HaltRecord(
        halt_id="outside",
        kind=HaltKind.MANUAL,
        trading_date=DAY,
        reason="enough",
        by="someone",
        at_ms=1,
        keeps_positions=keeps,
    )


@pytest.mark.parametrize("keeps", [True, False])
def test_halt_latched_while_the_engine_runs_is_acknowledged_and_stops_entries(keeps: bool) -> None:
    strategy = ScriptedStrategy("alpha", {10: [entry_signal()], 14: [entry_signal("BBB")]})
    day = Day(rows(*[10_000] * 8), strategy)
    acknowledged: list[object] = []

    def latch_at_two(position: int) -> None:
        if position == 2:
            day.rig.halt_file.append(outside_halt(keeps=keeps))
        acknowledged.append(day.control.published[-1]["acknowledged_halts"])

    day._user_before = latch_at_two
    result = day.run()
    assert acknowledged[:5] == [[], [], [], ["outside"], ["outside"]]
    assert [sent for sent in day.sent if sent[3] == "ENTRY"] == [("AAA", "BUY", 1, "ENTRY")]
    assert last_sent(day) == ("AAA", "SELL", 1, "SQUARE_OFF" if keeps else "EMERGENCY")
    assert (result.flat, result.halted) == (True, True)
    assert day.rig.journal.bodies(EventKind.HALT)[0]["halt_id"] == "outside"


def test_halt_latched_while_the_session_closes_at_its_end_is_acknowledged_too() -> None:
    day = Day(rows(10_000, 10_000), ScriptedStrategy(), fills=False)
    day.rig.hold()

    def latch_later(_position: int) -> None:
        if day.feed.calls == 5:
            day.rig.halt_file.append(outside_halt(keeps=True))

    day._user_before = latch_later
    day.run()
    states = [(status["state"], status["acknowledged_halts"]) for status in day.control.published]
    assert ("FLATTENING", ["outside"]) in states[:-1]


def reset_request() -> ControlRequest:
    return ControlRequest("reset", "someone", "over", "r1")


def test_reset_asked_of_the_engine_clears_and_is_answered() -> None:
    strategy = ScriptedStrategy("alpha", {14: [entry_signal()]})
    rig = Rig()
    rig.halt_file.append(outside_halt(keeps=True))
    rig.emergency.load()
    day = Day(rows(*[10_000] * 8), strategy, rig=rig, control=FakeControl(reset_request()))
    result = day.run()
    assert day.control.published[1]["reset"] == {"request_id": "r1", "cleared": ["outside"], "exit_code": 0, "message": ""}
    assert not result.halted
    assert day.sent[0] == ("AAA", "BUY", 1, "ENTRY")


def test_reset_asked_of_the_engine_while_not_flat_is_refused_and_answered() -> None:
    rig = Rig()
    rig.hold()
    rig.halt_file.append(outside_halt(keeps=True))
    rig.emergency.load()
    day = Day(rows(*[10_000] * 4), ScriptedStrategy(), rig=rig, control=FakeControl(reset_request()))
    result = day.run()
    answer = day.control.published[1]["reset"]
    assert isinstance(answer, dict)
    assert (answer["exit_code"], answer["cleared"]) == (4, [])
    assert "not flat" in answer["message"]
    assert result.halted
    assert rig.journal.bodies(EventKind.HALT_CLEARED) == []


# -- strategies that fail ------------------------------------------------------------------------------------------


def test_strategy_that_raises_is_disabled_its_positions_closed_the_others_go_on() -> None:
    bad = ScriptedStrategy("alpha", {10: [entry_signal()], 12: ZeroDivisionError("a bug")})
    good = ScriptedStrategy("beta", {13: [entry_signal("BBB", strategy="beta")]})
    day = Day(rows(*[10_000] * 6), bad, good)
    result = day.run()
    assert bad.seen == [10, 11, 12]
    assert day.sent[:3] == [("AAA", "BUY", 1, "ENTRY"), ("AAA", "SELL", 1, "STOP"), ("BBB", "BUY", 1, "ENTRY")]
    assert [b["strategy"] for b in day.rig.journal.bodies(EventKind.STRATEGY_DISABLED)] == ["alpha"]
    assert "Strategy alpha is disabled for the day" in day.rig.alerts.titles
    assert result.fault == ""


def test_strategy_that_cannot_start_closes_what_it_held_before() -> None:
    day = Day(rows(10_000, 10_000), ScriptedStrategy("alpha", bad_start=True))
    day.rig.hold()
    day.run()
    assert last_sent(day) == ("AAA", "SELL", 1, "STOP")
    assert day.rig.broker.place_times[-1] > OPEN_MS


# -- engine faults -------------------------------------------------------------------------------------------------


def test_fault_of_the_feed_halts_and_closes_everything() -> None:
    day = Day(
        [*rows(10_000, 10_000), DataError("the socket is gone"), *rows(10_000, 10_000, start=12)],
        ScriptedStrategy("alpha", BUY_AT_10),
    )
    result = day.run()
    assert result.fault == "DataError: the socket is gone"
    assert (result.halted, result.flat) == (True, True)
    assert last_sent(day) == ("AAA", "SELL", 1, "EMERGENCY")
    assert [halt.kind.value for halt in day.rig.halt_file.kept] == ["FAULT"]
    assert day.control.states[-1] == "FAILED"


def test_fault_with_a_feed_that_stays_broken_still_closes() -> None:
    day = Day(
        [*rows(10_000, 10_000), DataError("gone"), DataError("gone"), DataError("gone")], ScriptedStrategy("alpha", BUY_AT_10)
    )
    result = day.run()
    assert (result.fault, result.flat) == ("DataError: gone", True)


@pytest.mark.parametrize("plan", [{"on_stop": OnStop.HOLD}, {"square_off": False}], ids=["hold", "carry"])
def test_fault_closes_even_where_positions_would_be_held(plan: dict[str, object]) -> None:
    rig = Rig()
    rig.hold()
    rig.broker.answers.append(SendStatus.REJECTED)
    items = [*rows(10_000), DataError("gone"), *rows(10_000, 10_000, 10_000, start=12)]
    day = Day(items, ScriptedStrategy(), rig=rig, **plan)  # type: ignore[arg-type]
    day.session.request_stop("held") if "on_stop" in plan else None
    day.feed.position = 1 if "on_stop" in plan else 0
    result = day.run()
    assert (result.fault, result.flat) == ("DataError: gone", True)


def test_send_that_breaks_is_a_fault_and_its_order_is_looked_for() -> None:
    day = Day(rows(*[10_000] * 8), ScriptedStrategy("alpha", BUY_AT_10))
    day.rig.broker.answers.append(RuntimeError("the adapter broke"))
    result = day.run()
    order = day.rig.orders.orders[day.rig.broker.placed[0].client_order_id]
    assert result.fault == "RuntimeError: the adapter broke"
    assert order.state in (OrderState.UNKNOWN, OrderState.CANCELLED)
    assert len(day.rig.broker.placed) == 1


def test_fault_before_the_first_row_is_recorded_at_engine_time() -> None:
    day = Day([DataError("gone")], ScriptedStrategy())
    result = day.run()
    assert result.fault == "DataError: gone"
    assert day.rig.halt_file.kept[0].at_ms == OPEN_MS


def test_fault_that_cannot_be_closed_is_told_to_a_person() -> None:
    rig = Rig()
    rig.hold()
    rig.broker.answers.extend([RuntimeError("the adapter broke")] * 5)
    day = Day([*rows(10_000), DataError("gone")], ScriptedStrategy(), rig=rig)
    result = day.run()
    assert not result.flat
    assert "The engine failed and could not close" in rig.alerts.titles


def test_fault_whose_closing_the_broker_does_not_confirm_is_not_flat_whatever_our_books_say() -> None:
    rig = Rig()
    rig.broker.failing = {"positions"}
    result = Day([*rows(10_000), DataError("gone")], ScriptedStrategy(), rig=rig).run()
    assert rig.orders.is_flat()
    assert result.fault
    assert not result.flat


def test_fault_whose_closing_breaks_is_not_flat_whatever_our_books_say() -> None:
    rig = Rig()
    day = Day([*rows(10_000), DataError("gone")], ScriptedStrategy(), rig=rig)

    def break_off(now_ms: int) -> bool:
        raise RuntimeError("the adapter broke")

    rig.orders.fetch_trades = break_off  # type: ignore[method-assign]
    result = day.run()
    assert rig.orders.is_flat()
    assert not result.flat
    assert "The engine failed and could not close" in rig.alerts.titles


# -- between rows --------------------------------------------------------------------------------------------------


def test_idle_step_takes_fills_and_works_exits() -> None:
    day = Day([*rows(10_000, 10_000), None, None, *rows(10_000, start=12)], ScriptedStrategy("alpha", BUY_AT_10), fills=False)
    day.rig.broker.fill_prices = {"AAA": 9_990}
    result = day.run()
    assert day.rig.broker.trade_list[0].price_paise == 9_990
    assert result.flat


def test_silent_feed_with_a_position_alarms_and_then_closes_blind() -> None:
    rig = Rig()
    rig.hold()
    day = Day([*rows(10_000), *[None] * 6], ScriptedStrategy(), rig=rig, fills=False)
    ages_ms = [0, 90_000, 90_001, 200_000, 390_000, 390_001, 390_002]

    def let_time_pass(position: int) -> None:
        day.clock.now = NOW_MS + ages_ms[min(position, 6)]
        if position == 4:
            assert [o.rank for o in rig.broker.placed] == [None]
            assert rig.alerts.titles.count("No market data while positions are open") == 1

    day.feed.before = let_time_pass
    result = day.run()
    assert result.halted
    assert rig.halt_file.kept[0].reason == "no market data for 390 s while positions are open"
    assert last_sent(day) == ("AAA", "SELL", 1, "EMERGENCY")


def test_silent_feed_without_a_position_is_nobodys_trouble() -> None:
    day = Day([*rows(10_000), None, None], ScriptedStrategy(), fills=False)
    day.feed.before = lambda position: setattr(day.clock, "now", NOW_MS + position * 1_000_000)
    assert not day.run().halted
    assert day.rig.alerts.sent == []


def test_ledger_that_failed_is_rebuilt_and_entries_go_on() -> None:
    rig = Rig()
    strategy = ScriptedStrategy("alpha", {10: [entry_signal()], 19: [entry_signal("BBB")]})
    day = Day(rows(*[10_000] * 12), strategy, rig=rig)

    def outage(position: int) -> None:
        rig.ledger.down = position in (1, 2, 3)

    day._user_before = outage
    day.run()
    assert rig.ledger.rebuilds == 1
    assert rig.risk.readiness.ledger_fault == ""
    assert [sent[0] for sent in day.sent if sent[3] == "ENTRY"] == ["AAA", "BBB"]
    assert dict(rig.ledger.inner.snapshot().positions) == {}


@pytest.mark.parametrize("why", ["fenced", "trades"])
def test_ledger_is_not_rebuilt_when_fenced_or_while_the_broker_is_silent(why: str) -> None:
    rig = Rig()
    rig.risk.readiness.ledger_fault = "lost"
    rig.risk.readiness.fenced = why == "fenced"
    rig.broker.failing = {"trades"} if why == "trades" else set()
    Day(rows(*[10_000] * 4), ScriptedStrategy(), rig=rig).run()
    assert rig.ledger.rebuilds == 0
    assert rig.risk.readiness.ledger_fault == "lost"


def test_books_are_reconciled_during_the_session_when_the_plan_asks() -> None:
    rig = Rig()
    strategy = ScriptedStrategy("alpha", {16: [entry_signal("CCC")]})
    day = Day(rows(*[10_000] * 9), strategy, rig=rig, reconcile_seconds=1.0)

    def by_hand(position: int) -> None:
        if position == 2:
            rig.broker.foreign("CCC", Side.BUY, 1, 10_000, told=False)

    day._user_before = by_hand
    day.run()
    refused = [b["code"] for b in rig.journal.bodies(EventKind.DECISION) if not b["approved"]]
    assert refused == ["SYMBOL_LOCKED"]
    assert rig.quantity("CCC") == 0  # squared off at the end like every position of the account


@pytest.mark.parametrize("tick_seconds", [0.0, 0.001, 100.0])
def test_reconcile_goes_by_engine_time_whatever_the_wall_says(tick_seconds: float) -> None:
    strategy = ScriptedStrategy("alpha", {10: [entry_signal()], 13: [exit_signal()]})
    items = [*rows(*[10_000] * 3), None, None, *rows(*[10_000] * 3, start=13)]
    day = Day(items, strategy, reconcile_seconds=120.0, tick_seconds=tick_seconds)
    day.run()
    assert day.rig.broker.reads.count("positions") == 3  # at minutes 10, 12 and 14
    assert day.rig.risk.locks == {}


def test_reconcile_that_the_broker_does_not_answer_changes_nothing() -> None:
    rig = Rig()
    rig.broker.failing = {"positions"}
    result = Day(rows(*[10_000] * 4), ScriptedStrategy(), rig=rig, reconcile_seconds=1.0).run()
    assert (result.fault, rig.risk.locks) == ("", {})


def test_overshot_exit_is_closed_at_once() -> None:
    rig = Rig()
    rig.hold()
    order = rig.exit_now()
    day = Day(rows(*[10_000] * 6), ScriptedStrategy(), rig=rig, fills=False)

    def both_close(position: int) -> None:
        if position == 1:
            rig.broker.foreign("AAA", Side.SELL, 1, 10_000)
            rig.broker.fill(order.broker_order_id, 1, 10_000)

    day._user_before = both_close
    day.run()
    assert ("AAA", "BUY", 1, "STOP") in day.sent
    assert all(sent[2] == 1 for sent in day.sent)


# -- resuming ------------------------------------------------------------------------------------------------------


def test_rows_of_an_earlier_process_warm_strategies_up_and_trade_nothing() -> None:
    strategy = ScriptedStrategy("alpha", {10: [entry_signal()], 12: [entry_signal()]})
    day = Day(rows(*[10_000] * 4), strategy, resume_after_ms=OPEN_MS + 11 * MINUTE_MS)
    day.run()
    assert strategy.seen == [10, 11, 12, 13]
    assert [sent for sent in day.sent if sent[3] == "ENTRY"] == [("AAA", "BUY", 1, "ENTRY")]
    assert day.rig.broker.place_times[0] == OPEN_MS + 12 * MINUTE_MS


def test_strategy_that_fails_while_it_warms_up_is_disabled_and_its_position_closed() -> None:
    strategy = ScriptedStrategy("alpha", {10: ZeroDivisionError("a bug")})
    day = Day(rows(*[10_000] * 4), strategy, resume_after_ms=OPEN_MS + 11 * MINUTE_MS)
    day.rig.hold()
    day.run()
    assert strategy.seen == [10]
    assert last_sent(day) == ("AAA", "SELL", 1, "STOP")
    assert day.rig.broker.place_times[-1] == OPEN_MS + 12 * MINUTE_MS


def test_protective_prices_of_a_resumed_position_work_from_the_first_row() -> None:
    rig = Rig()
    order = rig.enter(entry_signal(stop=9_900))
    rig.broker.fill(order.broker_order_id, 1, 10_000)
    rig.orders.poll(NOW_MS)
    day = Day(rows(9_800, 9_800), ScriptedStrategy(), rig=rig)
    day.run()
    assert last_sent(day) == ("AAA", "SELL", 1, "STOP")


# -- what it shows -------------------------------------------------------------------------------------------------


def test_status_shows_the_day() -> None:
    day = Day(rows(*[10_000] * 3), ScriptedStrategy("alpha", BUY_AT_10))
    seen: list[dict[str, object]] = []
    day._user_before = lambda position: seen.append(day.session.status("RUNNING"))
    day.run()
    status = seen[2]
    assert (status["state"], status["phase"], status["rows"], status["fills"]) == ("RUNNING", "trading", 2, 1)
    assert status["positions"] == [
        {
            "symbol": "AAA",
            "strategy": "alpha",
            "quantity": 1,
            "average_paise": 10_000,
            "last_paise": 10_000,
            "open_paise": 0,
            "stop_paise": 0,
            "target_paise": 0,
        }
    ]
    assert (status["decisions"], status["refusals"], status["clock"]) == (1, 0, "09:26:00")
    assert status["progress"] == pytest.approx(11 / 70)


def test_status_shows_the_last_decisions_and_the_working_orders_and_bounds_both() -> None:
    script = {10: [entry_signal()] * (RECENT_MAX + 3)}
    day = Day(rows(*[10_000] * 3), ScriptedStrategy("alpha", script))
    seen: list[dict[str, Any]] = []
    day._user_before = lambda position: seen.append(day.session.status("RUNNING"))
    day.run()
    decisions, orders = seen[1]["last_decisions"], seen[1]["working_orders"]
    assert len(decisions) == RECENT_MAX
    assert (decisions[-1]["code"], decisions[-1]["layer"], decisions[-1]["approved"]) == ("DUPLICATE_ORDER", 2, False)
    assert decisions[-1]["reason"] == "Duplicate order prevented"
    assert [(order["symbol"], order["side"], order["quantity"], order["role"]) for order in orders] == [
        ("AAA", "BUY", 1, "ENTRY")
    ]
    assert seen[2]["working_orders"] == []
    assert seen[1]["data_ms"] == OPEN_MS + 10 * MINUTE_MS


@pytest.mark.parametrize(
    ("minute", "phase"), [(9, "before entries"), (10, "trading"), (60, "exits only"), (69, "exits only"), (70, "square-off")]
)
def test_status_names_the_phase(minute: int, phase: str) -> None:
    day = Day(rows(10_000, start=minute), ScriptedStrategy(), entries_from_ms=OPEN_MS + 10 * MINUTE_MS)
    day.run()
    assert day.session.status("DONE")["phase"] == phase


def test_status_of_a_stopping_session_says_so() -> None:
    day = Day(rows(10_000), ScriptedStrategy())
    day.session.request_stop("enough")
    assert day.session.status("STOPPING")["phase"] == "stopping"


def test_plan_defaults_are_the_cautious_ones() -> None:
    plan = make_plan()
    assert (plan.square_off, plan.on_stop, plan.resume_after_ms, plan.reconcile_seconds) == (True, OnStop.FLATTEN, 0, 0.0)


def test_strategy_that_is_disabled_with_an_entry_on_its_way_has_it_cancelled() -> None:
    bad = ScriptedStrategy("alpha", {10: [entry_signal()], 11: ZeroDivisionError("a bug")})
    day = Day(rows(*[10_000] * 4), bad, fills=False)
    result = day.run()
    assert day.rig.broker.cancels == ["B1"]
    assert day.sent == [("AAA", "BUY", 1, "ENTRY")]
    assert day.rig.broker.book["B1"].state is OrderState.CANCELLED
    assert result.flat


def test_strategy_that_an_earlier_process_disabled_stays_so_and_its_late_fill_is_closed() -> None:
    rig = Rig()
    order = rig.enter(entry_signal())
    rig.broker.cancel_answers.extend([SendStatus.UNKNOWN] * 9)
    strategy = ScriptedStrategy("alpha", {12: [entry_signal("BBB")]})
    day = Day(rows(*[10_000] * 5), strategy, rig=rig, fills=False)
    day.hosts[0].disabled = "ZeroDivisionError: a bug"

    def fill_late(position: int) -> None:
        if position == 2:
            rig.broker.fill(order.broker_order_id, 1, 10_000)

    day._user_before = fill_late
    day.run()
    assert (strategy.sessions, strategy.seen) == ([], [])
    assert rig.broker.cancels[0] == order.broker_order_id
    assert [sent[:2] for sent in day.sent][:2] == [("AAA", "BUY"), ("AAA", "SELL")]
    assert rig.journal.bodies(EventKind.STRATEGY_DISABLED) == []
    assert "Strategy alpha is disabled for the day" not in rig.alerts.titles
