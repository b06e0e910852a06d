"""The charges file: the worked cases to the paisa, dated rates, and strict reading.

The cases are those of the facts sheet of 2026-11-22, section 4: calculators, staff answers and API samples of brokers.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from velox_core.brokers.charges import load_charges
from velox_core.domain.charges import ChargeBook
from velox_core.domain.errors import ConfigError
from velox_core.domain.orders import Product, Side

ROOT = Path(__file__).resolve().parents[3]
BUY, SELL = Side.BUY, Side.SELL
TODAY = date(2026, 11, 22)


@pytest.fixture(scope="module")
def book() -> ChargeBook:
    return load_charges(ROOT / "config" / "charges.yaml")


# case, product, date, buy value, sell value (paise); brokerage, STT, exchange, SEBI, GST, stamp, total (paise)
NOTES = [
    ("1", Product.MIS, date(2022, 6, 1), 40_000_000, 44_000_000, 4_000, 11_000, 2_898, 84, 1_257, 1_200, 20_439),
    ("2", Product.MIS, date(2020, 9, 1), 199_000, 202_870, 121, 100, 13, 0, 24, 0, 258),
    ("5", Product.MIS, TODAY, 40_000_000, 44_000_000, 4_000, 11_000, 2_579, 84, 1_199, 1_200, 20_062),
    ("6", Product.MIS, date(2024, 1, 15), 39_020_000, 39_600_000, 4_000, 9_900, 2_634, 79, 1_208, 1_200, 19_021),
    ("7", Product.MIS, TODAY, 6_610_000, 6_650_000, 3_978, 1_700, 407, 13, 792, 200, 7_090),
    ("8", Product.CNC, TODAY, 40_000_000, 44_000_000, 0, 84_000, 2_579, 84, 479, 6_000, 93_142),
]


@pytest.mark.parametrize(
    ("case", "product", "on", "bought", "sold", "brokerage", "stt", "exchange", "sebi", "gst", "stamp", "total"),
    NOTES,
    ids=[f"case {row[0]}" for row in NOTES],
)
def test_contract_note_worked_case_is_exact_to_the_paisa(
    book: ChargeBook,
    case: str,
    product: Product,
    on: date,
    bought: int,
    sold: int,
    brokerage: int,
    stt: int,
    exchange: int,
    sebi: int,
    gst: int,
    stamp: int,
    total: int,
) -> None:
    note = book.schedule("zerodha", product, on).contract_note([(BUY, bought), (SELL, sold)])
    assert (note.brokerage, note.stt, note.exchange, note.sebi, note.gst, note.stamp) == (
        brokerage,
        stt,
        exchange,
        sebi,
        gst,
        stamp,
    ), f"case {case}"
    assert note.total == total


def test_contract_note_case_1_as_the_calculator_prints_it(book: ChargeBook) -> None:
    # The calculator prints SEBI's fee with its own GST (0.99), and GST without it (12.42).
    schedule = book.schedule("zerodha", Product.MIS, date(2022, 6, 1))
    note = schedule.contract_note([(BUY, 40_000_000), (SELL, 44_000_000)])
    gst_of_sebi = round(note.sebi * 0.18)
    assert (note.sebi + gst_of_sebi, note.gst - gst_of_sebi) == (99, 1_242)
    assert -(-note.total // 400) == 52  # breakeven 0.51 and a part of a paisa per share
    assert note.total // 400 == 51


def test_contract_note_case_2_nets_what_staff_said(book: ChargeBook) -> None:
    note = book.schedule("zerodha", Product.MIS, date(2020, 9, 1)).contract_note([(BUY, 199_000), (SELL, 202_870)])
    assert 202_870 - 199_000 - note.total == 3_612


def test_contract_note_case_8_adds_the_depository_charge_apart(book: ChargeBook) -> None:
    assert book.schedule("zerodha", Product.CNC, TODAY).depository_paise == 1_534


def test_exact_case_3_equals_the_order_margins_answer(book: ChargeBook) -> None:
    exact = book.schedule("kite_order_margins", Product.CNC, date(2022, 6, 1)).exact([(BUY, 149_800)])
    assert exact.stt == Decimal("1.498")
    assert exact.exchange == Decimal("0.051681")
    assert exact.sebi == Decimal("0.001498")
    assert exact.brokerage == Decimal("0.01")
    assert exact.stamp == Decimal("0.22")
    assert exact.gst == Decimal("0.01137222")
    assert exact.total == Decimal("1.79255122")


def test_exact_case_4_equals_the_virtual_contract_note_answer(book: ChargeBook) -> None:
    exact = book.schedule("kite_virtual_contract_note", Product.CNC, date(2023, 7, 10)).exact([(BUY, 56_000)])
    assert exact.stt == Decimal("0.56")
    assert exact.exchange == Decimal("0.01876")
    assert exact.sebi == Decimal("0.00056")
    assert exact.brokerage == 0
    assert exact.stamp == 0
    assert exact.gst == Decimal("0.0033768")
    assert exact.total == Decimal("0.5826968")


def test_order_charges_case_6_by_order_is_within_a_rupee_of_the_note(book: ChargeBook) -> None:
    schedule = book.schedule("simulated", Product.MIS, date(2024, 1, 15))
    paid = schedule.order_charges_paise(SELL, 39_600_000) + schedule.order_charges_paise(BUY, 39_020_000)
    assert paid == 18_992  # the note rounds stamp duty up from 11.71 to 12 rupees
    assert abs(paid - 19_021) < 100


@pytest.mark.parametrize(
    ("on", "rupees_per_crore"),
    [
        (date(2020, 7, 1), "325"),
        (date(2020, 12, 31), "325"),
        (date(2021, 1, 1), "345"),
        (date(2023, 3, 31), "345"),
        (date(2023, 4, 1), "335"),
        (date(2024, 1, 15), "335"),
        (date(2024, 4, 1), "332"),
        (date(2024, 9, 30), "332"),
        (date(2024, 10, 1), "307"),
        (date(2026, 2, 28), "307"),
        (date(2026, 3, 1), "307"),
        (TODAY, "307"),
    ],
)
def test_charges_exchange_rate_follows_the_dates(book: ChargeBook, on: date, rupees_per_crore: str) -> None:
    for broker in ("zerodha", "upstox", "simulated"):
        assert book.schedule(broker, Product.MIS, on).exchange_ppb == int(rupees_per_crore) * 100


def test_charges_upstox_brokerage_by_date_and_product(book: ChargeBook) -> None:
    now = book.schedule("upstox", Product.MIS, TODAY)
    assert now.breakdown(BUY, 1_000_000).brokerage == 1_000
    assert now.breakdown(BUY, 10_000_000).brokerage == 2_000
    assert book.schedule("upstox", Product.MIS, date(2024, 9, 30)).breakdown(BUY, 1_000_000).brokerage == 500
    assert book.schedule("upstox", Product.CNC, TODAY).breakdown(BUY, 1_000).brokerage == 2_000


def test_charges_simulated_broker_costs_what_zerodha_costs(book: ChargeBook) -> None:
    for product in Product:
        ours, theirs = book.schedule("simulated", product, TODAY), book.schedule("zerodha", product, TODAY)
        for value in (0, 1, 150_000, 39_600_000):
            assert [ours.order_charges_paise(side, value) for side in Side] == [
                theirs.order_charges_paise(side, value) for side in Side
            ]


def test_charges_before_the_first_rate_are_refused(book: ChargeBook) -> None:
    with pytest.raises(ConfigError, match=r"charges\.yaml: no charges of simulated MIS on 2020-06-30; add a row"):
        book.schedule("simulated", Product.MIS, date(2020, 6, 30))


# --- strict reading ---

ROW = "    - {from: 2024-01-01, value: 1, source: test}\n"
NAMES = [
    "exchange_per_crore",
    "ipft_per_crore",
    "sebi_per_crore",
    "gst_percent",
    "stt_mis_buy_percent",
    "stt_mis_sell_percent",
    "stt_cnc_buy_percent",
    "stt_cnc_sell_percent",
    "stamp_mis_buy_percent",
    "stamp_cnc_buy_percent",
]
SMALL = (
    "rates:\n"
    + "".join(f"  {name}:\n{ROW}" for name in NAMES)
    + """\
