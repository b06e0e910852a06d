from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import threading
from collections import Counter
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import pytest
import zstandard

from velox_core.archive import archive_date, archive_problems, prune_archives, prune_rotated, read_manifest, writing
from velox_core.archive.lines import BLOCK_BYTES, DateLines, date_lines, log_files, snapshot
from velox_core.archive.retention import DAY_MS, archive_folder
from velox_core.archive.store import ArchivedFile, read_lines
from velox_core.domain.errors import VeloxError
from velox_core.logs import start_logging
from velox_core.settings.schema import Logs

DAY = date(2024, 1, 15)
LOG = "system.log"
WALL_MS = 1_800_000_000_000


def line(text: str, *, engine: str = "2024-01-15 09:31:00", wall: str = "2026-11-23") -> str:
    return f"{wall} 09:31:00,120+05:30 INFO [{engine}] {text}\n"


def content(folder: Path, log: str = LOG) -> str:
    manifest = read_manifest(folder)
    assert manifest is not None
    files = [file for file in manifest.files if file.log == log]
    return b"".join(b"".join(read_lines(folder / file.name)) for file in files).decode()


def lines_of(blocks: int) -> str:
    """Return lines that hardly compress, one to a block."""
    chance = random.Random(1)
    return "".join(line(chance.randbytes(BLOCK_BYTES * 3 // 8).hex()) for _ in range(blocks))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "logs" / "production"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return archive_folder(tmp_path / "logs" / "backup", DAY, "production")


def archive(source: Path, target: Path, **more: object) -> ArchivedFile:
    manifest = archive_date(source, target, DAY, [LOG], keep_files=3, wall_ms=WALL_MS, **more)  # type: ignore[arg-type]
    return manifest.files[-1]


def test_archive_takes_the_lines_of_the_date_and_leaves_the_live_file(source: Path, target: Path) -> None:
    own = [
        line("of the engine"),
        line("of another process", engine="~2024-01-15 09:32:00"),
        line("without engine time", engine="-", wall="2024-01-15"),
        "Traceback of it\n",
    ]
    other = [line("of another day that speaks of [2024-01-15 ", engine="2024-01-16 09:31:00"), "its traceback\n"]
    text = other[0] + own[0] + other[0] + other[1] + "".join(own[1:]) + line("today", engine="-")
    (source / LOG).write_text(text, encoding="utf-8")
    file = archive(source, target)
    assert content(target) == "".join(own)
    assert (file.lines, file.size) == (4, len("".join(own)))
    assert file.sha256 == hashlib.sha256("".join(own).encode()).hexdigest()
    assert (source / LOG).read_text(encoding="utf-8") == text
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["whole"] is True
    assert manifest["files"][0]["stored_size"] == (target / "system.log.zst").stat().st_size
    assert archive_problems(target) == []


def test_archive_again_adds_what_came_since_and_the_same_changes_nothing(source: Path, target: Path) -> None:
    (source / LOG).write_text(line("one") + "2026-11-23 half", encoding="utf-8")
    archive(source, target)
    before = (target / "manifest.json").read_bytes()
    archive_date(source, target, DAY, [LOG], keep_files=3, wall_ms=WALL_MS + 1)
    assert (target / "manifest.json").read_bytes() == before
    (source / LOG).write_text(line("one") + line("two"), encoding="utf-8")
    archive(source, target)
    assert content(target) == line("one") + line("two")
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "system.2.log.zst"]


def test_archive_whose_lines_were_rotated_away_keeps_them_beside_the_newer_ones(source: Path, target: Path) -> None:
    (source / LOG).write_text(line("one"), encoding="utf-8")
    archive(source, target)
    (source / LOG).write_text(line("two"), encoding="utf-8")
    archive(source, target)
    assert content(target) == line("one") + line("two")
    (source / LOG).write_text("", encoding="utf-8")
    archive(source, target)
    assert content(target) == line("one") + line("two")


def test_archive_that_was_damaged_is_healed_from_the_live_file(source: Path, target: Path) -> None:
    (source / LOG).write_text(line("one"), encoding="utf-8")
    archive(source, target)
    stored = target / "system.log.zst"
    stored.write_bytes(bytes([stored.read_bytes()[0] ^ 1]) + stored.read_bytes()[1:])
    assert "changed or damaged" in archive_problems(target)[0]
    archive(source, target)
    assert archive_problems(target) == []
    assert content(target) == line("one")


def test_archive_says_when_rotation_may_have_removed_lines_of_the_date(source: Path, target: Path) -> None:
    for number, name in enumerate([f"{LOG}.3", f"{LOG}.2", f"{LOG}.1", LOG]):
        (source / name).write_text(line(str(number)), encoding="utf-8")
    assert archive_date(source, target, DAY, [LOG], keep_files=3, wall_ms=WALL_MS).whole is False
    (source / f"{LOG}.3").write_text(line("before", engine="2024-01-12 15:00:00") + line("0"), encoding="utf-8")
    other = target.with_name("other")
    assert archive_date(source, other, DAY, [LOG], keep_files=3, wall_ms=WALL_MS).whole is True
    (source / f"{LOG}.3").write_text(line("0"), encoding="utf-8")  # rotated on: what the archive has goes on
    (source / LOG).write_text(line("3") + line("4"), encoding="utf-8")
    assert archive_date(source, other, DAY, [LOG], keep_files=3, wall_ms=WALL_MS).whole is True
    (source / f"{LOG}.3").write_text(line("1"), encoding="utf-8")  # and now it may not
    assert archive_date(source, other, DAY, [LOG], keep_files=3, wall_ms=WALL_MS).whole is False


def test_archive_without_room_writes_nothing_and_says_how_much_it_needs(source: Path, target: Path) -> None:
    (source / LOG).write_text(line("one"), encoding="utf-8")
    with pytest.raises(VeloxError, match=r"has 1 MB free.*may need 16 MB: free some") as caught:
        archive(source, target, free_bytes=lambda _: 1_000_000)
    assert str(target) in str(caught.value)
    assert list(target.iterdir()) == []


def test_archive_on_a_disk_that_gets_full_stays_as_it_was(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / LOG).write_text(line("one"), encoding="utf-8")
    archive(source, target)
    (source / LOG).write_text(line("one") + line("two"), encoding="utf-8")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("velox_core.archive.store.os.fsync", full)
    with pytest.raises(VeloxError, match=r"No space left on device.*free some disk"):
        archive(source, target)
    assert content(target) == line("one")
    assert archive_problems(target) == []
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "system.log.zst"]


@pytest.mark.parametrize("blocks", [1, 20])
@pytest.mark.parametrize("harm", ["bent", "bent at its begin", "bent where nobody looks", "torn"])
def test_archive_that_does_not_read_back_as_it_was_written_stays_as_it_was(
    harm: str, blocks: int, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / LOG).write_text(line("one"), encoding="utf-8")
    archive(source, target)
    (source / LOG).write_text(line("one") + lines_of(blocks), encoding="utf-8")
    read = writing.os.pread

    def harmed(descriptor: int, size: int, offset: int) -> bytes:
        found = read(descriptor, size, offset)
        if harm == "torn":
            return found[:-1] if offset == 0 else b""
        if offset and harm == "bent where nobody looks":
            return found
        at = {"bent": len(found) - 3, "bent at its begin": 0, "bent where nobody looks": 4}[harm]
        return found[:at] + bytes([found[at] ^ 0x10]) + found[at + 1 :]  # the fifth byte's is the bit that zstd leaves unused

    monkeypatch.setattr(writing.os, "pread", harmed)
    with pytest.raises(VeloxError, match="does not read back as it was written"):
        archive(source, target)
    monkeypatch.undo()
    assert content(target) == line("one")
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "system.log.zst"]


