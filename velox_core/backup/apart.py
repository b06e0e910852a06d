"""A place with backups, worked on by a process of its own: one that hangs is killed, and holds up nothing else.

- The bound is on silence, not on duration: a slow place that moves bytes is waited for as long as it does.
- A place that was given up is not asked again: what comes next fails at once, with the same words.
- Neither a thread nor a process of a place that hangs holds the end of this process.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any, Final

from velox_core.backup.destinations import Destination, Unfinished
from velox_core.backup.faults import BackupError

COURIER: Final = ("-P", "-m", "velox_core.backup.courier")  # -P: no module comes from the folder that one works in
START_SECONDS_MAX: Final = 120.0  # of the process's imports, which no place has a part in
END_SECONDS_MAX: Final = 2.0
READ_BYTES: Final = 1 << 16
SAID_CHARACTERS_MAX: Final = 300


class ApartDestination(Destination):
    """A place, through a process that is started with the first question and ended by `close`.

    Args:
        where: the place as people know it.
        place, account_folder: see `opening.open_here`.
        silence_seconds: the place is given up when it answers nothing and moves nothing for so long.
        command: what this Python runs.
    """

    def __init__(
        self, where: str, *, place: str, account_folder: str, silence_seconds: float, command: Sequence[str] = COURIER
    ) -> None:
        self.where = where
        self._hello = {"at": place, "account_folder": account_folder, "parent": os.getpid()}
        self._silence_seconds = silence_seconds
        self._command = [sys.executable, *command]
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._read = b""
        self._lost: BackupError | None = None

    def names(self) -> list[str]:
        """Return the backups that are there, oldest first."""
        return [str(name) for name in self._ask("names", "being listed")]

    def manifest_content(self, name: str) -> bytes:
        """Return the manifest file of one."""
        return str(self._ask("manifest_content", f"{name} was read", name=name)).encode("latin-1")

    def taken(self) -> set[str]:
        """Return the names that are there or on their way."""
        return {str(name) for name in self._ask("taken", "being listed")}

    def unfinished(self) -> list[Unfinished]:
        """Return what is there and is no backup."""
        return [Unfinished(**each) for each in self._ask("unfinished", "being listed")]

    def probe(self) -> str:
        """Write, read back and remove a small file; returns what was seen."""
        return str(self._ask("probe", "a small file was written"))

    def put(self, staged: Path, name: str, made_by: str) -> None:
        """Take a whole backup."""
        self._ask("put", f"{name} was sent", staged=str(staged.absolute()), name=name, made_by=made_by)

    def tidy(self, made_by: str, before_wall_ms: int) -> list[str]:
        """Remove what this maker left under way, and any maker's that nobody has touched since; returns their names."""
        found = self._ask("tidy", "what is left there was removed", made_by=made_by, before_wall_ms=before_wall_ms)
        return [str(name) for name in found]

    def fetch(self, name: str, path: str, target: Path) -> None:
        """Copy one file of a backup."""
        self._ask("fetch", f"{path} of {name} was read", name=name, path=path, target=str(target.absolute()))

    def remove(self, name: str) -> None:
        """Remove a backup, its manifest first."""
        self._ask("remove", f"{name} was removed", name=name)

    def close(self) -> None:
        """End the process, within a bound also when it cannot end: that hangs in the kernel."""
        process, self._process, self._read = self._process, None, b""
        if process is None:
            return
        process.kill()
        try:
            process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            Thread(target=process.wait, name="backup-place-end", daemon=True).start()
        for pipe in (process.stdin, process.stdout, self._errors):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _ask(self, call: str, doing: str, **asked: str | int) -> Any:
        if self._lost is not None:
            raise self._lost
        try:
            process = self._started()
        except TimeoutError as error:
            raise self._give_up(
                f"{self.where}: the process that works there did not start within {START_SECONDS_MAX:g} s",
                "see what else this machine does (top); velox eod or velox backup --missing then sends what the place lacks",
            ) from error
        except (OSError, ValueError) as error:
            raise self._broken(error) from error
        try:
            self._write(process, {"call": call, **asked})
            while "moved" in (body := json.loads(self._line(process, self._silence_seconds))):
                continue
        except TimeoutError as error:
            raise self._give_up(
                f"{self.where} answered nothing and moved nothing for {self._silence_seconds:g} s while {doing}",
                "see its address, its server and the network; velox eod or velox backup --missing then sends it what it lacks",
            ) from error
        except (OSError, ValueError) as error:
            raise self._broken(error) from error
        if "problem" in body:
            raise BackupError(str(body["problem"]), str(body["advice"]))
        return body["answer"]

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C is this process's affair, which then closes it
            )
            self._write(self._process, self._hello)
            self._line(self._process, START_SECONDS_MAX)  # it is ready: from here on, silence is the place's
        return self._process

    @staticmethod
    def _write(process: subprocess.Popen[bytes], body: dict[str, Any]) -> None:
        if process.stdin is not None:
            process.stdin.write(json.dumps(body).encode() + b"\n")
            process.stdin.flush()

    def _line(self, process: subprocess.Popen[bytes], silence_seconds: float) -> bytes:
        """Return the next line. Raises TimeoutError after the silence, EOFError's kind of OSError at the end."""
        if process.stdout is None:
            raise OSError("it has no output")
        until = time.monotonic() + silence_seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise TimeoutError
                block = os.read(process.stdout.fileno(), READ_BYTES)
                if not block:
                    raise OSError("it said nothing")
                self._read += block
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        with suppress(OSError, ValueError):
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            return said[-1][:SAID_CHARACTERS_MAX] if said else ""
        return ""

    def _broken(self, error: Exception) -> BackupError:
        said = self._last_words() or str(error)
        return self._give_up(f"{self.where}: the process that works there ended: {said}", "try it again")

    def _give_up(self, problem: str, advice: str) -> BackupError:
        self._lost = BackupError(problem, advice)
        self.close()
        return self._lost
