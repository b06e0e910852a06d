"""Synthetic days: the same bytes for the same seed, legal prices, and a crash that no stop can save."""

from __future__ import annotations

from datetime import date, datetime, time

import pytest

from velox_core.domain.errors import ConfigError, InvariantError
from velox_core.domain.market.bars import DayColumns
from velox_core.domain.market.sessions import SessionCalendar
from velox_core.domain.orders import Side, Signal, SignalKind
from velox_core.domain.time import IST, ist_ms
from velox_core.feeds.synthetic import GRID_PAISE, SCENARIOS, SYNTHETIC_SYMBOLS, default_symbols, synthetic_day
from velox_core.strategies.base import Strategy, StrategySession
from velox_core.strategies.opening_range import OpeningRangeBreakout
from velox_core.strategies.sma_cross import SmaCross

DAY = date(2024, 1, 16)
SEEDS = range(1, 41)


def made(
    calendar: SessionCalendar, scenario: str, *, seed: int = 7, symbols: tuple[str, ...] = (), day: date = DAY
) -> DayColumns:
    session = calendar.session(day)
    if session is None:
        raise LookupError(day)
    return synthetic_day(day, symbols, scenario, session, seed=seed)


def bars_of(columns: DayColumns, symbol: str) -> list[tuple[int, ...]]:
    index = columns.universe.index(symbol)
    return [
        (row.ts_ms, row.opens[index], row.highs[index], row.lows[index], row.closes[index], row.volumes[index])
        for row in columns.rows
    ]


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_synthetic_day_is_labelled_and_covers_the_session(calendar: SessionCalendar, scenario: str) -> None:
    columns = made(calendar, scenario)
    assert columns.synthetic
    assert columns.source == f"synthetic {scenario} seed 7"
    assert columns.universe == SYNTHETIC_SYMBOLS
    assert columns.drops == ()
    # SYN1 and SYN5 are halted from minute 150 on, SYN3 for 112 minutes
    assert columns.bar_count == 375 * len(SYNTHETIC_SYMBOLS) - (2 * 225 + 112) * (scenario == "halted")
    assert [row.ts_ms for row in columns.rows] == [ist_ms(DAY, time(9, 16)) + 60_000 * index for index in range(375)]


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_synthetic_day_bars_are_consistent_plain_ints_on_the_grid(calendar: SessionCalendar, scenario: str) -> None:
    for seed in SEEDS:
        columns = made(calendar, scenario, seed=seed)
        for symbol in columns.universe:
            for ts_ms, open_, high, low, close, volume in bars_of(columns, symbol):
                if not close:
                    assert (open_, high, low, volume) == (0, 0, 0, 0)
                    continue
                assert type(open_) is int
                assert type(ts_ms) is int
                assert 0 < low <= min(open_, close) <= max(open_, close) <= high
                assert {price % GRID_PAISE for price in (open_, high, low, close)} == {0}
                assert 1 <= volume < 10_000_000


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_synthetic_day_symbol_is_independent_of_the_others_and_their_order(calendar: SessionCalendar, scenario: str) -> None:
    alone = made(calendar, scenario, symbols=("TCS",))
    among = made(calendar, scenario, symbols=("INFY", "SBIN", "TCS"))
    assert bars_of(alone, "TCS") == bars_of(among, "TCS")
    assert bars_of(among, "INFY") != bars_of(among, "SBIN")
    assert alone.previous_close_paise[0] == among.previous_close_paise[2]


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_synthetic_day_another_seed_or_date_is_another_day(calendar: SessionCalendar, scenario: str) -> None:
    first = bars_of(made(calendar, scenario), "SYN1")
    assert first == bars_of(made(calendar, scenario), "SYN1")
    assert first != bars_of(made(calendar, scenario, seed=8), "SYN1")
    other = bars_of(made(calendar, scenario, day=date(2024, 1, 17)), "SYN1")
    assert [bar[1:] for bar in first] != [bar[1:] for bar in other]


def test_synthetic_day_first_bar_is_what_it_has_always_been(calendar: SessionCalendar) -> None:
    """The stream must not move between releases: journals of old synthetic days are compared with new runs."""
    assert bars_of(made(calendar, "crash"), "SYN1")[0][1:5] == (448_750, 449_550, 448_650, 449_540)
    assert bars_of(made(calendar, "calm"), "SYN1")[0][1:5] == (43_070, 43_170, 43_060, 43_150)


def test_synthetic_calm_prices_lie_in_the_usual_range(calendar: SessionCalendar) -> None:
    for seed in SEEDS:
        columns = made(calendar, "calm", seed=seed)
        for symbol, previous in zip(columns.universe, columns.previous_close_paise, strict=True):
            closes = [bar[4] for bar in bars_of(columns, symbol)]
            assert 30_000 <= previous <= 300_000
            assert max(abs(close - previous) for close in closes) < 0.06 * previous


def fall_index(columns: DayColumns) -> int:
    closes = [bar[4] for bar in bars_of(columns, columns.universe[0])]
    return next(index for index in range(1, len(closes)) if closes[index] < 0.9 * closes[index - 1])


