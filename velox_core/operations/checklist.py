"""The guide's pre-production checklist, eleven items, and the guard: each measured, none trusted.

- Every item is run, also after one has failed; all failures are shown.
- An item returns a `Finding`: in order or not, what was measured, what to do. Its configured severity then makes it
  FAILED (the day is refused), WARNED or SKIPPED.
- Two findings are failures at any severity: a broker that this version cannot run (also when the item is to be skipped),
  and InfluxDB that is switched on but does not take a point.
- Probes have time-outs; a probe that cannot be made is a finding, not an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from velox_core.domain.money import rupees_display
from velox_core.operations import probes
from velox_core.operations.guard_status import GuardState, guard_life
from velox_core.operations.hints import velox
from velox_core.settings import CHECKLIST_ITEMS, BrokerType, ItemSeverity, Paths, Settings

CONSERVATIVE_POSITIONS_MAX: Final = 5
NEVER_SKIPPED: Final = frozenset({"broker_type"})


class Verdict(StrEnum):
    """How an item ended."""

    PASSED = "PASSED"
    WARNED = "WARNED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What an item measured. `advice` says what to do when it is not `ok`; `final` ignores a milder severity."""

    ok: bool
    measured: str
    advice: str = ""
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """One line of the checklist."""

    item: str
    title: str
    verdict: Verdict
    measured: str
    advice: str

    def to_json(self) -> dict[str, str]:
        """Return the line as JSON values."""
        return {
            "item": self.item,
            "title": self.title,
            "verdict": self.verdict.value,
            "measured": self.measured,
            "advice": self.advice,
        }


def _fixed_lot_size(settings: Settings, paths: Paths) -> Finding:
    quantity = settings.risk.limits.fixed_lot_size
    advice = "set system.risk.fixed_lot_size to the number of shares of every order, e.g. 1"
    return Finding(ok=quantity >= 1, measured=f"every entry is {quantity} share{'s' * (quantity != 1)}", advice=advice)


def _max_daily_loss(settings: Settings, paths: Paths) -> Finding:
    limits = settings.risk.limits
    limit = limits.loss_limit_paise
    measured = (
        f"trading ends at a loss of {rupees_display(limit)}: the lesser of {rupees_display(limits.max_daily_loss_paise)} "
        f"and {limits.max_daily_loss_bps / 100:g} % of {rupees_display(limits.initial_capital_paise)}"
    )
    advice = "set system.risk.max_daily_loss and max_daily_loss_pct to what you can lose in a day, below the capital"
    return Finding(ok=0 < limit < limits.initial_capital_paise, measured=measured, advice=advice)


def _enable_deduplication(settings: Settings, paths: Paths) -> Finding:
    window = settings.risk.limits.dedup_window_ms / 1_000
    return Finding(
        ok=settings.risk.enable_deduplication and window > 0,
        measured=f"{'on' if settings.risk.enable_deduplication else 'OFF'}, window {window:g} s",
        advice="set system.risk.enable_deduplication to true and dedup_window_seconds above 0",
    )


def _initial_capital(settings: Settings, paths: Paths) -> Finding:
    configured, held = settings.risk.limits.initial_capital_paise, settings.broker.capital_paise
    return Finding(
        ok=configured == held,
        measured=f"initial_capital {rupees_display(configured)}, broker.capital {rupees_display(held)}",
        advice="make system.risk.initial_capital and system.broker.capital the capital of the account",
    )


def _max_total_positions(settings: Settings, paths: Paths) -> Finding:
    positions = settings.risk.limits.max_total_positions
    reason = settings.checklist.max_total_positions_reason
    measured = f"at most {positions} open at a time" + (f" (reason given: {reason})" if reason else "")
    return Finding(
        ok=positions <= CONSERVATIVE_POSITIONS_MAX or bool(reason),
        measured=measured,
        advice=f"set system.risk.max_total_positions to 3-{CONSERVATIVE_POSITIONS_MAX}, "
        "or give the reason in system.checklist.max_total_positions_reason",
    )


def _broker_type(settings: Settings, paths: Paths) -> Finding:
    broker = settings.broker.type
    if broker is BrokerType.SIMULATED:
        return Finding(
            ok=not settings.live, measured="simulated: no order leaves this machine", advice="remove live: true", final=True
        )
    return Finding(
        ok=False,
        measured=f"{broker.value}: this version trades on the simulated broker only",
        advice="set system.broker.type to simulated",
        final=True,
    )


def _redis(settings: Settings, paths: Paths) -> Finding:
    finding = probes.probe_redis(settings, paths)
    return Finding(ok=finding.ok, measured=finding.measured, advice=finding.advice)


