"""The gate: preconditions first, then the seven layers in order; the first that fails refuses.

- Entries fail closed: what is missing, stale, unknown or unreachable means no new risk.
- The exit door is apart, and only two things close it: nothing is left to exit, or an equal or stronger exit works.
- Pure: the same values give the same answer, live and in a replay.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from velox_core.domain.market.ticks import Instrument
from velox_core.domain.money import rupees_text
from velox_core.domain.orders import ExitRank, Side, Signal
from velox_core.risk.layers import LAYERS, EntryRequest, ReasonCode, Refusal
from velox_core.risk.ledger import RiskSnapshot
from velox_core.risk.limits import RiskLimits

MS_PER_SECOND: Final = 1_000
AHEAD_MS_MAX: Final = 2_000  # market data further ahead of the clock than this means that one of the two is wrong


class Readiness:
    """What must hold before any entry is judged. Mutable: the engine keeps one and updates it as things change.

    Attributes:
        armed: the day is armed (market open passed, or a simulated run armed itself).
        entries_from_ms, entry_until_ms: entry hours, epoch ms; until is exclusive.
        stopping: a stop was asked for, or a strategy's day is over.
        ledger_fault, journal_fault: why the store cannot be trusted, '' when it can.
        fenced: another holder took the lease.
        reconcile_fault: since when and why our books could not be compared with the broker's, '' while they can.
        doubtful_exits: UNKNOWN exits of symbols that are flat: what they may still open has no slot; '' when there are none.
        unmarked: held symbols that the feed does not price, '' when there are none.
        feed_ts_ms: engine time of the newest market data.
    """

    __slots__ = (
        "armed",
        "doubtful_exits",
        "entries_from_ms",
        "entry_until_ms",
        "feed_ts_ms",
        "fenced",
        "journal_fault",
        "ledger_fault",
        "reconcile_fault",
        "stopping",
        "unmarked",
    )

    def __init__(self) -> None:
        self.armed = False
        self.entries_from_ms = 0
        self.entry_until_ms = 0
        self.stopping = ""
        self.ledger_fault = ""
        self.journal_fault = ""
        self.fenced = False
        self.reconcile_fault = ""
        self.doubtful_exits = ""
        self.unmarked = ""
        self.feed_ts_ms = 0


class Quote:
    """What is known of a symbol's price: paise, and its engine time in epoch ms."""

    __slots__ = ("price_paise", "ts_ms")

    def __init__(self, price_paise: int, ts_ms: int) -> None:
        self.price_paise = price_paise
        self.ts_ms = ts_ms


class ExitRequest:
    """What is to leave through the exit door.

    Args:
        strategy_id: whose position it is, '' for one that this system never opened.
        symbol, side: what, and the closing side.
        open_quantity: shares of the position, unsigned.
        working_quantity: shares of exits that still count as working.
        working_rank: the strongest rank among those.
        rank: how urgent this exit is.
        reason: one sentence for people.
        limit_price_paise: 0 for a protected MARKET order, else a marketable limit.
    """

    __slots__ = (
        "limit_price_paise",
        "open_quantity",
        "rank",
        "reason",
        "side",
        "strategy_id",
        "symbol",
        "working_quantity",
        "working_rank",
    )

    def __init__(
        self,
        *,
        strategy_id: str,
        symbol: str,
        side: Side,
        open_quantity: int,
        working_quantity: int,
        working_rank: ExitRank | None,
        rank: ExitRank,
        reason: str,
        limit_price_paise: int = 0,
    ) -> None:
        self.strategy_id = strategy_id
        self.symbol = symbol
        self.side = side
        self.open_quantity = open_quantity
        self.working_quantity = working_quantity
        self.working_rank = working_rank
        self.rank = rank
        self.reason = reason
        self.limit_price_paise = limit_price_paise


class OrderRate:
    """Entries sent in the last second of engine time, whichever second that is: no burst fits across its edge."""

    __slots__ = ("_sent_ms",)

    def __init__(self) -> None:
        self._sent_ms: deque[int] = deque()

    def left(self, now_ms: int, per_second_max: int) -> bool:
        """Return whether one more entry fits into the second that ends now."""
        sent_ms = self._sent_ms
        while sent_ms and now_ms - sent_ms[0] >= MS_PER_SECOND:
            sent_ms.popleft()
        return len(sent_ms) < per_second_max

    def take(self, now_ms: int) -> None:
        """Count one entry."""
        self._sent_ms.append(now_ms)


def check_day(readiness: Readiness, limits: RiskLimits, now_ms: int) -> Refusal | None:
    """Return why no entry at all is possible now, or None. Engine time decides."""
    if not readiness.armed:
        return Refusal(0, ReasonCode.NOT_ARMED, "The day is not armed")
    if readiness.stopping:
        return Refusal(0, ReasonCode.STOPPING, f"Stopping: {readiness.stopping}")
    if not readiness.entries_from_ms <= now_ms < readiness.entry_until_ms:
        return Refusal(0, ReasonCode.OUTSIDE_ENTRY_HOURS, "Outside entry hours")
    if readiness.fenced:
        return Refusal(0, ReasonCode.LEASE_LOST, "Another engine holds the lease")
    if readiness.ledger_fault:
        return Refusal(0, ReasonCode.LEDGER_UNAVAILABLE, f"Risk ledger unavailable: {readiness.ledger_fault}")
    if readiness.journal_fault:
        return Refusal(0, ReasonCode.JOURNAL_UNAVAILABLE, f"Journal unavailable: {readiness.journal_fault}")
    if readiness.reconcile_fault:
        return Refusal(0, ReasonCode.RECONCILE_OVERDUE, f"No reconcile with the broker: {readiness.reconcile_fault}")
    if readiness.doubtful_exits:
        return Refusal(0, ReasonCode.EXIT_UNKNOWN, f"May open a position that has no slot: {readiness.doubtful_exits}")
    if readiness.unmarked:
        return Refusal(0, ReasonCode.STALE_MARKS, f"Held without a price from the feed: {readiness.unmarked}")
    age_ms = now_ms - readiness.feed_ts_ms
    if age_ms > limits.mark_age_ms_max or age_ms < -AHEAD_MS_MAX:
        return Refusal(0, ReasonCode.STALE_MARKS, f"Market data is {age_ms} ms old, at most {limits.mark_age_ms_max} ms")
    return None


