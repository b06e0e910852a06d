"""Rules that no type checker keeps: sizes, guards, clocks, and who may do what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("velox_core", "flows", "tasks", "deployments", "benchmarks")
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
POSITIONAL_ARGUMENTS_MAX = 6
PRINTERS = {"velox_core/cli"}
WALL_CLOCK_CALLS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}


@cache
def shipped(path: Path) -> ast.Module:
    """A shipped file is parsed once for all rules."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.fixture(scope="module", autouse=True)
def forget() -> Iterator[None]:
    """Keep no syntax trees for the tests that follow."""
    yield
    shipped.cache_clear()


def sources(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        parse = shipped if folder in SHIPPED else shipped.__wrapped__
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), parse(path)


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_sources_when_parsed_hold_the_packages_of_the_design() -> None:
    names = {name for name, _ in sources("velox_core", "flows", "tasks")}
    assert {"velox_core/ports.py", "velox_core/bootstrap.py", "flows/trading_day.py"} <= {
        name.replace("velox_core/bootstrap/__init__.py", "velox_core/bootstrap.py") for name in names
    }


def test_functions_stay_under_seventy_lines() -> None:
    long = [
        f"{name}:{node.lineno} {node.name}: {(node.end_lineno or node.lineno) - node.lineno + 1} lines"
        for name, tree in sources(*SHIPPED, "tests")
        for node in functions(tree)
        if (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_files_stay_under_five_hundred_lines() -> None:
    counts = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name, _ in sources(*SHIPPED)}
    assert {name: count for name, count in counts.items() if count > FILE_LINES_MAX} == {}


def test_shipped_code_has_no_assert_and_no_unfinished_part() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in sources(*SHIPPED)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "NotImplementedError")
    ]
    assert found == []


def test_core_prints_only_in_the_command_line() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in sources("velox_core")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        if not any(name.startswith(printer) for printer in PRINTERS)
    ]
    assert found == []


def test_core_reads_no_naive_wall_clock() -> None:
    found = []
    for name, tree in sources("velox_core"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                call = (node.func.value.id, node.func.attr)
                if call in WALL_CLOCK_CALLS and not (node.args or node.keywords):
                    found.append(f"{name}:{node.lineno} {'.'.join(call)}()")
    assert found == []


def test_only_the_seal_sets_attributes_behind_a_class() -> None:
    """A frozen value may complete itself in `__post_init__`; nobody else goes round a class that does not change."""
    users = set()
    for name, tree in sources(*SHIPPED):
        completing = {
            id(node.func)
            for function in functions(tree)
            if function.name == "__post_init__"
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Name) and node.args[0].id == "self"
        }
        around = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "__setattr__"]
        if any(
            isinstance(node.value, ast.Name) and node.value.id == "object" and id(node) not in completing for node in around
        ):
            users.add(name)
    assert users == {"velox_core/risk/approval.py"}


def test_only_the_risk_manager_can_approve_an_order() -> None:
    users = set()
    for name, tree in sources(*SHIPPED):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "velox_core.risk.approval":
                if {"approve", "_SEAL", "*"} & {alias.name for alias in node.names}:
                    users.add(name)
            elif isinstance(node, ast.ImportFrom) and node.module == "velox_core.risk":
                if "approval" in {alias.name for alias in node.names}:
                    users.add(name)
            elif isinstance(node, ast.Import) and "velox_core.risk.approval" in {alias.name for alias in node.names}:
                users.add(name)
    assert users == {"velox_core/risk_manager.py"}


def test_only_the_exit_door_asks_for_exits_and_only_with_the_closers_lock() -> None:
    users, holders = set(), set()
    for name, tree in sources(*SHIPPED):
        called = {
            node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        users |= {name} if "request_exit" in called else set()
        holders |= {name} if "may_send" in called else set()
    assert users == {"velox_core/exit_door.py"}
    assert holders == users | {"velox_core/flattening.py"}  # which has the lock before it cancels what others work


def test_functions_take_at_most_six_positional_arguments_outside_hot_value_classes() -> None:
    """Constructors of slotted values made per order are positional on purpose (speed), all else is not."""
    found = []
    for name, tree in sources("velox_core", "flows", "tasks"):
        for node in functions(tree):
            positional = [
                argument.arg for argument in node.args.posonlyargs + node.args.args if argument.arg not in {"self", "cls"}
            ]
            if len(positional) > POSITIONAL_ARGUMENTS_MAX and node.name != "__init__":
                found.append(f"{name}:{node.lineno} {node.name}: {len(positional)}")
    assert found == []


def test_broad_catches_stand_only_in_outermost_loops() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in sources(*SHIPPED)
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        if node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"})
    ]
    outermost = (
        "velox_core/engine/",
        "velox_core/bootstrap",
        "velox_core/cli/",
        "velox_core/operations/guard.py",
        "velox_core/operations/evening.py",  # around each step of an end of day: one that breaks stops no other
        "velox_core/metrics/sink.py",  # of its own thread
        "velox_core/alerts/outbox.py",  # of a channel's thread
        "velox_core/journal/recall.py",  # of its own thread, told to whoever waits
        "velox_core/operations/metrics_backup.py",  # the same
        "tasks/events.py",  # of its own thread
        "velox_core/strategy_loading.py",  # around foreign code
        "velox_core/backup/url_place.py",  # around the stores that fsspec knows, which have errors of their own
    )
    assert [place for place in found if not place.startswith(outermost)] == []


def test_project_files_hold_no_registry_address_and_no_machine_path() -> None:
    words = ["index-url " + "http", "/simple" + "/", "/ro" + "ot/", "/home" + "/"]
    files = [
        ROOT / name for name in ("pyproject.toml", "requirements.lock", "Makefile", ".ci/run", "README.md", "CHANGELOG.md")
    ]
    files += sorted((ROOT / "docs").rglob("*.md"))
    found = [f"{path.name}: {word}" for path in files for word in words if word in path.read_text(encoding="utf-8")]
    assert found == []


def test_lock_pins_every_package_with_its_hashes() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    packages = [index for index, line in enumerate(lines) if line and not line.startswith((" ", "#"))]
    assert len(packages) > 100
    assert [lines[index] for index in packages if "==" not in lines[index] or "--hash=sha256:" not in lines[index + 1]] == []
