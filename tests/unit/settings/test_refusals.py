from __future__ import annotations

import pytest

RISK_KEYS = (
    "max_daily_loss",
    "max_daily_loss_pct",
    "initial_capital",
    "fixed_lot_size",
    "enable_deduplication",
    "max_position_size",
    "max_positions_per_strategy",
    "max_total_positions",
)
NUMBERS = tuple(key for key in RISK_KEYS if key != "enable_deduplication")
WRONG = [
    "-1",
    "0",
    "-0.0",
    ".nan",
    ".inf",
    "-.inf",
    "'2000'",
    "true",
    "null",
    "",
    "[1]",
    "{a: 1}",
    "1e3",
    "0x10",
    "0777",
    "12:30",
    "2,000",
]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("key", NUMBERS)
def test_risk_number_that_is_no_positive_number_is_refused_with_its_place(project, with_line, key, value):
    text = with_line(key, f"{key}: {value}")
    line = next(number for number, content in enumerate(text.splitlines(), 1) if content.strip().startswith(f"{key}:"))
    (problem,) = [found for found in project.problems(text) if f"system.risk.{key} " in found]
    assert problem.startswith(f"system.yaml:{line}: system.risk.{key} is ")
    assert ": allowed is " in problem


@pytest.mark.parametrize("key", RISK_KEYS)
def test_risk_key_that_is_missing_is_refused_with_what_is_allowed(project, with_line, key):
    problems = project.problems(with_line(key, ""))
    assert len(problems) == 1
    assert problems[0].startswith(f"system.yaml:6: system.risk.{key} is missing: allowed is ")


@pytest.mark.parametrize(
    ("key", "line", "expected"),
    [
        ("max_daily_loss", "max_daily_loss: '2000'", "is '2000': allowed is a plain number of rupees from 0.01"),
        ("max_daily_loss", "max_daily_loss: 1999.999", "is 1999.999: allowed is a plain number of rupees"),
        ("max_daily_loss_pct", "max_daily_loss_pct: 2.005", "is 2.005: allowed is a plain number of percent from 0.01 to 100"),
        ("max_daily_loss_pct", "max_daily_loss_pct: 100.01", "is 100.01: allowed"),
        ("fixed_lot_size", "fixed_lot_size: null", "is null: allowed is a whole number of shares from 1"),
        ("fixed_lot_size", "fixed_lot_size: 1.0", "is 1.0: allowed is a whole number"),
        ("fixed_lot_size", "fixed_lot_size: true", "is true: allowed is a whole number"),
        ("max_total_positions", "max_total_positions: 1001", "from 1 to 1000"),
        ("enable_deduplication", "enable_deduplication: false", "is false: allowed is true, always"),
        ("enable_deduplication", "enable_deduplication: 1", "is 1: allowed is true, always"),
        ("enable_deduplication", "enable_deduplication: 'true'", "is 'true': allowed is true, always"),
        ("max_total_positions", "max_total_positions: 1", "is 1: allowed is at least max_positions_per_strategy, 2"),
        ("initial_capital", "initial_capital: 100001", "is 100001.00: allowed is the same as system.broker.capital, 100000.00"),
        ("max_daily_loss", "max_daily_loss: 100000.01", "is 100000.01: allowed is at most the capital, 100000.00"),
        ("max_position_size", "max_position_size: 100001", "is 100001.00: allowed is at most the capital"),
        ("max_daily_loss_pct", "max_daily_loss_pct: 0.00", "is 0.0: allowed"),
        ("type", "type: zerodah", "system.broker.type is 'zerodah': allowed is one of simulated, zerodha, upstox"),
        ("capital", "capital: 0", "system.broker.capital is 0: allowed"),
    ],
)
def test_broker_or_risk_value_out_of_bounds_is_refused(project, with_line, key, line, expected):
    problems = project.problems(with_line(key, line))
    assert any(expected in problem for problem in problems), problems
    assert all(problem.startswith("system.yaml:") for problem in problems)


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("max_daily_loss", "max_daily_loss: 100000"),
        ("max_daily_loss", "max_daily_loss: 0.01"),
        ("max_daily_loss", "max_daily_loss: 1_999.50"),
        ("max_daily_loss_pct", "max_daily_loss_pct: 0.01"),
        ("max_daily_loss_pct", "max_daily_loss_pct: 100"),
        ("max_position_size", "max_position_size: 100000.00"),
        ("max_total_positions", "max_total_positions: 2"),
        ("enable_deduplication", "enable_deduplication: yes"),
    ],
)
def test_risk_value_at_its_bound_is_taken(project, with_line, key, line):
    assert project.load(with_line(key, line)).risk.enable_deduplication is True