def test_synthetic_crash_falls_late_in_the_morning_for_all_symbols_at_once(calendar: SessionCalendar) -> None:
    for seed in SEEDS:
        columns = made(calendar, "crash", seed=seed)
        index = fall_index(columns)
        at = datetime.fromtimestamp(columns.rows[index].ts_ms / 1_000, IST).time()
        assert time(11, 15) <= at <= time(11, 45)
        for column, previous in enumerate(columns.previous_close_paise):
            before, row, after = columns.rows[index - 1], columns.rows[index], columns.rows[index + 1]
            assert 440_000 <= previous <= 470_000
            assert row.opens[column] < 0.92 * before.closes[column]
            assert row.highs[column] < 0.92 * before.closes[column], "no price between where a stop could fill"
            assert 0.815 < row.closes[column] / before.closes[column] < 0.821
            assert 0.99 < after.opens[column] / row.closes[column] < 0.995, "a market protection of 1 % still fills"
            lows = [row.lows[column] for row in columns.rows]
            assert min(lows) > 0.80 * previous, "inside the 20 % band of the day before"


def test_synthetic_crash_morning_breaks_the_opening_range_upwards_and_stays_above(calendar: SessionCalendar) -> None:
    for seed in SEEDS:
        columns = made(calendar, "crash", seed=seed)
        index = fall_index(columns)
        for symbol in columns.universe:
            bars = bars_of(columns, symbol)
            for minutes in (15, 30):
                range_high = max(bar[2] for bar in bars[:minutes])
                range_low = min(bar[3] for bar in bars[:minutes])
                breakout = next(place for place in range(minutes, index) if bars[place][4] > range_high)
                assert breakout < 80, "within the first hour or so"
                assert all(bar[3] >= range_low for bar in bars[minutes:index]), "no breakout downwards"
                width = range_high - range_low
                entry = bars[breakout][4]
                assert 0.003 * entry < width < 0.012 * entry
                assert all(bar[2] < entry + width for bar in bars[breakout:index]), "no target is near"
                assert all(bar[3] > entry - width // 2 for bar in bars[breakout + 1 : index]), "no stop is near"


@pytest.mark.parametrize("strategy", [OpeningRangeBreakout("orb", {}), SmaCross("sma", {})], ids=["orb", "sma"])
def test_synthetic_crash_trend_followers_buy_before_the_fall_and_do_not_leave(
    calendar: SessionCalendar, strategy: Strategy
) -> None:
    for seed in (1, 7, 20):
        columns = made(calendar, "crash", seed=seed)
        count = len(columns.universe)
        session = StrategySession(
            trading_date=DAY,
            universe=columns.universe,
            columns=tuple(range(count)),
            open_ms=ist_ms(DAY, time(9, 15)),
            entry_until_ms=ist_ms(DAY, time(14, 45)),
            tick_paise=(GRID_PAISE,) * count,
        )
        strategy.start_session(session)
        held: dict[str, Signal] = {}
        for row in columns.rows[: fall_index(columns)]:
            positions = [1 if symbol in held else 0 for symbol in columns.universe]
            for signal in strategy.on_minute(row.ts_ms, row, positions):
                assert (signal.kind, signal.side) == (SignalKind.ENTRY, Side.BUY)
                held[signal.symbol] = signal
            for symbol, signal in held.items():
                index = columns.universe.index(symbol)
                assert row.lows[index] > signal.stop_paise
                assert not signal.target_paise or row.highs[index] < signal.target_paise
        assert sorted(held) == sorted(columns.universe)


def test_synthetic_crash_three_held_shares_lose_the_guides_limit_before_they_can_be_sold(calendar: SessionCalendar) -> None:
    for seed in SEEDS:
        columns = made(calendar, "crash", seed=seed)
        index = fall_index(columns)
        losses = sorted(
            columns.rows[index - 60].closes[column] - columns.rows[index].closes[column]
            for column in range(len(columns.universe))
        )
        assert sum(losses[:3]) > 200_000 * 1.1
        assert columns.rows[index - 60].highs[0] * 1.01 < 500_000, "one share fits max_position_size with its protection"


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_synthetic_day_short_evening_session_has_its_minutes(calendar: SessionCalendar, scenario: str) -> None:
    columns = made(calendar, scenario, day=date(2024, 11, 1))
    assert len(columns.rows) == 60
    assert columns.rows[0].ts_ms == ist_ms(date(2024, 11, 1), time(18, 16))
    assert columns.rows[-1].ts_ms == ist_ms(date(2024, 11, 1), time(19, 15))


def test_synthetic_day_unknown_scenario_names_the_known_ones(calendar: SessionCalendar) -> None:
    with pytest.raises(
        ConfigError, match="'crsh' is not known; choose one of calm, trend, crash, whipsaw, gap, halted, circuit"
    ):
        made(calendar, "crsh")
    with pytest.raises(ConfigError, match="'crsh' is not known"):
        default_symbols("crsh")


def test_synthetic_day_symbol_twice_is_refused(calendar: SessionCalendar) -> None:
    with pytest.raises(ConfigError, match="named twice"):
        made(calendar, "calm", symbols=("TCS", "TCS"))


def test_synthetic_day_with_the_session_of_another_date_is_a_bug(calendar: SessionCalendar) -> None:
    session = calendar.session(DAY)
    if session is None:
        raise LookupError(DAY)
    with pytest.raises(InvariantError, match="2024-01-17"):
        synthetic_day(date(2024, 1, 17), (), "calm", session, seed=1)
