"""Trade rules: what may be asked of any strategy's trades, whatever it thinks of the market. Values only.

- Trailing stop and time stop end a position; cool-down and the number of entries keep one from being begun again.
- A strategy may suggest some (`rule_defaults`); the configuration's `rules` override each. Off is 0.
- The engine keeps them (`engine.trade_rules`), so that they hold for a stranger's file as for a shipped one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from velox_core.domain.time import MS_PER_MINUTE
from velox_core.strategies.base import ParameterSpec, ParameterValue, resolve_parameters

RULE_SPECS: tuple[ParameterSpec, ...] = (
    ParameterSpec(
        name="trailing_stop_percent",
        default=0.0,
        help="stop that follows the best price since the entry at this distance, percent; 0: none",
        minimum=0.0,
        maximum=50.0,
    ),
    ParameterSpec(
        name="time_stop_minutes", default=0, help="a position is left after so long, minutes; 0: never", minimum=0, maximum=400
    ),
    ParameterSpec(
        name="cooldown_minutes",
        default=0,
        help="no new entry in a symbol so long after its last trade, minutes; 0: none",
        minimum=0,
        maximum=400,
    ),
    ParameterSpec(
        name="entries_per_symbol_max",
        default=0,
        help="entries in a symbol and day, those on their way included; 0: any number",
        minimum=0,
        maximum=1_000,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeRuleValues:
    """The rules of one strategy, in inside units: basis points, milliseconds, entries; 0 is off."""

    trailing_bps: int = 0
    time_stop_ms: int = 0
    cooldown_ms: int = 0
    entries_per_symbol_max: int = 0

    @property
    def any(self) -> bool:
        """Return whether any rule is on."""
        return bool(self.trailing_bps or self.time_stop_ms or self.cooldown_ms or self.entries_per_symbol_max)


def resolve_rules(
    suggested: Mapping[str, ParameterValue], given: Mapping[str, object]
) -> tuple[dict[str, ParameterValue], TradeRuleValues]:
    """Return every rule by name, and the same in inside units.

    Args:
        suggested: the strategy's `rule_defaults`.
        given: the configuration's `rules`; they win.
    Raises: ValueError for an unknown rule, a wrong type or a value out of range; all problems in one message.
    """
    named = resolve_parameters(RULE_SPECS, {**suggested, **given}, "rule")
    values = TradeRuleValues(
        trailing_bps=round(float(named["trailing_stop_percent"]) * 100),
        time_stop_ms=int(named["time_stop_minutes"]) * MS_PER_MINUTE,
        cooldown_ms=int(named["cooldown_minutes"]) * MS_PER_MINUTE,
        entries_per_symbol_max=int(named["entries_per_symbol_max"]),
    )
    return named, values
