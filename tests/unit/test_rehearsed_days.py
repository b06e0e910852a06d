"""Whole days in memory: what each scenario is for, and strangers' strategies that misbehave beside one that does not."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from velox_core.bootstrap import RunRequest
from velox_core.domain.events import EventKind, JournalEvent
from velox_core.operations.report import build_report
from velox_core.operations.view import headline_rows
from velox_core.rehearsal import Rehearsal, rehearse
from velox_core.settings import Settings, load_settings
from velox_core.settings.folders import SHIPPED_ROOT
from velox_core.strategies import SHIPPED

DAY = date(2024, 1, 16)
FOUR = "\n".join(f"    - name: {name}\n      class_path: {class_path}" for name, class_path in SHIPPED.items())


def settings_of(folder: Path, strategies: str = FOUR, **environ: str) -> Settings:
    text = (SHIPPED_ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")
    head, _, tail = text.partition("    - name: opening_range")
    (folder / "config").mkdir(exist_ok=True)
    config = folder / "config" / "system.yaml"
    config.write_text(f"{head}{strategies}\n{tail[tail.index(chr(10) + '  market:') :]}", encoding="utf-8")
    return load_settings(config, environ)


def played(settings: Settings, scenario: str, on: date = DAY) -> tuple[Rehearsal, dict[str, Any]]:
    done = rehearse(settings, RunRequest(date=on, scenario=scenario))
    assert done.result.fault == ""
    assert (done.synthetic, done.source) == (True, f"synthetic {scenario} seed {settings.simulation.seed}")
    return done, build_report(done.events, {"loss_limit_paise": settings.risk.limits.loss_limit_paise})


def of(done: Rehearsal, kind: EventKind) -> list[JournalEvent]:
    return [event for event in done.events if event.kind is kind]


def test_calm_day_never_comes_near_the_limit(tmp_path: Path) -> None:
    done, report = played(settings_of(tmp_path), "calm")
    assert (done.result.flat, done.result.halted, done.positions) == (True, False, [])
    assert report["worst_loss_paise"] < report["loss_limit_paise"] // 4


def test_trend_day_pays_the_trend_followers(tmp_path: Path) -> None:
    done, report = played(settings_of(tmp_path), "trend")
    nets = {row["strategy"]: row["net_paise"] for row in report["strategies"]}
    assert nets["sma_cross"] > 0
    assert nets["opening_range"] > 0
    assert done.result.flat


def test_crash_day_breaches_the_limit_and_ends_halted_and_flat(tmp_path: Path) -> None:
    done, report = played(settings_of(tmp_path), "crash")
    assert (done.result.halted, done.result.flat, done.positions) == (True, True, [])
    assert report["worst_loss_paise"] > report["loss_limit_paise"]
    assert "EMERGENCY EXIT TRIGGERED" in done.alerts


def test_whipsaw_day_gives_many_signals_and_a_trend_follower_loses_most(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    whipsaw, calm = played(settings, "whipsaw")[1], played(settings, "calm")[1]
    trades = {row["strategy"]: (row["trades"], row["wins"]) for row in whipsaw["strategies"]}
    assert whipsaw["trade_count"] > 2 * calm["trade_count"]
    assert trades["sma_cross"][0] > 5 * trades["sma_cross"][1]
    assert trades["vwap_reversion"][1] > 0


def test_gap_day_fills_stops_far_past_their_price(tmp_path: Path) -> None:
    done, report = played(settings_of(tmp_path), "gap")
    stops = {str(e.body["client_order_id"]): e for e in of(done, EventKind.INTENT)}
    worst = 0.0
    for trade in report["trades"]:
        if str(trade["exit_reason"]).startswith("stop "):
            stop_paise = round(float(str(trade["exit_reason"]).split()[1]) * 100)
            worst = max(worst, (stop_paise - trade["exit_price_paise"]) / stop_paise)
    assert stops
    assert worst > 0.01  # more than 1 % past the stop: no price traded in between
    assert done.result.flat


def test_halted_day_leaves_a_symbol_that_cannot_be_closed_and_says_so(tmp_path: Path) -> None:
    done, _ = played(settings_of(tmp_path), "halted")
    assert [position.symbol for position in done.positions] == ["SYN1"]
    assert not done.result.flat
    assert "NOT FLAT at the end of the session" in done.alerts
    stopped_ms = max(e.ts_ms for e in of(done, EventKind.FILL) if e.body["symbol"] == "SYN1")
    assert stopped_ms < of(done, EventKind.FILL)[-1].ts_ms


def test_circuit_day_closes_a_locked_symbol_once_it_unlocks_and_tells_of_the_one_that_does_not(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, VELOX__FEED__SYMBOLS="[SYN3, SYN4]")
    done, report = played(settings, "circuit")
    # SYN3 is locked from minute 150 to 300; nothing of it is sold in between
    sold = [e for e in of(done, EventKind.FILL) if e.body["symbol"] == "SYN3" and e.body["side"] == "SELL"]
    assert [e for e in sold if DAY_OPEN_MS + 150 * 60_000 <= e.ts_ms < DAY_OPEN_MS + 299 * 60_000] == []
    assert any(e.ts_ms >= DAY_OPEN_MS + 299 * 60_000 for e in sold)
    assert done.result.flat
    assert report["trade_count"] > 0
    forever, _ = played(settings_of(tmp_path, VELOX__FEED__SYMBOLS="[SYN1]"), "circuit")
    assert [position.symbol for position in forever.positions] == ["SYN1"]
    assert "NOT FLAT at the end of the session" in forever.alerts


def test_days_are_seeded_and_take_any_number_of_symbols(tmp_path: Path) -> None:
    many = settings_of(tmp_path, VELOX__FEED__SCENARIO_SYMBOLS="12", VELOX__SIMULATION__SEED="7")
    first, again = (rehearse(many, RunRequest(date=DAY, scenario="trend")) for _ in range(2))
    assert first.events == again.events or [e.body for e in first.events] == [e.body for e in again.events]
    symbols = {str(e.body["symbol"]) for e in of(first, EventKind.DECISION)}
    assert "SYN12" in symbols
    other = rehearse(settings_of(tmp_path, VELOX__SIMULATION__SEED="8"), RunRequest(date=DAY, scenario="trend"))
    assert [e.body for e in other.events] != [e.body for e in first.events]


DAY_OPEN_MS = 1_705_376_700_000  # 2024-01-16 09:15 IST

STRANGER = """
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.strategies.base import Strategy

