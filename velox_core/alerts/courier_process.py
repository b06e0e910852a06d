"""A channel whose messages a process of its own delivers: started when first needed, killed when it hangs.

- The URL goes to the process by its stdin. It is in no argument list, log line, repr or error.
- The process gets no variable of ours (VELOX__...): it needs no token but its channel's.
- It has a session of its own: Ctrl-C on the terminal does not reach it, and an engine that is killed leaves it to finish
  the message that it has.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time

from velox_core.ports import Severity

START_SECONDS_MAX = 30.0  # importing apprise takes 1 to 10 s
DELIVERY_SECONDS_MAX = 10.0
ENDED = "the channel was ended"
_KINDS = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.CRITICAL: "failure"}


class CourierChannel:
    """One channel. Not thread-safe: one thread delivers.

    Args:
        name: how the configuration calls it; shown everywhere.
        minimum_severity: the least that it is meant for.
        url: apprise's address of it, a secret.
        start_seconds, delivery_seconds: the bounds of the two.
    """

    def __init__(
        self,
        name: str,
        minimum_severity: Severity,
        url: str,
        *,
        start_seconds: float = START_SECONDS_MAX,
        delivery_seconds: float = DELIVERY_SECONDS_MAX,
    ) -> None:
        self.name = name
        self.minimum_severity = minimum_severity
        self._url = url
        self._start_seconds = start_seconds
        self._delivery_seconds = delivery_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = threading.Event()

    def __repr__(self) -> str:
        return f"CourierChannel({self.name!r}, {self.minimum_severity.value})"

    def warm_up(self) -> str:
        """Start the process, if it does not run. Returns '' or why it cannot be used. Never raises."""
        if self._process is not None and self._process.poll() is None:
            return ""
        self.close()
        if self._killed.is_set():
            return ENDED
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "velox_core.alerts.courier"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            return f"no process to deliver it with: {error.strerror}"
        if self._killed.is_set():  # meanwhile, by somebody who has seen no process to end
            return self._give_up(ENDED)
        why = self._ask({"url": self._url}, self._start_seconds)
        if why:
            self.close()
        return why

    def deliver(self, severity: Severity, title: str, body: str) -> str:
        """Deliver one message within the bounds. Returns '' or why it failed. Never raises."""
        why = self.warm_up()
        return why or self._ask({"title": title, "body": body, "kind": _KINDS[severity]}, self._delivery_seconds)

    def kill(self) -> None:
        """End the channel with a delivery that is under way; what it has not delivered is lost. For any other thread."""
        self._killed.set()
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # it still has the line that the process did not take any more
                    pipe.close()

    def _ask(self, line: dict[str, str], seconds: float) -> str:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return "its process is gone"
        try:
            process.stdin.write(json.dumps(line).encode() + b"\n")
            process.stdin.flush()
            answer = _read_line(process.stdout.fileno(), time.monotonic() + seconds)
            return str(json.loads(answer)["why"]) if answer else self._give_up("its process ended")
        except TimeoutError:
            return self._give_up(f"no answer within {seconds:g} s")
        except (OSError, ValueError, KeyError):
            return self._give_up("its process broke off")

    def _give_up(self, why: str) -> str:
        self.close()
        return why


def _environment() -> dict[str, str]:
    """Return this process's variables without ours. Another thread may take one away meanwhile: that one is left out."""
    names = [name for name in os.environ if not name.upper().startswith("VELOX__")]
    return {name: value for name in names if (value := os.environ.get(name)) is not None}


def _read_line(descriptor: int, deadline: float) -> bytes:
    """Return one line, b'' when there will be none. Raises TimeoutError, OSError."""
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise TimeoutError
        part = os.read(descriptor, 65_536)
        if not part:
            return b""
        line += part
    return line
