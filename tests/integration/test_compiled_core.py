"""The compiled copy of the hot modules decides as the sources do: the same journal, byte for byte."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.compiled import CannotCompile, build, find

ROOT = Path(__file__).resolve().parents[2]


def replay(
    journal: Path, *options: str, benchmark: str = "replay", size: tuple[str, ...] = ("--days", "3")
) -> dict[str, object]:
    command = [sys.executable, f"benchmarks/{benchmark}.py", "--symbols", "6", *size, "--json", "--journal", str(journal)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert isinstance(figures, dict)
    return figures


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_core_on_the_common_workload_writes_the_same_journal(tmp_path: Path) -> None:
    try:
        build()
    except CannotCompile as reason:
        pytest.skip(f"no compiled copy on this machine: {reason}")
    compiled = replay(tmp_path / "compiled.jsonl")
    interpreted = replay(tmp_path / "interpreted.jsonl", "--interpreted")
    assert (compiled["compiled"], interpreted["compiled"]) == (True, False)
    assert compiled["fills"] == interpreted["fills"]
    assert compiled["fills"] != 0
    assert compiled["pnl_rupees"] == interpreted["pnl_rupees"]
    journal = (tmp_path / "interpreted.jsonl").read_bytes()
    assert len(journal) > 100_000
    assert (tmp_path / "compiled.jsonl").read_bytes() == journal


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_core_on_ticks_writes_the_same_journal(tmp_path: Path) -> None:
    try:
        build()
    except CannotCompile as reason:
        pytest.skip(f"no compiled copy on this machine: {reason}")
    compiled = replay(tmp_path / "compiled.jsonl", benchmark="ticks", size=())
    interpreted = replay(tmp_path / "interpreted.jsonl", "--interpreted", benchmark="ticks", size=())
    assert (compiled["compiled"], interpreted["compiled"]) == (True, False)
    assert compiled["fills"] == interpreted["fills"] != 0
    journal = (tmp_path / "interpreted.jsonl").read_bytes()
    assert len(journal) > 10_000
    assert (tmp_path / "compiled.jsonl").read_bytes() == journal


def test_compiled_copy_of_other_sources_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "velox_core").mkdir()
    (tmp_path / "velox_core" / "__init__.py").write_text('"""Other sources."""\n')
    assert find(tmp_path) is None


def test_compiled_copy_is_no_longer_found_after_a_change_of_the_sources(tmp_path: Path) -> None:
    source = tmp_path / "velox_core" / "clock.py"
    source.parent.mkdir()
    source.write_text("NOW = 1\n")
    from benchmarks.compiled import _folder

    copy = _folder(tmp_path)
    copy.mkdir(parents=True)
    assert find(tmp_path) == copy
    source.write_text("NOW = 2\n")
    assert find(tmp_path) is None
