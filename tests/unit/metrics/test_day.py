"""A day with metrics on, off, down and hanging: trading is the same to the byte (design.md section 11)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.metrics import LIMIT_PAISE, TAGS, FakeServer, SinkRig
from tests.fakes.outside import FakeControl
from tests.fakes.rig import Rig, entry_signal, exit_signal
from tests.fakes.session import Day, ScriptedStrategy, row
from velox_core.control import NamedControl
from velox_core.domain.errors import IntentRefused, JournalUnavailable
from velox_core.domain.events import EventKind
from velox_core.domain.orders import ExitRank
from velox_core.journal.file import FileJournal
from velox_core.metrics import Answer, AnswerKind, FactPoints, ObservedControl, ObservedJournal
from velox_core.operations.metrics_lines import fact_lines
from velox_core.ports import JournalFact

DOWN = Answer(kind=AnswerKind.FAILED, text="connection refused")
SCRIPT = {
    10: [entry_signal()],
    11: [entry_signal()],  # refused: a position exists
    14: [exit_signal(rank=ExitRank.STOP)],
    20: [entry_signal("BBB")],
    21: ValueError("a strategy that breaks"),
}


class Traded:
    """One day over a file journal, and what came of it."""

    def __init__(self, folder: Path, sink_rig: SinkRig | None) -> None:
        self.path = folder / "journal.jsonl"
        self.journal = FileJournal(self.path)
        rig = Rig()
        self.control = FakeControl()
        control: Any = self.control
        rig.journal = self.journal  # type: ignore[assignment]
        if sink_rig is not None:
            rig.journal = ObservedJournal(self.journal, sink_rig.sink, lambda: sink_rig.seconds)  # type: ignore[assignment]
            control = NamedControl(ObservedControl(self.control, sink_rig.sink), {}, metrics=sink_rig.sink.counters)
        rig.restart()
        items = [row(10 + n, 10_000 + 5 * n, *[10_000] * 4) for n in range(60)]  # an hour
        before: Callable[[int], None] | None = None if sink_rig is None else lambda position: _minute(sink_rig)
        self.day = Day(items, ScriptedStrategy("alpha", SCRIPT), rig=rig, control=control, before=before)
        self.result = self.day.run()
        self.journal.close()

    @property
    def bytes(self) -> bytes:
        return self.path.read_bytes()


def _minute(sink_rig: SinkRig) -> None:
    """Let the sink's thread have its rounds of a minute."""
    for _ in range(4):
        sink_rig.round(15.0)


class Broken:
    """A sink that takes nothing: whatever is told, nothing may come of it for trading."""

    seconds = 0.0

    def __init__(self) -> None:
        self.sink = self
        self.told = 0

    def committed(self, facts: Sequence[JournalFact]) -> None:
        self.told += len(facts)

    def status(self, status: object) -> None:
        self.told += 1

    def counters(self) -> dict[str, object]:
        return {"state": "failing"}

    def round(self, seconds: float) -> None:
        """Do nothing."""


@pytest.fixture
def without(tmp_path: Path) -> Iterator[Traded]:
    (tmp_path / "off").mkdir()
    return Traded(tmp_path / "off", None)


def test_influxdb_down_for_the_day_leaves_trading_unaffected_and_is_counted_and_shown(without: Traded, tmp_path: Path) -> None:
    rig = SinkRig(FakeServer(DOWN))
    with_server_down = Traded(tmp_path, rig)
    assert with_server_down.bytes == without.bytes
    assert with_server_down.day.sent == without.day.sent
    assert with_server_down.result.flat
    shown = with_server_down.control.published[-1]["metrics"]
    assert isinstance(shown, dict)
    assert shown["state"] == "failing"
    assert shown["failed"] > 30
    assert shown["last_failure"] == "connection refused"
    assert shown["waiting"] > 100
    assert rig.alerts.titles == ["Metrics are not written"]


def test_sink_whose_thread_hangs_all_day_leaves_the_journal_as_it_is(without: Traded, tmp_path: Path) -> None:
    hanging: Any = Broken()
    traded = Traded(tmp_path, hanging)
    assert traded.bytes == without.bytes
    assert hanging.told > 50


def test_day_with_metrics_writes_the_same_journal_and_its_lines_are_those_of_a_backfill(
    without: Traded, tmp_path: Path
) -> None:
    rig = SinkRig()
    traded = Traded(tmp_path, rig)
    rig.round()
    assert traded.bytes == without.bytes
    again, malformed = fact_lines(list(FileJournal(traded.path).events()), FactPoints(LIMIT_PAISE), TAGS)
    process = ("velox_engine", "velox_queue", "velox_mark", "velox_order_stage")
    assert [line for line in rig.server.lines if not line.startswith(process)] == again
    assert malformed == 0
    assert len([line for line in again if line.startswith("velox_fill")]) == 4
    assert any("code=POSITION_EXISTS" in line for line in again)
    assert any(line.startswith("velox_strategy_disabled") for line in again)
    assert any(line.startswith("velox_order_stage") for line in rig.server.lines)
    assert any(line.startswith("velox_mark") for line in rig.server.lines)


class ScriptedJournal:
    """A journal whose commits end as a test says."""

    def __init__(self) -> None:
        self.fails: Exception | None = None

    def append(self, kind: EventKind, ts_ms: int, body: object) -> None:
        """Take it."""

    def commit(self) -> None:
        if self.fails is not None:
            raise self.fails


class Told:
    def __init__(self) -> None:
        self.facts: list[JournalFact] = []

    def committed(self, facts: Sequence[JournalFact]) -> None:
        self.facts += facts


def observed() -> tuple[ScriptedJournal, Told, ObservedJournal]:
    journal, told = ScriptedJournal(), Told()
    seconds = iter(range(1, 100))
    return journal, told, ObservedJournal(journal, told, lambda: float(next(seconds)))  # type: ignore[arg-type]


def test_event_is_told_once_after_the_commit_that_held_it() -> None:
    journal, told, ours = observed()
    journal.fails = JournalUnavailable("away")
    ours.append(EventKind.MARK, 1, {})
    ours.append(EventKind.SESSION, 1, {})
    with pytest.raises(JournalUnavailable):
        ours.commit()
    assert told.facts == []
    journal.fails = None
    ours.append(EventKind.FILL, 2, {})
    ours.commit()
    ours.commit()
    assert [(f.kind, f.appended, f.durable) for f in told.facts] == [(EventKind.MARK, 1.0, 3.0), (EventKind.FILL, 2.0, 3.0)]


def test_intent_that_the_journal_refused_is_not_told_and_the_rest_is() -> None:
    journal, told, ours = observed()
    ours.append(EventKind.DECISION, 1, {})
    ours.append(EventKind.INTENT, 1, {})
    journal.fails = IntentRefused("known already")
    with pytest.raises(IntentRefused):
        ours.commit()
    assert [f.kind for f in told.facts] == [EventKind.DECISION]
