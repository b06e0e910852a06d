from __future__ import annotations

import dataclasses
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from velox_core.settings import FrozenMapping, load_settings, paths
from velox_core.settings.folders import SHIPPED_ROOT


def test_config_hash_is_the_same_on_every_load_and_in_every_folder(project, tmp_path, guide):
    text = guide + "  feed: {path: data/x.csv}\n  backup: {destination: copies}\n"
    settings = project.load(text)
    assert re.fullmatch(r"[0-9a-f]{64}", settings.config_hash)
    assert project.load(text + "# a comment\n").config_hash == settings.config_hash
    elsewhere = tmp_path / "elsewhere" / "config"
    elsewhere.mkdir(parents=True)
    (elsewhere / "other.yaml").write_text(text)
    assert load_settings(elsewhere / "other.yaml", {}).config_hash == settings.config_hash


@pytest.mark.parametrize(
    "environ",
    [
        {"VELOX__RISK__MAX_DAILY_LOSS": "1999.99"},
        {"VELOX__FEED__SPEED": "2"},
        {"VELOX__FEED__PATH": "data/y.csv"},
        {"VELOX__CONTACTS__NAME": "Asha"},
        {"VELOX__MARKET__FLAT_BY": "15:06"},
        {"VELOX__CHECKLIST__SEVERITIES__BACKUP": "skip"},
    ],
)
def test_config_hash_covers_overrides(project, environ):
    assert project.load(environ=environ).config_hash != project.load().config_hash


def test_config_hash_of_an_override_equals_that_of_the_same_value_in_the_file(project, guide):
    in_file = project.load(guide.replace("max_daily_loss: 2000 ", "max_daily_loss: 1500 ")).config_hash
    assert project.load(environ={"VELOX__RISK__MAX_DAILY_LOSS": "1500.00"}).config_hash == in_file


def test_relative_paths_are_taken_from_the_folder_above_config(project, guide):
    settings = project.load(
        guide + "  feed: {path: data/x.csv}\n  calendar_path: mine.yaml\n  charges_path: /abs/charges.yaml\n"
    )
    assert settings.root == project.root
    assert settings.feed.path == project.root / "data" / "x.csv"
    assert settings.calendar_path == project.root / "mine.yaml"
    assert settings.charges_path == Path("/abs/charges.yaml")
    assert settings.instruments_path == SHIPPED_ROOT / "config" / "instruments.yaml"


def test_relative_paths_of_a_file_outside_config_are_taken_from_its_own_folder(tmp_path, guide, monkeypatch):
    (tmp_path / "own.yaml").write_text(guide + "  feed: {path: x.csv}\n")
    monkeypatch.chdir(tmp_path.parent)
    settings = load_settings(Path(tmp_path.name) / "own.yaml", {})
    assert settings.root == tmp_path
    assert settings.feed.path == tmp_path / "x.csv"


def test_calendar_of_the_project_comes_before_the_shipped_one(project):
    own = project.root / "config" / "nse_calendar.yaml"
    assert project.load().calendar_path == SHIPPED_ROOT / "config" / "nse_calendar.yaml"
    own.write_text("")
    assert project.load().calendar_path == own


def test_paths_follow_velox_var_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths({}).var == tmp_path / "var"
    assert paths({}).logs == tmp_path / "logs"
    assert paths({}, tmp_path / "root").logs == tmp_path / "root" / "logs"
    assert paths({"VELOX__VAR": ""}).var == tmp_path / "var"
    moved = paths({"VELOX__VAR": "elsewhere"}, tmp_path / "root")
    assert (moved.var, moved.logs) == (tmp_path / "elsewhere", tmp_path / "elsewhere" / "logs")
    assert not list(tmp_path.iterdir())


def test_settings_do_not_change(project, guide):
    parameters = "{fast: 5, on: true, band: 1.5, side: both}"
    settings = project.load(f"{guide}  strategies: [{{name: a, class_path: 'm:C', parameters: {parameters}}}]\n")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.live = True
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.risk.limits.fixed_lot_size = 100
    with pytest.raises(TypeError):
        settings.strategies[0].parameters["fast"] = 6
    with pytest.raises(TypeError):
        settings.checklist.severities["redis"] = "skip"
    hash(settings.strategies[0])
    assert settings.strategies[0].parameters == {"fast": 5, "on": True, "band": 1.5, "side": "both"}


def test_strategy_remembers_where_it_stands(project, guide):
    settings = project.load(
        guide + "  strategies:\n    - {name: a, class_path: 'm:C'}\n    - {name: b, class_path: 'm:D', enabled: false}\n"
    )
    assert settings.strategies[1].origin == f"{project.file}:20"
    assert [item.enabled for item in settings.strategies] == [True, False]
    assert "origin" not in str(settings.redacted())


def test_settings_without_secrets_can_be_sent_to_another_process(project):
    settings = project.load()
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_redacted_is_plain_and_readable(project):
    shown = project.load().redacted()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["market"]["entry_until"] == "14:45"
    assert shown["broker"]["type"] == "simulated"
    assert shown["metrics"]["influxdb"]["token"] is None


def test_frozen_mapping_is_a_mapping():
    mapping = FrozenMapping({"a": 1, "b": 2})
    assert mapping == {"a": 1, "b": 2}
    assert list(mapping) == ["a", "b"]
    assert "FrozenMapping({'a': 1" in repr(mapping)
    assert hash(mapping) == hash(FrozenMapping({"b": 2, "a": 1}))


def test_engine_settings_reach_the_limits(project, guide):
    ages = "entry_price_age_seconds: 30, mark_age_seconds: 1.5"
    extra = f"  engine: {{orders_per_second: 3, protection_pct: 0.5, band_margin_pct: 1, {ages}}}\n"
    limits = project.load(guide + extra).risk.limits
    assert (limits.orders_per_second_max, limits.protection_bps, limits.band_margin_bps) == (3, 50, 100)
    assert (limits.entry_price_age_ms_max, limits.mark_age_ms_max) == (30_000, 1_500)


@pytest.mark.parametrize("wanted", [True, False])
def test_sends_leave_the_loop_of_the_simulated_broker_only_when_asked_for(project, guide, wanted):
    extra = "  engine: {sends_off_loop: true}\n" if wanted else ""
    assert project.load(guide + extra).engine.sends_off_loop is wanted


def test_holding_settings_imports_neither_yaml_nor_pydantic():
    code = "import sys, velox_core.settings; print(sorted({'yaml', 'pydantic', 'pydantic_core'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SHIPPED_ROOT)
    assert done.stdout.strip() == "[]"


def test_backup_destination_is_a_folder_of_the_project_or_a_url(project, guide):
    assert project.load(guide + "  backup: {destination: copies}\n").backup.destination == str(project.root / "copies")
    assert project.load(guide + "  backup: {destination: 's3://bucket/velox'}\n").backup.destination == "s3://bucket/velox"
    assert project.load().backup.destination is None
    copies = project.load(guide + "  backup: {copies: [far, 's3://bucket/velox']}\n").backup.copies
    assert copies == (str(project.root / "far"), "s3://bucket/velox")


def test_velox_var_in_small_letters_is_refused(project):
    (problem,) = project.problems(environ={"velox__var": "/x"})
    assert "names no known key, system.var" in problem
