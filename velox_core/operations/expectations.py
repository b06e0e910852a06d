"""What to expect of each strategy, from its replays, and whether a day's result lies within it (the guide's "Monitor Daily").

- `record` replays days and keeps each strategy's net P&L, trades and wins per day, in one file of the account; `judge` puts a
  day's result beside them. Money is paise.
- The band is the 5 % to 95 % quantile of the replayed days, so about one day in ten lies outside by chance alone. Fewer than
  `DAYS_MIN` replayed days make no band: the day is shown and not judged.
- An expectation belongs to a strategy as it was replayed: other code, parameters, rules, symbols or limits make it STALE, and
  a strategy without one is MISSING. Both are said, never guessed over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from velox_core.domain.errors import VeloxError
from velox_core.operations.json_file import read_json, write_json
from velox_core.settings import Settings, StrategySettings
from velox_core.settings.values import plain

EXPECTATIONS_FILE: Final = "expectations.json"
DAYS_MIN: Final = 20
LOW_QUANTILE: Final = 0.05
HIGH_QUANTILE: Final = 0.95


class ExpectationVerdict(StrEnum):
    """Where a day's net P&L of a strategy lies."""

    WITHIN = "WITHIN"
    BELOW = "BELOW"
    ABOVE = "ABOVE"
    TOO_FEW_DAYS = "TOO_FEW_DAYS"
    STALE = "STALE"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyExpectation:
    """What a strategy did over the replayed days, paise and trades per day. The band is 0 to 0 where there are too few days."""

    strategy: str
    days: int
    mean_paise: int
    deviation_paise: int
    low_paise: int
    high_paise: int
    trades_per_day: float
    win_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationRow:
    """One strategy's day beside what was expected; `expected` is None where there is no usable one."""

    strategy: str
    verdict: ExpectationVerdict
    net_paise: int
    trades: int
    expected: StrategyExpectation | None
    source: str
    synthetic: bool

    @property
    def is_outside(self) -> bool:
        """Return whether the day wants a look."""
        return self.verdict in (ExpectationVerdict.BELOW, ExpectationVerdict.ABOVE)

    def to_json(self) -> dict[str, Any]:
        """Return the row as a report holds it."""
        expected = self.expected
        return {
            "strategy": self.strategy,
            "verdict": self.verdict.value,
            "net_paise": self.net_paise,
            "trades": self.trades,
            "days": 0 if expected is None else expected.days,
            "mean_paise": None if expected is None else expected.mean_paise,
            "deviation_paise": None if expected is None else expected.deviation_paise,
            "low_paise": None if expected is None else expected.low_paise,
            "high_paise": None if expected is None else expected.high_paise,
            "trades_per_day": None if expected is None else round(expected.trades_per_day, 2),
            "win_share": None if expected is None else round(expected.win_share, 3),
            "source": self.source,
            "synthetic": self.synthetic,
        }


