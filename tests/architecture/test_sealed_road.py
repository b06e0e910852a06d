"""One road to the market: what is no approved order is refused by the type checker, and every known way round is banned.

- mypy refuses what is not an `ApprovedOrder`, on a file of attempts.
- A rule over the sources names each way in which Python would let somebody round the seal; each attempt below is shown to be
  caught by it, and no shipped source holds one.
- What a source rule cannot see is refused at run time: tests/unit/risk/test_approval.py, tests/unit/test_order_manager.py.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("velox_core", "flows", "tasks", "deployments", "benchmarks")
SEAL, MAKER, SENDER = "velox_core/risk/approval.py", "velox_core/risk_manager.py", "velox_core/order_manager.py"
ADAPTERS = ("velox_core/brokers/", "velox_core/simulated_account.py")  # they implement `place`, one around another

ATTEMPTS_BY_TYPE = """
from velox_core.brokers.simulated_orders import ManualOrder
from velox_core.domain.orders import ExitRank, Order, OrderIntent, Signal
from velox_core.order_manager import OrderManager
from velox_core.ports import Broker
from velox_core.risk.approval import ApprovedOrder
from velox_core.risk.layers import Refusal
from velox_core.risk_manager import RiskManager
from velox_core.risk_manager import approve  # refused

def send(broker: Broker, orders: OrderManager, risk: RiskManager, approved: ApprovedOrder, intent: OrderIntent,
         signal: Signal, order: Order, manual: ManualOrder, answer: ApprovedOrder | Refusal) -> None:
    broker.place(approved, 0)
    broker.place(intent, 0)  # refused
    broker.place(signal, 0)  # refused
    broker.place(order, 0)  # refused
    broker.place(manual, 0)  # refused
    broker.place(answer, 0)  # refused
    broker.place(None, 0)  # refused
    orders.submit(approved, intent, 0)
    orders.submit(signal, intent, 0)  # refused
    orders.submit(answer, intent, 0)  # refused
    ApprovedOrder("TAG", "AAA", 1)  # refused

class Forged(ApprovedOrder):  # refused
    pass
"""

ATTEMPTS_BY_SOURCE = (
    "from velox_core.risk.approval import approve",
    "from velox_core.risk.approval import _SEAL as seal",
    "from velox_core.risk.approval import *",
    "from velox_core.risk import approval",
    "from ..risk import approval",
    "import velox_core.risk.approval as gate",
    "from velox_core.risk_manager import approve",
    "from velox_core import risk_manager\nrisk_manager.approve(client_order_id='A')",
    "manager.approve.__globals__['_SEAL']",
    "approval = importlib.import_module('velox_core.risk.approval')",
    "sys.modules['velox_core.risk.approval']",
    "getattr(module, 'approve')",
    "ApprovedOrder(seal, 'TAG')",
    "approval.ApprovedOrder(seal, 'TAG')",
    "ApprovedOrder.__new__(ApprovedOrder)",
    "object.__new__(ApprovedOrder)",
    "make = ApprovedOrder.__new__",
    "ApprovedOrder.quantity.__set__(order, 10)",
    "ApprovedOrder.__dict__['quantity'].__set__(order, 10)",
    "object.__setattr__(order, 'quantity', 10)",
    "put = object.__setattr__",
    "super(ApprovedOrder, order).__setattr__('quantity', 10)",
    "getattr(object, '__setattr__')(order, 'quantity', 10)",
    "copyreg.__newobj__(ApprovedOrder)",
    "broker.place(order, 0)",
    "send = self._broker.place",
    "getattr(broker, 'place')(order, 0)",
    "methodcaller('place', order, 0)(broker)",
)
BANNED_NAMES = {"approve", "_SEAL", "__newobj__"}
BANNED_TEXTS = {"velox_core.risk.approval", "approve", "_SEAL", "__setattr__", "__set__", "place"}
MAKING = {"__new__", "__set__", "__dict__", "__init__"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in SHIPPED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"), str(path))


def names_the_order(node: ast.AST) -> bool:
    """Return whether ApprovedOrder is named in an expression."""
    return any(
        (isinstance(inner, ast.Name) and inner.id == "ApprovedOrder")
        or (isinstance(inner, ast.Attribute) and inner.attr == "ApprovedOrder")
        for inner in ast.walk(node)
    )


def completes_itself(tree: ast.Module) -> set[int]:
    """Return the nodes where a frozen value sets its own attributes while it is made: `object.__setattr__(self, …)`."""
    return {
        id(call.func)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == "__post_init__"
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Name) and call.args[0].id == "self"
    }


def is_way_round(node: ast.AST, *, may_send: bool) -> bool:
    """Return whether one node is a way to an approved order, or to the market, that is not the gate's."""
    match node:
        case ast.ImportFrom(module=module, names=names):
            taken = {alias.name for alias in names}
            return bool(taken & BANNED_NAMES) or "approval" in taken or ("*" in taken and "approval" in (module or ""))
        case ast.Import(names=names):
            return any(alias.name == "velox_core.risk.approval" for alias in names)
        case ast.Name(id=name):
            return name in BANNED_NAMES
        case ast.Attribute(attr="place"):
            return not may_send
        case ast.Attribute(value=value, attr=name):
            return name in BANNED_NAMES or name == "__setattr__" or (name in MAKING and names_the_order(value))
        case ast.Call(func=function, args=arguments):
            makes = names_the_order(function) and not isinstance(function, ast.Attribute | ast.Subscript)
            makes = makes or (isinstance(function, ast.Attribute) and function.attr == "ApprovedOrder")
            forges = isinstance(function, ast.Attribute) and function.attr == "__new__" and any(map(names_the_order, arguments))
            texts = {argument.value for argument in arguments if isinstance(argument, ast.Constant)}
            return makes or forges or bool(texts & BANNED_TEXTS)
        case ast.Subscript(slice=ast.Constant(value=text)):
            return text in BANNED_TEXTS
    return False