@pytest.mark.parametrize(
    ("rupees", "paise"), [("1999.99", 199_999), ("0.07", 7), ("4.35", 435), ("2000", 200_000), ("1000.1", 100_010)]
)
def test_rupees_become_paise_exactly(project, with_line, rupees, paise):
    assert project.load(with_line("max_daily_loss", f"max_daily_loss: {rupees}")).risk.limits.max_daily_loss_paise == paise


@pytest.mark.parametrize(("percent", "bps"), [("2.0", 200), ("2", 200), ("0.29", 29), ("1.1", 110), ("57.0", 5700)])
def test_percent_becomes_basis_points_exactly(project, with_line, percent, bps):
    assert project.load(with_line("max_daily_loss_pct", f"max_daily_loss_pct: {percent}")).risk.limits.max_daily_loss_bps == bps


@pytest.mark.parametrize(("seconds", "milliseconds"), [("3", 3000), ("2.5", 2500), ("0.001", 1)])
def test_dedup_window_may_be_a_fraction_of_a_second(project, guide, seconds, milliseconds):
    text = guide.replace("    # Position limits", f"    dedup_window_seconds: {seconds}")
    assert project.load(text).risk.limits.dedup_window_ms == milliseconds


@pytest.mark.parametrize("seconds", ["0", "-5", "0.0005", "true", "null", "3601"])
def test_dedup_window_that_is_none_is_refused(project, guide, seconds):
    (problem,) = project.problems(guide.replace("    # Position limits", f"    dedup_window_seconds: {seconds}"))
    assert problem.startswith(
        f"system.yaml:14: system.risk.dedup_window_seconds is {seconds}: allowed is a plain number of seconds"
    )


def test_unknown_key_names_value_and_nearest_key(project, with_line):
    problems = project.problems(with_line("max_daily_loss", "max_dialy_loss: 2000"))
    assert problems[0].startswith("system.yaml:6: system.risk.max_daily_loss is missing")
    assert problems[1].startswith(
        "system.yaml:8: system.risk.max_dialy_loss is not a known key (value 2000): the nearest is max_daily_loss"
    )


def test_key_in_the_wrong_section_is_told_where_it_belongs(project, guide):
    problems = project.problems(guide + "  fixed_lot_size: 5\nrisk: {}\n")
    assert "system.fixed_lot_size is not a known key (value 5): did you mean system.risk.fixed_lot_size" in problems[0]
    assert "risk is not a known key (value a mapping of 0 keys): did you mean system.risk?" in problems[1]


