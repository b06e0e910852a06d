"""The settings: `config/*.yaml` and the environment become one frozen `Settings`, or a list of everything wrong.

- values: what the rest of VELOX sees.
- folders: where var, logs, the project and the shipped files lie.
- load: the one way from a file to settings.
- document, schema, rules, shape, overrides, secrets, checks, resolve, problems: the steps of loading.
"""

from velox_core.settings.folders import Paths, default_config, paths
from velox_core.settings.load import load_settings
from velox_core.settings.values import (
    CHECKLIST_ITEMS,
    AlertChannelSettings,
    AlertLevel,
    AlertSettings,
    BackupSettings,
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
    LogLevel,
    LogSettings,
    MarketSettings,
    MetricsSettings,
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
    "MetricsSettings",
    "Paths",
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
