"""The embedded Redis is killed in the middle of a day: entries stop, the session has it started again, entries go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from tests.fakes.outside import FakeAlerts
from velox_core.bootstrap import RunRequest, open_run
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.ports import MarketFeed, Severity
from velox_core.redis_server import EmbeddedRedis
from velox_core.settings import Paths, load_settings
from velox_core.strategies.base import Strategy, StrategySession

CONFIG = Path(__file__).resolve().parents[2] / "config" / "system_simulated.yaml"
DAY = date(2024, 1, 15)
KILL_AT_ROW = 40
STILL_AT_ROW = KILL_AT_ROW + 8  # twice the strategy has wanted an entry meanwhile
SPEED = 1_500.0  # the day in some 15 s

pytestmark = pytest.mark.slow


class InAndOut(Strategy):
    """Enters the first symbol every fourth minute and leaves it two minutes later."""

    def __init__(self, strategy_id: str, parameters: Mapping[str, object]) -> None:
        super().__init__(strategy_id, parameters)
        self.symbol = ""

    def start_session(self, session: StrategySession) -> None:
        self.symbol = session.universe[0]

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        minute = ts_ms // 60_000 % 4
        if minute == 0 and not positions[0]:
            return [Signal(self.strategy_id, self.symbol, Side.BUY, 1, SignalKind.ENTRY, "in")]
        if minute == 2 and positions[0]:
            return [Signal(self.strategy_id, self.symbol, Side.SELL, 1, SignalKind.EXIT, "out")]
        return []


class KillingFeed:
    """The feed, with the server killed before one of its rows; some rows later the market stands still until it is back.

    How many minutes of a day at this speed the restart of a server takes is the machine's choice.
    """

    def __init__(self, feed: MarketFeed, process_id: int, is_back: Callable[[], bool]) -> None:
        self._feed = feed
        self._process_id = process_id
        self._is_back = is_back
        self.rows = 0

    @property
    def universe(self) -> tuple[str, ...]:
        return self._feed.universe

    @property
    def ended(self) -> bool:
        return self._feed.ended

    def next_row(self, wait_seconds: float) -> MinuteRow | None:
        if self.rows == STILL_AT_ROW and not self._is_back():
            time.sleep(wait_seconds)
            return None
        row = self._feed.next_row(wait_seconds)
        if row is not None:
            self.rows += 1
            if self.rows == KILL_AT_ROW:
                os.kill(self._process_id, signal.SIGKILL)
        return row

    def hasten(self) -> None:
        self._feed.hasten()


def test_session_whose_embedded_redis_is_killed_starts_it_again_and_takes_entries_again(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "var" / "redis")
    alerts = FakeAlerts()
    paths = Paths(var=tmp_path / "var", logs=tmp_path / "logs")
    try:
        with open_run(load_settings(CONFIG, {}), paths, RunRequest(date=DAY, speed=SPEED, fresh=True)) as opened:
            engine = opened.engine
            engine.risk_manager.readiness.armed = True
            engine.risk_manager.faults.alerts = alerts
            host = HostedStrategy(InAndOut("probe", {}), (0,), opened.plan.universe)
            engine = replace(
                engine,
                ports=replace(engine.ports, alerts=alerts, revive=server.start),
                rules=replace(engine.rules, strategies=(host,)),
            )
            killed = int((tmp_path / "var" / "redis" / "redis.pid").read_text().split()[0])
            feed = KillingFeed(engine.ports.feed, killed, lambda: "Risk ledger is back" in alerts.titles)
            result = engine.session(opened.plan, feed=feed).run()
            ledger = engine.ports.ledger.snapshot()
            kill_ms = opened.plan.open_ms + KILL_AT_ROW * 60_000
            entered = [order.created_ms for order in engine.order_manager.orders.values() if order.is_entry]
    finally:
        server.stop()
    assert (result.fault, result.flat, result.halted) == ("", True, False)
    assert any(at_ms < kill_ms for at_ms in entered)
    assert any(at_ms > kill_ms for at_ms in entered)
    assert [severity for severity, title, _ in alerts.sent if title == "Risk ledger unavailable"] == [Severity.CRITICAL]
    assert [severity for severity, title, _ in alerts.sent if title == "Risk ledger is back"] == [Severity.WARNING]
    assert (dict(ledger.positions), dict(ledger.claims)) == ({}, {})
