"""The live screen's own process: it draws what a status says, leaves Ctrl-C to the engine, and ends with its pipe."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from velox_core.redis_server import EmbeddedRedis

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
WAIT_SECONDS = 240.0


def read_until(terminal: int, wanted: bytes) -> bytes:
    """Read from a terminal until something was drawn; fails after WAIT_SECONDS."""
    seen, until = b"", time.monotonic() + WAIT_SECONDS
    while wanted not in seen:
        assert time.monotonic() < until, seen[-2_000:]
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65_536)
    return seen


def test_live_process_draws_ignores_ctrl_c_and_ends_with_its_pipe(tmp_path: Path) -> None:
    folder = tmp_path / "replay" / "primary" / "2024-01-15-1"
    folder.mkdir(parents=True)
    status = {"pid": 4711, "wall_ms": time.time_ns() // 1_000_000, "state": "RUNNING", "run_id": "2024-01-15-1"}
    arguments = ["--var", str(tmp_path), "--broker-type", "simulated", "--account", "primary", "--pid", "4711"]
    arguments += ["--since", str(status["wall_ms"]), "--note", "starting the engine"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "velox_core.cli.live_process", *arguments],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(theirs)
    try:
        read_until(ours, b"starting the engine")
        (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
        read_until(ours, b"VELOX")
        process.send_signal(signal.SIGINT)
        (folder / "status.json").write_text(json.dumps(status | {"engine_ms": 1_705_290_660_000}), encoding="utf-8")
        read_until(ours, b"09:21:00")  # still there, still drawing
        assert process.stdin is not None
        process.stdin.close()
        read_until(ours, b"\x1b[?25h")  # the cursor is given back
        assert process.wait(timeout=WAIT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_velox_run_on_a_terminal_is_drawn_and_ctrl_c_stops_it_flat(tmp_path: Path) -> None:
    var = tmp_path / "var"
    ours, theirs = pty.openpty()
    velox = f"{shlex.quote(sys.executable)} -m velox_core.cli run --date 2024-01-15 --speed 300"
    # a session leader that opens a terminal has it as its own: what is typed there reaches all its processes
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {velox} <>{os.ttyname(theirs)} >&0 2>&1"],
        start_new_session=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        | {"VELOX__VAR": str(var), "TERM": "xterm"},
    )
    try:
        read_until(ours, b"P&L")
        os.write(ours, b"\x03")
        shown = read_until(ours, b"With charts:")
        assert b"ended flat" in shown
        assert process.wait(timeout=WAIT_SECONDS) == 0
        (summary,) = var.glob("replay/primary/*/summary.json")
        report = json.loads(summary.read_text(encoding="utf-8"))
        assert (report["flat"], report["exit_code"], report["halts"]) == (True, 0, [])
        assert report["stopped"]
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
        EmbeddedRedis(var / "redis").stop()