def test_file_without_system_says_what_is_missing(project):
    problems = project.problems("risk: {max_daily_loss: 5}\n")
    assert any("system is missing: allowed is a mapping with the keys" in problem for problem in problems)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("environment: 'a b'", "system.environment is 'a b': allowed is a name"),
        ("environment: ../x", "allowed is a name"),
        (
            "account: 12345",
            "system.account is 12345: allowed is a name of letters, digits, '-', '_' and '.', at most 64 (put it in quotes)",
        ),
        ("account: no", "system.account is false: allowed is a name"),
        ("feed: null", "system.feed is null: allowed is a mapping with the keys path"),
        ("feed: data.csv", "system.feed is text: allowed is a mapping"),
        ("feed: {speed: 0}", "system.feed.speed is 0: allowed is max, or a number above 0"),
        ("feed: {speed: -1}", "system.feed.speed is -1"),
        ("feed: {speed: .nan}", "system.feed.speed is nan"),
        ("feed: {speed: fast}", "system.feed.speed is 'fast'"),
        ("feed: {speed: true}", "system.feed.speed is true"),
        ("feed: {path: 5}", "system.feed.path is 5"),
        ("feed: {path: ''}", "system.feed.path is ''"),
        ("feed: {symbols: TCS}", "system.feed.symbols is text: allowed is a list, each an exchange symbol"),
        ("feed: {symbols: [tcs]}", "system.feed.symbols[0] is 'tcs': allowed is an exchange symbol"),
        (
            "feed: {symbols: [TCS, ON]}",
            "system.feed.symbols[1] is true: allowed is an exchange symbol in capitals, such as TCS or M&M (put it in quotes)",
        ),
        ("feed: {symbols: [TCS, TCS]}", "system.feed.symbols[1] is 'TCS' again: allowed is each symbol once"),
        ("strategies: [{name: a, class_path: 'm:C', symbols: [A, B, A]}]", "system.strategies[0].symbols[2] is 'A' again"),
        ("strategies: []", "system.strategies has no enabled strategy"),
        ("strategies: 5", "system.strategies is 5: allowed is a list of strategies"),
        ("strategies: [5]", "system.strategies[0] is 5: allowed is a mapping with the keys name"),
        ("strategies: [{name: a, class_path: 'm:C', enabled: false}]", "system.strategies has no enabled strategy"),
        ("strategies: [{name: a}]", "system.strategies[0] has neither class_path nor path: allowed is one of them"),
        ("strategies: [{name: a, class_path: 'm:C', path: f.py}]", "system.strategies[0] has both class_path and path"),
        ("strategies: [{name: a, path: f.txt}]", "allowed is a Python file, such as my_strategies/mine.py"),
        ("feed: {scenario_symbols: 0}", "system.feed.scenario_symbols is 0: allowed is a whole number of symbols from 1"),
        (
            "strategies: [{name: a, class_path: 'a.b.C'}]",
            "system.strategies[0].class_path is 'a.b.C': allowed is a class as module:Class",
        ),
        ("strategies: [{name: a, class_path: 'os:system()'}]", "allowed is a class as module:Class"),
        (
            "strategies: [{name: a, class_path: 'm:C', parameters: {x: [1]}}]",
            "strategies[0].parameters.x is a list of 1 values",
        ),
        (
            "strategies: [{name: a, class_path: 'm:C', parameters: {x: .nan}}]",
            "strategies[0].parameters.x is nan: allowed is a finite",
        ),
        (
            "strategies: [{name: a, class_path: 'm:C', parameters: [1]}]",
            "strategies[0].parameters is a list of 1 values: allowed is a mapping",
        ),
        (
            "strategies: [{name: a, class_path: 'm:C'}, {name: a, class_path: 'm:D'}]",
            "system.strategies[1].name is 'a', as strategies[0]: allowed is a name of its own",
        ),
        (
            "market: {entry_until: '9:14'}",
            "system.market.entry_until is '9:14': allowed is a time of day as HH:MM, IST, from 09:15",
        ),
        ("market: {hard_stop: 15:31}", "system.market.hard_stop is '15:31'"),
        ("market: {flat_by: 885}", "system.market.flat_by is 885"),
        ("market: {flat_by: '15:05:00'}", "system.market.flat_by is '15:05:00'"),
        ("market: {flat_by: '14:45'}", "system.market.flat_by is 14:45: allowed is a time after entry_until, 14:45"),
        ("market: {hard_stop: 15:05}", "system.market.hard_stop is 15:05: allowed is a time after flat_by, 15:05"),
        ("market: {lateness_minutes: {intraday: -1}}", "system.market.lateness_minutes.intraday is -1"),
        ("engine: {on_stop: holt}", "system.engine.on_stop is 'holt': allowed is one of flatten, hold"),
        ("engine: {orders_per_second: 11}", "a whole number of orders from 1 to 10"),
        ("engine: {sends_off_loop: auto}", "system.engine.sends_off_loop is 'auto': allowed is true or false"),
        ("engine: {heartbeat_seconds: 10}", "system.guard.heartbeat_timeout_seconds is 20: allowed is at least three times"),
        ("guard: {heartbeat_timeout_seconds: 2}", "is 2: allowed is at least three times engine.heartbeat_seconds, 3"),
        ("guard: {loss_margin_pct: 0}", "system.guard.loss_margin_pct is 0: allowed is a plain number of percent from 0.01"),
        ("guard: {act_seconds: 0.5}", "system.guard.act_seconds is 0.5: allowed is a whole number of seconds from 1"),
        (
            "guard: {flat_by_margin_seconds: 301}",
            "is 301: allowed are at most the seconds from market.flat_by to market.hard_stop, 300",
        ),
        ("guard: {enabled: 1}", "system.guard.enabled is 1: allowed is true or false"),
        ("simulation: {reject_probability: 1.01}", "a probability from 0 to 1"),
        ("simulation: {seed: -1}", "system.simulation.seed is -1"),
        ("dashboard: {port: 0}", "system.dashboard.port is 0: allowed is a whole number of a port from 1 to 65535"),
        ("dashboard: {port: 65536}", "system.dashboard.port is 65536"),
        ("dashboard: {host: 'a b'}", "system.dashboard.host is 'a b'"),
        (
            "stores: {redis: {url: 'http://x'}}",
            "system.stores.redis.url is not shown: allowed is a URL (redis://, rediss://, unix://)",
        ),
        ("stores: {journal: {url: 5}}", "system.stores.journal.url is 5: allowed is a URL"),
        ("stores: {journal: {url: 'postgresql://[x'}}", "system.stores.journal.url is not shown"),
        (
            "metrics: {influxdb: {url: localhost}}",
            "system.metrics.influxdb.url is not shown: allowed is a URL (http://, https://)",
        ),
        (
            "metrics: {influxdb: {flavour: influx1}}",
            "system.metrics.influxdb.flavour is 'influx1': allowed is one of auto, influx2, influx3, victoria",
        ),
        (
            "metrics: {influxdb: {enabled: true, bucket: ''}}",
            "system.metrics.influxdb.bucket is empty: allowed is the bucket",
        ),
        (
            "metrics: {influxdb: {enabled: true, flavour: influx2, org: ''}}",
            "system.metrics.influxdb.org is empty: allowed is the organisation",
        ),
        (
            "checklist: {severities: {redsi: warn}}",
            "system.checklist.severities.redsi is not a known key (value 'warn'): the nearest is redis",
        ),
        ("checklist: {severities: {redis: maybe}}", "allowed is one of refuse, warn, skip"),
        ("contacts: {phone: +919876543210}", "system.contacts.phone is 919876543210: allowed is one line of text"),
        ("logs: {level: info}", "system.logs.level is 'info': allowed is one of DEBUG, INFO, WARNING, ERROR"),
        ("live: true", "system.live is true: allowed is false with the simulated broker"),
        ("backup: {keep_days: 0}", "system.backup.keep_days is 0"),
        ("backup: {keep_weeks: -1}", "system.backup.keep_weeks is -1: allowed is a whole number of weeks from 0 to 520"),
        ("backup: {keep_months: 1.5}", "system.backup.keep_months is 1.5"),
        ("backup: {destinations: [x]}", "system.backup.destinations is not a known key"),
        ("backup: {copies: [x, y, x]}", "system.backup.copies[2] is a destination already"),
        ("backup: {destination: x, copies: [x]}", "system.backup.copies[0] is a destination already"),
    ],
)
def test_section_value_that_does_not_fit_is_refused(project, guide, section, expected):
    problems = project.problems(f"{guide}  {section}\n")
    assert any(expected in problem for problem in problems), problems
    assert all(problem.startswith(("system.yaml:18: ", "system.yaml:1: ")) for problem in problems), problems


