"""The live screen of `velox run`: a process of its own, beside the engine.

- The engine has its process to itself: drawing in a thread of it would take the interpreter from the loop. What draws here
  only reads the status file; when it fails or is killed, the day goes on without a picture.
- It ends when the engine's process closes the pipe to it, or is gone.
- Ctrl-C reaches every process of a terminal: it is the engine's, and is ignored here.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

END_SECONDS: Final = 3.0
HINT: Final = "Ctrl-C asks the engine to stop; a second one changes nothing."


class LiveProcess:
    """Shows a process' status on the terminal while it is entered. Whatever fails in it costs the picture only.

    Args:
        var: the var folder.
        broker_type, account: whose runs.
        pid, since_wall_ms: the process to show.
        note: what happens before it says anything.
        on_stderr: show there, because stdout is for the result.
    """

    def __init__(
        self, var: Path, *, broker_type: str, account: str, pid: int, since_wall_ms: int, note: str, on_stderr: bool
    ) -> None:
        self._arguments = ["--var", str(var), "--broker-type", broker_type, "--account", account, "--pid", str(pid)]
        self._arguments += ["--since", str(since_wall_ms), "--note", note, *(["--stderr"] if on_stderr else [])]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen([sys.executable, "-m", __name__, *self._arguments], stdin=subprocess.PIPE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    """Show until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="live view")
    for name in ("--var", "--broker-type", "--account", "--pid", "--since", "--note"):
        parser.add_argument(name, required=True)
    parser.add_argument("--stderr", action="store_true")
    chosen = parser.parse_args()

    from rich.console import Console

    from velox_core.cli.progress import RunView
    from velox_core.operations.status import ProcessStatus, account_folders

    def folders() -> list[Path]:
        return account_folders(Path(chosen.var), broker_type=chosen.broker_type, account=chosen.account)

    read = ProcessStatus(folders, pid=int(chosen.pid), since_wall_ms=int(chosen.since))
    with RunView(Console(stderr=chosen.stderr), read, note=lambda: str(chosen.note), hint=HINT):
        sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
