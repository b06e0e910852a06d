"""Signals are noted from the start to the report: none is lost, none kills, and a second one changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from velox_core.stop_signals import STOPPING_SIGNALS, stop_signals


def raised(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOPPING_SIGNALS)
def test_signal_during_the_start_is_handed_to_the_session_that_comes(number: signal.Signals) -> None:
    asked: list[str] = []
    with stop_signals() as signals:
        raised(number)
        signals.tell(asked.append)
    assert asked == [f"signal {number.name}"]


def test_signal_while_trading_asks_at_once_and_a_second_one_keeps_the_first_reason() -> None:
    asked: list[str] = []
    with stop_signals() as signals:
        signals.tell(asked.append)
        assert asked == []
        raised(signal.SIGTERM)
        raised(signal.SIGINT)
    assert set(asked) == {"signal SIGTERM"}


def test_handlers_are_given_back_at_the_end() -> None:
    before = [signal.getsignal(number) for number in STOPPING_SIGNALS]
    with stop_signals():
        assert [signal.getsignal(number) for number in STOPPING_SIGNALS] != before
    assert [signal.getsignal(number) for number in STOPPING_SIGNALS] == before


def test_signal_after_the_end_of_what_ends_with_its_process_changes_nothing() -> None:
    with stop_signals(until_exit=True):
        pass
    for number in STOPPING_SIGNALS:
        raised(number)
    assert [signal.getsignal(number) for number in STOPPING_SIGNALS] == [signal.SIG_IGN] * 3


def test_signals_while_the_interpreter_ends_leave_the_exit_code() -> None:
    program = (
        "import os, signal, sys\n"
        "from velox_core.stop_signals import stop_signals\n"
        "class Last:\n"  # dropped after the interpreter gave all its own handlers back
        "    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGINT.value):\n"
        "        kill(pid, number)\n"
        "sys.last = Last()\n"
        "with stop_signals(until_exit=True):\n"
        "    pass\n"
        "sys.exit(4)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 4