@pytest.mark.parametrize("written", ["14:30", "'14:30'", '"14:30"'])
def test_time_is_the_same_quoted_or_not(project, guide, written):
    assert f"{project.load(f'{guide}  market: {{entry_until: {written}}}').market.entry_until:%H:%M}" == "14:30"


@pytest.mark.parametrize(("written", "speed"), [("max", 0.0), ("1", 1.0), ("600", 600.0), ("0.5", 0.5)])
def test_speed_is_a_factor_or_max(project, guide, written, speed):
    assert project.load(f"{guide}  feed: {{speed: {written}}}\n").feed.speed == speed


def test_strategy_symbols_outside_the_feed_are_refused(project, guide):
    extra = "  feed: {symbols: [TCS]}\n  strategies:\n    - {name: a, class_path: 'm:C', symbols: [TCS, INFY]}\n"
    (problem,) = project.problems(guide + extra)
    assert (
        problem == "system.yaml:20: system.strategies[0].symbols[1] is 'INFY': allowed are the symbols of system.feed.symbols"
    )


def test_all_problems_are_listed_at_once_in_the_files_order(project, guide):
    text = guide.replace("fixed_lot_size: 1", "fixed_lot_size: null").replace(
        "max_total_positions: 3", "max_total_positions: 1"
    )
    text = (
        text.replace("capital: 100000  # Your actual", "capital: 90000  # Your actual")
        + "  dashboard: {port: 70000, color: red}\n"
    )
    problems = project.problems(text)
    assert [problem.split(": ")[0] for problem in problems] == [
        "system.yaml:10",
        "system.yaml:11",
        "system.yaml:17",
        "system.yaml:18",
        "system.yaml:18",
    ]