def test_archive_of_many_blocks_is_what_was_written(source: Path, target: Path) -> None:
    text = "".join(line(f"{number} {'x' * 900}") for number in range(6_000))
    (source / LOG).write_text(text, encoding="utf-8")
    file = archive(source, target)
    assert file.lines == 6_000
    assert file.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert file.stored_sha256 == hashlib.sha256((target / file.name).read_bytes()).hexdigest()
    assert content(target) == text
    (source / LOG).write_text(text + line("more"), encoding="utf-8")
    assert archive(source, target).lines == 6_001
    assert len(list(target.glob("*.zst"))) == 1


@pytest.mark.parametrize("said", ["another", "checksum"])
def test_archive_whose_frames_do_not_unpack_to_the_lines_stays_as_it_was(
    said: str, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = zstandard.ZstdDecompressor

    class Bent:
        def decompress(self, packed: bytes) -> bytes:
            if said == "checksum":
                raise zstandard.ZstdError("Restored data doesn't match checksum")
            return sound().decompress(packed).replace(b"0", b"1")

    (source / LOG).write_text(line("one"), encoding="utf-8")
    archive(source, target)
    (source / LOG).write_text(line("one") + lines_of(20), encoding="utf-8")
    monkeypatch.setattr(writing.zstandard, "ZstdDecompressor", Bent)
    with pytest.raises(VeloxError, match="does not read back as it was written"):
        archive(source, target)
    monkeypatch.undo()
    assert content(target) == line("one")


def test_archive_of_a_log_without_lines_of_the_date_is_an_empty_file(source: Path, target: Path) -> None:
    (source / LOG).write_text(line("today", engine="-"), encoding="utf-8")
    assert archive(source, target).lines == 0
    assert (content(target), archive_problems(target)) == ("", [])


def test_lines_that_speak_of_the_date_twice_do_not_bring_in_those_of_another(source: Path, target: Path) -> None:
    own = line("as it was said [2024-01-15 09:30:00]")
    other = [line("of another day", engine="2024-01-16 09:31:00"), "its traceback\n", line("today", engine="-")]
    (source / LOG).write_text((own + "".join(other)) * 3 + own * 6, encoding="utf-8")
    assert archive(source, target).lines == 9
    assert content(target) == own * 9


def test_lines_are_whole_at_the_edges_of_blocks_and_files(tmp_path: Path) -> None:
    edges = [BLOCK_BYTES - 100, 3 * BLOCK_BYTES, 20, BLOCK_BYTES - 1, BLOCK_BYTES]
    texts = [[line("x" * size) for size in edges], [line("without an end")[:-1]], [line("live"), line("half")[:-1]]]
    for number, text in enumerate(texts):
        (tmp_path / str(number)).write_text("".join(text), encoding="utf-8")
    with ExitStack() as stack:
        opened = [stack.enter_context((tmp_path / str(number)).open("rb")) for number in range(len(texts))]
        picked = DateLines(DAY)
        blocks = list(date_lines(opened, picked))
    assert b"".join(blocks).decode() == "".join([*texts[0], texts[1][0] + "\n", texts[2][0]])
    assert picked.count == 7
    assert all(block.endswith(b"\n") for block in blocks)


def test_default_bound_of_the_logs_holds_a_day_in_which_everything_is_refused_each_minute() -> None:
    defaults = Logs()
    refusals = 50 * 10 * 375  # symbols, strategies, minutes
    assert defaults.keep_files * defaults.max_megabytes * 1_000_000 > 2 * refusals * 400  # bytes of a long line


def test_archive_into_a_folder_that_cannot_be_made_says_so(source: Path, target: Path) -> None:
    (source / LOG).write_text(line("one"), encoding="utf-8")
    target.parent.parent.mkdir(parents=True)
    target.parent.write_text("a file is in the way", encoding="utf-8")
    with pytest.raises(VeloxError, match="cannot be archived in"):
        archive(source, target)


def test_archive_loses_no_line_while_writers_go_on_and_the_files_rotate(tmp_path: Path) -> None:
    source, target = tmp_path / "production", tmp_path / "backup" / "20240115" / "production"
    engine_ms = 1_705_291_260_000  # 2024-01-15 09:31 IST
    writer = start_logging(source, max_megabytes=1, keep_files=10, now_ms=lambda: engine_ms)
    logger = logging.getLogger("velox.system")
    pad, written, stop = "x" * 1_000, 6_000, threading.Event()

    def write() -> None:
        for number in range(written):
            logger.info("line %s %s", number, pad)
        stop.set()

    thread = threading.Thread(target=write)
    thread.start()
    sizes = []
    while not stop.is_set():
        sizes.append(archive_date(source, target, DAY, ["system.log"], keep_files=10, wall_ms=WALL_MS).lines)
    thread.join()
    writer.stop()
    manifest = archive_date(source, target, DAY, ["system.log"], keep_files=10, wall_ms=WALL_MS)
    assert len(log_files(source, "system.log")) > 5
    assert manifest.whole is True
    numbers = Counter(int(text.split("] line ")[1].split()[0]) for text in content(target, "system.log").splitlines())
    assert numbers == Counter(range(written))
    assert sizes == sorted(sizes)
    assert archive_problems(target) == []


def test_snapshot_that_a_rotation_comes_into_is_taken_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / LOG).write_text("old\n", encoding="utf-8")
    looks: list[int] = []

    def rotating(folder: Path, log: str) -> list[Path]:
        found = log_files(folder, log)
        looks.append(len(found))
        if len(looks) == 1:
            os.replace(folder / log, folder / f"{log}.1")
            (folder / log).write_text("new\n", encoding="utf-8")
        return found

    monkeypatch.setattr("velox_core.archive.lines.log_files", rotating)
    with snapshot(source, LOG) as opened:
        assert [file.read() for file in opened] == [b"old\n", b"new\n"]
    assert len(looks) == 4


