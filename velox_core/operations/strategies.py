"""The strategies of a configuration for people: parameters, trade rules, what each did on a date, a template for a new one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from velox_core.domain.errors import ConfigError, VeloxError
from velox_core.operations.expectations import EXPECTATIONS_FILE, judge
from velox_core.operations.recorded import find_run
from velox_core.operations.runs import load_report
from velox_core.settings import BrokerType, FrozenMapping, Paths, Settings, StrategySettings
from velox_core.strategies import SHIPPED
from velox_core.strategies.base import ParameterSpec, ParameterValue, Strategy
from velox_core.strategies.rules import RULE_SPECS
from velox_core.strategy_loading import BrokenStrategy, load_strategy, resolved_rules

NAME_PATTERN: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
FOLDER: Final = "my_strategies"


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyView:
    """One strategy as a person looks at it.

    `problem` says why it cannot be loaded ('' when it can); `configured` whether the configuration names it.
    """

    name: str
    whence: str
    configured: bool
    enabled: bool
    symbols: tuple[str, ...]
    summary: str
    text: str
    parameters: tuple[tuple[ParameterSpec, ParameterValue], ...] = ()
    rules: tuple[tuple[ParameterSpec, ParameterValue], ...] = ()
    problem: str = ""
    day: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the view as JSON."""
        return {
            "name": self.name,
            "whence": self.whence,
            "configured": self.configured,
            "enabled": self.enabled,
            "symbols": list(self.symbols),
            "summary": self.summary,
            "parameters": [_spec_json(spec, value) for spec, value in self.parameters],
            "rules": [_spec_json(spec, value) for spec, value in self.rules],
            "problem": self.problem,
            **({"day": dict(self.day)} if self.day else {}),
        }


def _spec_json(spec: ParameterSpec, value: ParameterValue) -> dict[str, Any]:
    return {
        "name": spec.name,
        "type": type(spec.default).__name__,
        "value": value,
        "default": spec.default,
        "minimum": spec.minimum,
        "maximum": spec.maximum,
        "help": spec.help,
    }


def range_text(spec: ParameterSpec) -> str:
    """Return what a parameter may be, for people."""
    if isinstance(spec.default, bool):
        return "true or false"
    if isinstance(spec.default, str):
        return "text"
    low = "" if spec.minimum is None else f"from {spec.minimum:g}"
    high = "" if spec.maximum is None else f"to {spec.maximum:g}"
    return " ".join(part for part in (low, high) if part) or "any number"


def expectations_file(settings: Settings, paths: Paths) -> Path:
    """Return where the account's expectations are kept: beside its runs."""
    return paths.var / "replay" / settings.account / EXPECTATIONS_FILE


def strategy_views(settings: Settings, *, shipped: bool = True) -> list[StrategyView]:
    """Return the configured strategies, then (`shipped`) those that come with VELOX and are not configured."""
    views = [_view(chosen, configured=True) for chosen in settings.strategies]
    used = {chosen.class_path for chosen in settings.strategies}
    for name, class_path in SHIPPED.items() if shipped else ():
        if class_path not in used:
            views.append(_view(_shipped_settings(name, class_path), configured=False))
    return views


def one_view(settings: Settings, name: str) -> StrategyView:
    """Return a strategy by its configured or shipped name. Raises ConfigError that lists the known ones."""
    for chosen in settings.strategies:
        if chosen.name == name:
            return _view(chosen, configured=True)
    if name in SHIPPED:
        return _view(_shipped_settings(name, SHIPPED[name]), configured=False)
    known = sorted({chosen.name for chosen in settings.strategies} | set(SHIPPED))
    raise ConfigError(f"there is no strategy {name!r}; known are {', '.join(known)}")


def _shipped_settings(name: str, class_path: str) -> StrategySettings:
    return StrategySettings(name=name, class_path=class_path, symbols=(), enabled=False, parameters=FrozenMapping({}))


def _view(chosen: StrategySettings, *, configured: bool) -> StrategyView:
    place = chosen.class_path or f"{chosen.path}{':' + chosen.path_class if chosen.path_class else ''}"
    view = StrategyView(
        name=chosen.name,
        whence=place,
        configured=configured,
        enabled=chosen.enabled,
        symbols=chosen.symbols,
        summary="",
        text="",
    )
    try:
        made = load_strategy(chosen)
        rules = resolved_rules(chosen, made)[0]
    except ConfigError as error:
        return replace(view, problem="; ".join(error.problems))
    if isinstance(made, BrokenStrategy):
        return replace(view, problem=made.why)
    text = _text_of(made)
    return replace(
        view,
        summary=text.split("\n", 1)[0],
        text=text,
        parameters=tuple((spec, made.parameters[spec.name]) for spec in made.parameter_specs),
        rules=tuple((spec, rules[spec.name]) for spec in RULE_SPECS),
    )


def _text_of(made: Strategy) -> str:
    """Return the docstring of a strategy's module, else of its class."""
    try:
        module_text = import_module(type(made).__module__).__doc__
    except ImportError:
        module_text = None
    return inspect.cleandoc(module_text or type(made).__doc__ or "")


