"""`velox explain` on journals that the real gate wrote: what it names as passing does pass, put back into the gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from velox_core.decision_journal import DecisionJournal
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.domain.halts import HaltKind, HaltRecord, clear_of
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.operations.decision_history import journaled_limits, journaled_request, judged_decisions
from velox_core.operations.explain import DecisionFilter, explain_events, parse_layer
from velox_core.operations.remedies import PRECONDITION_REMEDIES
from velox_core.operations.report import LAYER_NAMES
from velox_core.risk.gate import judge_entry
from velox_core.risk.layers import EntryRequest, ReasonCode, Refusal
from velox_core.risk.ledger import Claim, LedgerChange, OpenPosition, RiskSnapshot, apply_change, replace_snapshot
from velox_core.risk.limits import RiskLimits
from velox_core.settings import Settings

Load = Callable[..., Settings]
DAY = date(2024, 1, 15)
TEN_MS = 1_705_293_000_000  # 2024-01-15 10:00:00 IST


class Gate:
    """The gate's own functions on a ledger in memory, and a journal of what they said."""

    def __init__(self, limits: RiskLimits) -> None:
        self.limits = limits
        self.events: list[JournalEvent] = []
        self.known = RiskSnapshot()
        self._decisions = DecisionJournal(self, limits)  # type: ignore[arg-type]
        self._numbers = 0

    def append(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        self.events.append(JournalEvent(len(self.events) + 1, ts_ms, kind, body, ""))

    def enter(
        self,
        symbol: str,
        *,
        at_ms: int = TEN_MS,
        strategy: str = "sma",
        price: int = 100_000,
        loss: int = 0,
        cost: int = 500,
        before: Refusal | None = None,
    ) -> str:
        """Ask for an entry; returns the order's id, '' for a refusal."""
        signal = Signal(strategy, symbol, Side.BUY, 10, SignalKind.ENTRY, "up")
        request = EntryRequest(strategy, symbol, Side.BUY, 1, price, at_ms, loss, cost)
        refusal = before or judge_entry(request, self.known, self.limits)
        self._numbers += 1
        order_id = "" if refusal else f"O{self._numbers}"
        self._decisions.note_entry(signal, request, self.known, refusal, order_id)
        if not refusal:
            claim = Claim(order_id, strategy, symbol, Side.BUY, 1, price, at_ms)
            self.known = apply_change(self.known, LedgerChange(opens_risk=True, put_claim=claim))
        return order_id

    def fill(self, order_id: str, symbol: str, *, position: int, at_ms: int, strategy: str = "sma") -> None:
        side = "BUY" if position else "SELL"
        body: Body = {"trade_id": order_id, "client_order_id": order_id, "strategy": strategy, "symbol": symbol, "side": side}
        body |= {"quantity": 1, "price": 100_000, "position": position, "cost": position * 100_000, "charges": 0, "realised": 0}
        self.append(EventKind.FILL, at_ms, body)
        self.append(EventKind.ORDER, at_ms, {"client_order_id": order_id, "state": "FILLED"})
        held = OpenPosition(symbol, strategy, position, position * 100_000, at_ms) if position else None
        change = LedgerChange(drop_claim=order_id, put_position=held, drop_position=None if position else symbol)
        self.known = apply_change(self.known, change)

    def hold(self, symbol: str, *, at_ms: int = TEN_MS - 60_000, strategy: str = "sma") -> None:
        order_id = self.enter(symbol, at_ms=at_ms, strategy=strategy)
        assert order_id
        self.fill(order_id, symbol, position=1, at_ms=at_ms + 1_000, strategy=strategy)


@pytest.fixture
def settings(settings_with: Load) -> Settings:
    return settings_with()


@pytest.fixture
def gate(settings: Settings) -> Gate:
    return Gate(settings.risk.limits)


def last(gate: Gate, settings: Settings, **wanted: Any) -> Any:
    found = explain_events(gate.events, settings, DecisionFilter(**wanted), shown_max=100, config_changed=False)
    return found["decisions"][-1]


def verdict_of_the_gate(gate: Gate, *, later_ms: int = 0, **limits: int) -> Refusal | None:
    """Put the last decision back into the gate, with a limit changed or some time later."""
    judged = list(judged_decisions(gate.events))[-1]
    request = journaled_request(judged)
    request.now_ms += later_ms
    return judge_entry(request, judged.known, replace(journaled_limits(judged, gate.limits), **limits))


def test_explain_total_positions_names_the_smallest_limit_that_passes(gate: Gate, settings: Settings) -> None:
    for symbol, strategy in (("A", "sma"), ("B", "orb"), ("C", "rsi")):
        gate.hold(symbol, strategy=strategy)
    gate.enter("D", strategy="new")
    decision = last(gate, settings)
    assert (decision.approved, decision.layer, decision.code) == (False, 6, "TOTAL_POSITIONS")
    assert decision.would_have_passed == "with max_total_positions 4"
    assert verdict_of_the_gate(gate, max_total_positions=4) is None
    assert verdict_of_the_gate(gate, max_total_positions=3) is not None


def test_explain_strategy_positions_names_the_limit_and_the_layer_that_refuses_next(gate: Gate, settings: Settings) -> None:
    gate.hold("A")
    gate.hold("B")
    gate.hold("C", strategy="orb")
    gate.enter("D")
    decision = last(gate, settings)
    passing = "with max_positions_per_strategy 3; layer 6 (Total positions) would have refused too"
    assert (decision.layer, decision.would_have_passed) == (5, passing)
    assert [layer.verdict for layer in decision.layers] == ["passed"] * 5 + ["REFUSED"] + ["not asked"] * 2
    assert decision.layers[6].numbers == "would have REFUSED: 3 of 3 open or pending"
    refusal = verdict_of_the_gate(gate, max_positions_per_strategy=3)
    assert refusal is not None
    assert refusal.layer == 6


def test_explain_duplicate_names_the_end_of_the_window_to_the_millisecond(gate: Gate, settings: Settings) -> None:
    order_id = gate.enter("A")
    gate.append(EventKind.ORDER, TEN_MS + 500, {"client_order_id": order_id, "state": "REJECTED"})
    gate.known = apply_change(gate.known, LedgerChange(drop_claim=order_id))
    gate.enter("A", at_ms=TEN_MS + 1_000)
    decision = last(gate, settings)
    assert decision.would_have_passed == "from 10:00:05, when the dedup window ends"
    assert verdict_of_the_gate(gate, later_ms=4_000) is None
    assert verdict_of_the_gate(gate, later_ms=3_999) is not None


def test_explain_duplicate_of_an_order_on_its_way_names_the_order_and_when_it_ended(gate: Gate, settings: Settings) -> None:
    order_id = gate.enter("A")
    gate.enter("A", at_ms=TEN_MS + 60_000)
    gate.fill(order_id, "A", position=1, at_ms=TEN_MS + 90_000)
    passing = f"once order {order_id} has ended (that was at 10:01:30); layer 3 (Position exists) would have refused too"
    assert last(gate, settings).would_have_passed == passing


def test_explain_position_exists_names_who_holds_it_and_when_it_was_flat(gate: Gate, settings: Settings) -> None:
    gate.hold("A", strategy="orb")
    gate.enter("A")
    gate.fill("X1", "A", position=0, at_ms=TEN_MS + 120_000, strategy="orb")
    decision = last(gate, settings)
    assert decision.layers[3].numbers == "+1 held by orb since 09:59:01"
    assert decision.would_have_passed == "once A is flat (that was at 10:02:00)"


def test_explain_position_size_names_the_limit_that_passes(gate: Gate, settings: Settings) -> None:
    gate.enter("A", price=500_001)
    assert last(gate, settings).would_have_passed == "with max_position_size ₹5,000.01"
    assert verdict_of_the_gate(gate, max_position_size_paise=500_001) is None
    assert verdict_of_the_gate(gate, max_position_size_paise=500_000) is not None


def test_explain_daily_loss_names_the_loss_below_which_it_passes(gate: Gate, settings: Settings) -> None:
    gate.enter("A", loss=199_500, cost=500)
    decision = last(gate, settings)
    assert decision.would_have_passed == "with a loss below ₹1,995.00; the loss was ₹1,995.00"
    request = journaled_request(list(judged_decisions(gate.events))[-1])
    request.loss_paise -= 1
    assert judge_entry(request, RiskSnapshot(), gate.limits) is None


def test_explain_a_halt_names_its_id_and_when_it_was_cleared(gate: Gate, settings: Settings) -> None:
    halt = HaltRecord(halt_id="H1", kind=HaltKind.MANUAL, trading_date=DAY, reason="lunch", by="me", at_ms=TEN_MS)
    gate.append(EventKind.HALT, TEN_MS, dict(halt.to_body()))
    gate.known = replace_snapshot(gate.known, halts=(halt,))
    gate.enter("A")
    clear = clear_of(halt, reason="over", by="me", at_ms=TEN_MS + 60_000)
    gate.append(EventKind.HALT_CLEARED, TEN_MS + 60_000, dict(clear.to_body()))
    decision = last(gate, settings)
    assert decision.would_have_passed == "with halt H1 cleared (it was at 10:01:00)"
    assert decision.layers[1].numbers == "halt H1: lunch"


def test_explain_an_approval_shows_every_layer_passed_and_the_order(gate: Gate, settings: Settings) -> None:
    order_id = gate.enter("A")
    gate.fill(order_id, "A", position=1, at_ms=TEN_MS + 1_000)
    gate.append(EventKind.FILL, TEN_MS + 2_000, gate.events[-2].body)  # the same trade, told again
    decision = last(gate, settings, identity=order_id)
    assert [layer.verdict for layer in decision.layers] == ["passed"] * 8
    assert (decision.order, decision.would_have_passed, decision.asked, decision.quantity) == (
        "FILLED 1 at ₹1,000.00",
        "",
        10,
        1,
    )


def test_explain_a_state_that_does_not_agree_with_the_decision_shows_the_journal_alone(gate: Gate, settings: Settings) -> None:
    for symbol, strategy in (("A", "sma"), ("B", "orb"), ("C", "rsi")):
        gate.hold(symbol, strategy=strategy)
    gate.enter("D", strategy="new")
    gate.events = gate.events[-1:]  # what came before is another process's
    decision = last(gate, settings)
    assert "cannot be worked out" in decision.note
    assert decision.would_have_passed == ""
    assert [layer.verdict for layer in decision.layers] == ["passed"] * 6 + ["REFUSED", "not asked"]
    assert decision.layers[6].numbers == decision.reason
    assert not any("would have" in layer.numbers for layer in decision.layers)


@pytest.mark.parametrize("code", list(ReasonCode))
def test_explain_every_reason_code_says_what_would_have_passed(code: ReasonCode, gate: Gate, settings: Settings) -> None:
    if parse_layer_or_none(code.value) is None:
        gate.enter("A", before=Refusal(0, code, "text"))
        assert last(gate, settings).would_have_passed
    else:
        assert code.value not in PRECONDITION_REMEDIES


def parse_layer_or_none(text: str) -> int | None:
    try:
        return parse_layer(text)
    except ValueError:
        return None


def test_explain_a_signal_that_was_refused_before_it_was_judged_has_no_doubt_about_it(gate: Gate, settings: Settings) -> None:
    signal = Signal("sma", "A", Side.BUY, 10, SignalKind.ENTRY, "up")
    request = EntryRequest("sma", "A", Side.BUY, 0, 0, TEN_MS, 0, 0)
    refusal = Refusal(0, ReasonCode.REENTRY_RULE, "two losses in A")
    gate._decisions.note_entry(signal, request, gate.known, refusal, "")
    decision = last(gate, settings)
    assert (decision.note, decision.layers[0].numbers) == ("", "two losses in A")
    assert [layer.verdict for layer in decision.layers] == ["REFUSED"] + ["not asked"] * 7
    assert decision.would_have_passed == "once the strategy's re-entry rule allows the symbol again"


def test_explain_filters_and_bounds_and_counts_all_that_match(gate: Gate, settings: Settings) -> None:
    for number in range(5):
        gate.enter("A", at_ms=TEN_MS + number * 1_000)
    gate.enter("B", strategy="orb")
    found = explain_events(gate.events, settings, DecisionFilter(symbol="A"), shown_max=2, config_changed=False)
    assert (found["matching"], found["approved_entries"], found["refused_by_layer"]) == (5, 1, {2: 4})
    assert [decision.id for decision in found["decisions"]] == [4, 5]
    assert (found["strategies"], found["symbols"]) == (["orb", "sma"], ["A", "B"])
    refused = explain_events(gate.events, settings, DecisionFilter(layer=2), shown_max=9, config_changed=False)
    assert (refused["matching"], refused["approved_entries"]) == (4, 0)
    nothing = explain_events(gate.events, settings, DecisionFilter(strategy="none"), shown_max=9, config_changed=False)
    assert nothing["matching"] == 0


@pytest.mark.parametrize("text", ["7", "Daily loss", "DAILY_LOSS", "daily_loss"])
def test_parse_layer_takes_number_name_and_code(text: str) -> None:
    assert parse_layer(text) == 7


def test_parse_layer_of_anything_else_lists_what_there_is() -> None:
    with pytest.raises(ValueError, match="Emergency exit") as caught:
        parse_layer("8")
    assert all(name in str(caught.value) for name in LAYER_NAMES.values())
