"""The settings of one process: frozen values in inside units, read once and handed down.

- Money is paise, percentages are basis points, `*_seconds`, `*_minutes` and `*_ms` say their unit.
- Nothing here changes after `load_settings` made it; mappings are `FrozenMapping`.
- A secret is a `SecretStr`: it shows itself only to `get_secret_value()`, never in a repr, a dump, a hash or a pickle.
- Importing this module costs nothing (no YAML, no pydantic): an engine may hold settings without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import time
from enum import StrEnum
from pathlib import Path
from typing import NoReturn, TypeVar, final
from urllib.parse import SplitResult, quote, urlsplit

from velox_core.feeds.options import NOTHING_SAID, SourceOptions
from velox_core.risk.limits import RiskLimits
from velox_core.settings.keeping import BackupSettings, LogSettings, RetentionSettings

Value = TypeVar("Value")

CHECKLIST_ITEMS = (
    "fixed_lot_size",
    "max_daily_loss",
    "enable_deduplication",
    "initial_capital",
    "max_total_positions",
    "broker_type",
    "redis",
    "influxdb",
    "dashboard",
    "simulated_test",
    "backup",
    "guard",
)
"""The safety guide's pre-production checklist, in its order, and the guard."""

ALERT_CHANNELS_MAX = 10

WARNED_WHEN_SIMULATED = frozenset({"influxdb", "dashboard", "simulated_test", "backup", "guard"})
"""What a laptop has not got: a simulated day warns on these (design.md section 13)."""


class BrokerType(StrEnum):
    """The brokers there are. Anything but `simulated` moves real money."""

    SIMULATED = "simulated"
    ZERODHA = "zerodha"
    UPSTOX = "upstox"


class MetricsFlavour(StrEnum):
    """Which metrics server there is; `auto` asks it."""

    AUTO = "auto"
    INFLUX2 = "influx2"
    INFLUX3 = "influx3"
    VICTORIA = "victoria"


class StopPolicy(StrEnum):
    """What a stopped engine does with its positions."""

    FLATTEN = "flatten"
    HOLD = "hold"


class ItemSeverity(StrEnum):
    """What a failed checklist item does to the day."""

    REFUSE = "refuse"
    WARN = "warn"
    SKIP = "skip"


