from __future__ import annotations

import os
import subprocess
import sys

import pytest

from velox_core.operations import processes
from velox_core.operations.processes import is_alive


def test_process_that_ends_between_the_two_looks_at_it_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait(240)
    assert not is_alive(process.pid)
    with monkeypatch.context() as patched:
        patched.setattr(processes.os, "kill", lambda pid, number: None)  # the first look still found it
        assert not is_alive(process.pid)
        assert is_alive(os.getpid())
