from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.domain.market.bars import DayColumns, MinuteRow
from velox_core.operations.session_story import TIMELINE_MAX, Prices, build_story, day_prices, quality_rows

OPEN_MS = 1_705_290_300_000  # 2024-01-15 09:15:00 IST
MINUTE = 60_000


class Journal:
    def __init__(self) -> None:
        self.events: list[JournalEvent] = []

    def add(self, kind: EventKind, minute: int, /, **body: Any) -> None:
        whole: Body = body
        self.events.append(JournalEvent(len(self.events) + 1, OPEN_MS + minute * MINUTE, kind, whole, ""))

    def order(
        self, number: str, side: str, price: int, *, made: int, filled: int, quantity: int = 1, strategy: str = "orb"
    ) -> None:
        self.add(EventKind.INTENT, made, client_order_id=number, strategy=strategy)
        self.add(
            EventKind.FILL, filled, trade_id=f"T{number}", client_order_id=number, strategy=strategy, symbol="TCS", side=side,
            quantity=quantity, price=price,
        )  # fmt: skip


@pytest.fixture
def journal() -> Journal:
    return Journal()


def prices(*closes: int) -> Prices:
    return Prices(stamps_ms=tuple(OPEN_MS + (n + 1) * MINUTE for n in range(len(closes))), closes=closes)


def test_story_equity_is_realised_plus_open_less_charges_and_its_worst_point_the_first_lowest(journal: Journal) -> None:
    for minute, (realised, open_, charges) in enumerate([(0, 0, 0), (0, -400, 100), (-500, 0, 0), (-500, 100, 50)]):
        journal.add(EventKind.MARK, minute, realised=realised, open=open_, charges=charges)
    story = build_story(journal.events, {})
    assert [paise for _, paise in story.equity] == [0, -500, -500, -450]
    assert story.worst == (OPEN_MS + MINUTE, -500)
    assert build_story([], {}).worst is None


def test_story_slippage_is_against_the_close_of_the_newest_minute_when_the_order_was_made(journal: Journal) -> None:
    journal.order("1", "BUY", 1_010, made=2, filled=3, quantity=2)  # arrival 1005: 5 worse, twice
    journal.order("2", "SELL", 1_030, made=3, filled=4, quantity=2)  # arrival 1020: 10 better, twice
    journal.order("3", "SELL", 990, made=0, filled=1, strategy="sma")  # before the first close: not known
    (row,) = build_story(journal.events, {"TCS": prices(1_000, 1_005, 1_020, 1_030)}).slippage
    assert (row.strategy, row.symbol, row.fills, row.quantity) == ("orb", "TCS", 2, 4)
    assert (row.slippage_paise, row.value_paise) == (2 * 5 - 2 * 10, 2 * 1_005 + 2 * 1_020)
    assert row.bps == pytest.approx(-10 * 10_000 / 4_050)
    assert build_story(journal.events, {}, no_prices="gone").slippage == ()


def test_story_counts_a_trade_that_was_told_twice_once(journal: Journal) -> None:
    for _ in range(2):
        journal.order("1", "BUY", 1_010, made=2, filled=3)
    story = build_story(journal.events, {"TCS": prices(1_000, 1_005)})
    assert len(story.fills) == 1
    assert story.slippage[0].fills == 1


def test_story_timeline_is_bounded_names_halts_once_and_leaves_processes_out(journal: Journal) -> None:
    journal.add(EventKind.SESSION, 0, phase="OPENED", pid=4711)
    for _ in range(2):
        journal.add(EventKind.HALT, 1, halt_id="H1", kind="LOSS", by="engine", reason="limit reached")
    journal.add(EventKind.ORDER, 2, client_order_id="1", state="OPEN")
    journal.add(EventKind.ORDER, 2, client_order_id="1", state="REJECTED", reason="no margin")
    for number in range(TIMELINE_MAX):
        journal.order(str(number), "BUY", 100, made=3, filled=3)
    story = build_story(journal.events, {})
    assert [moment.text for moment in story.timeline[:2]] == [
        "HALT LOSS by engine: limit reached",
        "order 1 REJECTED: no margin",
    ]
    assert all(moment.is_loud for moment in story.timeline[:2])
    assert (len(story.timeline), story.moments_left_out) == (TIMELINE_MAX, 2)
    assert not any("4711" in moment.text for moment in story.timeline)


def test_story_longest_outage_is_the_time_without_any_symbols_price(journal: Journal) -> None:
    first = Prices(stamps_ms=(OPEN_MS, OPEN_MS + MINUTE, OPEN_MS + 9 * MINUTE), closes=(1, 1, 1))
    second = Prices(stamps_ms=(OPEN_MS + 4 * MINUTE,), closes=(1,))
    story = build_story(journal.events, {"A": first, "B": second})
    assert (story.outage_from_ms, story.outage_ms) == (OPEN_MS + 4 * MINUTE, 4 * MINUTE)
    whole = build_story(journal.events, {"A": prices(1, 2, 3)})
    assert (whole.outage_from_ms, whole.outage_ms) == (0, 0)


def test_day_prices_leaves_out_the_minutes_without_a_bar() -> None:
    rows = [MinuteRow(OPEN_MS + n * MINUTE, c, c, c, c, c) for n, c in enumerate(([5, 0], [6, 9]), start=1)]
    day = DayColumns(trading_date=date(2024, 1, 15), universe=("A", "B"), rows=rows, source="x")
    assert day_prices(day)["B"] == Prices(stamps_ms=(OPEN_MS + 2 * MINUTE,), closes=(9,))
    assert day_prices(day)["A"].arrival(OPEN_MS + 2 * MINUTE - 1) == 5


def test_quality_rows_take_the_detailed_list_before_the_bare_counts() -> None:
    assert quality_rows({"dropped_rows": {"off session": 3}}) == [("off session", "3", "")]
    detailed = [{"rule": "frozen", "count": 7, "example": "TCS 10:00", "kept": True}]
    assert quality_rows({"dropped_rows": {"x": 1}, "data_quality": detailed}) == [("frozen (kept)", "7", "TCS 10:00")]
    many = {"rule": "duplicate", "count": 21, "by_symbol": {name: number for number, name in enumerate("ABCDEF", start=1)}}
    assert quality_rows({"data_quality": [many]}) == [("duplicate", "21", "F 6, E 5, D 4, C 3, B 2 and 1 more")]
