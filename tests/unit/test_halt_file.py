"""The halt file: durable, append-only, and a halt when it cannot be read."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from velox_core.domain.errors import VeloxError
from velox_core.domain.halts import HaltKind, HaltRecord, active_halts
from velox_core.halt_file import UNREADABLE_HALT_ID, JsonLinesHaltFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "simulated" / "primary" / "halt.jsonl"


def record(halt_id: str, clears: str = "") -> HaltRecord:
    return HaltRecord(
        halt_id=halt_id, kind=HaltKind.LOSS, trading_date=date(2024, 1, 15), reason="₹", by="engine", at_ms=5, clears=clears
    )


def test_records_of_a_missing_file_are_none(path: Path) -> None:
    assert JsonLinesHaltFile(path).records() == []
    assert not path.parent.exists()


def test_append_is_read_back_in_order_by_another_process(path: Path) -> None:
    wanted = [record("h1"), record("h2"), record("c1", clears="h1")]
    for one in wanted:
        JsonLinesHaltFile(path).append(one)
    assert JsonLinesHaltFile(path).records() == wanted
    assert [halt.halt_id for halt in active_halts(JsonLinesHaltFile(path).records())] == ["h2"]


def test_append_is_synced_with_its_folder_entry_before_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    real = os.fsync
    monkeypatch.setattr(
        "velox_core.halt_file.os.fsync", lambda fd: (synced.append(os.path.isdir(f"/proc/self/fd/{fd}")), real(fd))
    )
    JsonLinesHaltFile(path).append(record("h1"))
    JsonLinesHaltFile(path).append(record("h2"))
    assert synced == [False, True, False]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01",
        b"{}",
        b"[1]",
        b"5",
        b'{"halt_id":"","kind":"LOSS","trading_date":"2024-01-15","reason":"","by":"","at_ms":1}',
        b'{"halt_id":"h","kind":"NEW","trading_date":"2024-01-15","reason":"","by":"","at_ms":1}',
        b'{"halt_id":"h","kind":"LOSS","trading_date":"15.1.","reason":"","by":"","at_ms":1}',
        b'{"halt_id":"h","kind":"LOSS","trading_date":"2024-01-15","reason":"","by":"","at_ms":"x"}',
        b'\xff{"halt_id"',
    ],
)
def test_garbled_line_is_a_fault_halt_beside_the_readable_records(path: Path, garbage: bytes) -> None:
    file = JsonLinesHaltFile(path)
    file.append(record("h1"))
    file.append(record("c1", clears="h1"))
    with path.open("ab") as raw:
        raw.write(garbage)
    active = active_halts(file.records())
    assert [halt.kind for halt in active] == [HaltKind.FAULT]
    assert str(path) in active[0].reason
    file.append(record("h3"))
    assert file.records()[-1] == record("h3")
    assert [halt.halt_id for halt in active_halts(file.records())] == [active[0].halt_id, "h3"]


def test_garbled_line_is_cleared_by_its_own_id_and_new_damage_halts_again(path: Path) -> None:
    file = JsonLinesHaltFile(path)
    file.append(record("h1"))
    path.write_bytes(path.read_bytes()[:-20])
    (fault,) = active_halts(file.records())
    file.append(record("c1", clears=fault.halt_id))
    assert active_halts(file.records()) == ()
    with path.open("ab") as raw:
        raw.write(b"more damage\n")
    assert len(active_halts(file.records())) == 1


def test_file_that_cannot_be_read_is_a_fault_halt_that_nothing_clears(path: Path) -> None:
    path.mkdir(parents=True)
    file = JsonLinesHaltFile(path)
    (fault,) = file.records()
    assert (fault.halt_id, fault.kind) == (UNREADABLE_HALT_ID, HaltKind.FAULT)
    with pytest.raises(VeloxError, match="cannot be written"):
        file.append(record("c1", clears=fault.halt_id))
    assert len(file.records()) == 1


def test_append_on_a_full_disk_raises_and_leaves_a_halt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = JsonLinesHaltFile(path)
    file.append(record("h1"))
    file.append(record("c1", clears="h1"))
    real = os.write
    monkeypatch.setattr("velox_core.halt_file.os.write", lambda fd, data: real(fd, data[:15]))
    with pytest.raises(VeloxError, match="in part only"):
        file.append(record("h2"))
    monkeypatch.undo()
    assert [halt.kind for halt in active_halts(file.records())] == [HaltKind.FAULT]


def test_torn_line_is_a_fault_halt_and_hides_no_record_that_follows(path: Path) -> None:
    halt_file = JsonLinesHaltFile(path)
    halt_file.append(record("h1"))
    path.write_bytes(path.read_bytes()[:-20])
    halt_file.append(record("h2"))
    damage, whole = halt_file.records()
    assert (damage.kind, damage.closes, damage.is_damage) == (HaltKind.FAULT, True, True)
    assert whole == record("h2")


def test_stamp_changes_with_every_append_of_anybody_and_never_raises(path: Path) -> None:
    halt_file = JsonLinesHaltFile(path)
    seen = [halt_file.stamp()]
    for halt_id in ("h1", "h2"):
        JsonLinesHaltFile(path).append(record(halt_id))
        assert halt_file.stamp() == halt_file.stamp()
        seen.append(halt_file.stamp())
    assert len(set(seen)) == 3
    path.unlink()
    assert halt_file.stamp() == seen[0]
