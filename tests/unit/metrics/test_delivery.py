from __future__ import annotations

import pytest

from tests.fakes.metrics import FakeServer
from velox_core.metrics import Answer, AnswerKind, deliver
from velox_core.metrics.delivery import POSTS_PER_BATCH_MAX

LINES = [f"line {number}" for number in range(1_000)]
LATER = [AnswerKind.UNAUTHORISED, AnswerKind.MISSING, AnswerKind.BUSY, AnswerKind.REFUSED, AnswerKind.FAILED]


def test_batch_that_is_taken_is_one_request() -> None:
    server = FakeServer()
    delivery = deliver(server.post, LINES)
    assert (delivery.written, delivery.malformed, delivery.left, server.posts) == (1_000, 0, [], [1_000])


def test_bad_lines_are_found_and_dropped_and_all_others_are_written_in_order() -> None:
    server, bad = FakeServer(), {"line 0", "line 17", "line 999"}
    server.bad = bad.__contains__
    delivery = deliver(server.post, LINES)
    assert (delivery.written, delivery.malformed, delivery.left) == (997, 3, [])
    assert server.lines == [line for line in LINES if line not in bad]
    assert len(server.posts) <= POSTS_PER_BATCH_MAX


def test_server_that_refuses_every_line_is_asked_a_bounded_number_of_times() -> None:
    server = FakeServer()
    server.bad = lambda line: True
    delivery = deliver(server.post, LINES)
    assert len(server.posts) == POSTS_PER_BATCH_MAX
    assert (delivery.written, delivery.malformed, delivery.left) == (0, 1_000, [])


def test_batch_that_is_too_large_is_divided_and_none_is_lost() -> None:
    server = FakeServer()
    server.most = 300
    delivery = deliver(server.post, LINES)
    assert (delivery.written, delivery.malformed, delivery.left, delivery.shrink) == (1_000, 0, [], True)
    assert server.lines == LINES


def test_batch_too_large_beyond_the_bound_is_given_back_in_order_not_dropped() -> None:
    server = FakeServer()
    server.most = 1
    delivery = deliver(server.post, LINES)
    assert delivery.malformed == 0
    assert [*server.lines, *delivery.left] == LINES
    assert delivery.left


@pytest.mark.parametrize("kind", LATER)
def test_other_answers_end_the_delivery_and_give_the_lines_back(kind: AnswerKind) -> None:
    server = FakeServer(Answer(kind=kind, text="why"))
    delivery = deliver(server.post, LINES)
    assert (delivery.written, delivery.malformed, delivery.left, server.posts) == (0, 0, LINES, [1_000])
    assert delivery.answer is not None
    assert delivery.answer.text == "why"


def test_server_that_goes_away_while_lines_are_divided_keeps_what_was_not_written() -> None:
    server = FakeServer()
    server.bad = "line 3".__eq__

    def post(lines: list[str]) -> Answer:
        if len(server.posts) == 4:
            server.answer = Answer(kind=AnswerKind.FAILED, text="gone")
        return server.post(lines)

    delivery = deliver(post, LINES[:8])  # type: ignore[arg-type]
    assert sorted([*server.lines, *delivery.left, *["line 3"] * delivery.malformed]) == sorted(LINES[:8])
    assert delivery.left
