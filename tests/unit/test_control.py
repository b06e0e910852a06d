"""The control channel: taken once, by either way, without raising and without waiting."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from velox_core.control import (
    CombinedControl,
    FileControl,
    IdentifiedRequest,
    LedgerControl,
    NamedControl,
    new_request,
    open_control,
)
from velox_core.domain.errors import LedgerUnavailable, VeloxError
from velox_core.ledger.memory import MemoryLedger


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class CountingLedger(MemoryLedger):
    """A ledger whose marks can be down, and that counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.calls = 0

    def put_mark(self, key: str, value: str) -> None:
        self._count()
        super().put_mark(key, value)

    def get_mark(self, key: str) -> str | None:
        self._count()
        return super().get_mark(key)

    def _count(self) -> None:
        self.calls += 1
        if self.down:
            raise LedgerUnavailable("the ledger is down")


def stop(reason: str = "lunch", wall_ms: int = 1_000) -> IdentifiedRequest:
    return new_request("stop", by="trader", reason=reason, wall_ms=wall_ms)


def shown(request: Any) -> tuple[str, str, str] | None:
    return None if request is None else (request.action, request.by, request.reason)


# -- files ---------------------------------------------------------------------------------------------------------


def test_file_control_without_a_folder_has_no_news(tmp_path: Path) -> None:
    control = FileControl(tmp_path / "nothing")
    assert control.poll() is None
    assert control.status() is None
    assert not (tmp_path / "nothing").exists()


def test_file_request_is_taken_once_by_one_of_two(tmp_path: Path) -> None:
    FileControl(tmp_path).request(stop())
    first, second = FileControl(tmp_path), FileControl(tmp_path)
    assert shown(first.poll()) == ("stop", "trader", "lunch")
    assert second.poll() is None
    assert first.poll() is None
    assert list((tmp_path / "control").iterdir()) == []


def test_file_requests_waiting_together_answer_the_newest_and_are_all_taken(tmp_path: Path) -> None:
    sender = FileControl(tmp_path)
    for reason, wall_ms in (("second", 2_000), ("third", 30_000), ("first", 1_000)):
        sender.request(stop(reason, wall_ms))
    assert shown(sender.poll()) == ("stop", "trader", "third")
    assert sender.poll() is None


def test_stop_is_not_hidden_by_a_newer_request(tmp_path: Path) -> None:
    sender = FileControl(tmp_path)
    sender.request(stop(wall_ms=1_000))
    sender.request(new_request("reset", by="trader", reason="r", wall_ms=2_000))
    assert shown(sender.poll()) == ("stop", "trader", "lunch")
    assert sender.poll() is None


def test_file_request_in_the_clock_tick_of_the_last_look_is_not_missed(tmp_path: Path) -> None:
    control = FileControl(tmp_path)
    for number in range(200):  # far more than one for each tick of the file system's clock
        control.request(stop(str(number)))
        assert shown(control.poll()) == ("stop", "trader", str(number))
        assert control.poll() is None


def test_file_control_looks_into_a_quiet_folder_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = FileControl(tmp_path, wall_ns=lambda: 2**62)
    (tmp_path / "control").mkdir()
    assert control.poll() is None
    monkeypatch.setattr(Path, "glob", lambda *_: pytest.fail("looked again"))
    assert control.poll() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"action":"stop"}'])
def test_file_request_that_is_garbage_is_dropped(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "0-x.json").write_bytes(content)
    control = FileControl(tmp_path)
    assert control.poll() is None
    assert list((tmp_path / "control").iterdir()) == []


def test_file_request_that_cannot_be_left_raises(tmp_path: Path) -> None:
    (tmp_path / "control").write_text("a file")
    with pytest.raises(VeloxError, match="cannot leave a request"):
        FileControl(tmp_path).request(stop())


def test_file_status_is_replaced_at_once_and_never_raises(tmp_path: Path) -> None:
    control = FileControl(tmp_path / "run")
    control.publish({"state": "RUNNING", "loss_paise": 1})
    control.publish({"state": "DONE"})
    assert control.status() == {"state": "DONE"}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["status.json"]
    control.publish({"state": object()})
    assert control.status() == {"state": "DONE"}
    os.unlink(tmp_path / "run" / "status.json")
    (tmp_path / "run" / "status.json").mkdir()
    control.publish({"state": "LOST"})
    assert control.status() is None


def test_file_requests_of_an_earlier_engine_can_be_forgotten(tmp_path: Path) -> None:
    control = FileControl(tmp_path)
    control.request(stop())
    control.forget_requests()
    assert control.poll() is None


# -- ledger --------------------------------------------------------------------------------------------------------


def test_ledger_request_is_taken_once_even_across_a_restart() -> None:
    ledger, clock = MemoryLedger(), Clock()
    LedgerControl(ledger).request(stop())
    control = LedgerControl(ledger, monotonic=clock)
    assert shown(control.poll()) == ("stop", "trader", "lunch")
    clock.seconds += 1
    assert control.poll() is None
    assert LedgerControl(ledger).poll() is None
    LedgerControl(ledger).request(stop("again"))
    clock.seconds += 1
    assert shown(control.poll()) == ("stop", "trader", "again")


def test_ledger_is_asked_at_most_twice_a_second() -> None:
    ledger, clock = CountingLedger(), Clock()
    control = LedgerControl(ledger, monotonic=clock)
    control.poll()
    asked = ledger.calls
    for _ in range(4):
        clock.seconds += 0.12
        control.poll()
    assert ledger.calls == asked
    clock.seconds += 0.03
    control.poll()
    assert ledger.calls > asked


