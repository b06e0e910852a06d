"""Strategies from a trader's own file: what loads, what a configuration got wrong, what is the file's own fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from velox_core.domain.errors import ConfigError
from velox_core.settings import Settings, StrategySettings, load_settings
from velox_core.settings.folders import SHIPPED_ROOT
from velox_core.strategies.rules import TradeRuleValues
from velox_core.strategy_loading import BrokenStrategy, hosted_strategies, load_strategy, resolved_rules

GOOD = """
from velox_core.strategies.base import BarStrategy, ParameterSpec

class Mine(BarStrategy):
    parameter_specs = (ParameterSpec(name="length", default=3, help="bars", minimum=1, maximum=9),)
    rule_defaults = {"time_stop_minutes": 30}
    def on_bar(self, bar, position):
        return None
"""
Write = Callable[..., StrategySettings]


def project(folder: Path, content: str | None, entry: str = "path: mine/foo.py") -> Settings:
    (folder / "config").mkdir(exist_ok=True)
    (folder / "mine").mkdir(exist_ok=True)
    if content is not None:
        (folder / "mine" / "foo.py").write_text(content, encoding="utf-8")
    text = (SHIPPED_ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")
    head, _, tail = text.partition("    - name: opening_range")
    rest = tail[tail.index("\n  market:") :]
    config = folder / "config" / "system.yaml"
    config.write_text(f"{head}    - name: foo\n      {entry}\n{rest}", encoding="utf-8")
    return load_settings(config, {})


@pytest.fixture
def chosen(tmp_path: Path) -> Write:
    def write(content: str | None = GOOD, entry: str = "path: mine/foo.py") -> StrategySettings:
        return project(tmp_path, content, entry).strategies[0]

    return write


def test_strategy_file_is_found_by_its_path_with_parameters_and_rules(chosen: Write) -> None:
    found = chosen(GOOD, "path: mine/foo.py\n      parameters: {length: 5}\n      rules: {trailing_stop_percent: 0.5}")
    made = load_strategy(found)
    assert (type(made).__name__, made.strategy_id, made.parameters) == ("Mine", "foo", {"length": 5})
    assert resolved_rules(found, made)[1] == TradeRuleValues(trailing_bps=50, time_stop_ms=1_800_000)


def test_strategy_file_with_more_classes_needs_the_one_that_is_meant(chosen: Write) -> None:
    two = GOOD + "\nclass Other(Mine):\n    pass\n"
    with pytest.raises(ConfigError, match=r"foo: .*foo.py has Mine, Other; name one, as path: foo.py:Mine"):
        load_strategy(chosen(two))
    assert type(load_strategy(chosen(two, "path: mine/foo.py:Other"))).__name__ == "Other"
    with pytest.raises(ConfigError, match="has no strategy 'Else'; it has Mine, Other"):
        load_strategy(chosen(two, "path: mine/foo.py:Else"))


@pytest.mark.parametrize(
    ("content", "entry", "named"),
    [
        (None, "path: mine/foo.py", "cannot be read: No such file"),
        ("x = 1\n", "path: mine/foo.py", "defines no Strategy; a template is written by: velox strategies new"),
        (GOOD, "path: mine/foo.py\n      parameters: {length: 10}", "'length' is 10; the most allowed is 9"),
        (GOOD, "path: mine/foo.py\n      parameters: {lenth: 1}", "'lenth' is unknown; known are length"),
    ],
)
def test_what_the_configuration_got_wrong_names_where_it_stands(
    chosen: Write, content: str | None, entry: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        load_strategy(chosen(content, entry))
    assert "system.yaml:" in str(caught.value)


def test_impossible_rule_names_where_it_stands(chosen: Write) -> None:
    found = chosen(GOOD, "path: mine/foo.py\n      rules: {time_stop_minutes: -1}")
    with pytest.raises(ConfigError, match=r"system.yaml:\d+: foo: rule 'time_stop_minutes' is -1; the least allowed is 0"):
        resolved_rules(found, load_strategy(found))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("raise RuntimeError('no data')\n", r"RuntimeError: no data \(line 1\)"),
        ("import nothing_of_this_name\n", r"ModuleNotFoundError: No module named 'nothing_of_this_name' \(line 1\)"),
        ("\n\ndef broken(:\n", r"SyntaxError: .*\(line 3\)"),
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(line 2\)"),
        (GOOD + "    def __init__(self, a, b):\n        self.strategy_id = 'other'\n", "does not keep its strategy_id"),
        (GOOD + "    def __init__(self, a, b):\n        1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_code_that_fails_while_it_is_loaded_is_a_broken_strategy_and_no_error_of_the_day(
    chosen: Write, content: str, why: str
) -> None:
    made = load_strategy(chosen(content))
    assert isinstance(made, BrokenStrategy)
    with pytest.raises(RuntimeError, match=why):
        made.start_session(None)  # type: ignore[arg-type]


def test_a_file_that_changed_since_the_configuration_was_read_is_not_run(chosen: Write, tmp_path: Path) -> None:
    found = chosen(GOOD)
    (tmp_path / "mine" / "foo.py").write_text(GOOD + "# changed\n", encoding="utf-8")
    made = load_strategy(found)
    assert isinstance(made, BrokenStrategy)
    assert "is not what it was when the configuration was read" in made.why


def test_configuration_hash_covers_the_content_of_a_strategys_file_and_not_where_it_lies(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    first = project(one, GOOD).config_hash
    assert project(two, GOOD).config_hash == first
    assert project(one, GOOD + "# another threshold\n").config_hash != first


def test_broken_file_is_hosted_beside_the_others(tmp_path: Path) -> None:
    hosts = hosted_strategies(project(tmp_path, "1 / 0\n"), ("TCS",))
    assert [host.strategy_id for host in hosts] == ["foo"]
    assert isinstance(hosts[0].strategy, BrokenStrategy)
