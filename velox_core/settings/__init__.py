"""The settings: `config/*.yaml` and the environment become one frozen `Settings`, or a list of everything wrong.

- values, keeping: what the rest of VELOX sees.
- folders: where var, logs, the project and the shipped files lie.
- load: the one way from a file to settings.
- document, schema, rules, shape, overrides, secrets, checks, resolve, problems: the steps of loading.
"""

from velox_core.settings.folders import Paths, default_config, paths
from velox_core.settings.keeping import BackupSettings, LogLevel, LogSettings, RetentionSettings
from velox_core.settings.load import load_settings
from velox_core.settings.values import (
    CHECKLIST_ITEMS,
    AlertChannelSettings,
    AlertLevel,
    AlertSettings,
    ApprovalSettings,
    BrokerCredentials,
    BrokerSettings,
    BrokerType,
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
    MetricsFlavour,
    MetricsSettings,
    PrefectSettings,
    RiskSettings,
    SecretStr,
    Settings,
    SimulationSettings,
    StopPolicy,
    StoreSettings,
    StoresSettings,
    StrategySettings,
)

__all__ = [
    "CHECKLIST_ITEMS",
    "AlertChannelSettings",
    "AlertLevel",
    "AlertSettings",
    "ApprovalSettings",
    "BackupSettings",
    "BrokerCredentials",
    "BrokerSettings",
    "BrokerType",
    "ChecklistSettings",
    "ContactSettings",
    "DashboardSettings",
    "EngineSettings",
    "FeedSettings",
    "FrozenMapping",
    "GuardSettings",
    "InfluxSettings",
    "ItemSeverity",
    "LatenessMinutes",
    "LogLevel",
    "LogSettings",
    "MarketSettings",
    "MetricsFlavour",
    "MetricsSettings",
    "Paths",
    "PrefectSettings",
    "RetentionSettings",
    "RiskSettings",
    "SecretStr",
    "Settings",
    "SimulationSettings",
    "StopPolicy",
    "StoreSettings",
    "StoresSettings",
    "StrategySettings",
    "default_config",
    "load_settings",
    "paths",
]