def test_ledger_that_is_down_is_no_news_and_the_request_waits() -> None:
    ledger, clock = CountingLedger(), Clock()
    LedgerControl(ledger).request(stop())
    control = LedgerControl(ledger, monotonic=clock)
    ledger.down = True
    assert control.poll() is None
    control.publish({"state": "RUNNING"})
    control.forget_requests()
    ledger.down = False
    clock.seconds += 1
    assert shown(control.poll()) == ("stop", "trader", "lunch")


@pytest.mark.parametrize("mark", ["{", "[]", '{"action":"stop"}'])
def test_ledger_request_that_is_garbage_is_no_news(mark: str) -> None:
    ledger = MemoryLedger()
    ledger.put_mark("control_request", mark)
    assert LedgerControl(ledger).poll() is None
    ledger.put_mark("status", mark)
    assert LedgerControl(ledger).status() in (None, {"action": "stop"})


def test_ledger_status_is_published_as_a_mark() -> None:
    ledger = MemoryLedger()
    control = LedgerControl(ledger)
    assert control.status() is None
    control.publish({"state": "RUNNING"})
    assert control.status() == {"state": "RUNNING"}


# -- both ----------------------------------------------------------------------------------------------------------


def combined(folder: Path, ledger: CountingLedger, clock: Clock) -> CombinedControl:
    return CombinedControl(LedgerControl(ledger, monotonic=clock), FileControl(folder))


def test_request_sent_both_ways_is_taken_once(tmp_path: Path) -> None:
    ledger, clock = CountingLedger(), Clock()
    sender, engine = combined(tmp_path, ledger, clock), combined(tmp_path, ledger, clock)
    sender.request(stop())
    assert shown(engine.poll()) == ("stop", "trader", "lunch")
    clock.seconds += 1
    assert engine.poll() is None


def test_request_arrives_by_file_now_and_by_a_ledger_that_returns_later_only_once(tmp_path: Path) -> None:
    ledger, clock = CountingLedger(), Clock()
    engine = combined(tmp_path, ledger, clock)
    combined(tmp_path, ledger, clock).request(stop())
    ledger.down = True
    assert shown(engine.poll()) == ("stop", "trader", "lunch")
    ledger.down = False
    clock.seconds += 1
    assert engine.poll() is None


@pytest.mark.parametrize("down", ["ledger", "file"])
def test_request_passes_while_one_way_works(tmp_path: Path, down: str) -> None:
    ledger, clock = CountingLedger(), Clock()
    ledger.down = down == "ledger"
    if down == "file":
        (tmp_path / "control").write_text("in the way")
    combined(tmp_path, ledger, clock).request(stop())
    assert shown(combined(tmp_path, ledger, clock).poll()) == ("stop", "trader", "lunch")


def test_request_that_no_way_takes_raises_naming_both(tmp_path: Path) -> None:
    ledger = CountingLedger()
    ledger.down = True
    (tmp_path / "control").write_text("in the way")
    with pytest.raises(VeloxError, match="the ledger is down; cannot leave a request"):
        combined(tmp_path, ledger, Clock()).request(stop())


def test_different_requests_at_once_answer_the_newest(tmp_path: Path) -> None:
    ledger, clock = CountingLedger(), Clock()
    LedgerControl(ledger).request(stop("older", 1))
    FileControl(tmp_path).request(stop("newer", 2))
    engine = combined(tmp_path, ledger, clock)
    assert shown(engine.poll()) == ("stop", "trader", "newer")
    clock.seconds += 1
    assert engine.poll() is None


def test_status_comes_from_the_ledger_and_else_from_the_file(tmp_path: Path) -> None:
    ledger = CountingLedger()
    control = combined(tmp_path, ledger, Clock())
    control.publish({"state": "RUNNING"})
    FileControl(tmp_path).publish({"state": "FILE"})
    assert control.status() == {"state": "RUNNING"}
    ledger.down = True
    assert control.status() == {"state": "FILE"}


def test_control_without_a_ledger_works_by_file_alone(tmp_path: Path) -> None:
    control = open_control(tmp_path, None)
    control.request(stop())
    control.forget_requests()
    control.request(stop("again"))
    assert shown(control.poll()) == ("stop", "trader", "again")
    control.publish({"state": "RUNNING"})
    assert control.status() == {"state": "RUNNING"}


def test_control_with_a_ledger_forgets_both_ways(tmp_path: Path) -> None:
    ledger = CountingLedger()
    control = open_control(tmp_path, ledger)
    control.request(stop())
    control.forget_requests()
    assert control.poll() is None
    assert open_control(tmp_path, ledger).poll() is None


# -- whose status it is --------------------------------------------------------------------------------------------


def test_named_control_numbers_each_status_and_says_whose_it_is(tmp_path: Path) -> None:
    file = FileControl(tmp_path, status_file="other.json")
    control = NamedControl(file, {"run_id": "a", "speed": 60.0})
    found = []
    for state in ("RUNNING", "RUNNING", "DONE"):
        control.publish({"state": state, "run_id": "not this one"})
        found.append(file.status() or {})
    assert [(body["beat"], body["state"], body["run_id"], body["speed"]) for body in found] == [
        (1, "RUNNING", "a", 60.0),
        (2, "RUNNING", "a", 60.0),
        (3, "DONE", "a", 60.0),
    ]
    assert {body["pid"] for body in found} == {os.getpid()}
    assert FileControl(tmp_path).status() is None


def test_ledger_control_of_another_status_leaves_the_engines_alone() -> None:
    ledger = MemoryLedger()
    LedgerControl(ledger).publish({"of": "engine"})
    guard = LedgerControl(ledger, status_mark="guard")
    guard.publish({"of": "guard"})
    assert (LedgerControl(ledger).status(), guard.status()) == ({"of": "engine"}, {"of": "guard"})