brokers:
  one:
    mis:
      - {from: 2024-01-01, brokerage_percent: 0.03, cap_rupees: 20, gst_on_sebi: true, source: test}
      - {from: 2024-06-01, brokerage_percent: 0.05, source: test}
  other: {same_as: one}
"""
)
REFUSALS = [
    ("rates:", "rate:", "unknown key"),
    ("  gst_percent:\n" + ROW, "", "the key 'gst_percent' is missing"),
    ("  gst_percent:\n" + ROW, "  gst_percent: []\n", "there is no row"),
    ("value: 1,", "value: one,", "not a number, 0 or above"),
    ("value: 1,", "value: 0.001,", "not a whole number of parts per billion"),
    ("value: 1,", "value: 10000001,", "more than the whole traded value"),
    ("value: 1,", "value: 1, unit: rupees,", "unknown key"),
    ("value: 1, source: test}\n", "value: 1, source: test}\n" + ROW, "2024-01-01 is not after 2024-01-01"),
    (", source: test}\n  ipft", "}\n  ipft", "the key 'source' is missing"),
    ("brokerage_percent: 0.03", "brokerage_percent: 101", "more than the whole traded value"),
    ("brokerage_percent: 0.03", "brokerage_percent: -1", "not a number, 0 or above"),
    ("cap_rupees: 20", "cap_rupees: 20.001", "not a whole number of paise"),
    ("cap_rupees: 20", "cap_rupee: 20", "unknown key"),
    ("gst_on_sebi: true", "gst_on_sebi: 1", "not true or false"),
    ("from: 2024-06-01", "from: 2023-06-01", "2023-06-01 is not after 2024-01-01"),
    ("    mis:", "    nrml:", "unknown key"),
    ("same_as: one", "same_as: nobody", "broker 'nobody' does not stand above; write one of one"),
    ("{same_as: one}", "{same_as: one, mis: []}", "unknown key"),
    ("{same_as: one}", "{}", "there is no product"),
    ("{same_as: one}", "{mis: []}", "there is no row"),
]


def test_load_charges_small_file_gives_its_rates(tmp_path: Path) -> None:
    file = tmp_path / "charges.yaml"
    file.write_text(SMALL, encoding="utf-8")
    book = load_charges(file)
    assert book.brokers == ("one", "other")
    assert book.schedule("other", Product.MIS, date(2024, 5, 31)).brokerage_ppb == 300_000
    assert book.schedule("other", Product.MIS, date(2024, 6, 1)).brokerage_ppb == 500_000
    assert book.schedule("one", Product.MIS, date(2024, 6, 1)).exchange_ppb == 200


@pytest.mark.parametrize(("old", "new", "message"), REFUSALS, ids=[row[2] for row in REFUSALS])
def test_load_charges_damaged_file_names_file_line_and_remedy(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    file = tmp_path / "charges.yaml"
    file.write_text(SMALL.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_charges(file)
    text = str(caught.value)
    assert re.match(rf"{re.escape(str(file))}, line \d+: ", text), text
    assert message in text
    assert "; " in text


def test_load_charges_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_charges(tmp_path / "nothing.yaml")