def made(root: Path, on: date, wall_ms: int, text: str = "one") -> Path:
    source = root.parent / "source"
    source.mkdir(exist_ok=True)
    (source / LOG).write_text(line(text, engine=f"{on} 09:31:00"), encoding="utf-8")
    folder = archive_folder(root, on, "production")
    archive_date(source, folder, on, [LOG], keep_files=3, wall_ms=wall_ms)
    return folder


def test_retention_by_age_counts_from_when_an_archive_was_made_and_keeps_the_newest(tmp_path: Path) -> None:
    root = tmp_path / "backup"
    old = [made(root, date(2024, 1, day), WALL_MS - (40 - day) * DAY_MS) for day in (15, 16, 17)]
    replay = made(root, date(2020, 1, 15), WALL_MS)
    edge = made(root, date(2024, 1, 18), WALL_MS - 10 * DAY_MS)
    pruned = prune_archives(root, "production", keep_days=10, bytes_max=1 << 40, wall_ms=WALL_MS, kept_min=1)
    assert pruned.removed == tuple(map(str, old))
    assert pruned.freed > 0
    assert [path.exists() for path in (*old, edge, replay)] == [False, False, False, True, True]
    much_later = prune_archives(root, "production", keep_days=10, bytes_max=1, wall_ms=WALL_MS * 2, kept_min=2)
    assert much_later.removed == ()  # a clock that jumped takes not the last ones


