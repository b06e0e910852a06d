"""A service's process that hangs: a stopped one hears no SIGTERM, and is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from velox_core.domain.errors import VeloxError
from velox_core.operations.processes import is_alive
from velox_core.operations.service_process import ServiceProcess, holder_of
from velox_core.ports import LockHolder
from velox_core.settings import Paths

SLEEPS = ("-c", "import time; time.sleep(600)")


def test_kill_ends_the_very_process_that_hangs_and_no_other(tmp_path: Path) -> None:
    service = ServiceProcess("sleeper", tmp_path / "lock", Paths(var=tmp_path, logs=tmp_path), end_seconds=1.0)
    service.start(SLEEPS, os.environ)
    life = service.life()
    assert life is not None
    os.kill(life.pid, signal.SIGSTOP)
    with pytest.raises(VeloxError, match=f"process {life.pid} hangs and could not be killed"):
        service.kill(LockHolder(host=life.host, pid=life.pid, started="an earlier boot"))
    assert is_alive(life.pid)
    service.kill(holder_of(life.pid))
    until = time.monotonic() + 60.0
    while service.exit_code() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert (service.exit_code(), service.life()) == (-signal.SIGKILL, None)