class Stranger(Strategy):
    def start_session(self, session):
        self.session, self.minute = session, 0

    def buy(self, **changes):
        given = {"symbol": "SYN5", "quantity": 1, "stop_paise": 0} | changes
        return Signal(self.strategy_id, given["symbol"], Side.BUY, given["quantity"], SignalKind.ENTRY, "because",
                      stop_paise=given["stop_paise"])

    def on_minute(self, ts_ms, row, positions):
        self.minute += 1
        if self.minute == 3:
            return [self.buy()]
        if self.minute == 12:
            BAD
        return []
"""


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("raise KeyError('x')", "KeyError"),
        ("return 'BUY'", "TypeError: on_minute returned str"),
        ("return [self.buy(stop_paise=float('nan'))]", "TypeError: signal for SYN5"),
        ("return [self.buy(symbol='NIFTY')]", "which is not its own"),
        ("return [self.buy(quantity=-3)]", "with quantity -3; the least is 1"),
        ("while True: pass", "StrategyOverrun: a call took longer than 2 s"),
    ],
)
def test_a_strangers_strategy_that_breaks_is_disabled_what_it_held_is_closed_and_the_day_goes_on(
    tmp_path: Path, bad: str, why: str
) -> None:
    (tmp_path / "mine.py").write_text(STRANGER.replace("BAD", bad), encoding="utf-8")
    listed = f"    - name: stranger\n      path: mine.py\n{FOUR}"
    done, report = played(settings_of(tmp_path, listed), "trend")
    (disabled,) = report["disabled_strategies"]
    assert disabled["strategy"] == "stranger"
    assert why in disabled["reason"]
    assert ("Strategy failed", f"stranger was disabled for the day: {disabled['reason']}") in headline_rows(report)
    (trade,) = [trade for trade in report["trades"] if trade["strategy"] == "stranger"]
    assert trade["exit_reason"].startswith("strategy disabled: ")
    assert trade["closed_ms"] <= DAY_OPEN_MS + 14 * 60_000
    assert done.result.flat
    assert max(t["closed_ms"] for t in report["trades"] if t["strategy"] == "sma_cross") > DAY_OPEN_MS + 200 * 60_000


def test_a_strangers_file_that_raises_at_import_is_disabled_and_the_day_goes_on(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise OSError('no such feed')\n", encoding="utf-8")
    done, report = played(settings_of(tmp_path, f"    - name: stranger\n      path: mine.py\n{FOUR}"), "trend")
    (disabled,) = report["disabled_strategies"]
    assert "OSError: no such feed (line 1)" in disabled["reason"]
    assert done.result.flat
    assert report["trade_count"] > 5
    assert "Strategy stranger is disabled for the day" in done.alerts
