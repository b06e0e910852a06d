"""What the settings tests share: the safety guide's YAML, a file to change, and loading that returns the problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from velox_core.domain.errors import ConfigError
from velox_core.settings import Settings, load_settings

GUIDE = """\
system:
  broker:
    type: simulated  # Change for live: zerodha | upstox
    capital: 100000  # Your actual capital

  risk:
    # CRITICAL - Set these appropriately
    max_daily_loss: 2000  # Rs. 2000 loss limit
    max_daily_loss_pct: 2.0  # 2% loss limit
    initial_capital: 100000  # Your capital
    fixed_lot_size: 1  # MANDATORY - 1 share per trade
    enable_deduplication: true  # MANDATORY

    # Position limits
    max_position_size: 5000  # Rs. 5000 per position
    max_positions_per_strategy: 2
    max_total_positions: 3
"""

LIVE = (
    GUIDE.replace("simulated", "zerodha")
    + """\
  live: true
  strategies:
    - name: opening_range
      class_path: velox_core.strategies.opening_range:OpeningRangeBreakout
"""
)


class Project:
    """A project folder with one configuration file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / "config" / "system.yaml"
        self.file.parent.mkdir()

    def load(self, content: str | bytes = GUIDE, environ: Mapping[str, str] | None = None) -> Settings:
        self.file.write_bytes(content.encode() if isinstance(content, str) else content)
        return load_settings(self.file, environ or {})

    def problems(self, content: str | bytes = GUIDE, environ: Mapping[str, str] | None = None) -> list[str]:
        """Return the problems, without the folder's name, after checking that each is one printable line."""
        with pytest.raises(ConfigError) as caught:
            self.load(content, environ)
        for problem in caught.value.problems:
            assert problem.isprintable()
            assert len(problem) < 1500
        return [problem.replace(f"{self.file}", "system.yaml") for problem in caught.value.problems]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def guide() -> str:
    return GUIDE


@pytest.fixture
def live() -> str:
    return LIVE


@pytest.fixture
def with_line(guide: str) -> Callable[[str, str], str]:
    """Return the guide's YAML with the line of one key replaced."""

    def change(key: str, line: str) -> str:
        lines = guide.splitlines()
        place = next(index for index, old in enumerate(lines) if old.strip().startswith(f"{key}:"))
        indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        lines[place] = f"{indent}{line}"
        return "\n".join(lines) + "\n"

    return change