def ways_round(tree: ast.Module, *, may_send: bool = False) -> list[int]:
    """Return the lines of a source that go round the gate."""
    allowed = completes_itself(tree)
    found = [node for node in ast.walk(tree) if id(node) not in allowed and is_way_round(node, may_send=may_send)]
    return sorted({getattr(node, "lineno", 0) for node in found})


@pytest.mark.parametrize("attempt", ATTEMPTS_BY_SOURCE)
def test_sealed_road_every_known_way_round_is_seen(attempt: str) -> None:
    assert ways_round(ast.parse(attempt)) != []


def test_sealed_road_no_shipped_source_goes_round() -> None:
    found = {
        name: ways_round(tree, may_send=name == SENDER or name.startswith(ADAPTERS))
        for name, tree in sources()
        if name not in (SEAL, MAKER)
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_sealed_road_has_one_maker_and_one_sender() -> None:
    """The exceptions of the rule are what they claim to be: the gate approves twice, the order manager sends once."""
    trees = {name: ast.parse((ROOT / name).read_text(encoding="utf-8"), name) for name in (SEAL, MAKER, SENDER)}
    calls = [node.func for node in ast.walk(trees[MAKER]) if isinstance(node, ast.Call)]
    assert sum(isinstance(function, ast.Name) and function.id == "approve" for function in calls) == 2
    assert len(ways_round(trees[MAKER])) == 3, "one import and two calls: an entry's and an exit's"
    assert len(ways_round(trees[SENDER])) == 1
    seals = [node for node in ast.walk(trees[SEAL]) if isinstance(node, ast.Name) and node.id == "_SEAL"]
    assert len(seals) == 3, "made once, asked for once, given once"


def test_sealed_road_type_checker_refuses_every_attempt(tmp_path: Path) -> None:
    attempts = tmp_path / "attempts.py"
    attempts.write_text(ATTEMPTS_BY_TYPE, encoding="utf-8")
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--follow-imports=silent",
            "--cache-dir",
            str(tmp_path / "cache"),
            str(attempts),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    refused = {int(line) for line in re.findall(r"^.*attempts\.py:(\d+): error", answer.stdout, re.MULTILINE)}
    lines = ATTEMPTS_BY_TYPE.splitlines()
    assert refused == {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}, answer.stdout
