"""A session over a broker that hangs on every call: the loop goes on judging, showing and asking, and loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.fakes.gated_broker import GatedBroker
from tests.fakes.outside import FakeControl
from tests.fakes.rig import PREFIX, Rig, entry_signal, make_limits
from tests.fakes.session import Day, ScriptedStrategy, row
from velox_core.brokers.answers import ReadBounds
from velox_core.brokers.off_loop import OffLoopBroker
from velox_core.brokers.sends import SendBounds
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltKind
from velox_core.domain.orders import OrderState, Side
from velox_core.engine import owed
from velox_core.engine.plan import OnStop
from velox_core.ports import ControlRequest

EVERY_CALL = ("place", "cancel", "orders", "trades", "positions", "funds")
ENTRY, EXIT = f"{PREFIX}0000001", f"{PREFIX}0000002"
PATIENT = SendBounds(entry_wait_seconds=120.0)  # of real time: a busy machine has threads begin late
Step = Callable[[], object]


class OffLoopDay:
    """A day of one entry over a gated broker off the loop; `steps` act before the row of their position."""

    def __init__(
        self,
        prices: list[int | None],
        steps: dict[int, Step],
        *,
        control: FakeControl | None = None,
        patience_seconds: float = 30.0,
        **plan: object,
    ) -> None:
        self.seconds = 0.0
        self.steps = steps
        self.patience_seconds = patience_seconds
        self.rig = Rig(make_limits(max_daily_loss_paise=1_000), wrap=self._wrap)
        self.strategy = ScriptedStrategy(script={10: [entry_signal()]})
        items = [None if price is None else row(10 + n, price, *[10_000] * 4) for n, price in enumerate(prices)]
        self.day = Day(items, self.strategy, rig=self.rig, before=self._before, control=control or FakeControl(), **plan)

    def _wrap(self, broker: object) -> OffLoopBroker:
        self.gate = GatedBroker(broker)  # type: ignore[arg-type]
        reads = ReadBounds(hurried_seconds=0.0, patience_seconds=self.patience_seconds)
        return OffLoopBroker(self.gate, send_bounds=PATIENT, read_bounds=reads, monotonic=self._monotonic)

    def _monotonic(self) -> float:
        """Return real time, as the patience at the end needs it, and what a step let pass on top."""
        return self.seconds + time.monotonic()

    def _before(self, position: int) -> None:
        self.steps.pop(position, lambda: None)()

    def entry_answered(self) -> None:
        """Wait until the entry is in the book."""
        self.gate.wait_done("place")

    def entry_left(self) -> None:
        """Wait until the entry is on its way."""
        self.gate.wait_begun("place")

    def shut(self) -> None:
        self.gate.shut.update(EVERY_CALL)

    def overdue(self) -> None:
        """Let the time-out of the exit pass."""
        self.gate.wait_begun("place", 2)
        self.seconds += 5.0

    def open(self) -> None:
        self.gate.open()
        self.gate.wait_done("place", self.gate.begun["place"])

    def states(self, order_id: str) -> list[str]:
        bodies = self.rig.journal.bodies(EventKind.ORDER)
        return [str(body["state"]) for body in bodies if body["client_order_id"] == order_id]


def test_session_with_a_broker_that_hangs_on_every_call_judges_closes_and_shows_itself() -> None:
    seen: dict[str, object] = {}

    def look() -> None:
        made.gate.wait_begun("place", 2)  # when its thread comes to run is the machine's choice
        status = made.day.control.published[-1]
        seen["halted"], seen["live"], seen["clock"] = status["halted"], status["live_orders"], status["clock"]
        seen["age"] = status["breach_age_ms"]
        seen["exit"] = made.rig.orders.orders[EXIT].state
        seen["sent"] = list(made.gate.order_of_sends)

    def open_and_look() -> None:
        seen["unknown"] = made.rig.orders.orders[EXIT].state
        seen["locks"] = dict(made.rig.risk.locks)
        made.open()

    made = OffLoopDay([10_000, 10_000, 8_000, None, None, 7_900, None, None, None], {})
    made.steps.update({1: made.entry_answered, 2: made.shut, 5: look, 6: made.overdue, 8: open_and_look})
    result = made.day.run()
    assert (seen["halted"], seen["exit"], seen["sent"]) == (True, OrderState.SUBMITTING, [ENTRY, EXIT])
    assert isinstance(seen["age"], int)
    assert seen["unknown"] is OrderState.UNKNOWN
    assert list(seen["locks"]) == ["AAA"]  # type: ignore[call-overload]
    assert made.strategy.seen == [10, 11, 12, 15]
    assert made.gate.order_of_sends == [ENTRY, EXIT]
    assert (made.states(EXIT)[0], made.states(EXIT)[-1]) == ("UNKNOWN", "FILLED")
    assert [halt.kind for halt in made.rig.halt_file.records()] == [HaltKind.LOSS]
    assert (result.flat, result.halted, result.fault) == (True, True, "")


def test_session_goes_on_showing_itself_while_a_send_hangs() -> None:
    made = OffLoopDay([10_000] + [None] * 12 + [10_000], {})
    made.steps.update({0: made.shut, 13: made.open})
    made.day.run()
    running = [status for status in made.day.control.published if status["state"] == "RUNNING"]
    assert len(running) > 10
    assert all(status["breach_age_ms"] >= 0 for status in running)  # type: ignore[operator]


def test_status_tells_the_longest_age_that_a_breach_evaluation_reached() -> None:
    made = OffLoopDay([10_000] + [None] * 4, {})
    made.steps[3] = lambda: setattr(made.day.clock, "seconds", made.day.clock.seconds + 7.0)
    made.day.run()
    ages = [status["breach_age_ms"] for status in made.day.control.published]
    assert max(ages) >= 7_000  # type: ignore[type-var,operator]
    assert sum(age >= 7_000 for age in ages) < len(ages)  # type: ignore[operator]


@pytest.mark.parametrize("on_stop", ["hold", "flatten"])
def test_answer_still_owed_at_the_end_is_waited_for_and_then_unknown(monkeypatch: pytest.MonkeyPatch, on_stop: str) -> None:
    monkeypatch.setattr(owed, "ANSWER_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(owed, "ANSWER_PAUSES_MAX", 3)
    made = OffLoopDay([10_000, None, None], {}, patience_seconds=0.01, on_stop=OnStop(on_stop))
    made.steps.update({0: made.shut, 1: made.entry_left, 2: lambda: made.day.session.request_stop("test")})
    result = made.day.run()
    assert made.states(ENTRY) == ["UNKNOWN"]
    assert (result.flat, result.fault) == (False, "")
    assert made.gate.order_of_sends == [ENTRY]
    made.gate.open()


@pytest.mark.parametrize("on_stop", ["hold", "flatten"])
def test_stop_withdraws_an_entry_that_has_not_left(monkeypatch: pytest.MonkeyPatch, on_stop: str) -> None:
    if on_stop == "hold":  # its end does not wait for the entry that hangs
        monkeypatch.setattr(owed, "ANSWER_PAUSE_SECONDS", 0.001)
    control = FakeControl()
    made = OffLoopDay([10_000, None, None, None], {}, control=control, on_stop=OnStop(on_stop))
    made.strategy.script[10] = [entry_signal(s, Side.BUY) for s in ("AAA", "BBB", "CCC")]
    made.rig.off_loop._sends._bounds = SendBounds(entries_in_flight_max=1, entry_wait_seconds=1e9)  # type: ignore[union-attr]

    def stop() -> None:
        made.entry_left()
        control.requests.append(ControlRequest("stop", "me", "test"))

    made.steps.update({0: made.shut, 1: stop, 3: made.open})
    result = made.day.run()
    assert made.gate.order_of_sends[0] == ENTRY
    assert {made.rig.orders.orders[f"{PREFIX}000000{n}"].state for n in (2, 3)} == {OrderState.CANCELLED}
    made.gate.open()
    assert all(order.symbol == "AAA" for order in made.rig.broker.placed)
    assert result.flat is (on_stop == "flatten")
