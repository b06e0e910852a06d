from __future__ import annotations

from typing import Any

import pytest

from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.operations.report import LAYER_NAMES, build_report
from velox_core.operations.session_sections import report_markdown
from velox_core.operations.view import headline, headline_rows

OPEN_MS = 1_705_290_300_000  # 2024-01-15 09:15:00 IST
FACTS = {
    "trading_date": "2024-01-15",
    "run_id": "2024-01-15-1",
    "loss_limit_paise": 200_000,
    "synthetic": False,
    "source": "tcs.csv",
}


class Journal:
    """Events in order, with sequence numbers."""

    def __init__(self) -> None:
        self.events: list[JournalEvent] = []

    def add(self, kind: EventKind, body: Body, minute: int = 0) -> None:
        self.events.append(JournalEvent(len(self.events) + 1, OPEN_MS + minute * 60_000, kind, body, ""))

    def decision(
        self, *, approved: bool, layer: int = 0, code: str = "OK", asked: int = 1, quantity: int = 1, strategy: str = "orb"
    ) -> None:
        self.add(
            EventKind.DECISION,
            {
                "strategy": strategy,
                "symbol": "TCS",
                "approved": approved,
                "layer": layer,
                "code": code,
                "asked": asked,
                "quantity": quantity,
            },
        )

    def fill(self, trade_id: str, side: str, quantity: int, price: int, *, position: int, minute: int, **more: Any) -> None:
        body: Body = {"trade_id": trade_id, "client_order_id": f"O{trade_id}", "strategy": "orb", "symbol": "TCS", "side": side}
        body |= {"quantity": quantity, "price": price, "position": position, "realised": 0, "charges": 0}
        self.add(EventKind.FILL, body | more, minute)

    def intent(self, trade_id: str, role: str, reason: str) -> None:
        self.add(EventKind.INTENT, {"client_order_id": f"O{trade_id}", "role": role, "reason": reason})


@pytest.fixture
def journal() -> Journal:
    return Journal()


def test_report_of_an_empty_journal_is_flat_and_zero(journal: Journal) -> None:
    report = build_report(journal.events, FACTS)
    assert report["flat"] is True
    assert (report["net_paise"], report["trade_count"], report["order_count"], report["decisions"]["total"]) == (0, 0, 0, 0)
    assert report["headroom_paise"] == 200_000
    assert report["trading_date"] == "2024-01-15"


def test_report_of_one_round_trip_nets_charges_and_names_its_reasons(journal: Journal) -> None:
    journal.intent("1", "ENTRY", "breakout above the opening range")
    journal.fill("1", "BUY", 2, 390_000, position=2, minute=20, charges=150)
    journal.add(EventKind.MARK, {"realised": 0, "open": -300, "charges": 150}, 21)
    journal.add(EventKind.MARK, {"realised": 0, "open": 450, "charges": 150}, 22)
    journal.intent("2", "EXIT", "target")
    journal.fill("2", "SELL", 2, 390_500, position=0, minute=25, realised=1_000, charges=160)
    report = build_report(journal.events, FACTS)

    assert (report["realised_paise"], report["charges_paise"], report["net_paise"]) == (1_000, 310, 690)
    assert (report["worst_loss_paise"], report["headroom_paise"]) == (450, 199_550)
    (trade,) = report["trades"]
    assert (trade["side"], trade["quantity"], trade["entry_price_paise"], trade["exit_price_paise"]) == (
        "BUY",
        2,
        390_000,
        390_500,
    )
    assert (trade["net_paise"], trade["entry_reason"], trade["exit_reason"]) == (
        690,
        "breakout above the opening range",
        "target",
    )
    assert trade["closed_ms"] - trade["opened_ms"] == 5 * 60_000
    assert report["strategies"] == [
        {
            "strategy": "orb",
            "approved": 0,
            "refused": 0,
            "fills": 2,
            "trades": 1,
            "wins": 1,
            "realised_paise": 1_000,
            "charges_paise": 310,
            "net_paise": 690,
        }
    ]
    assert report["flat"] is True
    assert report["entry_order_count"] == 1


