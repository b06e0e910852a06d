"""What an executed order costs: brokerage, STT, exchange with IPFT, SEBI, GST and stamp duty, by broker and date.

- Rates are parts per billion of the traded value, so every rate in `config/charges.yaml` is an exact integer.
- The day's P&L uses `order_charges_paise`: one executed order, each component rounded half up to the paisa.
- A contract note adds the orders up first, and rounds STT and stamp duty to whole rupees: `contract_note`.
- Charges of the future (closing now) are rounded up: `closing_estimate_paise` is never below what will be due.
- Money in paise; Decimal rupees only where a broker's API answers without rounding.
- A date before the first rate is an error, never a guess. Not in here: DP charges and penalties of a converted
  position (`depository_paise`, `square_off_paise` say what the broker would add).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Final

from velox_core.domain.errors import ConfigError, InvariantError
from velox_core.domain.money import PAISE_PER_RUPEE, round_half_up_div
from velox_core.domain.orders import Product, Side

BILLION: Final = 1_000_000_000
_HALF: Final = BILLION // 2
_PPB_PER_BPS = 100_000
_BUY: Final = Side.BUY
NO_CAP_PAISE: Final = 10**18
_ROUNDINGS_PAISE = 8  # six components rounded up, and GST on the first three roundings


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeBreakdown:
    """Charges by component, in paise. `exchange` includes IPFT."""

    brokerage: int
    stt: int
    exchange: int
    sebi: int
    gst: int
    stamp: int

    @property
    def total(self) -> int:
        """Return the sum of the components, paise."""
        return self.brokerage + self.stt + self.exchange + self.sebi + self.gst + self.stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactBreakdown:
    """Charges by component, in rupees, as a broker's API prints them. `exchange` includes IPFT."""

    brokerage: Decimal
    stt: Decimal
    exchange: Decimal
    sebi: Decimal
    gst: Decimal
    stamp: Decimal

    @property
    def total(self) -> Decimal:
        """Return the sum of the components, rupees."""
        return self.brokerage + self.stt + self.exchange + self.sebi + self.gst + self.stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeSchedule:
    """The rates of one broker, product and date. `*_ppb` are parts per billion of the traded value.

    Attributes:
        label: broker, product and date, for people.
        brokerage_ppb, brokerage_cap_paise: per executed order, the smaller of the two.
        brokerage_flat_paise: per executed order, on top of that.
        stt_buy_ppb, stt_sell_ppb, exchange_ppb, sebi_ppb: each side as named, or both.
        stamp_buy_ppb: buy side only.
        gst_ppb: share of the GST base: brokerage + exchange (+ SEBI where `sebi_in_gst` is 1, not 0).
        stamp_step_paise: what the source itself rounds stamp duty to (`exact`); 0 for not at all.
        depository_paise: per symbol sold from the demat account in a day, GST included; not in the charges here.
        square_off_paise: per order that the broker itself squares off, before GST; not in the charges here.
    """

    label: str
    brokerage_ppb: int = 0
    brokerage_cap_paise: int = NO_CAP_PAISE
    brokerage_flat_paise: int = 0
    stt_buy_ppb: int = 0
    stt_sell_ppb: int = 0
    exchange_ppb: int = 0
    sebi_ppb: int = 0
    stamp_buy_ppb: int = 0
    gst_ppb: int = 0
    sebi_in_gst: int = 1
    stamp_step_paise: int = 0
    depository_paise: int = 0
    square_off_paise: int = 0

    @staticmethod
    def flat(*, bps: int) -> ChargeSchedule:
        """Return a schedule of one rate in basis points of the traded value, both sides, nothing else."""
        return ChargeSchedule(label=f"flat {bps} bps", brokerage_ppb=bps * _PPB_PER_BPS)

    def order_charges_paise(self, side: Side, value_paise: int) -> int:
        """Return the charges of one executed order, each component rounded half up to the paisa.

        Args:
            side: the order's side.
            value_paise: its whole traded value so far (sum of price x quantity); 0 costs nothing.
        Raises: InvariantError for a negative value.
        """
        if value_paise <= 0:
            return _nothing(value_paise)
        brokerage = (value_paise * self.brokerage_ppb + _HALF) // BILLION
        if brokerage > self.brokerage_cap_paise:
            brokerage = self.brokerage_cap_paise
        brokerage += self.brokerage_flat_paise
        exchange = (value_paise * self.exchange_ppb + _HALF) // BILLION
        sebi = (value_paise * self.sebi_ppb + _HALF) // BILLION
        gst = ((brokerage + exchange + sebi * self.sebi_in_gst) * self.gst_ppb + _HALF) // BILLION
        if side is _BUY:
            taxes = (value_paise * self.stt_buy_ppb + _HALF) // BILLION + (value_paise * self.stamp_buy_ppb + _HALF) // BILLION
        else:
            taxes = (value_paise * self.stt_sell_ppb + _HALF) // BILLION
        return brokerage + exchange + sebi + gst + taxes

    def round_trip_charges_paise(self, value_paise: int) -> int:
        """Return the charges of buying and of selling this value: `order_charges_paise` of both sides, worked out at once.

        Raises: InvariantError for a negative value.
        """
        if value_paise <= 0:
            return _nothing(value_paise)
        brokerage = (value_paise * self.brokerage_ppb + _HALF) // BILLION
        if brokerage > self.brokerage_cap_paise:
            brokerage = self.brokerage_cap_paise
        brokerage += self.brokerage_flat_paise
        exchange = (value_paise * self.exchange_ppb + _HALF) // BILLION
        sebi = (value_paise * self.sebi_ppb + _HALF) // BILLION
        gst = ((brokerage + exchange + sebi * self.sebi_in_gst) * self.gst_ppb + _HALF) // BILLION
        buy = (value_paise * self.stt_buy_ppb + _HALF) // BILLION + (value_paise * self.stamp_buy_ppb + _HALF) // BILLION
        sell = (value_paise * self.stt_sell_ppb + _HALF) // BILLION
        return 2 * (brokerage + exchange + sebi + gst) + buy + sell

    def breakdown(self, side: Side, value_paise: int) -> ChargeBreakdown:
        """Return the components whose sum is `order_charges_paise`."""
        if value_paise <= 0:
            return ChargeBreakdown(brokerage=_nothing(value_paise), stt=0, exchange=0, sebi=0, gst=0, stamp=0)
        brokerage = self._brokerage_paise(value_paise)
        exchange = round_half_up_div(value_paise * self.exchange_ppb, BILLION)
        sebi = round_half_up_div(value_paise * self.sebi_ppb, BILLION)
        return ChargeBreakdown(
            brokerage=brokerage,
            stt=round_half_up_div(value_paise * self._stt_ppb(side), BILLION),
            exchange=exchange,
            sebi=sebi,
            gst=round_half_up_div((brokerage + exchange + sebi * self.sebi_in_gst) * self.gst_ppb, BILLION),
            stamp=round_half_up_div(value_paise * self._stamp_ppb(side), BILLION),
        )

    def closing_estimate_paise(self, side: Side, value_paise: int) -> int:
        """Return what an order of this value would cost at most: every component rounded up to the paisa.

        Never below `order_charges_paise` of the same arguments. Raises InvariantError for a negative value.
        """
        if value_paise <= 0:
            return _nothing(value_paise)
        brokerage = -(-value_paise * self.brokerage_ppb // BILLION)
        if brokerage > self.brokerage_cap_paise:
            brokerage = self.brokerage_cap_paise
        brokerage += self.brokerage_flat_paise
        exchange = -(-value_paise * self.exchange_ppb // BILLION)
        sebi = -(-value_paise * self.sebi_ppb // BILLION)
        gst = -(-(brokerage + exchange + sebi * self.sebi_in_gst) * self.gst_ppb // BILLION)
        if side is _BUY:
            taxes = -(-value_paise * self.stt_buy_ppb // BILLION) - (-value_paise * self.stamp_buy_ppb // BILLION)
        else:
            taxes = -(-value_paise * self.stt_sell_ppb // BILLION)
        return brokerage + exchange + sebi + gst + taxes

    @property
    def closing_rate_ppb(self) -> int:
        """Return a bound on what closing costs: parts per billion of the value, either side, caps left out."""
        taxed = self.brokerage_ppb + self.exchange_ppb + self.sebi_ppb
        return taxed - (-taxed * self.gst_ppb // BILLION) + max(self.stt_sell_ppb, self.stt_buy_ppb + self.stamp_buy_ppb)

    @property
    def closing_fixed_paise(self) -> int:
        """Return the part of that bound which each order adds whatever its value: flat brokerage with GST, roundings."""
        return self.brokerage_flat_paise - (-self.brokerage_flat_paise * self.gst_ppb // BILLION) + _ROUNDINGS_PAISE

    def contract_note(self, legs: Iterable[tuple[Side, int]]) -> ChargeBreakdown:
        """Return the charges of several executed orders as a contract note states them.

        STT and stamp duty are rounded half up to whole rupees, all else to the paisa, once, over all orders
        (reference: the worked cases of brokers.md section 4, read 2026-11-22).

        Args:
            legs: side and whole traded value (paise, not negative) of each executed order.
        """
        brokerage = stt = stamp = turnover = 0
        for side, value_paise in legs:
            if value_paise <= 0:
                _nothing(value_paise)
                continue
            brokerage += self._brokerage_paise(value_paise)
            stt += value_paise * self._stt_ppb(side)
            stamp += value_paise * self._stamp_ppb(side)
            turnover += value_paise
        base = brokerage * BILLION + turnover * (self.exchange_ppb + self.sebi_ppb * self.sebi_in_gst)
        return ChargeBreakdown(
            brokerage=brokerage,
            stt=_whole_rupees(stt),
            exchange=round_half_up_div(turnover * self.exchange_ppb, BILLION),
            sebi=round_half_up_div(turnover * self.sebi_ppb, BILLION),
            gst=round_half_up_div(base * self.gst_ppb, BILLION * BILLION),
            stamp=_whole_rupees(stamp),
        )

    def exact(self, legs: Iterable[tuple[Side, int]]) -> ExactBreakdown:
        """Return the charges of several executed orders without rounding, as brokers' APIs answer.

        Only stamp duty is rounded, where the source is known to do so (`stamp_step_paise`).
        """
        zero = Decimal(0)
        brokerage = stt = stamp = turnover = zero
        for side, value_paise in legs:
            if value_paise <= 0:
                _nothing(value_paise)
                continue
            value = Decimal(value_paise) / PAISE_PER_RUPEE
            share = min(value * self.brokerage_ppb / BILLION, Decimal(self.brokerage_cap_paise) / PAISE_PER_RUPEE)
            brokerage += share + Decimal(self.brokerage_flat_paise) / PAISE_PER_RUPEE
            stt += value * self._stt_ppb(side) / BILLION
            stamp += value * self._stamp_ppb(side) / BILLION
            turnover += value
        if self.stamp_step_paise:
            step = Decimal(self.stamp_step_paise) / PAISE_PER_RUPEE
            stamp = (stamp / step).quantize(Decimal(1), rounding=ROUND_HALF_UP) * step
        exchange, sebi = turnover * self.exchange_ppb / BILLION, turnover * self.sebi_ppb / BILLION
        gst = (brokerage + exchange + sebi * self.sebi_in_gst) * self.gst_ppb / BILLION
        return ExactBreakdown(brokerage=brokerage, stt=stt, exchange=exchange, sebi=sebi, gst=gst, stamp=stamp)

    def _brokerage_paise(self, value_paise: int) -> int:
        share = round_half_up_div(value_paise * self.brokerage_ppb, BILLION)
        return min(share, self.brokerage_cap_paise) + self.brokerage_flat_paise

    def _stt_ppb(self, side: Side) -> int:
        return self.stt_buy_ppb if side is Side.BUY else self.stt_sell_ppb

    def _stamp_ppb(self, side: Side) -> int:
        return self.stamp_buy_ppb if side is Side.BUY else 0


class RateName(StrEnum):
    """The statutory rates, each a series by date. The names are the keys in `config/charges.yaml`."""

    EXCHANGE = "exchange_per_crore"
    IPFT = "ipft_per_crore"
    SEBI = "sebi_per_crore"
    GST = "gst_percent"
    STT_MIS_BUY = "stt_mis_buy_percent"
    STT_MIS_SELL = "stt_mis_sell_percent"
    STT_CNC_BUY = "stt_cnc_buy_percent"
    STT_CNC_SELL = "stt_cnc_sell_percent"
    STAMP_MIS = "stamp_mis_buy_percent"
    STAMP_CNC = "stamp_cnc_buy_percent"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedRate:
    """A rate in parts per billion from a date on, until the next of its series."""

    first_date: date
    rate_ppb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerTerms:
    """A broker's own terms for one product from a date on; the fields are those of `ChargeSchedule`."""

    first_date: date
    brokerage_ppb: int
    brokerage_cap_paise: int
    brokerage_flat_paise: int
    sebi_in_gst: int
    stamp_step_paise: int
    depository_paise: int
    square_off_paise: int


class ChargeBook:
    """All rates by broker, product and date.

    Args:
        rates: for every RateName its series, ascending by date.
        terms: by broker and product, ascending by date.
        source: name of the file, for messages.
    """

    __slots__ = ("_rates", "_schedules", "_terms", "source")

    def __init__(
        self,
        *,
        rates: Mapping[RateName, tuple[DatedRate, ...]],
        terms: Mapping[str, Mapping[Product, tuple[BrokerTerms, ...]]],
        source: str = "charges.yaml",
    ) -> None:
        self.source = source
        self._rates = dict(rates)
        self._terms = {broker: dict(products) for broker, products in terms.items()}
        self._schedules: dict[tuple[str, Product, date], ChargeSchedule] = {}

    @property
    def brokers(self) -> tuple[str, ...]:
        """Return the names that `schedule` knows, sorted."""
        return tuple(sorted(self._terms))

    def schedule(self, broker: str, product: Product, on: date) -> ChargeSchedule:
        """Return the rates of a broker and product on a date. Raises ConfigError when the file holds none."""
        key = (broker, product, on)
        if key not in self._schedules:
            self._schedules[key] = self._build(broker, product, on)
        return self._schedules[key]

    def _build(self, broker: str, product: Product, on: date) -> ChargeSchedule:
        products = self._terms.get(broker)
        if products is None:
            raise ConfigError(f"{self.source}: no charges for broker '{broker}'; it knows {', '.join(self.brokers)}")
        terms = None
        for candidate in products.get(product, ()):
            if candidate.first_date <= on:
                terms = candidate
        if terms is None:
            raise ConfigError(f"{self.source}: no charges of {broker} {product} on {on}; add a row that begins by then")
        is_intraday = product is Product.MIS
        return ChargeSchedule(
            label=f"{broker} {product} {on}",
            brokerage_ppb=terms.brokerage_ppb,
            brokerage_cap_paise=terms.brokerage_cap_paise,
            brokerage_flat_paise=terms.brokerage_flat_paise,
            stt_buy_ppb=self._rate(RateName.STT_MIS_BUY if is_intraday else RateName.STT_CNC_BUY, on),
            stt_sell_ppb=self._rate(RateName.STT_MIS_SELL if is_intraday else RateName.STT_CNC_SELL, on),
            exchange_ppb=self._rate(RateName.EXCHANGE, on) + self._rate(RateName.IPFT, on),
            sebi_ppb=self._rate(RateName.SEBI, on),
            stamp_buy_ppb=self._rate(RateName.STAMP_MIS if is_intraday else RateName.STAMP_CNC, on),
            gst_ppb=self._rate(RateName.GST, on),
            sebi_in_gst=terms.sebi_in_gst,
            stamp_step_paise=terms.stamp_step_paise,
            depository_paise=terms.depository_paise,
            square_off_paise=terms.square_off_paise,
        )

    def _rate(self, name: RateName, on: date) -> int:
        found = None
        for dated in self._rates.get(name, ()):
            if dated.first_date <= on:
                found = dated.rate_ppb
        if found is None:
            raise ConfigError(f"{self.source}: no rate '{name}' on {on}; add a row that begins by then")
        return found


def _nothing(value_paise: int) -> int:
    if value_paise < 0:
        raise InvariantError(f"a traded value of {value_paise} paise is negative")
    return 0


def _whole_rupees(parts: int) -> int:
    """Round paise x 10^9 half up to whole rupees; return paise."""
    return round_half_up_div(parts, BILLION * PAISE_PER_RUPEE) * PAISE_PER_RUPEE
