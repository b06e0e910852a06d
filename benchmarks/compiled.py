"""The hot modules of the core as machine code: the same sources, compiled by mypyc into a copy below `build/compiled`.

    python -m benchmarks.compiled          # or `make compiled`; one to three minutes, with a C compiler

- For long replays and their measuring only. `velox day`, `velox run` and every test run the sources as they stand.
- A copy belongs to the bytes of all of `velox_core`, to the Python and to the compiler's version: after any change it is
  no longer found, so a stale copy can never be run. A build that breaks off leaves no copy.
- Not compiled: what foreign code subclasses (the base of the strategies), and the seal of an ApprovedOrder, which rests on
  what only an interpreted class can do.
- `tests/integration/test_compiled_core.py` holds the copy to the same journal, byte for byte.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILDS = ROOT / "build" / "compiled"
BUILD_SECONDS_MAX = 900.0
LOCK_FILE = "lock"
MODULES = (
    "brokers/simulated",
    "brokers/simulated_exchange",
    "brokers/simulated_fills",
    "brokers/simulated_market",
    "brokers/simulated_orders",
    "clock",
    "decision_journal",
    "domain/charges",
    "domain/events",
    "domain/market/bars",
    "domain/market/minutes",
    "domain/market/ticks",
    "domain/order_events",
    "domain/orders",
    "domain/positions",
    "durable_journal",
    "emergency_exit_manager",
    "engine/prices",
    "engine/session",
    "engine/signal_desk",
    "engine/step",
    "engine/strategy_host",
    "exit_door",
    "feeds/pacing",
    "feeds/replay",
    "feeds/tick_replay",
    "journal/file",
    "ledger/memory",
    "order_manager",
    "order_recovery",
    "ports",
    "risk/breach",
    "risk/gate",
    "risk/layers",
    "risk/ledger",
    "risk/limits",
    "risk/sizing",
    "risk_manager",
    "strategies/sma_cross",
)


class CannotCompile(Exception):
    """The copy cannot be made here; the text says why and what would help."""


def find(root: Path = ROOT) -> Path | None:
    """Return the folder of the compiled copy of exactly these sources, to be put on the path; None when there is none."""
    folder = _folder(root)
    return folder if folder.is_dir() else None


def build(root: Path = ROOT) -> Path:
    """Compile, unless it was done already. Returns the folder of the copy. Raises CannotCompile."""
    folder = _folder(root)
    if folder.is_dir():
        return folder
    _need_compiler()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second build waits for the first, and finds its copy
        if not folder.is_dir():
            _build(root, folder)
    return folder


def _build(root: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="begun-") as scratch:
        copy = Path(scratch) / "copy"
        shutil.copytree(root / "velox_core", copy / "velox_core", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        command = [sys.executable, str(Path(__file__).resolve()), "--in-place", str(copy)]
        try:
            done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX)
        except subprocess.TimeoutExpired as error:
            raise CannotCompile(f"compiling took more than {BUILD_SECONDS_MAX:.0f} s and was given up") from error
        if done.returncode != 0:
            raise CannotCompile(f"mypyc or the C compiler failed:\n{(done.stdout + done.stderr)[-2_000:]}")
        shutil.rmtree(copy / "build", ignore_errors=True)
        for other in folder.parent.iterdir():
            if other.is_dir() and other != Path(scratch):
                shutil.rmtree(other, ignore_errors=True)
        copy.rename(folder)


def _folder(root: Path) -> Path:
    digest = hashlib.sha256()
    for text in (sys.version, sysconfig.get_platform(), version("mypy"), *MODULES):
        digest.update(text.encode() + b"\0")
    for path in sorted((root / "velox_core").rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return root / "build" / "compiled" / digest.hexdigest()[:16]


def _need_compiler() -> None:
    """Raise CannotCompile where the C compiler or Python's headers are missing."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise CannotCompile(f"no C compiler: {compiler!r} is not there (Debian, Ubuntu: apt-get install gcc)")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.exists():
        raise CannotCompile(f"no Python headers: {header} is not there (Debian, Ubuntu: apt-get install python3-dev)")


def _compile_in_place(copy: Path) -> None:
    """Put a shared library beside each hot module of a copy. Runs in a process of its own."""
    from mypyc.build import mypycify
    from setuptools import setup

    os.chdir(copy)
    names = [f"velox_core/{module}.py" for module in MODULES]
    extensions = mypycify(
        [*names, "--strict", "--ignore-missing-imports"], opt_level="3", debug_level="0", group_name="velox_hot"
    )
    setup(name="velox-hot", packages=[], ext_modules=extensions, script_args=["--quiet", "build_ext", "--inplace"])


def main() -> int:
    """Compile from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in-place", metavar="COPY", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_place:
        _compile_in_place(Path(arguments.in_place))
        return 0
    print("compiling the hot modules; this takes a minute or three", file=sys.stderr)
    try:
        print(build())
    except CannotCompile as error:
        print(f"not compiled: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