def test_many_problems_are_bounded(project, guide):
    problems = project.problems(guide + "".join(f"  key_{number}: {number}\n" for number in range(4000)))
    assert len(problems) == 101
    assert problems[-1] == "and more problems: correct these first"


@pytest.mark.parametrize("kind", ["zerodha", "upstox"])
def test_live_broker_without_live_true_is_refused(project, live, kind):
    text = live.replace("zerodha", kind)
    assert project.load(text).live is True
    (problem,) = project.problems(text.replace("  live: true\n", ""))
    assert f"system.live is false: a {kind} broker moves real money, and is allowed only with live: true in the file" in problem


def test_live_true_from_the_environment_is_not_enough(project, live):
    problems = project.problems(live.replace("  live: true\n", ""), {"VELOX__LIVE": "true"})
    assert problems == [
        "environment variable VELOX__LIVE: system.live is set by the environment: allowed is live: true in the file itself"
    ]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("  feed: {path: data/x.csv}\n", "system.feed.path is set: a zerodha broker trades on live prices only"),
        ("  feed: {scenario: crash}\n", "system.feed.scenario is set: a zerodha broker trades on live prices only"),
        ("  checklist: {severities: {influxdb: warn}}\n", "system.checklist.severities.influxdb is warn: allowed is refuse"),
    ],
)
def test_live_broker_with_a_loosened_setting_is_refused(project, live, extra, expected):
    (problem,) = project.problems(live + extra)
    assert expected in problem


def test_live_broker_without_named_strategies_is_refused(project, live):
    (problem,) = project.problems(live[: live.index("  strategies:")])
    assert "system.strategies is missing: a zerodha broker trades only strategies that the file names" in problem


def test_percentage_worth_less_than_a_paisa_is_refused(project, guide):
    text = guide.replace("100000", "0.5").replace("2000 ", "0.1 ").replace("5000 ", "0.2 ").replace("2.0 ", "0.01 ")
    (problem,) = project.problems(text)
    assert "system.risk.max_daily_loss_pct is less than a paisa of the capital" in problem