def _influxdb(settings: Settings, paths: Paths) -> Finding:
    influx = settings.metrics.influxdb
    if not influx.enabled:
        return Finding(
            ok=False, measured="switched off: no metrics are kept", advice="set system.metrics.influxdb.enabled to true"
        )
    finding = probes.probe_influxdb(influx)
    return Finding(ok=finding.ok, measured=finding.measured, advice=finding.advice, final=True)


def _dashboard(settings: Settings, paths: Paths) -> Finding:
    dashboard = settings.dashboard
    if not dashboard.enabled:
        return Finding(ok=False, measured="switched off", advice="set system.dashboard.enabled to true and start the dashboard")
    finding = probes.probe_http(dashboard.host, dashboard.port)
    return Finding(ok=finding.ok, measured=finding.measured, advice=finding.advice)


def _simulated_test(settings: Settings, paths: Paths) -> Finding:
    run = probes.completed_simulated_run(settings, paths)
    if run:
        return Finding(ok=True, measured=f"run {run}, with these limits and strategies, ended flat by itself")
    return Finding(
        ok=False,
        measured="no simulated day with these limits and strategies is on record that ended flat by itself (no halt, no stop)",
        advice=f"run a day with the simulated broker first: {velox('day')}",
    )


def _backup(settings: Settings, paths: Paths) -> Finding:
    finding = probes.probe_backup_destination(settings, paths)
    measured = f"{finding.measured}, kept {settings.backup.keep_days} days"
    return Finding(ok=finding.ok, measured=measured, advice=finding.advice)


def _guard(settings: Settings, paths: Paths) -> Finding:
    life = guard_life(settings, paths)
    advice = "set system.guard.enabled to true, and start the guard" if life.state is GuardState.OFF else f"run {life.start}"
    return Finding(ok=life.state is GuardState.RUNNING, measured=life.sentence.removeprefix("guard: "), advice=advice)


ITEM_TITLES: Final[Mapping[str, str]] = {
    "fixed_lot_size": "fixed_lot_size is set",
    "max_daily_loss": "max_daily_loss matches your risk tolerance",
    "enable_deduplication": "enable_deduplication is true",
    "initial_capital": "initial_capital matches actual capital",
    "max_total_positions": "max_total_positions is conservative (3-5)",
    "broker_type": "Broker type is correct",
    "redis": "Redis is running and accessible",
    "influxdb": "InfluxDB is running for monitoring",
    "dashboard": "Dashboard is accessible",
    "simulated_test": "Test with simulated broker first",
    "backup": "Backup strategy is in place",
    "guard": "The guard watches the account",
}

_CHECKS: Final[Mapping[str, Callable[[Settings, Paths], Finding]]] = {
    "fixed_lot_size": _fixed_lot_size,
    "max_daily_loss": _max_daily_loss,
    "enable_deduplication": _enable_deduplication,
    "initial_capital": _initial_capital,
    "max_total_positions": _max_total_positions,
    "broker_type": _broker_type,
    "redis": _redis,
    "influxdb": _influxdb,
    "dashboard": _dashboard,
    "simulated_test": _simulated_test,
    "backup": _backup,
    "guard": _guard,
}


def run_item(item: str, settings: Settings, paths: Paths) -> ItemResult:
    """Measure one item and judge it by its severity. `item` is one of `CHECKLIST_ITEMS`."""
    severity = settings.checklist.severities[item]
    if severity is ItemSeverity.SKIP and item not in NEVER_SKIPPED:
        return ItemResult(
            item=item,
            title=ITEM_TITLES[item],
            verdict=Verdict.SKIPPED,
            measured="not looked at: skipped by configuration",
            advice="",
        )
    finding = _CHECKS[item](settings, paths)
    if finding.ok:
        verdict, advice = Verdict.PASSED, ""
    else:
        verdict = Verdict.WARNED if severity is ItemSeverity.WARN and not finding.final else Verdict.FAILED
        advice = finding.advice
    return ItemResult(item=item, title=ITEM_TITLES[item], verdict=verdict, measured=finding.measured, advice=advice)


def run_checklist(settings: Settings, paths: Paths) -> list[ItemResult]:
    """Run all items, in their order."""
    return [run_item(item, settings, paths) for item in CHECKLIST_ITEMS]


def refusals(results: list[ItemResult]) -> list[ItemResult]:
    """Return the items that refuse the day."""
    return [result for result in results if result.verdict is Verdict.FAILED]


def verdict_line(results: list[ItemResult]) -> str:
    """Return the outcome in one sentence."""
    counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    failed = refusals(results)
    tail = f"; refused by {', '.join(result.item for result in failed)}" if failed else ""
    return (
        f"{counts[Verdict.PASSED]} of {len(results)} items passed, {counts[Verdict.WARNED]} warned, "
        f"{counts[Verdict.FAILED]} failed, {counts[Verdict.SKIPPED]} skipped{tail}"
    )
