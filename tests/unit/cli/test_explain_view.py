from __future__ import annotations

import io

import pytest
from rich.console import Console

from velox_core.cli.explain_view import period_table, show_explanation
from velox_core.operations.explain import ExplainedDecision, Explanation, LayerVerdict


def refusal() -> ExplainedDecision:
    return ExplainedDecision(
        id=7,
        ts_ms=0,
        time="10:00:00",
        strategy="sma[/]",
        symbol="TCS",
        side="BUY",
        kind="ENTRY",
        asked=10,
        quantity=1,
        approved=False,
        layer=6,
        code="TOTAL_POSITIONS",
        reason="Account has 3 positions, the limit is 3",
        signal_reason="[red]up[/red]",
        client_order_id="",
        order="",
        would_have_passed="with max_total_positions 4",
        note="",
        layers=[LayerVerdict(layer=6, name="Total positions", verdict="REFUSED", numbers="3 of 3 open or pending")],
        numbers={},
    )


def shown(*decisions: ExplainedDecision, matching: int, width: int = 80, in_full: bool = False) -> str:
    explanation = Explanation(
        run_id="2024-01-15-1",
        trading_date="2024-01-15",
        synthetic_note="synthetic crash",
        note="",
        matching=matching,
        approved_entries=0,
        approved_exits=0,
        refused_by_layer={6: matching},
        refused_by_code={"TOTAL_POSITIONS": matching},
        decisions=list(decisions),
        strategies=["sma"],
        symbols=["TCS"],
    )
    file = io.StringIO()
    show_explanation(Console(file=file, width=width, highlight=False), explanation, in_full=in_full)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_show_explanation_has_counts_verdict_reason_and_what_would_have_passed(width: int) -> None:
    text = shown(refusal(), matching=1, width=width)
    for part in (
        "1 decision: 0 approved",
        "refused by 6. Total positions",
        "SYNTHETIC DATA",
        "REFUSED by 6. Total positions",
        "asked 10, fixed lot",
        "sma[/]",
        "[red]up[/red]",
        "would have passed with max_total_positions 4",
    ):
        assert part in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width


def test_show_explanation_of_more_than_is_shown_says_how_to_narrow() -> None:
    text = " ".join(shown(refusal(), matching=243).split())
    assert "The last 1 of 243; narrow with --symbol" in text
    assert "3 of 3 open or pending" not in text


def test_show_explanation_of_one_decision_has_every_layer() -> None:
    assert "3 of 3 open or pending" in shown(refusal(), matching=1, in_full=True)


def test_show_explanation_without_a_match_names_what_there_is() -> None:
    assert "has decisions of: sma; on: TCS" in " ".join(shown(matching=0).split())


def test_period_table_fits_a_narrow_terminal_and_cuts_no_figure() -> None:
    day = {
        "trading_date": "2024-01-15",
        "run_id": "2024-01-15-crash-12",
        "net_paise": -12_345_678,
        "charges_paise": 123_456,
        "trade_count": 123,
        "win_count": 61,
        "worst_loss_paise": 20_000_000,
        "loss_limit_paise": 20_000_000,
        "halts": 1,
        "flat": True,
        "synthetic": True,
    }
    totals = {**day, "dates": 1, "winning_dates": 0, "best_net_paise": -1, "worst_net_paise": -1, "drawdown_paise": 1}
    file = io.StringIO()
    table = period_table({"days": [day], "totals": totals, "unfinished_dates": []})
    Console(file=file, width=80, highlight=False).print(table)
    text = " ".join(file.getvalue().split())
    assert max(map(len, file.getvalue().splitlines())) <= 80
    for part in ("2024-01-15 S", "-123456.78", "1234.56", "200000.00 (100 %)", "Of each date the newest finished run"):
        assert part in text
