"""Sends off the loop, in virtual time: every episode of these has them, and each trouble of theirs can break an invariant."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.senders import SENDERS, TROUBLES
from tests.simulation.verdict import InvariantBroken
from tests.simulation.world import run_episode
from velox_core.brokers.sends import Request, Sends
from velox_core.order_manager import OrderManager
from velox_core.ports import SendOutcome, SendReport, SendStatus


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("velox")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


def _first_break(seeds: range) -> str:
    for seed in seeds:
        try:
            run_episode(seed, (SENDERS,))
        except InvariantBroken as broken:
            return str(broken)
    return ""


def test_senders_many_seeds_break_no_invariant_and_meet_every_trouble() -> None:
    happened = Counter(what for seed in range(1, 81) for what in run_episode(seed, (SENDERS,)).rarer)
    assert all(happened[f"request {trouble}"] > 3 for trouble in TROUBLES)


def test_senders_same_seed_gives_the_same_journal() -> None:
    first, second = (run_episode(12, (SENDERS,)) for _ in range(2))
    assert first.export
    assert first.export == second.export


def test_senders_with_requests_that_leave_however_late_break_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither their age nor that they were taken back keeps them: either alone would."""
    monkeypatch.setattr("velox_core.brokers.sends.Sends._ask", lambda self, request: request.call())
    assert "on a position of 0" in _first_break(range(31, 45))


def test_senders_with_a_torn_answer_taken_for_a_refusal_break_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    apply_report = OrderManager.apply_report

    def hopeful(self: OrderManager, report: SendReport, now_ms: int) -> None:
        if report.outcome.status is SendStatus.UNKNOWN:
            report.outcome.status = SendStatus.REJECTED
        apply_report(self, report, now_ms)

    monkeypatch.setattr("velox_core.order_manager.OrderManager.apply_report", hopeful)
    assert "working" in _first_break(range(1, 30))


def test_senders_with_hung_requests_that_are_waited_for_break_an_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velox_core.brokers.sends.Sends._judge_age", lambda self, now: None)
    assert "no exit was sent" in _first_break(range(1, 30))


def test_senders_with_a_request_that_is_sent_again_when_its_answer_is_unclear_break_an_invariant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish = Sends._finish

    def insistent(self: Sends, request: Request, outcome: SendOutcome) -> None:
        finish(self, request, outcome)
        if outcome.status is SendStatus.UNKNOWN:
            request.call()  # `_ask` would not make it twice

    monkeypatch.setattr("velox_core.brokers.sends.Sends._finish", insistent)
    assert "is sent a second time" in _first_break(range(1, 20))
