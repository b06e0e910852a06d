"""The guard of one account over fakes: what it hears, sees, tells and closes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.fakes.broker import FakeBroker
from tests.fakes.outside import FakeAlerts
from velox_core.closing_progress import PROGRESS_KEY, STALLED_SECONDS_MAX
from velox_core.domain.charges import ChargeSchedule
from velox_core.domain.errors import VeloxError
from velox_core.domain.orders import Product, Side
from velox_core.flat_proof import FlattenState
from velox_core.guard import EXCUSED_SECONDS_MAX, Cause, GuardRules, Verdict
from velox_core.guard_account import Price
from velox_core.guard_watch import RETRY_SECONDS, AccountGuard, GuardedAccount

BOUND, ACT, PAUSE = 20.0, 10.0, 5.0
START_MS = 1_000_000
TITLE = "The guard closes everything"


class FakeFollowedFeed:
    def __init__(self) -> None:
        self.quotes: dict[str, float] = {"AAA": 100_00, "BBB": 100_00}
        self.now_ms = 0
        self.stands = False
        self.made: list[tuple[int, int]] = []

    def follow(self, now_ms: int) -> None:
        if not self.stands:
            self.now_ms = now_ms

    def make(self, now_ms: int, after_ms: int) -> None:
        self.made.append((now_ms, after_ms))

    def prices(self) -> Mapping[str, Price]:
        return {symbol: Price(paise=paise, feed_ms=self.now_ms) for symbol, paise in self.quotes.items()}


class ScriptedFlattener:
    """Says what the script says, the last word for good; FLAT really closes at the broker when `broker` is given."""

    def __init__(self, states: list[FlattenState | VeloxError]) -> None:
        self.states = states
        self.times: list[int] = []
        self.closed = False

    def step(self, now_ms: int) -> FlattenState:
        self.times.append(now_ms)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, VeloxError):
            raise state
        return state

    def close(self) -> None:
        self.closed = True


class World:
    """An account with two heartbeat routes, a broker, prices, and the guard over it, stepped once a second."""

    def __init__(self, *, speed: float = 1.0) -> None:
        self.broker, self.feed, self.alerts = FakeBroker(), FakeFollowedFeed(), FakeAlerts()
        self.file: dict[str, object] | None = None
        self.ledger: dict[str, object] | None = None
        self.holds = self.unfinished = False
        self.gets_on = True  # the engine's exits are acknowledged, as it says
        self.age_seconds = 0.0
        self.verdicts: list[Verdict] = []
        self.script: list[FlattenState | VeloxError] = [FlattenState.CLOSING]
        self.refusal: VeloxError | None = None
        self.flatteners: list[ScriptedFlattener] = []
        self.now = 1_000.0
        self.beats = 0
        self.engine_ms = START_MS
        self.flat = FlattenState.FLAT
        self.account = GuardedAccount(
            name="2024-01-15-1",
            speed=speed,
            rules=GuardRules(
                heartbeat_timeout_seconds=BOUND,
                act_seconds=ACT,
                pause_seconds_max=PAUSE,
                loss_limit_paise=10_00,
                loss_trigger_paise=11_00,
                late_ms=START_MS + 10_000_000,
                price_age_ms_max=90_000,
            ),
            routes=(lambda: self.file, lambda: self.ledger),
            book=self.broker,
            feed=self.feed,
            schedule=ChargeSchedule(label="free"),
            product=Product.MIS,
            previous_closes={},
            age_seconds=lambda status: self.age_seconds,
            holds=lambda status: self.holds,
            unfinished=lambda: self.unfinished,
            flattener=self.flattener,
            alerts=self.alerts,
        )
        self.guard = AccountGuard(self.account, self.now)

    def flattener(self, verdict: Verdict, now_ms: int) -> ScriptedFlattener:
        self.verdicts.append(verdict)
        if self.refusal is not None:
            raise self.refusal
        self.flatteners.append(ScriptedFlattener(list(self.script)))
        return self.flatteners[-1]

    def beat(self, *, ledger: bool = True, file: bool = True, **changes: object) -> None:
        """The engine publishes a status."""
        self.beats += 1
        status = {"pid": 7, "beat": self.beats, "wall_ms": 5_000 + self.beats, "engine_ms": self.engine_ms, **changes}
        self.file = status if file else self.file
        self.ledger = status if ledger else self.ledger

    def live(self, seconds: int, **changes: object) -> None:
        """The engine lives for some seconds, a beat and a step each."""
        for _ in range(seconds):
            self.now += 1.0
            self.engine_ms += 1_000
            counts = {"acknowledged": self.beats if self.gets_on else 0, "looks": self.beats}
            self.beat(**{PROGRESS_KEY: counts} | changes)  # type: ignore[arg-type]
            self.guard.step(self.now)

    def silent(self, seconds: int) -> None:
        """Seconds pass without a beat."""
        for _ in range(seconds):
            self.now += 1.0
            self.guard.step(self.now)

    @property
    def causes(self) -> list[Cause]:
        return [verdict.cause for verdict in self.verdicts]


def holding(**changes: float) -> World:
    world = World(**changes)
    world.broker.foreign("AAA", Side.BUY, 1, 100_00)
    world.live(3)
    return world


# -- heartbeats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew_ms", [-3_600_000, 3_600_000])
def test_guard_and_engine_whose_clocks_are_apart_count_the_guards_own_seconds(skew_ms: int) -> None:
    world = holding()
    for _ in range(100):
        world.live(1, wall_ms=5_000 + skew_ms)  # its clock even stands still
    assert world.causes == []
    world.silent(int(BOUND))
    assert world.causes == []
    world.silent(1)
    assert world.causes == [Cause.SILENT_ENGINE]


def test_guard_of_an_engine_that_dies_with_a_position_closes_once_the_bound_is_over() -> None:
    world = holding()
    world.silent(int(BOUND))
    assert (world.causes, world.alerts.sent) == ([], [])
    world.silent(1)
    assert world.causes == [Cause.SILENT_ENGINE]
    assert world.alerts.titles == [TITLE]
    assert world.guard.closing


def test_guard_without_a_feed_still_sees_that_the_engine_died(monkeypatch: pytest.MonkeyPatch) -> None:
    world = holding()

    def no_prices(now_ms: int) -> None:
        raise ValueError("a bar that makes no sense")

    monkeypatch.setattr(world.feed, "follow", no_prices)
    world.silent(int(BOUND) + 2)
    assert world.causes == [Cause.SILENT_ENGINE]
    assert world.alerts.titles.count("The guard has no prices") == 1


def test_guard_of_an_engine_that_dies_with_nothing_open_does_nothing() -> None:
    world = World()
    world.live(3)
    world.silent(200)
    assert (world.causes, world.alerts.sent) == ([], [])


def test_guard_counts_a_working_order_as_open() -> None:
    world = World()
    world.broker.foreign("AAA", Side.BUY, 1, 100_00, works=True)
    world.live(3)
    world.silent(int(BOUND) + 1)
    assert world.causes == [Cause.SILENT_ENGINE]


def test_guard_with_the_ledger_gone_judges_by_the_file_alone() -> None:
    world = holding()
    world.ledger = None
    world.live(100, ledger=False)
    assert world.causes == []
    world.silent(int(BOUND) + 1)
    assert world.causes == [Cause.SILENT_ENGINE]


def test_guard_with_the_file_gone_judges_by_the_ledger_alone() -> None:
    world = holding()
    world.file = None
    world.live(100, file=False)
    assert world.causes == []


def test_guard_is_not_misled_by_an_engine_whose_clock_jumps() -> None:
    world = holding()
    for wall_ms in (10**15, 5, 10**15, -7):
        world.live(10, wall_ms=wall_ms)
    assert world.causes == []
    world.silent(int(BOUND) + 1)
    assert world.causes == [Cause.SILENT_ENGINE]


def test_guard_that_starts_beside_a_dead_engine_waits_one_bound() -> None:
    world = World()
    world.broker.foreign("AAA", Side.BUY, 1, 100_00)
    world.beat()
    world.silent(int(BOUND) + 1)
    assert world.causes == []
    world.silent(1)
    assert world.causes == [Cause.SILENT_ENGINE]


def test_guard_that_starts_again_in_the_middle_of_its_closing_goes_on_at_once() -> None:
    world = World()
    world.broker.foreign("AAA", Side.BUY, 1, 100_00)
    world.unfinished = True
    world.beat()
    world.silent(1)
    assert world.causes == [Cause.UNFINISHED]


def test_guard_that_was_stopped_waits_one_full_bound_before_it_acts() -> None:
    world = holding()
    world.now += 500.0
    world.silent(int(BOUND))
    assert world.causes == []
    assert world.guard.view(world.now)["state"] == "waiting after a pause"
    world.silent(2)
    assert world.causes == [Cause.SILENT_ENGINE]


def test_guard_that_was_stopped_does_nothing_when_the_engine_lives_on() -> None:
    world = holding()
    world.now += 500.0
    world.live(100)
    assert world.causes == []
    assert world.guard.view(world.now)["state"] == "watching"


def test_guard_leaves_alone_what_an_engine_keeps_on_purpose() -> None:
    world = holding()
    world.holds = True
    world.silent(300)
    assert world.causes == []


# -- the book ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", ["orders", "positions", "trades"])
def test_guard_that_cannot_read_the_book_tells_it_once_and_takes_nothing_for_flat(read: str) -> None:
    world = World()
    world.live(3)
    world.broker.failing = {read}
    world.live(30)
    assert world.alerts.titles == ["The guard cannot read the broker's book"]
    assert (world.causes, world.guard.exposed, world.guard.loss_paise) == ([], True, None)
    world.silent(int(BOUND) + 1)
    assert world.causes == [Cause.SILENT_ENGINE]


def test_guard_tells_once_that_the_book_can_be_read_again() -> None:
    world = World()
    world.broker.failing = {"orders"}
    world.live(3)
    world.broker.failing = set()
    world.live(3)
    assert world.alerts.titles == ["The guard cannot read the broker's book", "The guard can read the broker's book again"]
    assert world.guard.exposed is False


# -- the loss ------------------------------------------------------------------------------------------------------


def test_guard_closes_for_a_loss_past_the_margin_that_the_engine_does_not_heed() -> None:
    world = holding()
    world.feed.quotes["AAA"] = 89_00
    world.live(int(ACT))
    assert world.causes == []
    assert world.guard.loss_paise == 11_00
    world.live(1)
    assert world.causes == [Cause.LOSS]


def test_guard_leaves_a_loss_within_the_margin_to_the_engine() -> None:
    world = holding()
    world.feed.quotes["AAA"] = 89_01
    world.live(60)
    assert world.causes == []


def test_guard_leaves_a_loss_to_an_engine_that_flattens() -> None:
    world = holding()
    world.feed.quotes["AAA"] = 50_00
    world.live(120, state="FLATTENING")
    assert world.causes == []


def test_guard_acts_on_a_loss_beside_an_engine_that_flattens_and_gets_nowhere() -> None:
    world = holding()
    world.feed.quotes["AAA"] = 50_00
    world.gets_on = False
    world.live(int(STALLED_SECONDS_MAX + ACT), state="FLATTENING")
    assert world.causes == []
    world.live(3, state="FLATTENING")
    assert world.causes == [Cause.LOSS]


def test_guard_leaves_a_loss_to_an_engine_whose_exit_waits_in_the_brokers_queue() -> None:
    world = holding()
    world.broker.foreign("AAA", Side.SELL, 1, 0, works=True)
    world.feed.quotes["AAA"] = 50_00
    world.gets_on = False
    world.live(120, state="FLATTENING")
    assert world.causes == []


def test_guard_that_cannot_read_the_book_does_not_count_an_engines_standstill() -> None:
    world = holding()
    world.feed.quotes["AAA"] = 50_00
    world.gets_on = False
    world.live(20, state="FLATTENING")
    world.broker.failing = {"positions"}
    world.live(60, state="FLATTENING")
    world.broker.failing = set()
    world.live(15, state="FLATTENING")
    assert world.causes == []


@pytest.mark.parametrize("price", [None, 0, float("nan"), float("inf")])
def test_guard_without_a_price_tells_it_once_and_knows_no_loss(price: float | None) -> None:
    world = holding()
    if price is None:
        del world.feed.quotes["AAA"]
    else:
        world.feed.quotes["AAA"] = price
    world.live(60)
    assert world.alerts.titles == ["The guard does not know the loss of the day"]
    assert world.guard.loss_paise is None
    assert world.causes == []
    world.feed.quotes["AAA"] = 50_00
    world.live(int(ACT) + 1)
    assert world.causes == [Cause.LOSS]


def test_guard_with_a_feed_that_stands_still_knows_no_loss() -> None:
    world = holding()
    world.feed.stands = True
    world.live(200)
    assert "The guard does not know the loss of the day" in world.alerts.titles
    assert world.guard.loss_paise is None


def test_guard_counts_shares_that_no_trade_explains_when_they_stay() -> None:
    world = World()
    world.live(1)
    world.broker.unseen["AAA"] = 3
    world.live(1)
    assert world.alerts.sent == []  # a trade between two reads looks the same
    world.live(1)
    assert world.alerts.titles == ["The guard does not know the loss of the day"]


# -- the time of day -----------------------------------------------------------------------------------------------


def test_guard_closes_what_is_open_after_the_time_of_day() -> None:
    world = holding()
    world.engine_ms = START_MS + 10_000_000 - 1_000
    world.live(int(ACT))
    assert world.causes == []
    world.live(1)
    assert world.causes == [Cause.LATE]


def test_guard_of_a_dead_engine_knows_the_time_of_day_from_its_speed() -> None:
    world = holding(speed=600.0)
    world.silent(10)
    assert world.guard.view(world.now)["engine_ms"] == world.engine_ms + 10 * 600_000


def test_guard_that_starts_beside_a_dead_engine_knows_how_far_the_day_has_come() -> None:
    world = World(speed=60.0)
    world.age_seconds = 100.0
    world.beat()
    world.silent(10)
    assert world.guard.view(world.now)["engine_ms"] == START_MS + (100 + 9) * 60_000
    world.live(1)  # from the second heartbeat on a status is as new as it is heard
    assert world.guard.view(world.now)["engine_ms"] == START_MS + 1_000


# -- closing -------------------------------------------------------------------------------------------------------


def test_guard_makes_the_market_only_while_it_closes_itself() -> None:
    world = holding(speed=60.0)
    reached = world.engine_ms
    states = [FlattenState.ASKING, FlattenState.TAKING_OVER, FlattenState.CLOSING, FlattenState.CLOSING, FlattenState.FLAT]
    world.script = [*states]
    world.silent(int(BOUND) + 4)
    assert world.feed.made == []
    world.silent(1)
    assert world.feed.made == [(reached + 25 * 60_000, reached)]
    world.silent(1)
    assert len(world.feed.made) == 2
    assert world.flatteners[0].closed
    assert not world.guard.closing
    assert world.alerts.titles == [TITLE, "The guard: FLAT, the broker confirms it"]


def test_guard_that_follows_an_engine_which_closes_makes_no_market() -> None:
    world = holding()
    world.feed.quotes["AAA"] = 50_00
    world.script = [FlattenState.ASKING, FlattenState.FOLLOWING]
    world.live(60)
    assert world.causes == [Cause.LOSS]
    assert world.feed.made == []


def test_guard_bounds_a_closing_in_true_seconds_and_its_own_pause_counts_little() -> None:
    world = holding(speed=60.0)
    world.silent(int(BOUND) + 3)
    times = world.flatteners[0].times
    assert times == [times[0], times[0] + 1_000]
    world.now += 3_600.0
    world.silent(1)
    assert world.flatteners[0].times[-1] - times[-2] == int(PAUSE * 1_000)


def test_guard_whose_closing_ends_not_flat_begins_again() -> None:
    world = holding()
    world.script = [FlattenState.CLOSING] * 30 + [FlattenState.NOT_FLAT]
    world.silent(int(BOUND) + 32)
    assert world.alerts.titles[-1] == "The guard: NOT FLAT within the bound; it begins again"
    world.silent(int(RETRY_SECONDS) + 1)
    assert world.causes == [Cause.SILENT_ENGINE] * 2


def test_guard_that_cannot_close_tells_it_once_and_tries_again_after_a_while() -> None:
    world = holding()
    world.refusal = VeloxError("no way")
    world.silent(int(BOUND) + 1 + 4 * int(RETRY_SECONDS))
    assert 4 <= len(world.causes) <= 5
    assert world.alerts.titles.count("The guard cannot close") == 1
    world.refusal = None
    world.script = [VeloxError("torn"), FlattenState.CLOSING]
    world.silent(int(RETRY_SECONDS) + 2)
    assert world.flatteners[0].closed


def test_guard_that_closed_watches_on_and_closes_what_comes_late() -> None:
    world = holding()
    world.script = [FlattenState.FLAT]
    world.broker.foreign("AAA", Side.SELL, 1, 100_00)
    world.broker.foreign("BBB", Side.BUY, 1, 100_00)
    world.silent(int(BOUND) + 2)
    assert world.causes == [Cause.SILENT_ENGINE]
    world.silent(int(RETRY_SECONDS) + 1)
    assert world.causes == [Cause.SILENT_ENGINE] * 2


def test_guard_opened_anew_still_leaves_alone_what_a_stopped_engine_keeps() -> None:
    world = holding()
    world.account = replace(world.account, holds=lambda status: bool(status.get("keeps")))
    world.guard = AccountGuard(world.account, world.now)
    world.live(3, keeps=True)
    world.guard = AccountGuard(world.account, world.now + 1.0, before=world.guard)
    world.silent(int(BOUND) * 2)
    assert world.causes == []


def test_guard_whose_closing_ended_gives_an_engine_that_closes_no_second_excuse() -> None:
    world = holding()
    world.feed.quotes["AAA"] = 50_00
    world.script = [FlattenState.FOLLOWING] * 5 + [FlattenState.NOT_FLAT]
    world.live(int(EXCUSED_SECONDS_MAX + ACT) + 2, state="FLATTENING")
    assert world.causes == [Cause.LOSS]
    world.live(int(RETRY_SECONDS + ACT) + 10, state="FLATTENING")
    assert world.causes[:2] == [Cause.LOSS] * 2


def test_guards_lines_of_a_closing_have_the_closings_time_not_the_fast_markets(caplog: pytest.LogCaptureFixture) -> None:
    world = holding(speed=60.0)
    world.script = [FlattenState.CLOSING, FlattenState.FLAT]
    world.live(3)
    world.silent(25)
    states = [r for r in caplog.records if "this guard closes" in r.getMessage() or "FLAT, the broker" in r.getMessage()]
    begun = next(r for r in caplog.records if "Everything is closed" in r.getMessage())
    times = [getattr(record, "engine_ms", 0) - getattr(begun, "engine_ms", 0) for record in states]
    assert times == [1_000, 2_000]