class AlertLevel(StrEnum):
    """The least severity that is sent to a person; the names are those of `ports.Severity`."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


@final
class SecretStr:
    """A text that must not be seen. Compares by content; copies are itself; pickling it is refused."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Return the text, for the one call that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "SecretStr('**********')"

    def __str__(self) -> str:
        return "**********"

    def __format__(self, spec: str) -> str:
        return format("**********", spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> SecretStr:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> SecretStr:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not stored or sent: the process that needs it loads its own settings")


@final
class FrozenMapping(Mapping[str, Value]):
    """A mapping that does not change, keeps its order and can be sent to another process."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Value]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> Value:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return f"FrozenMapping({self._items!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerCredentials:
    """What a live broker's API asks for. All None for the simulated broker, and until they are set."""

    api_key: SecretStr | None = None
    api_secret: SecretStr | None = None
    access_token: SecretStr | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """The broker and the account's capital at it, paise."""

    type: BrokerType
    capital_paise: int
    credentials: BrokerCredentials = BrokerCredentials()


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskSettings:
    """The limits, in inside units. `enable_deduplication` is always True: a file that says otherwise is refused."""

    limits: RiskLimits
    enable_deduplication: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSettings:
    """Where bars come from. A `scenario` (synthetic bars) wins over `path`; no symbols means all that the data has.

    `speed` is engine seconds per wall second; 0.0 means as fast as possible (`max` in the file). `reading` is what the file
    says about data that do not show it themselves: `stamps`, `naive_times`, `bar_minutes`. `scenario_symbols` is how many
    symbols a scenario has when none is named.
    """

    path: Path | None
    symbols: tuple[str, ...]
    scenario: str | None
    speed: float
    reading: SourceOptions = NOTHING_SAID
    scenario_symbols: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategySettings:
    """One strategy: its name in logs and limits, its class, and its parameters and trade rules as written.

    Attributes:
        class_path: the class as `module:Class`; '' when it comes from a file.
        path: a file of the trader's own, outside the package; None for a class.
        path_class: the class of that file that is meant, '' for the only one.
        file_sha256: what the file held when the configuration was read (hex), so that the configuration's hash covers it.
        symbols: none means all of the feed.
        origin: where it stands ('config/x.yaml:41'), for error messages.
    """

    name: str
    class_path: str
    symbols: tuple[str, ...]
    enabled: bool
    parameters: FrozenMapping[int | float | str | bool]
    rules: FrozenMapping[int | float | str | bool] = field(default_factory=lambda: FrozenMapping({}))
    path: Path | None = None
    path_class: str = ""
    file_sha256: str = ""
    origin: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatenessMinutes:
    """How long after its scheduled time a flow may still start, minutes."""

    market_open: int
    intraday: int
    end_of_day: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketSettings:
    """The day's times, IST: no entries after `entry_until`, all closed by `flat_by`, nothing sent after `hard_stop`.

    `margin_seconds` is kept between `flat_by` and the end of continuous trading.
    """

    entry_until: time
    flat_by: time
    hard_stop: time
    margin_seconds: int
    lateness_minutes: LatenessMinutes


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """The engine process: what a stop does with positions, its heartbeat, and the entries it may send in a second.

    `sends_off_loop` has a paced run of the simulated broker called off the loop too, as a live broker always is.
    `close_foreign` has everything of the day's product closed at a square-off or an emergency; without it positions in symbols
    that this system did not trade today are left alone.
    """

    on_stop: StopPolicy
    heartbeat_seconds: int
    orders_per_second: int
    sends_off_loop: bool
    close_foreign: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """The dead-man's switch: it flattens when the engine's heartbeat is older than the bound.

    A living engine has `act_seconds` to close by itself what its loss (past the limit by `loss_margin_bps` of it) or the
    time (`flat_by_margin_seconds` of the session after `flat_by`) asks for.
    """

    enabled: bool
    heartbeat_timeout_seconds: int
    loss_margin_bps: int
    act_seconds: int
    flat_by_margin_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """The simulated broker. Probabilities are per order, from 0 to 1.

    Slippage is against us: `slippage_bps` of the price plus `slippage_ticks` ticks. A position of value v holds
    v / `margin_multiplier` as margin.
    """

    seed: int
    slippage_bps: int
    slippage_ticks: int
    latency_ms: int
    partial_fill_probability: float
    reject_probability: float
    margin_multiplier: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """One store. `display_url` None means the embedded one; it never holds the password, `url` does."""

    display_url: str | None
    password: SecretStr | None = None

    @property
    def url(self) -> str | None:
        """Return the URL to connect with, password included, or None for the embedded store."""
        if self.display_url is None or self.password is None:
            return self.display_url
        parts = urlsplit(self.display_url)
        user, _, host = parts.netloc.rpartition("@")
        secret = quote(self.password.get_secret_value(), safe="")
        return with_netloc(parts, f"{user}:{secret}@{host}")


def with_netloc(parts: SplitResult, netloc: str) -> str:
    """Return the URL with another user, password and host. The '//' stays when that is empty (unix:///run/x)."""
    query = f"?{parts.query}" if parts.query else ""
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return f"{parts.scheme}://{netloc}{parts.path}{query}{fragment}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoresSettings:
    """Coordination (Redis) and the truth in SQL (journal)."""

    redis: StoreSettings
    journal: StoreSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxSettings:
    """The metrics server; it never gates an order. `bucket` is what InfluxDB 3 calls a database."""

    enabled: bool
    url: str
    org: str
    bucket: str
    flavour: MetricsFlavour
    token: SecretStr | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """Where metrics go."""

    influxdb: InfluxSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertChannelSettings:
    """One channel for messages to a person: its name, and the least severity that it is meant for."""

    name: str
    minimum_severity: AlertLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """Channels for messages to a person. Their URLs are secrets, as `NAME=URL`, or as they stand in the channels' order.

    `minimum_severity` is that of a channel that names none, and of a URL without a channel.
    """

    minimum_severity: AlertLevel
    channels: tuple[AlertChannelSettings, ...] = ()
    urls: tuple[SecretStr, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardSettings:
    """The read-only page: where it listens."""

    enabled: bool
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefectSettings:
    """Prefect's server: the port of the one that `velox up` starts, on this machine alone; `api_url` of your own instead."""

    enabled: bool
    port: int
    api_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalSettings:
    """Whether a person must approve the day after its checklist, and for how many minutes market open waits for the answer."""

    required: bool
    minutes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecklistSettings:
    """What each item does when it fails, why `max_total_positions` is above 5, if it is, and whether a person approves."""

    severities: FrozenMapping[ItemSeverity]
    max_total_positions_reason: str
    approval: ApprovalSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactSettings:
    """Whom to call, shown in alerts and on the dashboard. Empty text when not given."""

    name: str
    phone: str
    broker_desk: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is configured, resolved: file, environment overrides and secrets.

    Attributes:
        config_hash: SHA-256 (hex) of the resolved values, overrides included and secrets excluded; the same
            configuration has the same hash on every machine and in every folder.
        source: the file that was read.
        root: the project folder that relative paths of the file are taken from.
    """

    environment: str
    account: str
    live: bool
    broker: BrokerSettings
    risk: RiskSettings
    feed: FeedSettings
    strategies: tuple[StrategySettings, ...]
    market: MarketSettings
    engine: EngineSettings
    guard: GuardSettings
    simulation: SimulationSettings
    stores: StoresSettings
    metrics: MetricsSettings
    alerts: AlertSettings
    dashboard: DashboardSettings
    prefect: PrefectSettings
    backup: BackupSettings
    logs: LogSettings
    checklist: ChecklistSettings
    retention: RetentionSettings
    contacts: ContactSettings
    calendar_path: Path
    charges_path: Path
    instruments_path: Path
    source: Path
    root: Path
    config_hash: str = ""

    def redacted(self) -> dict[str, object]:
        """Return everything as plain values for display; a secret shows only whether it is set."""
        shown = plain(self)
        return shown if isinstance(shown, dict) else {}


def plain(value: object) -> object:
    """Turn a settings value into dicts, lists, numbers and text. Secrets become '(set)'; where a value stands is left out."""
    if isinstance(value, SecretStr):
        return "(set)"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value) if item.compare}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, time):
        return value.strftime("%H:%M")
    if isinstance(value, Path | StrEnum):
        return str(value)
    return value
