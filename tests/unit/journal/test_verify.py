"""A journal that was changed is found out, and the first bad event is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.journals import DAY, RUN, RUN_ID, day_events, tamper, write_journal
from velox_core.domain.events import EventKind
from velox_core.journal.run import RunIdentity
from velox_core.journal.verify import RunHead, RunVerdict, head_of_day, run_heads, verify_runs

EVENTS = len(day_events(2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_journal(tmp_path / "journal.db", count=2)
    return tmp_path / "journal.db"


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def verdict(path: Path, *noted: RunHead) -> RunVerdict:
    (only,) = verify_runs(url(path), noted)
    return only


def test_journal_as_it_was_written_is_whole_and_its_head_stands_for_it(path: Path) -> None:
    found = verdict(path)
    assert (found.problem, found.sequence) == ("", None)
    assert found.head == run_heads(url(path))[0]
    assert found.head.events == EVENTS
    assert found.head.run_id == RUN_ID


@pytest.mark.parametrize(
    ("statements", "problem", "sequence"),
    [
        (["UPDATE event SET body = replace(body, '390000', '390001') WHERE sequence = 7"], "event 7 was edited", 7),
        (["UPDATE event SET ts_ms = ts_ms + 1 WHERE sequence = 2"], "event 2 was edited", 2),
        (["UPDATE event SET kind = 'LOCK' WHERE sequence = 8"], "event 8 was edited", 8),
        (["UPDATE event SET digest = 'x' WHERE sequence = 4"], "event 4 has no digest of ours", 4),
        (["UPDATE event SET digest = '' WHERE sequence = 1"], "event 1 was edited, or stands where", 1),
        (["DELETE FROM event WHERE sequence = 5"], "event 5 is missing", 5),
        (["DELETE FROM event WHERE sequence IN (1, 2)"], "events 1 to 2 are missing", 1),
        (
            ["DELETE FROM event WHERE sequence = 5", "UPDATE event SET sequence = sequence - 1 WHERE sequence > 5"],
            "event 5 ",
            5,
        ),
        (
            [
                "UPDATE event SET sequence = 99 WHERE sequence = 3",
                "UPDATE event SET sequence = 3 WHERE sequence = 4",
                "UPDATE event SET sequence = 4 WHERE sequence = 99",
            ],
            "event 3 was edited, or stands where another one was written",
            3,
        ),
    ],
)
def test_changed_event_is_found_and_the_first_bad_one_named(
    path: Path, statements: list[str], problem: str, sequence: int
) -> None:
    tamper(path, *statements)
    found = verdict(path)
    assert problem in found.problem
    assert found.sequence == sequence
    assert found.head.events == sequence - 1


def test_run_cut_off_at_its_end_is_found_by_a_head_noted_elsewhere_alone(path: Path) -> None:
    noted = verdict(path).head
    tables = ("event", "halt", "decision", "intent", "order_event", "fill", "exit_plan")
    tamper(path, *(f"DELETE FROM {table} WHERE sequence > {EVENTS - 2}" for table in tables))
    tamper(path, "UPDATE exit_plan SET live = 1, ended_ms = NULL")
    assert verdict(path).problem == ""
    found = verdict(path, noted)
    assert found.problem.startswith(f"events {EVENTS - 1} to {EVENTS}, which were noted elsewhere, are missing")
    assert found.sequence == EVENTS - 1


def test_run_written_anew_is_found_by_a_head_noted_elsewhere(path: Path, tmp_path: Path) -> None:
    noted = verdict(path).head
    other = tmp_path / "other.db"
    write_journal(other, events=[(EventKind.MARK, {"realised": 1})] * (EVENTS + 1))
    assert verdict(other).problem == ""
    assert "was written anew" in verdict(other, noted).problem
    of_another = RunHead(**{**noted.to_json(), "run_id": "2024-01-15-2"})
    assert verdict(other, of_another).problem == ""


def test_run_that_went_on_after_its_head_was_noted_is_whole(path: Path) -> None:
    noted = verdict(path).head
    write_journal(path, events=[(EventKind.MARK, {"realised": 9})])
    found = verdict(path, noted)
    assert found.problem == ""
    assert found.head.events == EVENTS + 1


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "UPDATE fill SET price_paise = 1 WHERE trade_id = 'T2'",
            "table fill: the row of trade_id T2 was edited (price_paise)",
        ),
        ("DELETE FROM fill WHERE trade_id = 'T1'", "table fill: the row of trade_id T1 is missing"),
        ("UPDATE intent SET live = 1 WHERE broker_order_id = 'B1'", "was edited (live)"),
        ("UPDATE halt SET clears = 'h2' WHERE halt_id = 'c1'", "table halt: the row of sequence"),
        ("UPDATE exit_plan SET live = 1", "table exit_plan: the row of sequence 2 was edited (live)"),
        ("DELETE FROM decision", "table decision"),
        ("DELETE FROM order_event WHERE state = 'OPEN'", "table order_event"),
        (
            "INSERT INTO fill SELECT run_key, 'T9', sequence, ts_ms, client_order_id, strategy, symbol, side, quantity, "
            "price_paise, charges_paise, realised_paise, position_quantity, cost_paise FROM fill WHERE trade_id = 'T1'",
            "table fill: the row of trade_id T9 comes from no event",
        ),
    ],
)
def test_table_beside_the_events_that_was_changed_is_found(path: Path, statement: str, problem: str) -> None:
    tamper(path, statement)
    assert problem in verdict(path).problem


def test_every_run_of_a_journal_is_judged_for_itself(path: Path) -> None:
    write_journal(path, RunIdentity(scope_key="simulated:primary", trading_date=DAY), count=1)
    tamper(path, "DELETE FROM event WHERE run_key = 1 AND sequence = 4")
    first, second = verify_runs(url(path))
    assert (first.sequence, second.problem) == (4, "")
    assert second.head.name == "simulated:primary 2024-01-15"


def test_head_of_a_day_changes_with_any_run_and_not_with_their_order(path: Path) -> None:
    head = verdict(path).head
    other = RunHead(scope_key="s", trading_date=RUN.trading_date.isoformat(), run_id="x", events=1, digest="d")
    assert head_of_day([]) == ""
    assert head_of_day([head, other]) == head_of_day([other, head]) != head_of_day([head])
    assert head_of_day([RunHead(**{**head.to_json(), "run_id": "moved"})]) != head_of_day([head])