def test_retention_by_size_removes_the_oldest_until_the_rest_fits(tmp_path: Path) -> None:
    root = tmp_path / "backup"
    folders = [made(root, date(2024, 1, day), WALL_MS + day) for day in (15, 16, 17, 18)]
    one = read_manifest(folders[0])
    assert one is not None
    pruned = prune_archives(root, "production", keep_days=10, bytes_max=one.stored_size * 3, wall_ms=WALL_MS + 100, kept_min=1)
    assert pruned.removed == (str(folders[0]),)
    assert not folders[0].parent.exists()


def test_retention_keeps_a_damaged_archive_and_what_is_not_its_own(tmp_path: Path) -> None:
    root = tmp_path / "backup"
    damaged = made(root, date(2024, 1, 15), 0)
    copied = made(root, date(2024, 1, 16), 0)
    (copied / "risk_manager.log").write_text("copied by hand", encoding="utf-8")
    made(root, date(2024, 1, 17), WALL_MS)
    (damaged / "system.log.zst").write_bytes(b"nothing")
    pruned = prune_archives(root, "production", keep_days=10, bytes_max=1 << 40, wall_ms=WALL_MS, kept_min=1)
    assert pruned.removed == (str(copied),)
    assert "not sound" in pruned.kept[0]
    assert (damaged / "system.log.zst").exists()
    assert [path.name for path in copied.iterdir()] == ["risk_manager.log"]


def test_rotated_file_goes_only_when_it_is_old_and_each_of_its_lines_is_archived(tmp_path: Path) -> None:
    source, root = tmp_path / "production", tmp_path / "backup"
    source.mkdir()
    rotated = source / f"{LOG}.1"
    rotated.write_text(line("one") + line("two", engine="2024-01-16 10:00:00"), encoding="utf-8")
    (source / LOG).write_text(line("three"), encoding="utf-8")

    def prune(wall_ms: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        pruned = prune_rotated(source, root, "production", [LOG], keep_days=30, wall_ms=wall_ms)
        return pruned.removed, pruned.kept

    now_ms = int(rotated.stat().st_mtime * 1_000)
    late_ms = now_ms + 31 * DAY_MS
    archive_date(source, archive_folder(root, DAY, "production"), DAY, [LOG], keep_files=3, wall_ms=now_ms)
    assert prune(late_ms)[0] == ()
    assert "velox eod --date 2024-01-16" in prune(late_ms)[1][0]
    on = date(2024, 1, 16)
    archive_date(source, archive_folder(root, on, "production"), on, [LOG], keep_files=3, wall_ms=now_ms)
    assert prune(now_ms + 29 * DAY_MS) == ((), ())
    rotated.write_text(rotated.read_text(encoding="utf-8") + line("one"), encoding="utf-8")  # once more than archived
    assert "1 of its lines" in prune(late_ms + DAY_MS)[1][0]
    rotated.write_text(line("one"), encoding="utf-8")
    stored = archive_folder(root, DAY, "production") / "system.log.zst"
    sound = stored.read_bytes()
    stored.write_bytes(sound + b"\0")
    removed, kept = prune(late_ms + DAY_MS)
    assert removed == ()
    assert "changed or damaged" in kept[0]
    stored.write_bytes(sound)
    assert prune(late_ms + DAY_MS)[0] == (str(rotated),)
    assert (source / LOG).exists()
