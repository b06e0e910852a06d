"""What draws beside the engine may be missing, killed or hang: the engine's process never notices."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from velox_core.cli.live_process import LiveProcess


def live_process() -> LiveProcess:
    return LiveProcess(
        Path("/absent"), broker_type="simulated", account="primary", pid=1, since_wall_ms=0, note="x", on_stderr=True
    )


def program(tmp_path: Path, script: str) -> str:
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_live_process_that_cannot_be_started_costs_the_picture_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/absent/python")
    with live_process() as view:
        assert view._process is None


@pytest.mark.parametrize("script", ["exit 1", "exec 0<&-; exec sleep 60"])
def test_live_process_that_dies_or_hangs_is_ended_within_its_bound(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, script))
    monkeypatch.setattr("velox_core.cli.live_process.END_SECONDS", 0.5)
    with live_process() as view:
        process = view._process
        assert process is not None
    assert process.poll() is not None
