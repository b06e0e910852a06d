"""From a configuration's `strategies` to strategies that an engine can host.

- A class of the package, or a file of the trader's own (`path`): its bytes are read once, and are those that the
  configuration's hash covers; a file that changed since is not run.
- What a configuration got wrong (no such file, class, parameter, rule or symbol) is a ConfigError that names where it stands.
- Code that fails while it is loaded is the strategy's own fault: it comes back as a BrokenStrategy, which is disabled for the
  day as soon as it starts, what it held is closed, and the other strategies go on.
- A stranger's file is run as it is: what it imports, prints or opens is its author's affair.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from velox_core.domain.errors import ConfigError
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Signal
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.settings import Settings, StrategySettings
from velox_core.strategies.base import ParameterValue, Strategy, StrategySession
from velox_core.strategies.rules import TradeRuleValues, resolve_rules

_FILE_BYTES_MAX = 1_000_000


class BrokenStrategy(Strategy):
    """Stands in for a strategy whose code failed while it was loaded: it starts by saying so, and never trades."""

    def __init__(self, strategy_id: str, why: str) -> None:
        super().__init__(strategy_id, {})
        self.why = why

    def start_session(self, session: StrategySession) -> NoReturn:
        """Raise RuntimeError with what failed."""
        raise RuntimeError(self.why)

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        """Say nothing."""
        return []


class _CodeFailed(Exception):
    """The strategy's own code failed while it was loaded; the cause says how."""


def load_strategy(chosen: StrategySettings) -> Strategy:
    """Return a configured strategy, a BrokenStrategy when its own code fails. Raises ConfigError that names where it stands."""
    where = _where(chosen)
    try:
        found = _class_of_file(chosen, chosen.path) if chosen.path is not None else _class_of_module(chosen)
        return _made(found, chosen)
    except _CodeFailed as failed:
        error = failed.__cause__
        what = str(failed) if error is None else f"{type(error).__name__}: {error}{_line_of(error, chosen)}"
        return BrokenStrategy(chosen.name, f"{where}: could not be loaded: {what}")


def resolved_rules(chosen: StrategySettings, strategy: Strategy) -> tuple[dict[str, ParameterValue], TradeRuleValues]:
    """Return a strategy's trade rules by name and in inside units. Raises ConfigError that names where it stands."""
    try:
        return resolve_rules(strategy.rule_defaults, chosen.rules)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{_where(chosen)}: {error}") from error


def hosted_strategies(settings: Settings, universe: tuple[str, ...]) -> tuple[HostedStrategy, ...]:
    """Return the enabled strategies on their columns. Raises ConfigError for a symbol that the data has not."""
    hosts = []
    for chosen in settings.strategies:
        if chosen.enabled:
            missing = [symbol for symbol in chosen.symbols if symbol not in universe]
            if missing:
                raise ConfigError(f"{_where(chosen)}: no data for {', '.join(missing)}; the data has {', '.join(universe)}")
            columns = tuple(universe.index(symbol) for symbol in (chosen.symbols or universe))
            strategy = load_strategy(chosen)
            hosts.append(HostedStrategy(strategy, columns, universe, resolved_rules(chosen, strategy)[1]))
    return tuple(hosts)


def _where(chosen: StrategySettings) -> str:
    return f"{chosen.origin or 'strategies'}: {chosen.name}"


def _class_of_module(chosen: StrategySettings) -> type[Strategy]:
    module_name, _, class_name = chosen.class_path.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{_where(chosen)}: class_path {chosen.class_path!r} cannot be loaded: {error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _CodeFailed from error
    try:
        found = getattr(module, class_name)
    except AttributeError as error:
        raise ConfigError(f"{_where(chosen)}: class_path {chosen.class_path!r} cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ConfigError(f"{_where(chosen)}: {chosen.class_path!r} is not a Strategy (velox_core.strategies.base)")
    return found


def _class_of_file(chosen: StrategySettings, path: Path) -> type[Strategy]:
    module = _module_of(chosen, path)
    own = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Strategy) and value.__module__ == module.__name__
    }
    if chosen.path_class:
        if chosen.path_class in own:
            return own[chosen.path_class]
        raise ConfigError(
            f"{_where(chosen)}: {path} has no strategy {chosen.path_class!r}; it has {', '.join(sorted(own)) or 'none'}"
        )
    if len(own) == 1:
        return next(iter(own.values()))
    if own:
        raise ConfigError(f"{_where(chosen)}: {path} has {', '.join(sorted(own))}; name one, as path: {path.name}:{min(own)}")
    raise ConfigError(f"{_where(chosen)}: {path} defines no Strategy; a template is written by: velox strategies new NAME")


def _module_of(chosen: StrategySettings, path: Path) -> ModuleType:
    """Run the file's bytes as a module of its own; a second time the same bytes are the same module."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{_where(chosen)}: path {path} cannot be read: {error.strerror}") from error
    if len(source) > _FILE_BYTES_MAX:
        raise ConfigError(f"{_where(chosen)}: path {path} has {len(source):,} bytes; at most {_FILE_BYTES_MAX:,} are read")
    digest = hashlib.sha256(source).hexdigest()
    if digest != chosen.file_sha256:
        raise _CodeFailed(f"{path} is not what it was when the configuration was read; start again")
    name = f"velox_strategy_file_{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _CodeFailed from error
    return module


def _made(found: type[Strategy], chosen: StrategySettings) -> Strategy:
    try:
        made = found(chosen.name, chosen.parameters)
        is_whole = made.strategy_id == chosen.name
    except ValueError as error:  # its parameters
        raise ConfigError(f"{_where(chosen)}: {error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _CodeFailed from error
    if not is_whole:
        raise _CodeFailed(
            f"{found.__name__} does not keep its strategy_id: call super().__init__(strategy_id, parameters) first"
        )
    return made


def _line_of(error: BaseException, chosen: StrategySettings) -> str:
    """Return the line of the strategy's file at which it failed, for the message; '' when that is not known."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if chosen.path is not None and trace.tb_frame.f_code.co_filename == str(chosen.path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""
