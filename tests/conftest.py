"""For every test: what it does to the process' signals ends with it. And for a whole run: its order, and what is measured.

- Files that wait long for processes of their own come first, and those that compute long, so that no worker ends alone with
  one of them; and by turns, so that one computes while another waits. The rest follows as collected; within a file nothing
  changes its place.
- The flow tests share one server, so they stay with one worker, all files together. The others go by file, as xdist does it.
- Under the coverage gate run the unit tests of what it measures, and no others (`MEASURED`): tracing doubles a test's time, and
  what only others reach is not tested where it should be.
- No property is judged by how long an example took, to draw or to run: a loaded machine would fail it. With EXAMPLES=same
  the examples are the same in each run, which CI asks for: what fails there is to fail by the change.
- Every worker collects everything, so collecting is made cheap: no garbage is looked for meanwhile, and what was made then is
  never looked through again; no test module brings a server or pandas in at its import.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from velox_core.stop_signals import STOPPING_SIGNALS

# A shell starts what runs in its background with Ctrl-C ignored, and every process that a test starts would inherit that:
# Prefect's worker hands its own stop on as one, and would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# EXAMPLES=same: a verdict about a change is not to depend on what was drawn; whoever hunts draws anew.
settings.register_profile(
    "untimed",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("EXAMPLES") == "same",
)
settings.load_profile("untimed")

TESTS = Path(__file__).parent
LONG_FILES = (
    "integration/test_prefect_kills.py",
    "integration/test_take_over.py",
    "integration/test_prefect_emergencies.py",
    "integration/test_guard.py",
    "flows/test_flows.py",
    "integration/test_up_prefect.py",
    "integration/test_halt_command.py",
    "integration/test_prefect_day.py",
    "integration/test_day_command.py",
    "integration/test_restart.py",
    "integration/test_crash_points.py",
    "integration/test_trading_days.py",
    "integration/test_automations.py",
    "integration/test_reconcile.py",
    "simulation/test_flatten.py",
    "integration/test_breach_age_benchmark.py",
    "integration/test_bad_stores.py",
    "integration/test_shared_limits.py",
    "integration/test_compiled_core.py",  # its copy is still being made when the tests begin
    "simulation/test_simulation.py",
    "contract/test_ledger_contract.py",
    "contract/test_ledger_stateful.py",
    "unit/test_gate_stateful.py",
    "unit/test_order_states_stateful.py",
    "unit/feeds/test_load_day_properties.py",
    "unit/test_rehearsed_days.py",
    "unit/engine/test_session_ticks.py",
    "unit/cli/test_commands.py",
)
FLOWS = "tests/flows/"
MEASURED = ("unit/domain/", "unit/engine/", "unit/risk/", "unit/test_")


def place(name: str) -> int:
    """Return where a file comes: the long files, all others."""
    if name.startswith("flows/"):
        return LONG_FILES.index("flows/test_flows.py")
    return LONG_FILES.index(name) if name in LONG_FILES else len(LONG_FILES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the flow tests to one worker; None is whatever was asked for on the command line."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class WithOneServer(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return FLOWS if nodeid.startswith(FLOWS) else str(super()._split_scope(nodeid))

    return WithOneServer(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without looking for garbage: thousands of tests and their modules stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, and mark what the coverage gate does not measure."""
    gone = [name for name in LONG_FILES if not (TESTS / name).is_file()]
    if gone:
        raise pytest.UsageError(
            f"tests/conftest.py: LONG_FILES names what is not there: {', '.join(gone)}; name it as it is now"
        )
    names = {path: path.relative_to(TESTS).as_posix() for path in {item.path for item in items}}
    items.sort(key=lambda item: place(names[item.path]))
    for item in items:
        if not names[item.path].startswith(MEASURED):
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Give back the handlers that a command, run in this process, ignores for the rest of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.getsignal(number)) for number in STOPPING_SIGNALS]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def patient_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process a Redis that answers late is no hung one: a busy machine has it wait for a core.

    The time-out stops entries for seconds, by design; a test of that names its own.
    """
    from velox_core.ledger.redis import RedisLedger

    monkeypatch.setitem(RedisLedger.__init__.__kwdefaults__, "timeout_seconds", 30.0)


@pytest.fixture(autouse=True)
def patient_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process a run's record that is read slowly is no missing one, as with a late Redis."""
    from velox_core.journal.recall import recall_run

    monkeypatch.setitem(recall_run.__kwdefaults__, "seconds_max", 120.0)
