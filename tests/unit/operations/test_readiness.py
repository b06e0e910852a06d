from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from velox_core.domain.errors import ConfigError, VeloxError
from velox_core.operations import handover, hints
from velox_core.operations.checklist import ITEM_TITLES, ItemResult, Verdict
from velox_core.operations.dates import choose_date
from velox_core.operations.day import DayRequest, open_day
from velox_core.operations.processes import wrote_it
from velox_core.operations.readiness import check_day, refuse_second_engine, standing_problems, strategy_problems
from velox_core.operations.view import dropped_text
from velox_core.settings import Paths, Settings, load_settings

Load = Callable[..., Settings]
DAY = date(2024, 1, 15)


def day_of(settings: Settings, on: date | None = DAY, scenario: str | None = None) -> None:
    check_day(open_day(DayRequest(config=settings.source, date=on, scenario=scenario), {}))


def test_check_day_of_the_shipped_day_and_of_a_synthetic_one_finds_nothing(settings_with: Load) -> None:
    settings = settings_with()
    day_of(settings)
    day_of(settings, date(2024, 1, 17), "calm")
    assert standing_problems(settings.source, {}) == []


@pytest.mark.parametrize(("on", "text"), [(date(2024, 1, 17), "no bars of 2024-01-17"), (date(2024, 1, 20), "special session")])
def test_check_day_without_bars_of_the_date_is_bad_usage_with_a_way_out(on: date, text: str, settings_with: Load) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        day_of(settings_with(), on)
    assert "SCENARIO=calm" in str(caught.value)


def test_check_day_names_every_strategy_that_does_not_load(settings_with: Load) -> None:
    extra = """
    - name: typing_error
      class_path: velox_core.strategies.sma_cross:SmaCros
"""
    settings = settings_with()
    text = settings.source.read_text(encoding="utf-8")
    settings.source.write_text(text.replace("SmaCross\n", "SmaCross\n" + extra.lstrip("\n")), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"typing_error.*SmaCros"):
        day_of(settings)
    (problem,) = standing_problems(settings.source, {})
    assert "cannot be loaded" in problem


def test_strategy_problems_names_symbols_that_the_data_has_not(settings_with: Load) -> None:
    settings = settings_with()
    settings.source.write_text(
        settings.source.read_text(encoding="utf-8").replace("SmaCross\n", "SmaCross\n      symbols: [INFY]\n"), encoding="utf-8"
    )
    changed = open_day(DayRequest(config=settings.source, date=DAY), {}).settings
    (problem,) = strategy_problems(changed, ("TCS",))
    assert "no data for INFY; the data has TCS" in problem
    assert strategy_problems(changed, None) == []


def test_open_day_refuses_an_unknown_scenario_and_year_as_bad_usage(settings_with: Load) -> None:
    source = settings_with().source
    with pytest.raises(ConfigError, match="choose one of calm, trend, crash"):
        open_day(DayRequest(config=source, scenario="storm"), {})
    with pytest.raises(ConfigError, match="2031 is not in the calendar"):
        open_day(DayRequest(config=source, date=date(2031, 1, 6)), {})


