from __future__ import annotations

from datetime import time
from pathlib import Path

import pytest
import yaml

from velox_core.settings import CHECKLIST_ITEMS, BrokerType, ItemSeverity, StopPolicy, load_settings
from velox_core.settings.folders import SHIPPED_ROOT
from velox_core.settings.schema import Root, Section, Severities
from velox_core.strategies import SHIPPED

CONFIG = SHIPPED_ROOT / "config"


def test_guide_yaml_verbatim_loads_with_safe_defaults(project):
    settings = project.load()
    limits = settings.risk.limits
    assert settings.broker.type is BrokerType.SIMULATED
    assert settings.broker.capital_paise == 10_000_000
    assert limits.max_daily_loss_paise == 200_000
    assert limits.max_daily_loss_bps == 200
    assert limits.initial_capital_paise == 10_000_000
    assert limits.fixed_lot_size == 1
    assert limits.dedup_window_ms == 5_000
    assert limits.max_position_size_paise == 500_000
    assert (limits.max_positions_per_strategy, limits.max_total_positions) == (2, 3)
    assert settings.risk.enable_deduplication is True
    assert settings.live is False
    assert settings.environment == "production"
    assert [item.name for item in settings.strategies] == ["opening_range", "sma_cross"]
    assert (settings.market.entry_until, settings.market.flat_by, settings.market.hard_stop) == (
        time(14, 45),
        time(15, 5),
        time(15, 10),
    )
    assert settings.engine.on_stop is StopPolicy.FLATTEN
    assert settings.dashboard.port == 3000
    guard = settings.guard
    assert (guard.enabled, guard.heartbeat_timeout_seconds, guard.loss_margin_bps) == (True, 20, 500)
    assert (guard.act_seconds, guard.flat_by_margin_seconds) == (10, 120)


def test_production_file_holds_the_guide_key_for_key(guide):
    wanted = yaml.safe_load(guide)["system"]
    shipped = yaml.safe_load((CONFIG / "system_production.yaml").read_text())["system"]
    assert shipped["broker"] == wanted["broker"]
    assert shipped["risk"] == wanted["risk"]


def _leaves(section: type[Section], values: object, path: str) -> list[str]:
    missing = []
    for name in section.model_fields:
        assert isinstance(values, dict)
        inner = section.model_fields[name].annotation
        if name not in values:
            missing.append(f"{path}{name}")
        elif isinstance(inner, type) and issubclass(inner, Section) and inner is not Severities:
            missing += _leaves(inner, values[name], f"{path}{name}.")
    return missing


def test_production_file_shows_every_key_there_is():
    values = yaml.safe_load((CONFIG / "system_production.yaml").read_text())
    unseen = set(_leaves(Root, values, ""))
    assert unseen == {
        "system.risk.dedup_window_seconds",
        "system.feed.scenario",
        "system.feed.scenario_symbols",
        "system.calendar_path",
        "system.charges_path",
        "system.instruments_path",
    }


def test_production_file_spells_out_the_defaults(project):
    ours = load_settings(CONFIG / "system_production.yaml", {})
    bare = project.load()
    for name in (
        "market",
        "engine",
        "guard",
        "simulation",
        "stores",
        "metrics",
        "alerts",
        "dashboard",
        "prefect",
        "backup",
        "logs",
        "checklist",
    ):
        assert getattr(ours, name) == getattr(bare, name), name


@pytest.mark.parametrize("name", ["system_production.yaml", "system_simulated.yaml", "system_first_week.yaml"])
def test_shipped_file_is_simulated_and_fits_a_share_of_tcs(name):
    settings = load_settings(CONFIG / name, {})
    assert settings.broker.type is BrokerType.SIMULATED
    assert settings.live is False
    assert settings.risk.limits.fixed_lot_size * 390_000 < settings.risk.limits.max_position_size_paise
    assert settings.environment == name.removeprefix("system_").removesuffix(".yaml")
    assert settings.feed.path == SHIPPED_ROOT / "data" / "tcs_2024-01-15.csv"
    two = [
        "velox_core.strategies.opening_range:OpeningRangeBreakout",
        "velox_core.strategies.sma_cross:SmaCross",
    ]
    all_of_them = list(SHIPPED.values())
    assert [item.class_path for item in settings.strategies] == (all_of_them if "simulated" in name else two)


def test_first_week_file_is_as_conservative_as_the_guide():
    limits = load_settings(CONFIG / "system_first_week.yaml", {}).risk.limits
    assert limits.max_daily_loss_paise == 100_000
    assert limits.fixed_lot_size == 1
    assert limits.max_total_positions == 2


def test_no_path_takes_the_simulated_file_of_the_current_folder_else_the_shipped(tmp_path: Path, monkeypatch, guide):
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, {}).source == CONFIG / "system_simulated.yaml"
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "system_simulated.yaml").write_text(guide)
    own = load_settings(None, {})
    assert own.root == tmp_path
    assert own.environment == "production"


def test_checklist_has_the_guides_eleven_items_and_the_guard_and_the_schema_knows_them():
    assert len(CHECKLIST_ITEMS) == 12
    assert CHECKLIST_ITEMS[-1] == "guard"
    assert tuple(Severities.model_fields) == CHECKLIST_ITEMS


def test_severities_refuse_but_warn_for_what_a_laptop_has_not_got(project, live):
    simulated = project.load().checklist.severities
    assert {item for item, severity in simulated.items() if severity is ItemSeverity.WARN} == {
        "influxdb",
        "dashboard",
        "simulated_test",
        "backup",
        "guard",
    }
    assert {item for item in simulated if item not in CHECKLIST_ITEMS} == set()
    assert set(project.load(live).checklist.severities.values()) == {ItemSeverity.REFUSE}


def test_severity_in_the_file_replaces_the_modes_default(project, guide):
    severities = project.load(guide + "  checklist: {severities: {backup: skip, redis: warn}}\n").checklist.severities
    assert severities["backup"] is ItemSeverity.SKIP
    assert severities["redis"] is ItemSeverity.WARN
    assert severities["fixed_lot_size"] is ItemSeverity.REFUSE
