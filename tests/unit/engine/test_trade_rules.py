"""Trade rules on a rig: real order manager, fake broker; the engine's session around them where exits are to leave."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.rig import OPEN_MS, UNIVERSE, Rig, entry_signal
from tests.fakes.session import MINUTE_MS, Day, ScriptedStrategy, row, rows
from velox_core.domain.events import EventKind
from velox_core.domain.orders import Side, SignalKind
from velox_core.engine.trade_rules import TradeRules
from velox_core.strategies.rules import TradeRuleValues, resolve_rules

HELD_MS = OPEN_MS + 10 * MINUTE_MS


def kept(rig: Rig, *, quiet_until_ms: int = 0, **values: Any) -> TradeRules:
    return TradeRules(
        "alpha",
        TradeRuleValues(**values),
        columns=(0, 1),
        universe=UNIVERSE,
        tick_paise=(5,) * 5,
        books=rig.orders,
        refuse=rig.risk.refuse,
        quiet_until_ms=quiet_until_ms,
        day_starts_ms=OPEN_MS,
    )


def day_with(items: Any, script: dict[int, Any], *, rig: Rig | None = None, **plan: Any) -> Day:
    rules = plan.pop("rules")
    day = Day(items, ScriptedStrategy("alpha", script), rig=rig, **plan)
    for host in day.hosts:
        host.rules = TradeRules(
            "alpha",
            TradeRuleValues(**rules),
            columns=host.columns,
            universe=UNIVERSE,
            tick_paise=(5,) * 5,
            books=day.rig.orders,
            refuse=day.rig.risk.refuse,
            quiet_until_ms=day.plan.resume_after_ms,
            day_starts_ms=OPEN_MS,
        )
    return day


# -- trailing stop --------------------------------------------------------------------------------------------


def test_trailing_stop_follows_the_best_price_of_a_long_and_never_goes_back() -> None:
    rig = Rig()
    rig.hold("AAA", price_paise=10_000)
    rules = kept(rig, trailing_bps=100)
    position = rig.orders.positions["AAA"]
    stops = []
    for number, close in enumerate((10_000, 10_200, 10_100, 10_301), start=11):
        assert rules.apply(row(number).ts_ms, row(number, close), [1, 0, 0, 0, 0], []) == []
        stops.append(position.stop_paise)
    # 1 % below 10000, 10200, 10200, 10301 (10198.99 down to the tick)
    assert stops == [9_900, 10_095, 10_095, 10_195]
    assert position.is_trailing


def test_trailing_stop_follows_the_best_price_of_a_short() -> None:
    rig = Rig()
    rig.hold("AAA", Side.SELL, price_paise=10_000)
    rules = kept(rig, trailing_bps=100)
    for number, close in enumerate((9_800, 9_900), start=11):
        rules.apply(row(number).ts_ms, row(number, close), [-1, 0, 0, 0, 0], [])
    assert rig.orders.positions["AAA"].stop_paise == 9_900  # 9898 up to the tick


def test_trailing_stop_never_loosens_the_entrys_own_stop() -> None:
    rig = Rig()
    order = rig.enter(entry_signal("AAA", stop=9_950))
    rig.broker.fill(order.broker_order_id, 1, 10_000)
    rig.orders.poll(HELD_MS)
    kept(rig, trailing_bps=100).apply(row(11).ts_ms, row(11, 10_010), [1, 0, 0, 0, 0], [])
    position = rig.orders.positions["AAA"]
    assert (position.stop_paise, position.is_trailing) == (9_950, False)


def test_trailing_stop_forgets_the_best_price_of_the_position_before() -> None:
    rig = Rig()
    rig.hold("AAA", price_paise=10_000)
    rules = kept(rig, trailing_bps=100)
    rules.apply(row(11).ts_ms, row(11, 12_000), [1, 0, 0, 0, 0], [])
    sold = rig.exit_now("AAA", now_ms=row(12).ts_ms)
    rig.broker.fill(sold.broker_order_id, 1, 12_000)
    rig.orders.poll(row(12).ts_ms)
    rig.broker.now_ms = row(13).ts_ms
    rig.hold("AAA", price_paise=10_000, now_ms=row(13).ts_ms)
    rules.apply(row(14).ts_ms, row(14, 10_010), [1, 0, 0, 0, 0], [])
    assert rig.orders.positions["AAA"].stop_paise == 9_910


def test_trailing_stop_leaves_other_strategies_and_minutes_before_the_entry_alone() -> None:
    rig = Rig()
    rig.hold("AAA", strategy="beta")
    rig.hold("BBB")
    rules = kept(rig, trailing_bps=100)
    rules.apply(row(10).ts_ms, row(10, 20_000, 20_000), [1, 1, 0, 0, 0], [])
    assert [rig.orders.positions[symbol].stop_paise for symbol in ("AAA", "BBB")] == [0, 0]
    rules.apply(row(11).ts_ms, row(11, 20_000, 20_000), [1, 1, 0, 0, 0], [])
    assert [rig.orders.positions[symbol].stop_paise for symbol in ("AAA", "BBB")] == [0, 19_800]


def test_trailing_stop_closes_the_position_as_a_stop_at_the_next_bar_that_reaches_it() -> None:
    items = [*rows(10_000, 10_000, 10_400), row(13, 10_350, *[10_000] * 4, low=10_290), *rows(10_280, 10_280, start=14)]
    day = day_with(items, {10: [entry_signal("AAA")]}, rules={"trailing_bps": 100})
    assert day.run().flat
    assert day.sent == [("AAA", "BUY", 1, "ENTRY"), ("AAA", "SELL", 1, "STOP")]
    (exit_order,) = [order for order in day.rig.orders.orders.values() if order.rank is not None]
    assert exit_order.reason == "trailing stop 102.95 reached"
    assert exit_order.created_ms == row(13).ts_ms


def test_a_bar_never_raises_the_stop_that_it_is_judged_by() -> None:
    # minute 12 shoots from 100 to 104 and closes at 102, below 1 % under its own high: only a later bar may reach the stop
    items = [*rows(10_000, 10_000), row(12, 10_300, *[10_000] * 4, high=10_400, low=10_100), *rows(10_350, 10_350, start=13)]
    day = day_with(items, {10: [entry_signal("AAA")]}, rules={"trailing_bps": 100})
    day.run()
    assert [sent[3] for sent in day.sent] == ["ENTRY", "SQUARE_OFF"]


def test_trailing_stop_is_the_same_after_a_restart_in_the_middle_of_the_day() -> None:
    prices = (10_000, 10_000, 10_400, 10_380, 10_390)
    script = {10: [entry_signal("AAA")]}
    whole = day_with(rows(*prices), script, rules={"trailing_bps": 100}, square_off=False)
    whole.run()
    first = day_with(rows(*prices[:3]), script, rules={"trailing_bps": 100}, square_off=False)
    first.run()
    # the new process is given the whole day again; the position it holds was opened after minute 10
    first.rig.orders.positions["AAA"].stop_paise = 0
    again = day_with(
        [row(9, 99_000, *[10_000] * 4), *rows(*prices)],
        {},
        rig=first.rig,
        rules={"trailing_bps": 100},
        square_off=False,
        resume_after_ms=row(12).ts_ms,
    )
    again.run()
    assert whole.rig.orders.positions["AAA"].stop_paise == 10_295
    assert again.rig.orders.positions["AAA"].stop_paise == 10_295


# -- time stop ------------------------------------------------------------------------------------------------


def test_time_stop_closes_after_its_minutes_and_not_before() -> None:
    day = day_with(rows(*[10_000] * 9), {10: [entry_signal("AAA")]}, rules={"time_stop_ms": 3 * MINUTE_MS})
    assert day.run().flat
    (exit_order,) = [order for order in day.rig.orders.orders.values() if order.rank is not None]
    held_ms = exit_order.created_ms - day.rig.orders.orders[next(iter(day.rig.orders.orders))].created_ms
    assert day.sent[1] == ("AAA", "SELL", 1, "STOP")
    assert exit_order.reason == "time stop: held 3 minutes"
    assert 3 * MINUTE_MS <= held_ms <= 4 * MINUTE_MS


def test_time_stop_leaves_an_entry_on_its_way_alone() -> None:
    rig = Rig()
    rig.enter(entry_signal("AAA"))
    assert kept(rig, time_stop_ms=MINUTE_MS).apply(row(30).ts_ms, row(30, 10_000), [1, 0, 0, 0, 0], []) == []


# -- re-entry -------------------------------------------------------------------------------------------------


def traded(rig: Rig, closed_ms: int) -> None:
    """Enter and leave AAA, the last trade at an engine time."""
    rig.hold("AAA")
    sold = rig.exit_now("AAA", now_ms=closed_ms)
    rig.broker.now_ms = closed_ms
    rig.broker.fill(sold.broker_order_id, 1, 10_000)
    rig.orders.poll(closed_ms)


@pytest.mark.parametrize(("minutes", "passes"), [(4, False), (5, True), (6, True)])
def test_cooldown_refuses_an_entry_just_under_and_lets_it_pass_at_and_over(minutes: int, passes: bool) -> None:
    rig = Rig()
    traded(rig, row(12).ts_ms)
    signals = [entry_signal("AAA"), entry_signal("BBB")]
    now = row(12 + minutes)
    left = kept(rig, cooldown_ms=5 * MINUTE_MS).apply(now.ts_ms, now, [0] * 5, signals)
    assert [signal.symbol for signal in left] == (["AAA", "BBB"] if passes else ["BBB"])
    refused = [body for body in rig.journal.bodies(EventKind.DECISION) if body["code"] == "REENTRY_RULE"]
    assert len(refused) == (not passes)
    if refused:
        assert "cool-down is 5 minutes" in str(refused[0]["reason"])


@pytest.mark.parametrize(("most", "passes"), [(1, False), (2, True), (0, True)])
def test_entries_per_symbol_counts_those_that_traded(most: int, passes: bool) -> None:
    rig = Rig()
    traded(rig, row(12).ts_ms)
    rules = kept(rig, entries_per_symbol_max=most, cooldown_ms=1)
    left = rules.apply(row(20).ts_ms, row(20, 10_000), [0] * 5, [entry_signal("AAA")])
    assert bool(left) is passes


def test_entries_per_symbol_counts_none_that_never_traded_nor_another_strategys() -> None:
    rig = Rig()
    order = rig.enter(entry_signal("AAA"))
    rig.orders.cancel(order, "test", HELD_MS)
    rig.orders.poll(HELD_MS)
    rig.hold("BBB", strategy="beta")
    rules = kept(rig, entries_per_symbol_max=1)
    signals = [entry_signal("AAA"), entry_signal("BBB")]
    assert list(rules.apply(row(20).ts_ms, row(20, 1, 1), [0] * 5, signals)) == signals


def test_reentry_rules_never_hold_an_exit_back() -> None:
    rig = Rig()
    traded(rig, row(12).ts_ms)
    rig.hold("AAA", now_ms=row(20).ts_ms)
    leaving = entry_signal("AAA", Side.SELL)
    leaving.kind = SignalKind.EXIT
    rules = kept(rig, entries_per_symbol_max=1, cooldown_ms=400 * MINUTE_MS)
    assert list(rules.apply(row(20).ts_ms, row(20, 10_000), [1, 0, 0, 0, 0], [leaving])) == [leaving]


def test_minutes_of_an_earlier_process_are_refused_silently() -> None:
    rig = Rig()
    traded(rig, row(12).ts_ms)
    rules = kept(rig, entries_per_symbol_max=1, quiet_until_ms=row(13).ts_ms)
    assert rules.apply(row(13).ts_ms, row(13, 1), [0] * 5, [entry_signal("AAA")]) == []
    assert [body for body in rig.journal.bodies(EventKind.DECISION) if body["code"] == "REENTRY_RULE"] == []


# -- values ---------------------------------------------------------------------------------------------------


def test_rules_of_the_configuration_override_a_strategys_own_one_by_one() -> None:
    named, values = resolve_rules({"time_stop_minutes": 60, "cooldown_minutes": 5}, {"time_stop_minutes": 0})
    assert named == {
        "trailing_stop_percent": 0.0,
        "time_stop_minutes": 0,
        "cooldown_minutes": 5,
        "entries_per_symbol_max": 0,
    }
    assert values == TradeRuleValues(cooldown_ms=300_000)
    assert not resolve_rules({}, {})[1].any


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"trailing_stop_percent": 60}, "rule 'trailing_stop_percent' is 60; the most allowed is 50.0"),
        ({"time_stop_minutes": 1.5}, "rule 'time_stop_minutes' is 1.5; it takes a int"),
        ({"cool_down": 1}, "rule 'cool_down' is unknown; known are cooldown_minutes"),
    ],
)
def test_impossible_rule_is_refused_by_name(given: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        resolve_rules({}, given)
