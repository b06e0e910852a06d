from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from velox_core.backup.opening import open_here
from velox_core.operations import backup_places
from velox_core.settings import Paths, Settings, load_settings

ROOT = Path(__file__).resolve().parents[3]
SIMULATED = (ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(var=tmp_path / "var", logs=tmp_path / "logs")


@pytest.fixture
def places_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on the places of backups in this process: a store of a test is known nowhere else, nor is a fault set in it."""
    monkeypatch.setattr(backup_places, "open_destination", lambda place, folder, silence_seconds: open_here(place, folder))


@pytest.fixture
def settings_with(tmp_path: Path) -> Callable[..., Settings]:
    """Load the simulated configuration with lines replaced (`key="value"`) and sections appended (`extra="..."`)."""

    def load(extra: str = "", **lines: str) -> Settings:
        text = SIMULATED.replace("data/tcs_2024-01-15.csv", str(ROOT / "data" / "tcs_2024-01-15.csv"))
        for key, value in lines.items():
            text, count = re.subn(rf"(?m)^(\s+{key}:).*$", rf"\1 {value}", text, count=1)
            assert count == 1, key
        folder = tmp_path / "config"
        folder.mkdir(exist_ok=True)
        path = folder / "system.yaml"
        path.write_text(text.rstrip() + "\n" + extra, encoding="utf-8")
        return load_settings(path, {})

    return load
