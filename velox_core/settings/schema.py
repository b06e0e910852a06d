"""The shape of a configuration file: its sections, keys, rules and safe defaults.

- Every class is one mapping of the file; every field one key, in the file's names; after validation a field holds
  inside units (paise, basis points, milliseconds), as its rule converts it.
- A key without a default is required: the broker, its capital and all risk limits but `dedup_window_seconds`.
- Unknown keys are refused. Secrets are no keys of the file: see `secrets`.
"""

from __future__ import annotations

from datetime import time
from typing import Annotated

from pydantic import BaseModel, ConfigDict

from velox_core.feeds.options import NaiveTimes, Stamps
from velox_core.settings.keeping import LogLevel
from velox_core.settings.rules import (
    CLASS_PATH_PATTERN,
    FILE_PATTERN,
    NAME_PATTERN,
    RUPEES_MAX,
    SYMBOL_PATTERN,
    address,
    always_true,
    choice,
    flag,
    fraction,
    optional,
    parameter,
    replay_speed,
    scaled,
    text,
    time_of_day,
    whole,
)
from velox_core.settings.values import AlertLevel, BrokerType, ItemSeverity, MetricsFlavour, StopPolicy

Flag = Annotated[bool, flag()]
Rupees = Annotated[int, scaled("a plain number of rupees", "0.01", str(RUPEES_MAX), scale=100, decimals=2)]
Percent = Annotated[int, scaled("a plain number of percent", "0.01", "100", scale=100, decimals=2)]
Milliseconds = Annotated[int, scaled("a plain number of seconds", "0.001", "3600", scale=1000, decimals=3)]
Positions = Annotated[int, whole("positions", 1, 1000)]
Seconds = Annotated[int, whole("seconds", 1, 3600)]
Minutes = Annotated[int, whole("minutes", 0, 1440)]
Probability = Annotated[float, fraction("a probability")]
Name = Annotated[str, text("a name of letters, digits, '-', '_' and '.', at most 64", NAME_PATTERN)]
Symbol = Annotated[str, text("an exchange symbol in capitals, such as TCS or M&M", SYMBOL_PATTERN)]
Note = Annotated[str, text("one line of text, at most 500 characters", empty=True)]
FilePath = Annotated[str | None, optional(text("the path of a file or folder, as text"))]
TimeOfDay = Annotated[time, time_of_day()]
Severity = Annotated[ItemSeverity | None, optional(choice(ItemSeverity))]


class Section(BaseModel):
    """A mapping of the file: strict, closed and frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Broker(Section):
    """`broker`."""

    type: Annotated[BrokerType, choice(BrokerType)]
    capital: Rupees


class Risk(Section):
    """`risk`: the safety guide's keys."""

    max_daily_loss: Rupees
    max_daily_loss_pct: Percent
    initial_capital: Rupees
    fixed_lot_size: Annotated[int, whole("shares", 1, 1_000_000)]
    enable_deduplication: Annotated[bool, always_true("orders never go out twice")]
    dedup_window_seconds: Milliseconds = 5_000
    max_position_size: Rupees
    max_positions_per_strategy: Positions
    max_total_positions: Positions


class Feed(Section):
    """`feed`."""

    path: FilePath = None
    symbols: list[Symbol] = []
    scenario: Annotated[str | None, optional(text("the name of a scenario, such as trend or crash", NAME_PATTERN))] = None
    speed: Annotated[float, replay_speed()] = 1.0
    stamps: Annotated[Stamps | None, optional(choice(Stamps))] = None
    naive_times: Annotated[NaiveTimes | None, optional(choice(NaiveTimes))] = None
    bar_minutes: Annotated[int | None, optional(whole("minutes", 1, 60))] = None
    scenario_symbols: Annotated[int, whole("symbols", 1, 1000)] = 5


