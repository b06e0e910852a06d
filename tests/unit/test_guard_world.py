"""The guard over a run's real files, its engine played by the test: book, market, halt file and flattener are the true ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import pytest

from tests.fakes.outside import FakeAlerts
from velox_core.bootstrap import RunRequest, day_instruments, guard_presence, prepare
from velox_core.brokers.book import SqliteBook
from velox_core.brokers.simulated import SimulatedBroker
from velox_core.closing_record import read_closing
from velox_core.control import GUARD_FILE, FileControl, NamedControl
from velox_core.domain.errors import BrokerError, DataError
from velox_core.domain.halts import HaltKind, active_halts
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import OrderType, Product, Side
from velox_core.guard_watch import AccountGuard, GuardedAccount
from velox_core.guard_world import guarded_run
from velox_core.halt_file import JsonLinesHaltFile
from velox_core.risk.approval import approve
from velox_core.runs import RunFolder, RunState, write_state
from velox_core.settings import Paths, Settings, load_settings
from velox_core.simulated_account import simulation_config

DAY = date(2024, 1, 16)
SYMBOLS = ("SYN1", "SYN2", "SYN3")
SPEED = 60.0
CONFIG = """
system:
  environment: simulated
  account: primary
  broker: {{type: simulated, capital: 100000}}
  risk:
    max_daily_loss: {limit}
    max_daily_loss_pct: 2.0
    initial_capital: 100000
    fixed_lot_size: 1
    enable_deduplication: true
    max_position_size: 5000
    max_positions_per_strategy: 3
    max_total_positions: 3
  feed: {{symbols: [SYN1, SYN2, SYN3]}}
  engine: {{on_stop: {on_stop}}}
  guard: {{heartbeat_timeout_seconds: 20, act_seconds: 10}}
