"""The Prefect server of a var folder, in the foreground: `python -m deployments.server --var DIR --port 4200`.

- One for each var folder: it holds a kernel lock there for as long as it lives, and says beside it where it listens.
- It listens on this machine alone. Analytics and telemetry are off, the settings tuned (`operations.prefect_home`).
- The environment is set before Prefect is imported, which reads it then.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from velox_core.domain.errors import EXIT_OPERATING_ERROR
from velox_core.engine_lock import CloserLockFile
from velox_core.operations.json_file import write_json
from velox_core.operations.prefect_home import (
    API_VARIABLE,
    LOOPBACK,
    SERVER_FILE,
    api_url,
    prefect_home,
    server_lock,
    service_environment,
)
from velox_core.ports import CloserHold

UI_VARIABLES: Final = ("PREFECT_SERVER_UI_API_URL", "PREFECT_UI_API_URL")  # two names of one setting


def main() -> None:
    """Take the lock and become the server. Exit code 1 when the var folder has a server already."""
    parser = argparse.ArgumentParser(prog="python -m deployments.server", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--var", type=Path, required=True, help="the folder of all state; Prefect's home is its prefect")
    parser.add_argument("--port", type=int, required=True, help="where it listens, on 127.0.0.1")
    arguments = parser.parse_args()
    lock = CloserLockFile(server_lock(arguments.var))
    if lock.take() is CloserHold.ELSEWHERE:
        sys.stderr.write(f"velox: {lock.holder} is the Prefect server of {arguments.var} already\n")
        sys.exit(EXIT_OPERATING_ERROR)
    write_json(prefect_home(arguments.var) / SERVER_FILE, {"port": arguments.port, "pid": os.getpid()})
    os.environ.update(server_environment(arguments.var, os.environ, arguments.port))
    os.environ.pop(API_VARIABLE, None)
    sys.argv = ["prefect", "server", "start", "--host", LOOPBACK, "--port", str(arguments.port)]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def server_environment(var: Path, environ: Mapping[str, str], port: int) -> dict[str, str]:
    """Return what the server of a var folder is started with; its UI is told where the API listens.

    Without that the pages look for it at Prefect's own default port, whatever port was chosen, and show nothing. An address
    that the caller's environment names stays: a proxy may stand before it.
    """
    made = service_environment(var, environ, "")
    return made if any(name in environ for name in UI_VARIABLES) else {**made, UI_VARIABLES[0]: api_url(port)}


if __name__ == "__main__":
    main()