def status_of(paths: Paths, *, pid: int, state: str = "RUNNING", wall_ms: int | None = None) -> None:
    folder = paths.var / "replay" / "primary" / "2024-01-15-3"
    folder.mkdir(parents=True, exist_ok=True)
    body = {"state": state, "pid": pid, "run_id": "2024-01-15-3", "trading_date": "2024-01-15"}
    body |= {"engine_ms": 1_705_290_660_000, "wall_ms": time.time_ns() // 1_000_000 if wall_ms is None else wall_ms}
    (folder / "status.json").write_text(json.dumps(body))


def test_refuse_second_engine_names_the_run_its_process_its_clock_and_two_commands(settings_with: Load, paths: Paths) -> None:
    settings = settings_with()
    refuse_second_engine(settings, paths, DAY)
    status_of(paths, pid=os.getpid())
    with pytest.raises(VeloxError) as caught:
        refuse_second_engine(settings, paths, DAY)
    for part in ("2024-01-15-3", str(os.getpid()), "09:21:00", "velox status", "velox stop"):
        assert part in str(caught.value)
    refuse_second_engine(settings, paths, date(2024, 1, 16))


def test_refuse_second_engine_is_not_stopped_by_an_ended_run_or_a_number_given_again(settings_with: Load, paths: Paths) -> None:
    status_of(paths, pid=os.getpid(), state="DONE")
    refuse_second_engine(settings_with(), paths, DAY)
    status_of(paths, pid=os.getpid(), wall_ms=1)  # written before this process began
    refuse_second_engine(settings_with(), paths, DAY)
    assert not wrote_it(os.getpid(), 1)
    assert wrote_it(os.getpid(), time.time_ns() // 1_000_000)


def test_handover_is_of_one_process_only_and_can_be_forgotten(paths: Paths) -> None:
    line = ItemResult(item="redis", title=ITEM_TITLES["redis"], verdict=Verdict.WARNED, measured="m", advice="a")
    handover.leave_checklist(paths, [line])
    handover.leave_engine(paths, 77)
    assert handover.checklist_of(paths, os.getpid()) == [line]
    assert (handover.engine_of(paths, os.getpid()), handover.engine_of(paths, 1)) == (77, 0)
    handover.forget(paths, os.getpid())
    assert handover.checklist_of(paths, os.getpid()) == []
    assert handover.engine_of(paths, os.getpid()) == 0


def test_handover_of_a_stop_is_for_that_very_process_and_not_for_a_later_one_with_its_id(paths: Paths) -> None:
    assert not handover.stop_wanted(paths)
    handover.leave_stop(paths, os.getppid())
    assert not handover.stop_wanted(paths)
    handover.leave_stop(paths, os.getpid())
    assert handover.stop_wanted(paths)
    note = paths.var / "output" / f"stop-of-{os.getpid()}.json"
    note.write_text(json.dumps({"started": "an-earlier-boot:1"}))
    assert not handover.stop_wanted(paths)
    handover.leave_stop(paths, os.getpid())
    handover.forget(paths, os.getpid())
    assert not handover.stop_wanted(paths)


def test_hints_are_quoted_and_name_a_configuration_that_is_not_the_default(
    settings_with: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = tmp_path / "my env" / "bin"
    environment.mkdir(parents=True)
    (environment / "velox").touch()
    monkeypatch.setattr(sys, "executable", str(environment / "python"))
    monkeypatch.chdir(tmp_path)
    line = hints.velox("stop", "--reason", "it's late")
    assert shlex.split(line) == ["my env/bin/velox", "stop", "--reason", "it's late"]
    assert hints.program("prefect") == "prefect"
    assert shlex.split(hints.velox("status", settings=settings_with()))[1:] == ["status", "--config", "config/system.yaml"]
    assert shlex.split(hints.velox("status", settings=load_settings(None, {})))[1:] == ["status"]
    of_a_group = hints.velox("backups", "list", "--json", settings=settings_with())
    assert shlex.split(of_a_group)[1:] == ["backups", "list", "--config", "config/system.yaml", "--json"]


def test_dropped_text_counts_rows_by_rule() -> None:
    assert dropped_text({"dropped_rows": {}}) == ""
    assert dropped_text({}) == ""
    text = dropped_text({"dropped_rows": {"outside the session": 3, "price not positive": 1}})
    assert text == "4 rows dropped (outside the session: 3, price not positive: 1)"


def test_date_of_data_whose_times_have_no_offset_says_that_it_is_missing(settings_with: Load, tmp_path: Path) -> None:
    file = tmp_path / "notz.csv"
    file.write_text("ts,symbol,open,high,low,close,volume\n2024-01-15 09:15:00,TCS,1,1,1,1,1\n")
    with pytest.raises(ConfigError, match="UTC offset"):
        choose_date(settings_with(), given=None, data=file, scenario=None)


@pytest.mark.parametrize(("name", "content"), [("absent.csv", None), ("empty.csv", b""), ("broken.parquet", b"PAR1 not so")])
def test_date_of_data_that_cannot_be_read_is_bad_usage(
    name: str, content: bytes | None, settings_with: Load, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name) as caught:
        choose_date(settings_with(), given=None, data=tmp_path / name, scenario=None)
    assert caught.value.exit_code == 2
