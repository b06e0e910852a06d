"""The import contracts hold, and they bite: each is shown to catch a deliberate violation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = Path(sys.executable).with_name("lint-imports")

VIOLATIONS = [
    ("a rule reaches for the disk", "velox_core/risk/gate.py", "import sqlite3", "the pure core does no I/O"),
    (
        "a rule reads the clock inside a function",
        "velox_core/risk/breach.py",
        "def late() -> None:\n    import time",
        "pure core",
    ),
    ("a rule imports the ports", "velox_core/risk/sizing.py", "import velox_core.ports", "the layers of the core"),
    ("the engine imports Prefect", "velox_core/engine/session.py", "import prefect", "the core runs without Prefect"),
    (
        "a strategy imports a strategy",
        "velox_core/strategies/sma_cross.py",
        "import velox_core.strategies.opening_range",
        "do not know",
    ),
    ("a task imports a concrete broker", "tasks/session.py", "import velox_core.brokers.simulated", "knows a broker"),
    ("a flow reaches the order manager", "flows/intraday.py", "import velox_core.order_manager", "hold the order manager"),
    (
        "a broker reads the journal",
        "velox_core/brokers/simulated.py",
        "import velox_core.journal.sql",
        "the layers of the core",
    ),
    ("the core imports a task", "velox_core/alerts/log.py", "import tasks.session", "flows use tasks"),
    ("a flow imports the deployments", "flows/market_open.py", "import deployments.serve", "deployments use flows"),
    (
        "a report reaches the order manager",
        "velox_core/operations/report.py",
        "import velox_core.order_manager",
        "order manager",
    ),
    (
        "the command line imports a concrete broker",
        "velox_core/cli/tables.py",
        "import velox_core.brokers.simulated",
        "a broker",
    ),
    (
        "a strategy reaches the gate",
        "velox_core/strategies/opening_range.py",
        "import velox_core.risk_manager",
        "the layers of",
    ),
    ("the ports know the gate", "velox_core/ports.py", "import velox_core.risk_manager", "the layers of the core"),
    ("a module without a place", "velox_core/misplaced.py", "VALUE = 1", "the layers of the core"),
    ("a cycle in the domain", "velox_core/domain/money.py", "import velox_core.domain.positions", "no cycles"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINT), "--no-cache", "--config", str(folder / "pyproject.toml")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("velox_core", "flows", "tasks", "deployments"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_import_contracts_hold() -> None:
    answer = lint(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "0 broken" in answer.stdout


def test_import_contracts_catch_every_deliberate_violation(copy: Path) -> None:
    for _, name, line, _ in VIOLATIONS:
        path = copy / name
        before = path.read_text(encoding="utf-8") if path.exists() else '"""A module."""\n'
        path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    answer = lint(copy)
    broken = [line for line in answer.stdout.splitlines() if line.endswith("BROKEN")]
    assert answer.returncode == 1, answer.stdout + answer.stderr
    missed = [reason for reason, _, _, contract in VIOLATIONS if not any(contract in line for line in broken)]
    assert missed == []
    text = " ".join(answer.stdout.split())
    assert [reason for reason, name, line, _ in VIOLATIONS if evidence(name, line) not in text] == []


def evidence(name: str, line: str) -> str:
    """Return what the report says of one violation, so that none hides behind another of the same contract."""
    module, target = name.removesuffix(".py").replace("/", "."), line.split()[-1]
    if module == "velox_core.misplaced":
        return f"- {module}"
    if module == "velox_core.domain.money":
        return "No cycles are allowed in velox_core.domain."
    return f"{module} -> {target} "


@pytest.mark.parametrize(("name", "line", "contract"), [(name, line, contract) for _, name, line, contract in VIOLATIONS[:3]])
def test_import_contracts_catch_one_violation_alone(copy: Path, name: str, line: str, contract: str) -> None:
    path = copy / name
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    answer = lint(copy)
    broken = [line for line in answer.stdout.splitlines() if line.endswith("BROKEN")]
    assert len(broken) == 1
    assert contract in broken[0]
