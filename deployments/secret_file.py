"""Write the secrets file of trading processes from a Prefect Secret block: `python -m deployments.secret_file --block NAME`.

- Trading processes never ask Prefect: they read the file (or the environment), with Prefect up or down.
- The block's value is the file's text, or the same as JSON: {"broker": {"api_key": "..."}, "alerts": {"urls": ["..."]}}.
- The file is `system.secrets_path` of the configuration, or --to FILE; mode 0600, replaced in one step. Values are not shown.
- Not a flow: a flow's parameters, results and logs are kept by Prefect, and a secret belongs in none of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from velox_core.domain.errors import EXIT_DONE, ConfigError, VeloxError
from velox_core.operations.prefect_home import HOME_VARIABLE, prefect_environment
from velox_core.settings import default_config, paths
from velox_core.settings.folders import project_root
from velox_core.settings.secret_file import write_secret_file


def main() -> int:
    """Write the file and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.secret_file", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--block", required=True, help="name of the Prefect Secret block")
    parser.add_argument("--config", type=Path, help="configuration whose system.secrets_path is written")
    parser.add_argument("--to", type=Path, help="this file instead")
    arguments = parser.parse_args()
    config = arguments.config or default_config()
    if HOME_VARIABLE not in os.environ:  # Prefect reads it when it is imported
        environ = prefect_environment(paths(os.environ, project_root(config)).var, os.environ)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
    try:
        place = arguments.to or secrets_place(config)
        names = write_secret_file(place, block_value(arguments.block))
    except VeloxError as error:
        sys.stderr.write(f"velox: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{place} holds {', '.join(names)} (mode 0600)\n")
    return EXIT_DONE


def secrets_place(config: Path) -> Path:
    """Return the file that a configuration names, also while it is not there yet. Raises ConfigError."""
    from velox_core.settings.checks import Reader
    from velox_core.settings.document import parse, read_file

    named = Reader(parse(read_file(config), str(config))).get("secrets_path")
    if not isinstance(named, str):
        raise ConfigError(f"{config}: system.secrets_path names no file: set it, or give --to FILE")
    return project_root(config) / named


def block_value(name: str) -> str | Mapping[str, object]:
    """Return what a Secret block holds. Raises VeloxError when it cannot be had."""
    import httpx
    from prefect.blocks.system import Secret
    from prefect.exceptions import PrefectException

    try:
        block: Any = Secret.load(name)
    except (ValueError, PrefectException, httpx.HTTPError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise VeloxError(f"the Prefect Secret block {name!r} cannot be read: {reason}. Make it in the UI (Blocks)") from None
    value = block.get()
    if isinstance(value, str | Mapping):
        return value
    raise ConfigError(f"the Prefect Secret block {name!r} holds neither text nor a JSON object (the value is not shown)")


if __name__ == "__main__":
    sys.exit(main())