class Strategy(Section):
    """One entry of `strategies`."""

    name: Name
    class_path: Annotated[
        str | None,
        optional(text("a class as module:Class, such as velox_core.strategies.sma_cross:SmaCross", CLASS_PATH_PATTERN)),
    ] = None
    path: Annotated[
        str | None,
        optional(
            text("a Python file, such as my_strategies/mine.py, or one class of it, my_strategies/mine.py:Mine", FILE_PATTERN)
        ),
    ] = None
    symbols: list[Symbol] = []
    enabled: Flag = True
    parameters: dict[str, Annotated[int | float | str | bool, parameter()]] = {}
    rules: dict[str, Annotated[int | float | str | bool, parameter()]] = {}


class Lateness(Section):
    """`market.lateness_minutes`."""

    market_open: Minutes = 30
    intraday: Minutes = 30
    end_of_day: Minutes = 480


class Market(Section):
    """`market`. The times are those of brokers.md section 5.2, before the brokers' own square-off."""

    entry_until: TimeOfDay = time(14, 45)
    flat_by: TimeOfDay = time(15, 5)
    hard_stop: TimeOfDay = time(15, 10)
    margin_seconds: Annotated[int, whole("seconds", 0, 3600)] = 60
    lateness_minutes: Lateness = Lateness()


class Engine(Section):
    """`engine`. Ten orders a second is the exchange's limit for an unregistered algo, cancels counted."""

    on_stop: Annotated[StopPolicy, choice(StopPolicy)] = StopPolicy.FLATTEN
    heartbeat_seconds: Annotated[int, whole("seconds", 1, 60)] = 1
    orders_per_second: Annotated[int, whole("orders", 1, 10)] = 8
    sends_off_loop: Flag = False
    close_foreign: Flag = True
    protection_pct: Percent = 100
    band_margin_pct: Percent = 50
    entry_price_age_seconds: Milliseconds = 90_000
    mark_age_seconds: Milliseconds = 90_000


class Guard(Section):
    """`guard`."""

    enabled: Flag = True
    heartbeat_timeout_seconds: Seconds = 20
    loss_margin_pct: Percent = 500
    act_seconds: Seconds = 10
    flat_by_margin_seconds: Seconds = 120


class Simulation(Section):
    """`simulation`."""

    seed: Annotated[int, whole("seeds", 0, 2**63 - 1)] = 1
    slippage_bps: Annotated[int, whole("basis points", 0, 1000)] = 2
    slippage_ticks: Annotated[int, whole("ticks", 0, 1000)] = 0
    latency_ms: Annotated[int, whole("milliseconds", 0, 60_000)] = 50
    partial_fill_probability: Probability = 0.0
    reject_probability: Probability = 0.0
    margin_multiplier: Annotated[int, whole("times", 1, 20)] = 5


class Redis(Section):
    """`stores.redis`."""

    url: Annotated[str | None, address(("redis", "rediss", "unix"), optional=True)] = None


class Journal(Section):
    """`stores.journal`."""

    url: Annotated[str | None, address(("sqlite", "postgresql", "postgresql+psycopg"), optional=True)] = None


class Stores(Section):
    """`stores`."""

    redis: Redis = Redis()
    journal: Journal = Journal()


class Influx(Section):
    """`metrics.influxdb`."""

    enabled: Flag = False
    url: Annotated[str, address(("http", "https"))] = "http://localhost:8086"
    org: Note = "velox"
    bucket: Note = "velox"
    flavour: Annotated[MetricsFlavour, choice(MetricsFlavour)] = MetricsFlavour.AUTO


class Metrics(Section):
    """`metrics`."""

    influxdb: Influx = Influx()


class AlertChannel(Section):
    """One entry of `alerts.channels`; its URL is a secret. Without a severity of its own it has that of `alerts`."""

    name: Name
    minimum_severity: Annotated[AlertLevel | None, optional(choice(AlertLevel))] = None


class Alerts(Section):
    """`alerts`."""

    minimum_severity: Annotated[AlertLevel, choice(AlertLevel)] = AlertLevel.INFO
    channels: list[AlertChannel] = []


