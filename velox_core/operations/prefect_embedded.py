"""A Prefect server for one flow process alone, started before that process imports Prefect: both get ready side by side.

- Prefect would bring up the same server by itself, but only at its first call, and after it has imported the whole server
  into the flow's process too; that was the larger half of what a day by hand waited for.
- It listens on this machine, keeps its records in the home that a later server shows, and ends with the flow process, also
  with one that is killed: the kernel tells it.
- It has no schedules and no UI. Prefect itself is not imported here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from velox_core.domain.errors import VeloxError
from velox_core.operations.prefect_home import LOOPBACK, api_url, is_healthy

STARTUP_SECONDS_MAX: Final = 240.0
STOP_SECONDS_MAX: Final = 5.0
POLL_SECONDS: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1  # of Linux, <linux/prctl.h>
_FOR_ONE_PROCESS: Final = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
_APPLICATION: Final = "prefect.server.api.server:create_app"


def without_authorities(address: str, home: Path) -> dict[str, str]:
    """Return what keeps Prefect's client from reading all certificate authorities for a server that is met without TLS.

    It reads them anew for each of its two dozen connections of a day, 40 ms of processor each. One authority instead of all:
    should it meet TLS after all, it trusts less, not more. Empty for a server with TLS.

    Args:
        address: of the server, as in `PREFECT_API_URL`.
        home: Prefect's, where the one is kept.
    """
    if not address.startswith("http://"):
        return {}
    import certifi

    end = "-----END CERTIFICATE-----\n"
    one = Path(certifi.where()).read_text(encoding="utf-8").partition(end)[0] + end
    file = home / "one-authority.pem"
    try:
        home.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.write_text(one, encoding="utf-8")
        draft.replace(file)
    except OSError:
        return {}  # it only costs time
    return {"PREFECT_API_SSL_CERT_FILE": str(file)}


class EmbeddedPrefect:
    """The server, as a child of this process. `url` is what `PREFECT_API_URL` is to be set to.

    Args:
        environ: the environment of flow processes, with Prefect's home.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = probe.getsockname()[1]
        self.url = api_url(port)
        command = [sys.executable, "-m", "uvicorn", "--factory", _APPLICATION, "--host", LOOPBACK, "--port", str(port)]
        self._process = subprocess.Popen(
            [*command, "--log-level", "error", "--lifespan", "on"],
            env={**environ, **_FOR_ONE_PROCESS},
            preexec_fn=_ends_with(os.getpid()),  # it calls one function of the kernel, and takes no lock
        )

    def wait(self) -> None:
        """Wait until it answers. Raises VeloxError when it ends instead, or takes too long."""
        until = time.monotonic() + STARTUP_SECONDS_MAX
        while not is_healthy(self.url):
            if self._process.poll() is not None:
                raise VeloxError(
                    f"the embedded Prefect server ended with code {self._process.returncode} before it answered; "
                    "its own lines stand above. Free some memory or disk, or start a server with velox up"
                )
            if time.monotonic() > until:
                raise VeloxError(f"the embedded Prefect server did not answer within {STARTUP_SECONDS_MAX:.0f} s")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it, within a bound; what it has taken is written by then.

        Prefect sends its last log lines and events when the interpreter ends its threads, and tries for 75 s when nobody
        answers: so this belongs to `atexit`, whose turn comes after the threads'.
        """
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS_MAX)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _ends_with(parent: int) -> Callable[[], None] | None:
    """Return what has a child ended by SIGTERM when its parent is gone, however that ended; None where no kernel does that.

    The kernel goes by the thread that starts the child: it must be one that lives as long as the process, the main one.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    control = ctypes.CDLL(None).prctl

    def ask() -> None:
        control(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed just before
            os._exit(1)

    return ask