def test_report_of_a_short_closed_in_parts_is_one_trade_at_average_prices(journal: Journal) -> None:
    journal.fill("1", "SELL", 3, 1_000, position=-3, minute=1)
    journal.fill("2", "BUY", 1, 900, position=-2, minute=2, realised=100)
    journal.fill("3", "BUY", 2, 903, position=0, minute=3, realised=194)
    (trade,) = build_report(journal.events, FACTS)["trades"]
    assert (trade["side"], trade["quantity"], trade["exit_price_paise"], trade["realised_paise"]) == ("SELL", 3, 902, 294)


def test_report_of_a_fill_through_zero_ends_one_trade_and_opens_the_next(journal: Journal) -> None:
    journal.fill("1", "BUY", 1, 1_000, position=1, minute=1, charges=5)
    journal.fill("2", "SELL", 3, 1_010, position=-2, minute=2, realised=10, charges=7)
    report = build_report(journal.events, FACTS)
    (trade,) = report["trades"]
    assert (trade["side"], trade["quantity"], trade["charges_paise"]) == ("BUY", 1, 12)
    assert report["flat"] is False
    assert report["open_quantities"] == {"TCS": -2}
    assert report["charges_paise"] == 12


def test_report_counts_an_exit_from_outside_for_the_strategy_whose_position_it_closes(journal: Journal) -> None:
    journal.decision(approved=True)
    journal.fill("1", "BUY", 10, 1_000, position=10, minute=1, charges=5)
    journal.decision(approved=True, strategy="")
    journal.fill("2", "SELL", 4, 900, position=6, minute=2, realised=-400, charges=3, strategy="")
    journal.fill("3", "SELL", 6, 900, position=0, minute=3, realised=-600, charges=4, strategy="")
    report = build_report(journal.events, FACTS)
    (row,) = report["strategies"]
    assert (row["strategy"], row["approved"], row["fills"], row["trades"], row["wins"]) == ("orb", 2, 3, 1, 0)
    assert (row["realised_paise"], row["charges_paise"], row["net_paise"]) == (-1_000, 12, -1_012)
    assert [(trade["strategy"], trade["net_paise"]) for trade in report["trades"]] == [("orb", -1_012)]


def test_report_calls_foreign_what_no_strategy_opened(journal: Journal) -> None:
    journal.fill("1", "BUY", 10, 1_000, position=10, minute=1, strategy="")
    journal.fill("2", "SELL", 10, 900, position=0, minute=2, realised=-1_000, strategy="")
    report = build_report(journal.events, FACTS)
    assert [(row["strategy"], row["net_paise"]) for row in report["strategies"]] == [("(foreign)", -1_000)]
    assert [trade["strategy"] for trade in report["trades"]] == ["(foreign)"]


def test_report_counts_a_repeated_trade_id_once(journal: Journal) -> None:
    for _ in range(2):
        journal.fill("1", "BUY", 1, 1_000, position=1, minute=1, charges=5)
    report = build_report(journal.events, FACTS)
    assert (report["fill_count"], report["charges_paise"], report["open_quantities"]) == (1, 5, {"TCS": 1})


def test_report_counts_decisions_by_layer_and_code_in_the_gates_order(journal: Journal) -> None:
    journal.decision(approved=True, asked=10, quantity=1)
    journal.decision(approved=True)
    journal.decision(approved=False, layer=2, code="DUPLICATE_ORDER")
    journal.decision(approved=False, layer=7, code="DAILY_LOSS")
    journal.decision(approved=False, layer=7, code="DAILY_LOSS")
    journal.decision(approved=False, layer=0, code="ENTRY_HOURS")
    decisions = build_report(journal.events, FACTS)["decisions"]
    assert {key: decisions[key] for key in ("total", "approved", "refused", "lot_adjusted")} == {
        "total": 6,
        "approved": 2,
        "refused": 4,
        "lot_adjusted": 1,
    }
    assert [entry["layer"] for entry in decisions["by_layer"]] == list(LAYER_NAMES)
    assert {entry["layer"]: entry["refused"] for entry in decisions["by_layer"] if entry["refused"]} == {0: 1, 2: 1, 7: 2}
    assert decisions["by_code"] == {"DAILY_LOSS": 2, "DUPLICATE_ORDER": 1, "ENTRY_HOURS": 1}