class Dashboard(Section):
    """`dashboard`."""

    enabled: Flag = True
    host: Annotated[str, text("a host name or address", r"[A-Za-z0-9._:-]{1,255}")] = "127.0.0.1"
    port: Annotated[int, whole("a port", 1, 65535)] = 3000


class Prefect(Section):
    """`prefect`: when things run. Nothing about an order's safety depends on it."""

    enabled: Flag = True
    port: Annotated[int, whole("a port", 1, 65535)] = 4200
    api_url: Annotated[str | None, address(("http", "https"), optional=True)] = None


class Backup(Section):
    """`backup`."""

    destination: Annotated[str | None, address((), optional=True, folder=True)] = None
    copies: list[Annotated[str, address((), folder=True)]] = []
    keep_days: Annotated[int, whole("days", 1, 3650)] = 30
    keep_weeks: Annotated[int, whole("weeks", 0, 520)] = 8
    keep_months: Annotated[int, whole("months", 0, 120)] = 12
    silence_seconds: Annotated[int, whole("seconds", 1, 3600)] = 60


class Logs(Section):
    """`logs`."""

    max_megabytes: Annotated[int, whole("megabytes", 1, 10_000)] = 20
    keep_files: Annotated[int, whole("files", 1, 1000)] = 10
    keep_days: Annotated[int, whole("days", 1, 3650)] = 30
    archive_days: Annotated[int, whole("days", 1, 36_500)] = 1_825
    archive_megabytes: Annotated[int, whole("megabytes", 1, 10_000_000)] = 10_000
    level: Annotated[LogLevel, choice(LogLevel)] = LogLevel.INFO


class Severities(Section):
    """`checklist.severities`; null takes the mode's default."""

    fixed_lot_size: Severity = None
    max_daily_loss: Severity = None
    enable_deduplication: Severity = None
    initial_capital: Severity = None
    max_total_positions: Severity = None
    broker_type: Severity = None
    redis: Severity = None
    influxdb: Severity = None
    dashboard: Severity = None
    simulated_test: Severity = None
    backup: Severity = None
    guard: Severity = None


class Approval(Section):
    """`checklist.approval`: whether a person must say yes before the day is armed, and how long market open waits."""

    required: Flag = False
    minutes: Annotated[int, whole("minutes", 1, 240)] = 15


class Checklist(Section):
    """`checklist`."""

    severities: Severities = Severities()
    max_total_positions_reason: Note = ""
    approval: Approval = Approval()


class Retention(Section):
    """`retention`: how long Prefect's records of a run are kept. The journal is kept for good."""

    prefect_days: Annotated[int, whole("days", 1, 3650)] = 30


class Contacts(Section):
    """`contacts`."""

    name: Note = ""
    phone: Note = ""
    broker_desk: Note = ""


SHIPPED_STRATEGIES = [
    Strategy(name="opening_range", class_path="velox_core.strategies.opening_range:OpeningRangeBreakout"),
    Strategy(name="sma_cross", class_path="velox_core.strategies.sma_cross:SmaCross"),
]


class System(Section):
    """`system`: everything. The guide's file has `broker` and `risk` only, and runs the shipped strategies."""

    environment: Name = "production"
    account: Name = "primary"
    live: Flag = False
    broker: Broker
    risk: Risk
    feed: Feed = Feed()
    strategies: list[Strategy] = SHIPPED_STRATEGIES
    market: Market = Market()
    engine: Engine = Engine()
    guard: Guard = Guard()
    simulation: Simulation = Simulation()
    stores: Stores = Stores()
    metrics: Metrics = Metrics()
    alerts: Alerts = Alerts()
    dashboard: Dashboard = Dashboard()
    prefect: Prefect = Prefect()
    backup: Backup = Backup()
    logs: Logs = Logs()
    checklist: Checklist = Checklist()
    retention: Retention = Retention()
    contacts: Contacts = Contacts()
    calendar_path: FilePath = None
    charges_path: FilePath = None
    instruments_path: FilePath = None
    secrets_path: FilePath = None


class Root(Section):
    """The whole file."""

    system: System
