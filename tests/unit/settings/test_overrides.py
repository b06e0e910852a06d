from __future__ import annotations

import pytest


@pytest.mark.parametrize("name", ["VELOX__RISK__MAX_DAILY_LOSS", "velox__risk__max_daily_loss", "VELOX__Risk__Max_Daily_Loss"])
def test_override_replaces_the_files_value(project, name):
    assert project.load(environ={name: "1500.50"}).risk.limits.max_daily_loss_paise == 150_050


def test_override_supplies_a_required_key_and_a_missing_section(project, with_line, guide):
    settings = project.load(
        with_line("fixed_lot_size", ""), {"VELOX__RISK__FIXED_LOT_SIZE": "3", "VELOX__DASHBOARD__PORT": "4000"}
    )
    assert settings.risk.limits.fixed_lot_size == 3
    assert settings.dashboard.port == 4000


@pytest.mark.parametrize(
    ("name", "value", "read", "expected"),
    [
        ("VELOX__FEED__SPEED", "max", lambda s: s.feed.speed, 0.0),
        ("VELOX__FEED__SYMBOLS", "[TCS, INFY]", lambda s: s.feed.symbols, ("TCS", "INFY")),
        ("VELOX__FEED__SCENARIO", "crash", lambda s: s.feed.scenario, "crash"),
        ("VELOX__FEED__SCENARIO", "", lambda s: s.feed.scenario, None),
        ("VELOX__MARKET__ENTRY_UNTIL", "14:30", lambda s: f"{s.market.entry_until:%H:%M}", "14:30"),
        ("VELOX__ACCOUNT", "'007'", lambda s: s.account, "007"),
        ("VELOX__ACCOUNT", "007", lambda s: s.account, "007"),
        ("VELOX__CHECKLIST__SEVERITIES__REDIS", "warn", lambda s: s.checklist.severities["redis"].value, "warn"),
        ("VELOX__STORES__REDIS__URL", "redis://host:6379/0", lambda s: s.stores.redis.url, "redis://host:6379/0"),
        ("VELOX__MARKET__LATENESS_MINUTES__INTRADAY", "5", lambda s: s.market.lateness_minutes.intraday, 5),
    ],
)
def test_override_is_read_as_a_yaml_value(project, name, value, read, expected):
    assert read(project.load(environ={name: value})) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("VELOX__RISK__MAX_DAILY_LOSS", "'1500'", "system.risk.max_daily_loss is '1500': allowed is a plain number of rupees"),
        ("VELOX__RISK__MAX_DAILY_LOSS", "", "system.risk.max_daily_loss is null: allowed"),
        ("VELOX__RISK__MAX_DAILY_LOSS", "nan", "system.risk.max_daily_loss is 'nan': allowed"),
        ("VELOX__RISK__MAX_DAILY_LOSS", ".inf", "system.risk.max_daily_loss is inf: allowed"),
        ("VELOX__RISK__MAX_DAILY_LOSS", "[1]", "system.risk.max_daily_loss cannot be read: allowed is one YAML value"),
        ("VELOX__RISK__MAX_DAILY_LOSS", "{a: 1}", "cannot be read"),
        ("VELOX__RISK__MAX_DAILY_LOSS", "*x", "cannot be read"),
        ("VELOX__RISK__MAX_DAILY_LOSS", "!!int 5", "cannot be read"),
        ("VELOX__RISK__MAX_DAILY_LOSS", "\udcff", "cannot be read"),
        ("VELOX__RISK__MAX_DAILY_LOSS", "200000", "is 200000.00: allowed is at most the capital"),
        ("VELOX__RISK__ENABLE_DEDUPLICATION", "false", "is false: allowed is true, always"),
        ("VELOX__RISK__FIXED_LOT_SIZE", "null", "is null: allowed is a whole number of shares"),
        (
            "VELOX__RISK__MAX_DAYLY_LOSS",
            "5",
            "names no known key, system.risk.max_dayly_loss: the nearest is VELOX__RISK__MAX_DAILY_LOSS",
        ),
        ("VELOX__SYSTEM__RISK__MAX_DAILY_LOSS", "5", "the nearest is VELOX__RISK__MAX_DAILY_LOSS"),
        ("VELOX__QQQ", "5", "names no known key, system.qqq: "),
        ("VELOX__", "5", "names no known key"),
        ("VELOX__RISK", "5", "names the section system.risk: allowed is one key of it (max_daily_loss, "),
        ("VELOX__STRATEGIES", "[]", "names a part of system.strategies: allowed is to change it in the file"),
        ("VELOX__STRATEGIES__0__ENABLED", "false", "names a part of system.strategies"),
        ("VELOX__RISK__MAX\ud800", "5", "names no known key"),
        ("VELOX__FEED__SYMBOLS", "TCS", "system.feed.symbols is text: allowed is a list"),
        ("VELOX__FEED__SYMBOLS", "[TCS, 5]", "system.feed.symbols[1] is 5"),
    ],
)
def test_override_that_does_not_fit_is_refused_by_the_variables_name(project, name, value, expected):
    (problem,) = project.problems(environ={name: value})
    assert problem.startswith(f"environment variable {name.replace(chr(0xD800), chr(92) + 'ud800')}: ")
    assert expected in problem


def test_two_variables_for_one_key_are_refused(project):
    (problem,) = project.problems(environ={"VELOX__LIVE": "false", "velox__live": "false"})
    assert problem == "environment variable velox__live: sets the same key as VELOX__LIVE: keep one"


def test_variables_that_are_no_overrides_are_left_alone(project):
    plain = project.load()
    assert project.load(environ={"VELOX__VAR": "/x", "VELOX_RISK": "5", "HOME": "/root", "PATH": "\udcff"}) == plain


def test_override_when_system_is_empty_reports_the_file(project):
    (problem,) = project.problems("system:\n", {"VELOX__FEED__SPEED": "max"})
    assert "system.yaml:1: system is null: allowed is a mapping with the keys environment" in problem


def test_problem_of_the_file_under_an_override_is_gone(project, with_line):
    assert project.load(with_line("fixed_lot_size", "fixed_lot_size: null"), {"VELOX__RISK__FIXED_LOT_SIZE": "1"})


def test_override_into_a_section_that_is_no_mapping_reports_the_file(project, guide):
    (problem,) = project.problems(guide + "  feed: 5\n", {"VELOX__FEED__SPEED": "max"})
    assert "system.yaml:18: system.feed is 5" in problem
