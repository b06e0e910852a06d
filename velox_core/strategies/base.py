"""The plug-in interface of strategies.

- A strategy is pure: prices in, signals out. It never sees a broker, a clock, a file or another strategy.
- `on_minute` is the same call live and in replay, once a minute for all symbols; `BarStrategy` adapts it to `on_bar`.
- Parameters come from the configuration as a mapping and are validated by `parameter_specs`; an unknown or
  impossible one is a ValueError that names it.
- A strategy that raises is disabled for the day and its positions are closed; the others go on, also after a restart.
- Rows and positions are shared with the engine and the other strategies: they are read, never changed.
- After a restart the day's earlier minutes are given once more, with the positions of now; what a strategy answers to
  them is history. A crossing or breakout among them counts as used: it is not entered late.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from velox_core.domain.market.bars import Bar, MinuteRow
from velox_core.domain.orders import Signal

ParameterValue = int | float | str | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """One parameter: its default, its inclusive range (numbers) and what it means, with its unit."""

    name: str
    default: ParameterValue
    help: str
    minimum: int | float | None = None
    maximum: int | float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategySession:
    """What a strategy learns once a day, before the first minute.

    Attributes:
        trading_date: the session's date.
        universe: all symbols, in column order of every row.
        columns: indexes into the universe that this strategy trades.
        open_ms: start of continuous trading, epoch ms.
        entry_until_ms: the last moment at which an entry is accepted, epoch ms.
        tick_paise: tick size per universe column.
    """

    trading_date: date
    universe: tuple[str, ...]
    columns: tuple[int, ...]
    open_ms: int
    entry_until_ms: int
    tick_paise: tuple[int, ...]


class Strategy(ABC):
    """A strategy over columns. Subclasses name their parameters and implement the two calls.

    `rule_defaults` are the trade rules (`rules.RULE_SPECS`) that the strategy is meant to be traded with; the
    configuration's `rules` override them one by one. The engine keeps the rules, the strategy need not.
    """

    parameter_specs: tuple[ParameterSpec, ...] = ()
    rule_defaults: Mapping[str, ParameterValue] = {}

    def __init__(self, strategy_id: str, parameters: Mapping[str, object]) -> None:
        """Validate parameters. Raises ValueError that names the parameter, the value and what is allowed."""
        self.strategy_id = strategy_id
        self.parameters: dict[str, ParameterValue] = resolve_parameters(self.parameter_specs, parameters)

    @abstractmethod
    def start_session(self, session: StrategySession) -> None:
        """Forget the day before and take the new day's universe."""

    @abstractmethod
    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Answer one minute.

        Args:
            ts_ms: the end of the minute, epoch ms.
            row: the minute of the whole universe, paise and shares by column; `row.closes[i] == 0` means no bar.
            positions: this strategy's own net shares by column, entries on their way included.
        Returns: signals, in order of preference; usually an empty list.
        """


class BarStrategy(Strategy):
    """The adapter for strategies that prefer one bar of one symbol at a time."""

    session: StrategySession

    def start_session(self, session: StrategySession) -> None:
        """Keep the session; override to reset state, and call this first."""
        self.session = session

    @abstractmethod
    def on_bar(self, bar: Bar, position: int) -> Signal | None:
        """Answer one bar. `position` is this strategy's own net shares of the bar's symbol."""

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Call `on_bar` for each bar of this strategy's symbols, in column order."""
        signals = []
        for column in self.session.columns:
            bar = row.bar(self.session.universe[column], column)
            if bar is not None:
                signal = self.on_bar(bar, positions[column])
                if signal is not None:
                    signals.append(signal)
        return signals


def resolve_parameters(
    specs: Sequence[ParameterSpec], given: Mapping[str, object], what: str = "parameter"
) -> dict[str, ParameterValue]:
    """Return every parameter with its configured value or default. `what` is what messages call one.

    Raises: ValueError for an unknown name, a wrong type or a value out of range; all problems in one message.
    """
    known = {spec.name: spec for spec in specs}
    problems = [
        f"{what} {name!r} is unknown; known are {', '.join(sorted(known)) or 'none'}" for name in given if name not in known
    ]
    resolved: dict[str, ParameterValue] = {}
    for spec in specs:
        value = given.get(spec.name, spec.default)
        problem = _parameter_problem(spec, value)
        if problem:
            problems.append(f"{what} {spec.name!r} {problem}")
        elif isinstance(value, bool | int | float | str):
            resolved[spec.name] = float(value) if isinstance(spec.default, float) and not isinstance(value, str) else value
    if problems:
        raise ValueError("; ".join(problems))
    return resolved


def _parameter_problem(spec: ParameterSpec, value: object) -> str:
    wanted = type(spec.default)
    accepts = (int, float) if wanted is float else (wanted,)
    if not isinstance(value, accepts) or (isinstance(value, bool) and wanted is not bool):
        return f"is {value!r}; it takes a {wanted.__name__}, e.g. {spec.default!r}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value != value or value in (float("inf"), float("-inf")):
            return f"is {value!r}; it takes a finite number"
        if spec.minimum is not None and value < spec.minimum:
            return f"is {value!r}; the least allowed is {spec.minimum!r}"
        if spec.maximum is not None and value > spec.maximum:
            return f"is {value!r}; the most allowed is {spec.maximum!r}"
    return ""