"""


class Run:
    """A run's folder as an engine leaves it: three shares bought in the third minute, and a status a second."""

    def __init__(self, tmp_path: Path, *, scenario: str = "calm", limit: str = "2000", on_stop: str = "flatten") -> None:
        config = tmp_path / "config" / "system.yaml"
        config.parent.mkdir()
        config.write_text(CONFIG.format(limit=limit, on_stop=on_stop), encoding="utf-8")
        self.settings: Settings = load_settings(config, {})
        self.paths = Paths(var=tmp_path / "var", logs=tmp_path / "logs")
        self.scenario = scenario
        self.run_id = f"{DAY}-{scenario}-1"
        replay = prepare(self.settings, self.paths, RunRequest(date=DAY, speed=SPEED, scenario=scenario, run_id=self.run_id))
        self.rows, self.folder = replay.day.rows, replay.run.folder
        self.folder.mkdir(parents=True)
        write_state(self.folder, RunState.BEGUN)
        self.broker = SimulatedBroker(
            replay.day.universe,
            instruments=day_instruments(replay),
            config=simulation_config(self.settings),
            book=SqliteBook(self.folder / "broker.db"),
        )
        self.broker.advance(1 << 60)
        self.engine_ms = 0
        self.alerts, self.now = FakeAlerts(), 1_000.0
        self.imported: list[Path] = []
        self.stack = ExitStack()
        self.facts = {"trading_date": str(DAY), "speed": SPEED, "data": "", "scenario": scenario}
        self.control = NamedControl(FileControl(self.folder), self.facts)

    def pass_minute(self, index: int) -> None:
        """The engine's market passes one minute of the day."""
        row: MinuteRow = self.rows[index]
        self.engine_ms = row.ts_ms
        self.broker.on_row(row, row.ts_ms)

    def buy_all(self) -> None:
        """The engine of the run buys a share of each symbol."""
        self.pass_minute(0)
        for number, symbol in enumerate(SYMBOLS, 1):
            order = approve(
                client_order_id=f"240116E0001{number:07d}", symbol=symbol, side=Side.BUY, quantity=1,
                order_type=OrderType.MARKET, limit_price_paise=0, product=Product.MIS, rank=None, protection_bps=100,
            )  # fmt: skip
            self.broker.place(order, self.engine_ms)
        self.pass_minute(1)

    def beat(self, state: str = "RUNNING") -> None:
        self.control.publish({"state": state, "engine_ms": self.engine_ms})

    def open_guard(self) -> AccountGuard:
        """Open the run as the guard's process does, on the status that stands there."""
        status = json.loads((self.folder / "status.json").read_text())
        account: GuardedAccount = guarded_run(
            self.settings,
            self.paths,
            self.folder,
            status,
            alerts=self.alerts,
            bring_in=self.bring_in,
            stack=self.stack,
        )
        return AccountGuard(account, self.now)

    def bring_in(self, run: RunFolder, on: date, file: Path) -> str:
        assert (run.run_id, on, file.exists()) == (self.run_id, DAY, True)
        self.imported.append(file)
        return ""

    def step(self, guard: AccountGuard, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let seconds pass, two steps in each."""
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            guard.step(self.now)
            if until():
                return

    def trades(self) -> list[tuple[str, str, str]]:
        return [(fill.symbol, fill.side.value, fill.client_order_id[6]) for fill in self.broker.trades()]

    def held(self) -> dict[str, int]:
        return {line.symbol: line.quantity for line in self.broker.positions() if line.quantity}

    def halts(self) -> list[tuple[HaltKind, str]]:
        return [(halt.kind, halt.by) for halt in active_halts(JsonLinesHaltFile(self.folder / "halt.jsonl").records())]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    return lambda **details: Run(tmp_path, **details)


CLOSED = [(symbol, "BUY", "E") for symbol in SYMBOLS] + [(symbol, "SELL", "G") for symbol in SYMBOLS]


def test_guard_of_a_dead_engine_closes_each_position_once_at_current_prices_without_redis(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.buy_all()
    run.beat()
    guard = run.open_guard()
    run.step(guard, 20)
    assert run.held() == dict.fromkeys(SYMBOLS, 1)
    run.step(guard, 10)
    assert (sorted(run.trades()), run.held()) == (sorted(CLOSED), {})
    assert run.halts() == [(HaltKind.FAULT, "guard")]
    assert run.alerts.titles[0] == "The guard closes everything"
    assert run.alerts.titles[-1] == "The guard: FLAT, the broker confirms it"
    assert [path.name.startswith("emergency-20240116-FAULT-G") for path in run.imported] == [True]
    left = read_closing(run.folder)
    assert left is not None
    assert (left.tool, left.is_flat, left.closed_by, left.left) == ("guard", True, "this process", ())
    sold = [fill for fill in run.broker.trades() if fill.side is Side.SELL]
    assert all(fill.ts_ms >= run.engine_ms + 20 * 60_000 for fill in sold)  # not the prices at which the engine died


def test_guard_that_starts_again_between_sending_and_fill_closes_each_position_once(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.buy_all()
    run.beat()
    first = run.open_guard()
    run.step(first, 40, until=lambda: len(run.broker.orders()) == 6)
    assert run.held() == dict.fromkeys(SYMBOLS, 1)
    first.close()
    second = run.open_guard()
    run.step(second, 5)  # no second wait for a bound
    assert (sorted(run.trades()), run.held()) == (sorted(CLOSED), {})


def test_guard_closes_for_a_loss_that_an_engine_lets_run_though_it_beats(make_run: Callable[..., Run]) -> None:
    run = make_run(scenario="crash", limit="20")
    run.buy_all()
    run.beat()
    guard = run.open_guard()
    for index in range(2, len(run.rows)):
        run.pass_minute(index)
        run.beat()
        run.step(guard, 1)
        if not run.held():
            break
    assert sorted(run.trades()) == sorted(CLOSED)
    assert run.halts()[0] == (HaltKind.LOSS, "guard")
    assert run.engine_ms < run.rows[-1].ts_ms


def test_guard_leaves_what_a_stopped_engine_holds_until_the_time_of_day(make_run: Callable[..., Run]) -> None:
    run = make_run(on_stop="hold")
    run.buy_all()
    run.beat("DONE")
    guard = run.open_guard()
    late_seconds = (15 * 60 + 7) - (9 * 60 + 17)  # a minute a second, from the last status to 15:07
    run.step(guard, late_seconds)
    assert run.held() == dict.fromkeys(SYMBOLS, 1)
    run.step(guard, 30)
    assert (run.held(), run.halts()) == ({}, [(HaltKind.FAULT, "guard")])


@pytest.mark.parametrize(("on_stop", "state"), [("hold", RunState.ENDED_NOT_FLAT), ("flatten", RunState.BEGUN)])
def test_guard_does_not_take_an_engine_that_failed_for_one_that_holds(
    make_run: Callable[..., Run], on_stop: str, state: RunState
) -> None:
    run = make_run(on_stop=on_stop)
    run.buy_all()
    write_state(run.folder, state)
    run.beat("DONE")
    guard = run.open_guard()
    run.step(guard, 30)
    assert run.held() == {}


@pytest.mark.parametrize("missing", ["speed", "trading_date", "scenario"])
def test_run_whose_status_does_not_say_what_it_trades_is_not_guarded(make_run: Callable[..., Run], missing: str) -> None:
    run = make_run()
    run.facts.pop(missing)
    NamedControl(FileControl(run.folder), run.facts).publish({})
    with pytest.raises(DataError, match=run.run_id):
        run.open_guard()


def test_run_without_a_brokers_book_is_not_opened_and_none_is_made(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.beat()
    run.broker.close()
    for file in run.folder.glob("broker.db*"):
        file.unlink()
    with pytest.raises(BrokerError, match="has no broker's book"):
        run.open_guard()
    assert list(run.folder.glob("broker.db*")) == []


def test_engine_of_a_paced_run_misses_its_guard_by_the_guards_file(make_run: Callable[..., Run]) -> None:
    run = make_run()
    presence = guard_presence(run.settings, run.paths, 60.0, run.alerts)
    assert presence is not None
    assert guard_presence(run.settings, run.paths, 0.0, run.alerts) is None
    guard = NamedControl(FileControl(run.paths.var / "simulated" / "primary", status_file=GUARD_FILE), {})
    for second in range(100):
        guard.publish({})
        presence.look(1_000.0 + second)
    assert run.alerts.sent == []
    for second in range(100, 122):
        presence.look(1_000.0 + second)
    assert run.alerts.titles == ["The guard is silent"]
