"""Turns a validated file into `Settings`: sections to values, paths below the project folder, the configuration's hash.

- The hash covers every resolved value; secrets, and where the project lies, take no part.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from velox_core.feeds.options import SourceOptions
from velox_core.risk.limits import RiskLimits
from velox_core.settings import schema
from velox_core.settings.document import Document
from velox_core.settings.folders import portable, project_root, shipped_file
from velox_core.settings.keeping import BackupSettings, LogSettings, RetentionSettings
from velox_core.settings.secrets import (
    ACCESS_TOKEN,
    ALERT_URLS,
    API_KEY,
    API_SECRET,
    INFLUX_TOKEN,
    JOURNAL_PASSWORD,
    REDIS_PASSWORD,
    Secrets,
)
from velox_core.settings.values import (
    CHECKLIST_ITEMS,
    WARNED_WHEN_SIMULATED,
    AlertChannelSettings,
    AlertSettings,
    ApprovalSettings,
    BrokerCredentials,
    BrokerSettings,
    ChecklistSettings,
    ContactSettings,
    DashboardSettings,
    EngineSettings,
    FeedSettings,
    FrozenMapping,
    GuardSettings,
    InfluxSettings,
    ItemSeverity,
    LatenessMinutes,
    MarketSettings,
    MetricsSettings,
    PrefectSettings,
    RiskSettings,
    Settings,
    SimulationSettings,
    StopPolicy,
    StoreSettings,
    StoresSettings,
    StrategySettings,
    plain,
)

_OUTSIDE_THE_HASH = frozenset({"credentials", "password", "token", "urls", "source", "root", "config_hash", "origin"})
_Same = TypeVar("_Same")


def resolve(system: schema.System, document: Document, secrets: Secrets, source: Path) -> Settings:
    """Return the settings of a file that has no problems."""
    root = project_root(source)
    settings = Settings(
        environment=system.environment,
        account=system.account,
        live=system.live,
        broker=BrokerSettings(type=system.broker.type, capital_paise=system.broker.capital, credentials=_credentials(secrets)),
        risk=RiskSettings(limits=_limits(system), enable_deduplication=system.risk.enable_deduplication),
        feed=FeedSettings(
            path=None if system.feed.path is None else root / system.feed.path,
            symbols=tuple(system.feed.symbols),
            scenario=system.feed.scenario,
            speed=system.feed.speed,
            reading=SourceOptions(
                stamps=system.feed.stamps, naive_times=system.feed.naive_times, bar_minutes=system.feed.bar_minutes
            ),
            scenario_symbols=system.feed.scenario_symbols,
        ),
        strategies=tuple(_strategy(item, index, document, root) for index, item in enumerate(system.strategies)),
        market=_market(system.market),
        engine=_engine(system.engine),
        guard=_guard(system.guard),
        simulation=_same(SimulationSettings, system.simulation),
        stores=_stores(system.stores, secrets),
        metrics=MetricsSettings(
            influxdb=InfluxSettings(**system.metrics.influxdb.model_dump(), token=secrets.one(INFLUX_TOKEN))
        ),
        alerts=_alerts(system.alerts, secrets),
        dashboard=_same(DashboardSettings, system.dashboard),
        prefect=_same(PrefectSettings, system.prefect),
        backup=_backup(system.backup, root),
        logs=_same(LogSettings, system.logs),
        checklist=_checklist(system),
        retention=_same(RetentionSettings, system.retention),
        contacts=_same(ContactSettings, system.contacts),
        calendar_path=_file(root, system.calendar_path, "nse_calendar.yaml"),
        charges_path=_file(root, system.charges_path, "charges.yaml"),
        instruments_path=_file(root, system.instruments_path, "instruments.yaml"),
        source=source,
        root=root,
    )
    return dataclasses.replace(settings, config_hash=config_hash(settings))


def config_hash(settings: Settings) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of all resolved values but secrets and places."""
    values = _hashed(settings, settings.root)
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _hashed(value: object, root: Path) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value) if item.name not in _OUTSIDE_THE_HASH]
        return {name: _hashed(getattr(value, name), root) for name in names}
    if isinstance(value, tuple):
        return [_hashed(item, root) for item in value]
    if isinstance(value, Path) or (isinstance(value, str) and value.startswith("/")):
        return portable(Path(value), root)
    return plain(value)


def _same(kind: type[_Same], section: schema.Section) -> _Same:
    """Make a value whose fields are the section's keys."""
    values: dict[str, Any] = section.model_dump()
    return kind(**values)