def with_day(settings: Settings, paths: Paths, views: Sequence[StrategyView], on: date) -> tuple[str, list[StrategyView]]:
    """Return the newest run of a date, and the views with what each strategy did in it. Raises VeloxError without a run."""
    recorded = find_run(settings, paths, on=on, run_id=None)
    report = load_report(settings, recorded)
    rows = {str(row.get("strategy")): row for row in report.get("strategies", []) if isinstance(row, Mapping)}
    disabled = {str(row.get("strategy")): str(row.get("reason", "")) for row in report.get("disabled_strategies", [])}
    expected = {row.strategy: row.to_json() for row in judge(settings, expectations_file(settings, paths), report)}
    nothing = {"trades": 0, "wins": 0, "approved": 0, "refused": 0, "net_paise": 0, "charges_paise": 0}
    filled = [
        replace(
            view,
            day={
                **nothing,
                **{key: value for key, value in rows.get(view.name, {}).items() if key != "strategy"},
                "disabled": disabled.get(view.name, ""),
                "synthetic": report.get("synthetic") is True,
                "expected": expected.get(view.name),
            },
        )
        for view in views
        if view.configured
    ]
    return recorded.run.run_id, filled


def write_template(name: str, root: Path, folder: Path | None = None) -> tuple[Path, Path]:
    """Write a new strategy and its test into a folder, and return both files. Raises VeloxError; nothing is overwritten."""
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a strategy: use small letters, digits and '_', such as my_breakout")
    target = folder or root / FOLDER
    files = target / f"{name}.py", target / f"test_{name}.py"
    for file in files:
        if file.exists():
            raise VeloxError(f"{file} is there already; choose another name")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file, text in zip(files, (STRATEGY_TEMPLATE, TEST_TEMPLATE), strict=True):
            file.write_text(text.replace("@NAME@", name).replace("@CLASS@", class_name), encoding="utf-8")
    except OSError as error:
        raise VeloxError(f"{target} cannot be written: {error.strerror}. Name a folder that is yours with --folder.") from error
    return files


def is_replayable(settings: Settings) -> bool:
    """Return whether days of the configuration can be replayed."""
    return settings.broker.type is BrokerType.SIMULATED


STRATEGY_TEMPLATE: Final = '''"""Buy when a close is above the highest of the closes before it, leave below their average.

- The first line above is what `velox strategies` shows. Say here when it enters, when it leaves, and why.
"""

from collections import deque

from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.strategies.base import BarStrategy, ParameterSpec


class @CLASS@(BarStrategy):
    """One bar of one symbol at a time."""

    parameter_specs = (
        ParameterSpec(name="length", default=20, help="closes that are looked back at", minimum=2, maximum=300),
        ParameterSpec(name="stop_bps", default=50, help="stop below the close, basis points", minimum=1, maximum=1_000),
    )
    rule_defaults = {"time_stop_minutes": 90, "entries_per_symbol_max": 3}  # kept by the engine

    def start_session(self, session):
        """Forget the day before: every day begins empty."""
        super().start_session(session)
        self.closes = {symbol: deque(maxlen=self.parameters["length"]) for symbol in session.universe}
        self.tick_paise = dict(zip(session.universe, session.tick_paise))

    def on_bar(self, bar, position):
        """Answer one bar; prices are whole paise, `position` is what this strategy holds of the symbol."""
        before = self.closes[bar.symbol]
        signal = None
        if len(before) == before.maxlen:
            if position > 0 and bar.close * len(before) < sum(before):
                signal = self.leave(bar, position)
            elif position == 0 and bar.close > max(before) and bar.ts_ms <= self.session.entry_until_ms:
                signal = self.enter(bar)
        before.append(bar.close)
        return signal

    def enter(self, bar):
        tick = self.tick_paise[bar.symbol]
        stop = bar.close * (10_000 - self.parameters["stop_bps"]) // 10_000 // tick * tick
        return Signal(
            self.strategy_id, bar.symbol, Side.BUY, 1, SignalKind.ENTRY, "close above the highest before", stop_paise=stop
        )

    def leave(self, bar, position):
        return Signal(self.strategy_id, bar.symbol, Side.SELL, position, SignalKind.EXIT, "close below the average")
'''

TEST_TEMPLATE: Final = '''"""Tests of @NAME@, on bars made by hand."""

import sys
from datetime import date
from pathlib import Path

from velox_core.domain.market.bars import Bar
from velox_core.strategies.base import StrategySession

sys.path.insert(0, str(Path(__file__).parent))
from @NAME@ import @CLASS@  # noqa: E402

SESSION = StrategySession(
    trading_date=date(2024, 1, 15),
    universe=("TCS",),
    columns=(0,),
    open_ms=0,
    entry_until_ms=10_000_000_000,
    tick_paise=(5,),
)


def said(closes, position=0):
    """Return the answers to closes, one a minute, in paise."""
    strategy = @CLASS@("@NAME@", {"length": 3})
    strategy.start_session(SESSION)
    bars = [Bar("TCS", minute * 60_000, c, c, c, c, 100) for minute, c in enumerate(closes, start=1)]
    return [strategy.on_bar(bar, position) for bar in bars]


def test_buys_the_first_close_above_those_before_with_a_stop_below():
    *quiet, last = said([10_000, 10_010, 10_005, 10_015])
    assert quiet == [None, None, None]
    assert (last.side.value, last.kind.value, last.stop_paise) == ("BUY", "ENTRY", 9_960)


def test_says_nothing_at_the_highest_close_before():
    assert said([10_000, 10_010, 10_005, 10_010])[-1] is None


def test_leaves_below_the_average():
    *_, last = said([10_000, 10_010, 10_005, 9_990], position=2)
    assert (last.side.value, last.kind.value, last.quantity) == ("SELL", "EXIT", 2)
'''
