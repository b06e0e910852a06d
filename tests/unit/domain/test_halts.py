"""Halt records: what is active, and strict reading."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import date

import pytest

from velox_core.domain.halts import HaltKind, HaltRecord, active_halts, clear_of, named_ids


def latch(halt_id: str, kind: HaltKind = HaltKind.LOSS) -> HaltRecord:
    return HaltRecord(
        halt_id=halt_id, kind=kind, trading_date=date(2024, 1, 16), reason="loss limit", by="engine", at_ms=1_705_380_000_000
    )


def clear(halt_id: str) -> HaltRecord:
    return HaltRecord(
        halt_id=f"{halt_id}-clear",
        kind=HaltKind.LOSS,
        trading_date=date(2024, 1, 17),
        reason="end of day",
        by="eod",
        at_ms=1_705_400_000_000,
        clears=halt_id,
    )


def test_active_halts_without_records_is_empty() -> None:
    assert active_halts([]) == ()


def test_active_halts_keeps_latches_oldest_first() -> None:
    assert active_halts([latch("a"), latch("b", HaltKind.MANUAL)]) == (latch("a"), latch("b", HaltKind.MANUAL))


def test_active_halts_clear_ends_only_the_halt_it_names() -> None:
    assert active_halts([latch("a"), latch("b"), clear("a")]) == (latch("b"),)
    assert active_halts([latch("a"), clear("other")]) == (latch("a"),)


def test_active_halts_order_of_records_does_not_matter() -> None:
    for records in itertools.permutations([latch("a"), clear("a"), latch("b")]):
        assert active_halts(records) == (latch("b"),)


def test_active_halts_repeated_latch_counts_once() -> None:
    assert active_halts([latch("a"), latch("a")]) == (latch("a"),)


@pytest.mark.parametrize("kind", HaltKind)
@pytest.mark.parametrize("clears", ["", "20240116-LOSS-1"])
def test_halt_record_body_reads_back_equal(kind: HaltKind, clears: str) -> None:
    record = HaltRecord(
        halt_id="20240116-LOSS-1", kind=kind, trading_date=date(2024, 1, 16), reason="r", by="b", at_ms=7, clears=clears
    )
    assert HaltRecord.from_body(dict(record.to_body())) == record


def test_halt_record_body_without_clears_is_a_latch() -> None:
    body: dict[str, object] = dict(latch("a").to_body())
    del body["clears"]
    assert HaltRecord.from_body(body) == latch("a")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at_ms", "7"),
        ("at_ms", True),
        ("at_ms", 7.0),
        ("kind", "OTHER"),
        ("kind", None),
        ("trading_date", "16.01.2024"),
        ("trading_date", None),
        ("halt_id", ""),
        ("halt_id", None),
        ("reason", 5),
        ("by", None),
        ("clears", None),
        ("clears", 0),
        ("keeps_positions", 1),
        ("keeps_positions", None),
        ("keeps_positions", "true"),
    ],
)
def test_halt_record_damaged_body_is_refused(name: str, value: object) -> None:
    body: dict[str, object] = {**latch("a").to_body(), name: value}
    with pytest.raises(ValueError, match=r"halt record|HaltKind|isoformat"):
        HaltRecord.from_body(body)


@pytest.mark.parametrize("name", ["halt_id", "kind", "trading_date", "reason", "by", "at_ms"])
def test_halt_record_missing_field_is_refused(name: str) -> None:
    body: dict[str, object] = dict(latch("a").to_body())
    del body[name]
    with pytest.raises(KeyError, match=name):
        HaltRecord.from_body(body)


@pytest.mark.parametrize(
    ("kind", "keeps", "closes"),
    [
        (HaltKind.LOSS, False, True),
        (HaltKind.LOSS, True, True),
        (HaltKind.FAULT, False, True),
        (HaltKind.FAULT, True, True),
        (HaltKind.MANUAL, False, True),
        (HaltKind.MANUAL, True, False),
        (HaltKind.RECONCILE, False, False),
        (HaltKind.RECONCILE, True, False),
    ],
)
def test_halt_closes_unless_a_person_keeps_positions_or_only_books_differ(kind: HaltKind, keeps: bool, closes: bool) -> None:
    record = replace(latch("a", kind), keeps_positions=keeps)
    assert record.closes is closes
    assert HaltRecord.from_body(dict(record.to_body())) == record


def test_halt_record_of_before_positions_could_be_kept_closes() -> None:
    body: dict[str, object] = dict(latch("a", HaltKind.MANUAL).to_body())
    del body["keeps_positions"]
    assert HaltRecord.from_body(body).closes


def test_clear_of_a_halt_ends_it_and_its_ids_are_used() -> None:
    clear_record = clear_of(latch("a"), reason="over", by="p", at_ms=9)
    assert active_halts([latch("a"), clear_record]) == ()
    assert named_ids([clear_record]) == {"a", "a-CLEAR"}
