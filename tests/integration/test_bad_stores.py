"""A store that is damaged, foreign, full, locked or of another version: no entry, a text with the way out, exits leave.

Each case holds a position, breaks off without a word, meets the fault at its next start, and goes through the rest of the
day on the simulated broker with a strategy that asks for an entry each minute.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest
import redis
from alembic import command
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from velox_core.bootstrap import OpenRun, RunRequest, open_run
from velox_core.domain.market.bars import MinuteRow
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.engine.session import SessionResult
from velox_core.engine.strategy_host import HostedStrategy
from velox_core.journal.migrate import alembic_config
from velox_core.ports import BrokerOrder, MarketFeed
from velox_core.redis_server import EmbeddedRedis
from velox_core.run_stores import EMERGENCY_FILE
from velox_core.settings import Paths, load_settings
from velox_core.strategies.base import Strategy, StrategySession

CONFIG = Path(__file__).resolve().parents[2] / "config" / "system_simulated.yaml"
DAY = date(2024, 1, 15)
BREAK_OFF_ROW, MINUTES_HELD = 12, 18

pytestmark = pytest.mark.slow


class BrokenOff(BaseException):
    """The process is gone: nothing in the engine may catch this."""


class Asker(Strategy):
    """Asks for an entry in every minute without a position; leaves at a given minute if it holds one."""

    def __init__(self, strategy_id: str, parameters: Mapping[str, object]) -> None:
        super().__init__(strategy_id, parameters)
        self.minutes = 0

    def start_session(self, session: StrategySession) -> None:
        """Nothing to prepare."""

    def on_minute(self, ts_ms: int, row: MinuteRow, positions: Sequence[int]) -> list[Signal]:
        self.minutes += 1
        if not positions[0]:
            return [Signal(self.strategy_id, "TCS", Side.BUY, 1, SignalKind.ENTRY, "in")]
        if self.minutes >= MINUTES_HELD:
            return [Signal(self.strategy_id, "TCS", Side.SELL, positions[0], SignalKind.EXIT, "out")]
        return []


class ActingFeed:
    """The feed, with something done before one of its rows."""

    def __init__(self, feed: MarketFeed, act: Callable[[], object]) -> None:
        self._feed = feed
        self._act = act
        self.rows = 0

    @property
    def universe(self) -> tuple[str, ...]:
        return self._feed.universe

    @property
    def ended(self) -> bool:
        return self._feed.ended

    def next_row(self, wait_seconds: float) -> MinuteRow | None:
        self.rows += 1
        if self.rows == BREAK_OFF_ROW:
            self._act()
        return self._feed.next_row(wait_seconds)

    def hasten(self) -> None:
        self._feed.hasten()


class Trial:
    """One account's folder and Redis, and the engines that use them one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = EmbeddedRedis(folder / "redis")
        self.url = self.server.start()
        self.journal = folder / "var" / "replay" / "primary" / "2024-01-15-1" / "journal.db"
        self.orders: list[BrokerOrder] = []
        self.exposure: list[str] | None = None

    def run(self, use: Callable[[OpenRun], SessionResult]) -> SessionResult:
        """Open the run and use it; what the broker has afterwards is kept."""
        settings = load_settings(CONFIG, {"VELOX__STORES__REDIS__URL": self.url})
        paths = Paths(var=self.folder / "var", logs=self.folder / "logs")
        with open_run(settings, paths, RunRequest(date=DAY, speed=0.0)) as opened:
            host = HostedStrategy(Asker("asker", {}), (0,), opened.plan.universe)
            opened.engine.risk_manager.readiness.armed = True
            engine = replace(opened.engine, rules=replace(opened.engine.rules, strategies=(host,)))
            result = use(replace(opened, engine=engine))
            self.orders = engine.ports.broker.orders()
            self.exposure = engine.emergency.broker_exposure()
        return result

    def hold_and_break_off(self) -> None:
        """Trade until a position is held, then end without a word."""

        def break_off() -> None:
            raise BrokenOff

        with suppress(BrokenOff):
            self.run_acting(break_off)

    def run_acting(self, act: Callable[[], object]) -> SessionResult:
        """Trade a day in the middle of which something is done."""

        def use(opened: OpenRun) -> SessionResult:
            return opened.engine.session(opened.plan, feed=ActingFeed(opened.engine.ports.feed, act)).run()

        return self.run(use)

    def run_on(self) -> SessionResult:
        """Take the run up to the day's end."""

        def rest(opened: OpenRun) -> SessionResult:
            return opened.engine.session(replace(opened.plan, resume_after_ms=opened.engine.resumed_ms)).run()

        return self.run(rest)

    def client(self) -> redis.Redis:
        """Return a client of the server."""
        return redis.Redis.from_url(self.url)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    made = Trial(tmp_path)
    yield made
    with suppress(redis.RedisError), redis.Redis.from_url(made.url, password="locked") as client:
        client.config_set("requirepass", "")
    made.server.stop()


def key_of(client: redis.Redis, name: str) -> bytes:
    """Return the one key of the ledger with this last part."""
    (key,) = client.keys(f"velox:*:{name}")  # type: ignore[misc]
    return bytes(key)


def garbage_content(trial: Trial) -> None:
    with trial.client() as client:
        client.hset(key_of(client, f"ledger:{DAY}"), "p:TCS", "{")


def older(trial: Trial) -> None:
    engine = create_engine(f"sqlite:///{trial.journal}", poolclass=NullPool)
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    engine.dispose()


