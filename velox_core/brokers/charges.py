"""Read brokers' and exchange's charges from `config/charges.yaml`.

- Rates become exact integers (parts per billion); one that does not is refused.
- Strict: an unknown key, a wrong type, rows out of order or a series without a row is a ConfigError that names the
  file, the line and what to do.
- How charges are computed is `velox_core.domain.charges`.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

from velox_core.domain.charges import BILLION, NO_CAP_PAISE, BrokerTerms, ChargeBook, DatedRate, RateName
from velox_core.domain.errors import ConfigError
from velox_core.domain.money import PAISE_PER_RUPEE
from velox_core.domain.orders import Product
from velox_core.strict_yaml import Section, Value, read_document

_PPB_PER_PERCENT = 10_000_000
_PPB_PER_RUPEE_A_CRORE = 100
_PER_CRORE = "_per_crore"
_PRODUCTS = {product.value.lower(): product for product in Product}
_TERMS_OPTIONAL = (
    "cap_rupees",
    "flat_rupees",
    "gst_on_sebi",
    "stamp_step_rupees",
    "depository_rupees",
    "square_off_rupees",
)

Terms = dict[Product, tuple[BrokerTerms, ...]]


def load_charges(path: Path) -> ChargeBook:
    """Read the file. Raises ConfigError."""
    top = read_document(path, ConfigError).section(required=("rates", "brokers"))
    series = top["rates"].section(required=tuple(name.value for name in RateName))
    return ChargeBook(
        rates={name: _series(series[name.value], name) for name in RateName}, terms=_brokers(top["brokers"]), source=path.name
    )


def _series(value: Value, name: RateName) -> tuple[DatedRate, ...]:
    unit = _PPB_PER_RUPEE_A_CRORE if name.value.endswith(_PER_CRORE) else _PPB_PER_PERCENT
    rows: list[DatedRate] = []
    for entry in value.items():
        section = entry.section(required=("from", "value", "source"))
        section["source"].text()
        previous = rows[-1].first_date if rows else None
        rows.append(DatedRate(first_date=_next_day(section, previous), rate_ppb=_rate(section["value"], unit)))
    if not rows:
        raise value.fail("there is no row", "add at least one")
    return tuple(rows)


def _brokers(value: Value) -> dict[str, Terms]:
    terms: dict[str, Terms] = {}
    for broker, entry in value.pairs():
        if any(name == "same_as" for name, _ in entry.pairs()):
            other = entry.section(required=("same_as",))["same_as"]
            if other.text() not in terms:
                raise other.fail(f"broker '{other.text()}' does not stand above", f"write one of {', '.join(terms)}")
            terms[broker] = terms[other.text()]
            continue
        section = entry.section(optional=tuple(_PRODUCTS))
        terms[broker] = {product: _terms(section[name]) for name, product in _PRODUCTS.items() if name in section}
        if not terms[broker]:
            raise entry.fail("there is no product", f"add one of {', '.join(_PRODUCTS)}")
    return terms


def _terms(value: Value) -> tuple[BrokerTerms, ...]:
    rows: list[BrokerTerms] = []
    for entry in value.items():
        section = entry.section(required=("from", "brokerage_percent", "source"), optional=_TERMS_OPTIONAL)
        section["source"].text()
        rows.append(
            BrokerTerms(
                first_date=_next_day(section, rows[-1].first_date if rows else None),
                brokerage_ppb=_rate(section["brokerage_percent"], _PPB_PER_PERCENT),
                brokerage_cap_paise=_paise(section, "cap_rupees", NO_CAP_PAISE),
                brokerage_flat_paise=_paise(section, "flat_rupees", 0),
                sebi_in_gst=int(section["gst_on_sebi"].truth()) if "gst_on_sebi" in section else 1,
                stamp_step_paise=_paise(section, "stamp_step_rupees", 0),
                depository_paise=_paise(section, "depository_rupees", 0),
                square_off_paise=_paise(section, "square_off_rupees", 0),
            )
        )
    if not rows:
        raise value.fail("there is no row", "add at least one")
    return tuple(rows)


def _next_day(section: Section, previous: date | None) -> date:
    day = section["from"].day()
    if previous is not None and day <= previous:
        raise section["from"].fail(f"{day} is not after {previous}", "list the rows in order, one a date")
    return day


def _rate(value: Value, unit_ppb: int) -> int:
    rate_ppb = _whole(value, unit_ppb, "parts per billion")
    if rate_ppb > BILLION:
        raise value.fail("it is more than the whole traded value", "check the unit, percent or rupees per crore")
    return rate_ppb


def _paise(section: Section, name: str, default: int) -> int:
    return _whole(section[name], PAISE_PER_RUPEE, "paise") if name in section else default


def _whole(value: Value, unit: int, what: str) -> int:
    number = value.number() * unit
    if number != int(number):
        raise value.fail(f"it is not a whole number of {what}", "write fewer decimals")
    return int(number)