def strategy_digest(settings: Settings, chosen: StrategySettings) -> str:
    """Return a digest (hex) of what makes a strategy's days comparable: its code, parameters, rules, symbols; the limits."""
    own = {key: value for key, value in _as_mapping(plain(chosen)).items() if key not in ("enabled", "path")}
    text = json.dumps([own, plain(settings.risk), plain(settings.market)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def record(
    settings: Settings,
    dates: Sequence[date],
    replay: Callable[[date], Mapping[str, Any]],
    file: Path,
    *,
    told: Callable[[date, Mapping[str, Any]], None] = lambda on, report: None,
) -> list[StrategyExpectation]:
    """Replay dates and keep what each enabled strategy did.

    Args:
        settings: the configuration that is replayed.
        dates: trading dates, ascending, at least one.
        replay: runs one date and returns its report (`operations.report.build_report`) with `source` and `synthetic`.
        file: where it is kept; what was there is replaced.
        told: called with each report as it comes.
    Returns: what was kept, in the configuration's order. Raises: what `replay` raises; VeloxError when nothing was replayed.
    """
    if not dates:
        raise VeloxError("no trading date lies in the range: give --from and --to around dates that the data have")
    names = {chosen.name: chosen for chosen in settings.strategies if chosen.enabled}
    kept: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    reports: list[Mapping[str, Any]] = []
    for on in dates:
        report = replay(on)
        reports.append(report)
        told(on, report)
        for name in names:
            row = _row_of(report, name)
            kept[name].append({"date": on.isoformat(), **{key: row[key] for key in ("net_paise", "trades", "wins")}})
    body = {
        "first_date": dates[0].isoformat(),
        "last_date": dates[-1].isoformat(),
        "source": str(reports[-1].get("source", "")),
        "synthetic": any(report.get("synthetic") is True for report in reports),
        "strategies": {
            name: {"digest": strategy_digest(settings, chosen), "days": kept[name]} for name, chosen in names.items()
        },
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, body)
    return [expectation(name, kept[name]) for name in names]


def judge(settings: Settings, file: Path, report: Mapping[str, Any]) -> list[ExpectationRow]:
    """Put a day's report beside the expectations of the account: one row for each enabled strategy. Raises nothing for a file
    that is absent or broken: its strategies are MISSING then.
    """
    body = read_json(file)
    known = _as_mapping(body.get("strategies"))
    rows = []
    for chosen in settings.strategies:
        if not chosen.enabled:
            continue
        day, own = _row_of(report, chosen.name), _as_mapping(known.get(chosen.name))
        days = own.get("days")
        expected = expectation(chosen.name, days) if isinstance(days, list) and days else None
        rows.append(
            ExpectationRow(
                strategy=chosen.name,
                verdict=_verdict(expected, day["net_paise"], stale=own.get("digest") != strategy_digest(settings, chosen)),
                net_paise=day["net_paise"],
                trades=day["trades"],
                expected=expected,
                source=str(body.get("source", "")),
                synthetic=body.get("synthetic") is True,
            )
        )
    return rows


def expectation(name: str, days: Sequence[Mapping[str, Any]]) -> StrategyExpectation:
    """Return the figures of a strategy's replayed days, at least one."""
    nets = sorted(_whole(day, "net_paise") for day in days)
    count, trades = len(nets), sum(_whole(day, "trades") for day in days)
    mean = sum(nets) / count
    variance = sum((net - mean) ** 2 for net in nets) / (count - 1) if count > 1 else 0.0
    enough = count >= DAYS_MIN
    return StrategyExpectation(
        strategy=name,
        days=count,
        mean_paise=round(mean),
        deviation_paise=round(variance**0.5),
        low_paise=quantile(nets, LOW_QUANTILE) if enough else 0,
        high_paise=quantile(nets, HIGH_QUANTILE) if enough else 0,
        trades_per_day=trades / count,
        win_share=sum(_whole(day, "wins") for day in days) / trades if trades else 0.0,
    )


def quantile(ascending: Sequence[int], share: float) -> int:
    """Return a quantile of sorted numbers, between neighbours on a straight line (Hyndman and Fan's type 7)."""
    place = share * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return round(ascending[below] + (ascending[above] - ascending[below]) * (place - below))


def _verdict(expected: StrategyExpectation | None, net_paise: int, *, stale: bool) -> ExpectationVerdict:
    if expected is None:
        return ExpectationVerdict.MISSING
    if stale:
        return ExpectationVerdict.STALE
    if expected.days < DAYS_MIN:
        return ExpectationVerdict.TOO_FEW_DAYS
    if net_paise < expected.low_paise:
        return ExpectationVerdict.BELOW
    return ExpectationVerdict.ABOVE if net_paise > expected.high_paise else ExpectationVerdict.WITHIN


def _row_of(report: Mapping[str, Any], name: str) -> dict[str, int]:
    """Return what a strategy did by a report; one that did nothing is not in it, and its day is 0."""
    rows = report.get("strategies")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping) and row.get("strategy") == name:
            return {key: _whole(row, key) for key in ("net_paise", "trades", "wins")}
    return {"net_paise": 0, "trades": 0, "wins": 0}


def _whole(body: Mapping[str, Any], key: str) -> int:
    value = body.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _as_mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