def garbage_epoch(trial: Trial) -> None:
    with trial.client() as client:
        assert client.hset(key_of(client, "scope"), "epoch", "one") == 0


def garbage_halt(trial: Trial) -> None:
    with trial.client() as client:
        client.hset(key_of(client, "scope").replace(b":scope", b":halts"), "a:h9", "1 {}")


def password(trial: Trial) -> None:
    with trial.client() as client:
        client.config_set("requirepass", "locked")


def replica(trial: Trial) -> None:
    with trial.client() as client:
        client.replicaof("127.0.0.1", "1")


def full(trial: Trial) -> None:
    with trial.client() as client:
        client.config_set("maxmemory", "1")


def evicting(trial: Trial) -> None:
    with trial.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")


def truncated(trial: Trial) -> None:
    content = trial.journal.read_bytes()
    trial.journal.write_bytes(content[: len(content) // 2])


def emptied(trial: Trial) -> None:
    trial.journal.write_bytes(b"")


def newer(trial: Trial) -> None:
    with closing(sqlite3.connect(trial.journal)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def damaged_emergency_file(trial: Trial) -> None:
    trial.journal.with_name(EMERGENCY_FILE).write_text(f'[1,5,"INTENT",{{}}]\n#{"0" * 64}\n')


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is done to a store, and what the log has to say of it: the thing, and the way out."""

    apply: Callable[[Trial], None]
    thing: str
    way_out: str


FAULTS = {
    "garbage in the lease's epoch": Fault(
        apply=garbage_epoch, thing=r"key velox:\{.*\}:scope", way_out=r"delete the key \(DEL\)"
    ),
    "garbage among the halts": Fault(
        apply=garbage_halt, thing=r"key velox:\{.*\}:halts.*a:h9", way_out=r"delete the key \(DEL\)"
    ),
    "redis wants a password": Fault(apply=password, thing="wants a password", way_out=r"put it in stores\.redis\.url"),
    "redis is a replica": Fault(apply=replica, thing="read-only replica", way_out=r"point stores\.redis\.url at the primary"),
    "redis is full": Fault(apply=full, thing="out of memory", way_out="raise maxmemory"),
    "redis may evict": Fault(apply=evicting, thing="maxmemory-policy allkeys-lru", way_out="Set maxmemory-policy noeviction"),
    "journal is truncated": Fault(apply=truncated, thing=r"journal\.db", way_out="restore a backup"),
    "journal is empty": Fault(apply=emptied, thing=r"journal\.db is empty", way_out="restore a backup"),
    "emergency file is damaged": Fault(apply=damaged_emergency_file, thing=r"emergency\.jsonl", way_out="restore it"),
    "journal is newer": Fault(apply=newer, thing=r"journal .*journal\.db .*9999", way_out="update VELOX"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_of_a_store_refuses_entries_names_the_way_out_and_lets_the_exit_leave(
    trial: Trial, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    fault = FAULTS[name]
    trial.hold_and_break_off()
    fault.apply(trial)
    caplog.clear()
    trial.run_on()
    assert [(order.side, order.quantity) for order in trial.orders] == [(Side.BUY, 1), (Side.SELL, 1)]
    assert trial.exposure == []
    assert re.search(fault.thing, caplog.text)
    assert re.search(fault.way_out, caplog.text)
    assert "APPROVED" not in caplog.text


def torn_out(trial: Trial) -> None:
    with closing(sqlite3.connect(trial.journal, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE event RENAME TO somewhere_else")


MIDDAY = {
    "redis becomes a replica": Fault(
        apply=replica, thing="read-only replica", way_out=r"point stores\.redis\.url at the primary"
    ),
    "redis becomes full": Fault(apply=full, thing="out of memory", way_out="raise maxmemory"),
    "journal loses a table": Fault(apply=torn_out, thing=r"journal\.db: no such table", way_out="restore a backup"),
}


@pytest.mark.parametrize("name", MIDDAY)
def test_fault_in_the_middle_of_the_day_refuses_entries_from_then_on_and_lets_the_exit_leave(
    trial: Trial, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    fault = MIDDAY[name]
    trial.run_acting(lambda: fault.apply(trial))
    assert [(order.side, order.quantity) for order in trial.orders] == [(Side.BUY, 1), (Side.SELL, 1)]
    assert trial.exposure == []
    refused = [record.getMessage() for record in caplog.records if "REJECTED" in record.getMessage()]
    assert any(re.search(f"(?=.*{fault.thing})(?=.*{fault.way_out})", text) for text in refused), refused[:3]


HEALED: dict[str, tuple[Callable[[Trial], None], str]] = {
    "nothing": (lambda trial: None, r"\[RISK_CHECK\]"),
    "garbage in the ledger's content": (garbage_content, r"\[LEDGER\] not trusted yet: .*ledger:2024-01-15, field p:TCS"),
    "journal is older": (older, r"\[RISK_CHECK\]"),
}


@pytest.mark.parametrize("name", HEALED)
def test_store_that_can_be_put_right_is_and_entries_go_on(trial: Trial, caplog: pytest.LogCaptureFixture, name: str) -> None:
    caplog.set_level("INFO", "velox")
    apply, says = HEALED[name]
    trial.hold_and_break_off()
    apply(trial)
    caplog.clear()
    trial.run_on()
    assert len(trial.orders) > 2
    assert trial.exposure == []
    assert re.search(says, caplog.text)
    assert ("not trusted" in caplog.text) == (apply is garbage_content)
