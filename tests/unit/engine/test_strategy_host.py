from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.own_records import own_records
from tests.fakes.rig import DAY, OPEN_MS, UNIVERSE, entry_signal
from tests.fakes.session import ScriptedStrategy, row
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.strategies.base import StrategySession

SESSION = StrategySession(
    trading_date=DAY, universe=UNIVERSE, columns=(0, 1), open_ms=OPEN_MS, entry_until_ms=OPEN_MS + 1, tick_paise=(5,) * 5
)


def host_of(answer: Any, *, bad_start: bool = False) -> HostedStrategy:
    return HostedStrategy(ScriptedStrategy("alpha", {1: answer}, bad_start=bad_start), (0, 1), UNIVERSE)


def test_host_passes_its_own_signals_on() -> None:
    signals = [entry_signal("AAA"), entry_signal("BBB", Side.SELL)]
    host = host_of(signals)
    assert host.on_minute(row(1).ts_ms, row(1)) is signals
    assert host.disabled == ""


def test_host_without_signals_answers_an_empty_list() -> None:
    host = host_of([])
    assert host.on_minute(row(1).ts_ms, row(1)) == []
    assert host.disabled == ""


def signal_with(**changes: Any) -> Signal:
    signal = entry_signal()
    for name, value in changes.items():
        setattr(signal, name, value)
    return signal


class OddSignal(Signal):
    """A subclass may lie about everything."""


class TwoFacedList(list[Signal]):
    """A list that holds other signals each time it is looked through."""


def test_host_takes_no_class_of_its_own_for_a_list() -> None:
    host = host_of(TwoFacedList([entry_signal("AAA")]))
    assert host.on_minute(row(1).ts_ms, row(1)) is None
    assert "TwoFacedList where a list of Signals is due" in host.disabled


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
        (SystemExit(3), "SystemExit: 3"),
        (None, "TypeError: on_minute returned None"),
        (["BUY"], "TypeError: on_minute returned str"),
        ("BUY", "TypeError: on_minute returned str where a list"),
        (7, "TypeError"),
        ([entry_signal(), None], "TypeError: on_minute returned NoneType"),
        ([OddSignal("alpha", "AAA", Side.BUY, 1, SignalKind.ENTRY, "r")], "TypeError: on_minute returned OddSignal"),
        ([entry_signal("CCC")], "ValueError: signal of alpha for CCC"),
        ([entry_signal("ZZZ")], "ValueError: signal of alpha for ZZZ"),
        ([entry_signal(strategy="beta")], "ValueError: signal of beta for AAA"),
        ([signal_with(side="BUY")], "TypeError: signal for AAA"),
        ([signal_with(kind="ENTRY")], "TypeError: signal for AAA"),
        ([signal_with(rank=4)], "TypeError: signal for AAA"),
        ([signal_with(quantity=1.5)], "TypeError: signal for AAA"),
        ([signal_with(quantity=True)], "TypeError: signal for AAA"),
        ([signal_with(stop_paise=99.5)], "TypeError: signal for AAA"),
        ([signal_with(target_paise=None)], "TypeError: signal for AAA"),
        ([signal_with(stop_paise=float("nan"))], "TypeError: signal for AAA"),
        ([signal_with(quantity=0)], "ValueError: signal for AAA with quantity 0; the least is 1"),
        ([signal_with(quantity=-5)], "ValueError: signal for AAA with quantity -5"),
        ([signal_with(reason=7)], "ValueError: signal for AAA with a reason"),
        ([signal_with(reason="x" * 201)], "ValueError: signal for AAA with a reason"),
        ([signal_with(reason="\ud800")], "ValueError: signal for AAA with a reason"),
        ([signal_with(reason="two\nlines")], "ValueError: signal for AAA with a reason"),
        ([entry_signal()] * 1_001, "ValueError: on_minute returned 1001 signals; at most 1000"),
        ((signal for signal in [entry_signal()]), "TypeError: on_minute returned generator where a list"),
        ({"AAA": entry_signal()}, "TypeError: on_minute returned dict where a list"),
        (GeneratorExit(), "GeneratorExit: "),
        (type("Custom", (BaseException,), {})("odd\ud800\ntext"), r"Custom: odd\ud800 text"),
    ],
)
def test_host_of_a_strategy_that_misbehaves_is_disabled_for_the_day(answer: Any, named: str) -> None:
    host = host_of(answer)
    assert host.on_minute(row(1).ts_ms, row(1)) is None
    assert host.disabled.startswith(named)


class Unspeakable(ValueError):
    """Its text is foreign code too."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [ValueError("half a letter \ud800\nand a line"), Unspeakable()])
def test_what_a_strategy_says_of_itself_can_be_logged_and_journaled(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    host = host_of(error)
    assert host.on_minute(row(1).ts_ms, row(1)) is None
    assert host.disabled.isprintable()
    said = [record.getMessage() for record in own_records(caplog)]
    assert len(said) == 1
    assert "is disabled for the day" in said[0]
    assert said[0].encode("utf-8").decode() == said[0]
    assert own_records(caplog)[0].exc_info is None


def test_host_lets_an_interrupt_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        host_of(KeyboardInterrupt()).on_minute(row(1).ts_ms, row(1))


def test_host_that_cannot_start_is_disabled() -> None:
    host = host_of([], bad_start=True)
    host.start(SESSION)
    assert host.disabled == "ValueError: cannot start"


def test_host_starts_its_strategy_with_the_session() -> None:
    host = host_of([])
    host.start(SESSION)
    assert isinstance(host.strategy, ScriptedStrategy)
    assert host.strategy.sessions == [SESSION]
    assert host.symbols == {"AAA", "BBB"}
