"""Expectations: what replayed days add up to, and how a day is judged beside them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from velox_core.domain.errors import VeloxError
from velox_core.operations.expectations import DAYS_MIN, ExpectationVerdict, expectation, judge, quantile, record
from velox_core.operations.view import expectation_text
from velox_core.settings import Settings

Load = Callable[..., Settings]
FIRST = date(2024, 1, 1)


def report(
    net: int = 0, *, strategy: str = "sma_cross", trades: int = 2, wins: int = 1, synthetic: bool = False
) -> dict[str, Any]:
    row = {"strategy": strategy, "net_paise": net, "trades": trades, "wins": wins}
    return {"strategies": [row], "source": "a folder", "synthetic": synthetic}


def recorded(settings: Settings, file: Path, nets: list[int], **given: Any) -> None:
    dates = [FIRST + timedelta(days=number) for number in range(len(nets))]
    by_date = dict(zip(dates, nets, strict=True))
    record(settings, dates, lambda on: report(by_date[on], **given), file)


def verdict_of(settings: Settings, file: Path, net: int) -> ExpectationVerdict:
    return {row.strategy: row.verdict for row in judge(settings, file, report(net))}["sma_cross"]


NETS = [100 * number for number in range(DAYS_MIN + 1)]  # 0 to 2000: the 5 % quantile is 100, the 95 % one 1900


@pytest.mark.parametrize(
    ("net", "verdict"), [(99, "BELOW"), (100, "WITHIN"), (101, "WITHIN"), (1_900, "WITHIN"), (1_901, "ABOVE")]
)
def test_day_is_judged_just_under_at_and_over_the_band(tmp_path: Path, settings_with: Load, net: int, verdict: str) -> None:
    settings, file = settings_with(), tmp_path / "expectations.json"
    recorded(settings, file, NETS)
    assert verdict_of(settings, file, net) == verdict


def test_too_few_days_are_shown_and_not_judged(tmp_path: Path, settings_with: Load) -> None:
    settings, file = settings_with(), tmp_path / "expectations.json"
    recorded(settings, file, [0] * (DAYS_MIN - 1))
    assert verdict_of(settings, file, -999_999) is ExpectationVerdict.TOO_FEW_DAYS
    recorded(settings, file, [0] * DAYS_MIN)
    assert verdict_of(settings, file, -999_999) is ExpectationVerdict.BELOW


@pytest.mark.parametrize(
    "content", [None, "", "not json", "[]", '{"strategies": 7}', '{"strategies": {"sma_cross": {"days": 1}}}']
)
def test_file_that_is_absent_or_broken_makes_everything_missing(
    tmp_path: Path, settings_with: Load, content: str | None
) -> None:
    settings, file = settings_with(), tmp_path / "expectations.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    assert verdict_of(settings, file, 0) is ExpectationVerdict.MISSING


def test_a_changed_limit_or_parameter_makes_an_expectation_stale(tmp_path: Path, settings_with: Load) -> None:
    file = tmp_path / "expectations.json"
    recorded(settings_with(), file, NETS)
    assert verdict_of(settings_with(fixed_lot_size="2"), file, 500) is ExpectationVerdict.STALE
    assert verdict_of(settings_with(), file, 500) is ExpectationVerdict.WITHIN
    settings = settings_with()
    text = settings.source.read_text(encoding="utf-8").replace("SmaCross\n", "SmaCross\n      parameters: {fast: 5}\n")
    settings.source.write_text(text, encoding="utf-8")
    from velox_core.settings import load_settings

    assert verdict_of(load_settings(settings.source, {}), file, 500) is ExpectationVerdict.STALE


def test_strategy_that_did_nothing_counts_as_a_day_of_zero(tmp_path: Path, settings_with: Load) -> None:
    settings, file = settings_with(), tmp_path / "expectations.json"
    recorded(settings, file, [500] * 25)
    rows = {row.strategy: row for row in judge(settings, file, {"strategies": []})}
    assert (rows["opening_range"].net_paise, rows["opening_range"].verdict) == (0, ExpectationVerdict.WITHIN)
    assert rows["sma_cross"].verdict is ExpectationVerdict.BELOW


def test_figures_are_mean_deviation_and_quantiles_of_the_days() -> None:
    days = [{"net_paise": net, "trades": 3, "wins": 1} for net in NETS]
    found = expectation("x", days)
    assert (found.days, found.mean_paise, found.low_paise, found.high_paise) == (21, 1_000, 100, 1_900)
    assert found.deviation_paise == round(statistics.stdev(NETS))
    assert (found.trades_per_day, found.win_share) == (3.0, pytest.approx(1 / 3))
    assert expectation("x", [{"net_paise": 5, "trades": 0, "wins": 0}]).deviation_paise == 0
    assert [quantile([10, 20], share) for share in (0.0, 0.25, 0.5, 1.0)] == [10, 12, 15, 20]


def test_synthetic_source_is_said_and_no_dates_are_refused(tmp_path: Path, settings_with: Load) -> None:
    settings, file = settings_with(), tmp_path / "expectations.json"
    recorded(settings, file, NETS, synthetic=True)
    row = next(row for row in judge(settings, file, report(5_000)) if row.strategy == "sma_cross")
    assert row.is_outside
    assert expectation_text(row.to_json()) == "OUTSIDE, above +₹1.00 to +₹19.00 in 21 replayed days, SYNTHETIC"
    with pytest.raises(VeloxError, match="no trading date lies in the range"):
        record(settings, [], lambda on: report(), file)


def test_every_verdict_has_words_for_people(tmp_path: Path) -> None:
    texts = {verdict: expectation_text({"verdict": verdict.value, "days": 3}) for verdict in ExpectationVerdict}
    assert len(set(texts.values())) == len(ExpectationVerdict)
    assert "velox strategies expect" in texts[ExpectationVerdict.MISSING]
    assert expectation_text(None) == texts[ExpectationVerdict.MISSING]
