"""A process that is killed when the one that started it is gone: a server of a test outlives no run of the tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

BIND: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit("whoever started this is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def bound(command: Sequence[str]) -> list[str]:
    """Return what to start instead of a command, from the thread that stays. The command's program is an absolute path."""
    return [sys.executable, "-S", "-c", BIND, str(os.getpid()), *command]