def _limits(system: schema.System) -> RiskLimits:
    risk, engine = system.risk, system.engine
    return RiskLimits(
        max_daily_loss_paise=risk.max_daily_loss,
        max_daily_loss_bps=risk.max_daily_loss_pct,
        initial_capital_paise=risk.initial_capital,
        fixed_lot_size=risk.fixed_lot_size,
        dedup_window_ms=risk.dedup_window_seconds,
        max_position_size_paise=risk.max_position_size,
        max_positions_per_strategy=risk.max_positions_per_strategy,
        max_total_positions=risk.max_total_positions,
        protection_bps=engine.protection_pct,
        band_margin_bps=engine.band_margin_pct,
        entry_price_age_ms_max=engine.entry_price_age_seconds,
        mark_age_ms_max=engine.mark_age_seconds,
        orders_per_second_max=engine.orders_per_second,
    )


def _credentials(secrets: Secrets) -> BrokerCredentials:
    return BrokerCredentials(
        api_key=secrets.one(API_KEY), api_secret=secrets.one(API_SECRET), access_token=secrets.one(ACCESS_TOKEN)
    )


def _strategy(item: schema.Strategy, index: int, document: Document, root: Path) -> StrategySettings:
    file, _, class_name = (item.path or "").partition(":")
    path = root / file if file else None
    return StrategySettings(
        name=item.name,
        class_path=item.class_path or "",
        symbols=tuple(item.symbols),
        enabled=item.enabled,
        parameters=FrozenMapping(item.parameters),
        rules=FrozenMapping(item.rules),
        path=path,
        path_class=class_name,
        file_sha256="" if path is None else _content_hash(path),
        origin=str(document.origins.get(("system", "strategies", index), "shipped default")),
    )


def _content_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a strategy's file, '' when it cannot be read: loading it says so then, exits need no file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _market(market: schema.Market) -> MarketSettings:
    return MarketSettings(
        entry_until=market.entry_until,
        flat_by=market.flat_by,
        hard_stop=market.hard_stop,
        margin_seconds=market.margin_seconds,
        lateness_minutes=_same(LatenessMinutes, market.lateness_minutes),
    )


def _engine(engine: schema.Engine) -> EngineSettings:
    return EngineSettings(
        on_stop=StopPolicy(engine.on_stop),
        heartbeat_seconds=engine.heartbeat_seconds,
        orders_per_second=engine.orders_per_second,
        sends_off_loop=engine.sends_off_loop,
        close_foreign=engine.close_foreign,
    )


def _guard(guard: schema.Guard) -> GuardSettings:
    return GuardSettings(
        enabled=guard.enabled,
        heartbeat_timeout_seconds=guard.heartbeat_timeout_seconds,
        loss_margin_bps=guard.loss_margin_pct,
        act_seconds=guard.act_seconds,
        flat_by_margin_seconds=guard.flat_by_margin_seconds,
    )


def _alerts(alerts: schema.Alerts, secrets: Secrets) -> AlertSettings:
    return AlertSettings(
        minimum_severity=alerts.minimum_severity,
        channels=tuple(
            AlertChannelSettings(name=channel.name, minimum_severity=channel.minimum_severity or alerts.minimum_severity)
            for channel in alerts.channels
        ),
        urls=secrets.found.get(ALERT_URLS, ()),
    )


def _stores(stores: schema.Stores, secrets: Secrets) -> StoresSettings:
    return StoresSettings(
        redis=StoreSettings(display_url=stores.redis.url, password=secrets.one(REDIS_PASSWORD)),
        journal=StoreSettings(display_url=stores.journal.url, password=secrets.one(JOURNAL_PASSWORD)),
    )


def _checklist(system: schema.System) -> ChecklistSettings:
    severities: dict[str, ItemSeverity] = {}
    for item in CHECKLIST_ITEMS:
        usual = ItemSeverity.WARN if item in WARNED_WHEN_SIMULATED and not system.live else ItemSeverity.REFUSE
        severities[item] = getattr(system.checklist.severities, item) or usual
    return ChecklistSettings(
        severities=FrozenMapping(severities),
        max_total_positions_reason=system.checklist.max_total_positions_reason,
        approval=_same(ApprovalSettings, system.checklist.approval),
    )


def _backup(backup: schema.Backup, root: Path) -> BackupSettings:
    return BackupSettings(
        destination=None if backup.destination is None else _destination(root, backup.destination),
        copies=tuple(_destination(root, given) for given in backup.copies),
        keep_days=backup.keep_days,
        keep_weeks=backup.keep_weeks,
        keep_months=backup.keep_months,
        silence_seconds=backup.silence_seconds,
    )


def _destination(root: Path, given: str) -> str:
    return given if "://" in given else str(root / given)


def _file(root: Path, given: str | None, name: str) -> Path:
    return shipped_file(root, name) if given is None else root / given
