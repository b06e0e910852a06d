"""A delivery to a URL that breaks off at any step leaves nothing under the good name, and the next one comes through."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from velox_core.backup import url_place
from velox_core.backup.destinations import STEP_BYTES
from velox_core.backup.faults import BackupError
from velox_core.backup.naming import MANIFEST_FILE
from velox_core.backup.opening import open_here
from velox_core.backup.url_place import UrlDestination

NAME, MAKER = "2024-01-15", "me-00000000"
STEPS = {"renamed": 4, "objects": 5, "moved": 5}  # of two files and a manifest: each sent, then renamed or copied
KINDS = {"renamed": "RENAMED_AT_ONCE", "objects": "OBJECT_STORES", "moved": ""}
BROKEN = [(kind, step) for kind, steps in STEPS.items() for step in range(steps)]


class BreakingStore(MemoryFileSystem):  # type: ignore[misc]
    """A store whose connection breaks at a step, which it half does (an object store does none by half)."""

    protocol = "breaking"
    store: dict[str, object] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    kind = ""
    steps_left = 0
    stays_broken = False

    def put_file(self, lpath: str, rpath: str, **kwargs: object) -> None:
        self._step(rpath)
        super().put_file(lpath, rpath, **kwargs)

    def cp_file(self, path1: str, path2: str, **kwargs: object) -> None:
        if self.isfile(path1):
            self._step(path2)
        super().cp_file(path1, path2, **kwargs)

    def mv(self, path1: str, path2: str, **kwargs: object) -> None:
        if self.kind != "renamed":
            super().mv(path1, path2, **kwargs)
            return
        self._step("")
        old, new = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.exists(new):
            raise FileExistsError(new)
        for path in [path for path in self.store if path.startswith(f"{old}/")]:
            self.store[new + path.removeprefix(old)] = self.store.pop(path)
        self.pseudo_dirs[:] = [path for path in self.pseudo_dirs if not path.startswith(old)]

    def info(self, path: str, **kwargs: object) -> dict[str, object]:
        if self.steps_left < 0 and self.stays_broken:
            raise ConnectionError("reset")
        found: dict[str, object] = super().info(path, **kwargs)
        return found

    def _step(self, target: str) -> None:
        type(self).steps_left -= 1
        if self.steps_left == -1 and target and self.kind != "objects":
            self.pipe_file(target, b"half")
        if self.steps_left < 0:
            raise ConnectionError("reset")


@pytest.fixture(autouse=True)
def breaking(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("breaking", BreakingStore, clobber=True)
    monkeypatch.setattr(BreakingStore, "store", {})
    monkeypatch.setattr(BreakingStore, "pseudo_dirs", [""])
    monkeypatch.setattr(BreakingStore, "steps_left", 1_000)


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    folder = tmp_path / "staged"
    folder.mkdir()
    for name in ("a.zst", "b.zst"):
        (folder / name).write_bytes(name.encode())
    (folder / MANIFEST_FILE).write_text("{}")
    return folder


def place_of(kind: str, monkeypatch: pytest.MonkeyPatch) -> UrlDestination:
    set_kind(kind, monkeypatch)
    return UrlDestination("breaking://there", "simulated/primary")


def set_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BreakingStore, "kind", kind)
    if KINDS[kind]:
        monkeypatch.setattr(url_place, KINDS[kind], frozenset({"breaking"}))


def removal_steps(monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    """Let the removal of the file with this number fail, and all after it."""
    calls: list[str] = []
    remove_file, remove_tree = MemoryFileSystem.rm_file, MemoryFileSystem.rm

    def one(fs: BreakingStore, path: str) -> None:
        calls.append(path)
        if len(calls) > fails_at:
            raise ConnectionError("reset")
        remove_file(fs, path)

    def tree(fs: BreakingStore, path: str, **options: object) -> None:
        for each in fs.find(path):
            one(fs, each)
        remove_tree(fs, path, **options)

    monkeypatch.setattr(BreakingStore, "rm_file", one, raising=False)
    monkeypatch.setattr(BreakingStore, "rm", tree, raising=False)


def under_the_name() -> list[str]:
    return sorted(path for path in BreakingStore.store if f"/{NAME}/" in path)


def test_each_answer_of_a_listing_and_of_copies_within_a_store_counts_as_progress(
    staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_kind("objects", monkeypatch)
    heard: list[int] = []
    place = open_here("breaking://there", "simulated/primary", heard.append)
    for day in (15, 16, 17):
        place.put(staged, f"2024-01-{day}", MAKER)
    assert len(heard) >= 3 * 2 * 2  # of each backup two files are sent and then copied
    heard.clear()
    assert len(place.names()) == 3
    assert heard == [STEP_BYTES] * 3
    heard.clear()
    BreakingStore.store.pop(next(path for path in BreakingStore.store if path.endswith(f"2024-01-16/{MANIFEST_FILE}")))
    found = [each.name for each in place.unfinished()]
    assert "2024-01-16" in found
    assert heard == [STEP_BYTES] * (3 + len(found))


@pytest.mark.parametrize(("kind", "step"), BROKEN)
def test_delivery_that_breaks_off_leaves_nothing_under_the_name(
    kind: str, step: int, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(kind, monkeypatch)
    monkeypatch.setattr(BreakingStore, "steps_left", step)
    with pytest.raises(BackupError, match="reset"):
        place.put(staged, NAME, MAKER)
    assert under_the_name() == []
    monkeypatch.setattr(BreakingStore, "steps_left", 1_000)
    assert (place.names(), place.taken()) == ([], set())
    place.put(staged, NAME, MAKER)
    assert place.names() == [NAME]


@pytest.mark.parametrize(("kind", "step"), [each for each in BROKEN if each[0] != "moved"])
def test_delivery_whose_connection_stays_broken_leaves_no_manifest_under_the_name(
    kind: str, step: int, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(kind, monkeypatch)
    monkeypatch.setattr(BreakingStore, "stays_broken", True)
    monkeypatch.setattr(BreakingStore, "steps_left", step)
    with pytest.raises(BackupError, match="reset"):
        place.put(staged, NAME, MAKER)
    monkeypatch.setattr(BreakingStore, "steps_left", 1_000)
    assert place.names() == []
    if kind == "renamed":
        place.put(staged, NAME, MAKER)
        assert place.names() == [NAME]


def test_folder_that_is_renamed_never_replaces_or_removes_what_came_first(
    staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of("renamed", monkeypatch)
    give_way = UrlDestination._give_way

    def late(self: UrlDestination, fs: BreakingStore, root: str, name: str, made_by: str) -> None:
        give_way(self, fs, root, name, made_by)
        fs.pipe_file(f"{root}/{name}/{MANIFEST_FILE}", b"another's")

    monkeypatch.setattr(UrlDestination, "_give_way", late)
    with pytest.raises(BackupError):
        place.put(staged, NAME, MAKER)
    assert place.manifest_content(NAME) == b"another's"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fails_at", range(3))
def test_removal_that_breaks_off_is_ended_by_the_next_tidying(
    kind: str, fails_at: int, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (staged / MANIFEST_FILE).write_text(f'{{"made_by": "{MAKER}"}}')
    place = place_of(kind, monkeypatch)
    place.put(staged, NAME, MAKER)
    place.tidy(MAKER, 0)
    with monkeypatch.context() as patch:
        removal_steps(patch, fails_at)
        with pytest.raises(BackupError, match="reset"):
            place.remove(NAME)
    assert place.taken() == {NAME}
    (left,) = place.tidy(MAKER, 0)
    assert left.startswith(f".partial-{NAME}.{MAKER}~")
    if place.names():  # it had not begun
        place.remove(NAME)
    assert (place.names(), place.taken(), place.unfinished(), dict(BreakingStore.store)) == ([], set(), [], {})


@pytest.mark.parametrize("kind", ["objects", "moved"])
def test_mark_of_a_removal_never_costs_a_whole_backup_its_files(
    kind: str, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(kind, monkeypatch)
    place.put(staged, NAME, MAKER)
    place.tidy(MAKER, 0)
    mark = f"breaking://there/simulated/primary/.partial-{NAME}.{MAKER}~0/{url_place.LEAVING_FILE}"
    BreakingStore().pipe_file(mark, b"")
    before = under_the_name()
    assert len(place.tidy(MAKER, 0)) == 1
    assert under_the_name() == before
    assert place.names() == [NAME]