def test_report_shows_halts_and_which_of_them_were_cleared(journal: Journal) -> None:
    journal.add(EventKind.HALT, {"halt_id": "20240115-LOSS-1", "kind": "LOSS", "reason": "limit reached"})
    journal.add(EventKind.HALT, {"halt_id": "20240115-MANUAL-1", "kind": "MANUAL", "reason": "by hand"})
    journal.add(EventKind.HALT, {"halt_id": "20240115-LOSS-1", "kind": "LOSS", "reason": "limit reached"})  # by two processes
    journal.add(EventKind.HALT_CLEARED, {"halt_id": "x", "clears": "20240115-MANUAL-1", "kind": "MANUAL", "reason": "over"})
    halts = build_report(journal.events, FACTS)["halts"]
    assert [(halt["halt_id"], halt["cleared"]) for halt in halts] == [("20240115-LOSS-1", False), ("20240115-MANUAL-1", True)]


def test_report_order_states_are_the_last_ones(journal: Journal) -> None:
    journal.intent("1", "ENTRY", "")
    for state in ("SUBMITTING", "OPEN", "FILLED"):
        journal.add(EventKind.ORDER, {"client_order_id": "O1", "state": state})
    journal.intent("2", "ENTRY", "")
    journal.add(EventKind.ORDER, {"client_order_id": "O2", "state": "REJECTED"})
    assert build_report(journal.events, FACTS)["orders_by_state"] == {"FILLED": 1, "REJECTED": 1}


def test_view_markdown_of_a_report_has_every_part_and_escapes_tables(journal: Journal) -> None:
    journal.intent("1", "ENTRY", "in")
    journal.fill("1", "BUY", 1, 390_000, position=1, minute=1)
    journal.intent("2", "EXIT", "a|b")
    journal.fill("2", "SELL", 1, 389_000, position=0, minute=2, realised=-1_000, charges=90)
    journal.add(EventKind.HALT, {"halt_id": "h", "kind": "LOSS", "reason": "limit"})
    head = {"scope_key": "simulated:primary:2024-01-15-1", "events": 211, "digest": "ab12"}
    text = report_markdown({**build_report(journal.events, FACTS | {"synthetic": True}), "journal_head": head})
    assert "| Head of the day's journal | ab12…, 211 events; is it still so? velox journal verify |" in text
    assert "| Of the day |  |" in text  # an empty head is an empty bar in the UI
    assert "|  |  |" not in text
    for part in (
        "# Session 2024-01-15",
        "## Trades",
        "## Decisions",
        "## Strategies",
        "## Halts",
        "SYNTHETIC DATA",
        "a\\|b",
        "-₹10.90",
    ):
        assert part in text
    assert "7. Daily loss" in text


def test_view_headline_of_an_open_position_says_not_flat(journal: Journal) -> None:
    journal.fill("1", "BUY", 1, 390_000, position=1, minute=1)
    report = build_report(journal.events, FACTS)
    assert "NOT FLAT" in headline(report)
    assert ("At the end", "NOT FLAT: +1 TCS") in headline_rows(report)


def test_report_of_a_day_that_ended_not_flat_counts_the_open_loss_at_the_newest_mark(journal: Journal) -> None:
    journal.fill("1", "BUY", 2, 390_000, position=2, minute=1, charges=100)
    journal.add(EventKind.MARK, {"realised": 0, "open": -5_000, "charges": 100}, 2)
    journal.fill("2", "SELL", 1, 387_500, position=1, minute=3, realised=-2_500)
    report = build_report(journal.events, FACTS)
    assert (report["realised_paise"], report["open_paise"], report["net_paise"]) == (-2_500, -2_500, -5_100)
    assert ("Still open, at the last price", "-₹25.00") in headline_rows(report)
    journal.fill("3", "SELL", 1, 388_000, position=0, minute=4, realised=-2_000)
    assert build_report(journal.events, FACTS)["open_paise"] == 0