def check_signal(signal: Signal, quote: Quote | None) -> Refusal | None:
    """Return why an entry makes no sense in itself, or None: no quantity, or a stop or target on the wrong side."""
    stop_paise, target_paise = signal.stop_paise, signal.target_paise
    if signal.quantity <= 0:
        return Refusal(0, ReasonCode.INVALID_SIGNAL, f"Quantity {signal.quantity} is not positive")
    if stop_paise < 0 or target_paise < 0:
        return Refusal(
            0, ReasonCode.INVALID_SIGNAL, f"Stop {rupees_text(stop_paise)} or target {rupees_text(target_paise)} is negative"
        )
    if quote is not None and (stop_paise or target_paise):
        price_paise, sign = quote.price_paise, signal.side.sign
        stop_is_wrong = stop_paise and (price_paise - stop_paise) * sign <= 0
        if stop_is_wrong or (target_paise and (target_paise - price_paise) * sign <= 0):
            return Refusal(
                0,
                ReasonCode.INVALID_SIGNAL,
                f"Stop {rupees_text(stop_paise)} or target {rupees_text(target_paise)} is on the wrong side of the price "
                f"{rupees_text(price_paise)}",
            )
    return None


def check_symbol(
    instrument: Instrument | None, quote: Quote | None, lock: str, limits: RiskLimits, now_ms: int
) -> Refusal | None:
    """Return why this symbol cannot be entered now, or None.

    Args:
        instrument: what is known of the symbol, None when it is not in the universe.
        quote: its newest price, None when there is none.
        lock: why the symbol is locked (an UNKNOWN order, an unexplained position), '' when it is not.
        limits: ages and bounds.
        now_ms: engine time.
    """
    if instrument is None:
        return Refusal(0, ReasonCode.UNKNOWN_SYMBOL, "Symbol is not in the universe")
    if not instrument.tradable:
        return Refusal(0, ReasonCode.NOT_TRADABLE, "Symbol is not tradable today")
    if lock:
        return Refusal(0, ReasonCode.SYMBOL_LOCKED, f"Symbol locked: {lock}")
    if quote is None or not -AHEAD_MS_MAX <= now_ms - quote.ts_ms <= limits.entry_price_age_ms_max:
        age = "never seen" if quote is None else f"{now_ms - quote.ts_ms} ms old"
        return Refusal(0, ReasonCode.STALE_PRICE, f"Price {age}, at most {limits.entry_price_age_ms_max} ms allowed")
    price_paise = quote.price_paise
    if price_paise <= 0 or price_paise % instrument.tick_paise:
        return Refusal(
            0,
            ReasonCode.BAD_PRICE,
            f"Price {rupees_text(price_paise)} is no positive multiple of the tick {rupees_text(instrument.tick_paise)}",
        )
    upper, lower = instrument.upper_band_paise, instrument.lower_band_paise
    if (upper and price_paise * 10_000 >= upper * (10_000 - limits.band_margin_bps)) or (
        lower and price_paise * 10_000 <= lower * (10_000 + limits.band_margin_bps)
    ):
        band = f"{rupees_text(lower)} to {rupees_text(upper)}"
        return Refusal(0, ReasonCode.NEAR_BAND, f"Price {rupees_text(price_paise)} is too near its band {band}")
    return None


def judge_entry(request: EntryRequest, snapshot: RiskSnapshot, limits: RiskLimits) -> Refusal | None:
    """Return the first layer's refusal, or None when all seven approve."""
    for layer in LAYERS:
        refusal = layer(request, snapshot, limits)
        if refusal is not None:
            return refusal
    return None


def judge_exit(
    open_quantity: int, working_quantity: int, working_rank: ExitRank | None, rank: ExitRank
) -> tuple[int, Refusal | None]:
    """Return how many shares may leave through the exit door, and a refusal when none.

    Args:
        open_quantity: shares of the position, unsigned.
        working_quantity: shares of exits that are live and still count as working.
        working_rank: the strongest rank among those, None when there are none.
        rank: the rank of the new exit.
    """
    left = open_quantity - working_quantity
    if open_quantity <= 0:
        return 0, Refusal(0, ReasonCode.NOTHING_TO_EXIT, "No open quantity to exit")
    if left <= 0:
        strongest = rank if working_rank is None else working_rank
        return 0, Refusal(0, ReasonCode.EXIT_WORKING, f"An exit of rank {strongest.name} already works the whole quantity")
    return left, None


def exit_numbers(request: ExitRequest) -> dict[str, int | str | bool | None]:
    """Return the numbers that decided on an exit, as the journal keeps them."""
    return {
        "open_quantity": request.open_quantity,
        "working_quantity": request.working_quantity,
        "rank": int(request.rank),
    }
