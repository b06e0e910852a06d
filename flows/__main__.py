"""Running a flow as a process the quick way: `python -m flows trading_day --config ... --date ...`.

- The same as `python -m flows.trading_day ...`, but the environment is set, and the Prefect server that is not there
  already is started, before Prefect is imported; see `velox_core.operations.prefect_embedded`.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import flows
from flows.ahead import MARKET_OPEN
from velox_core.domain.errors import EXIT_BAD_USAGE, VeloxError
from velox_core.operations.engine_standby import get_engine_ready
from velox_core.operations.prefect_embedded import EmbeddedPrefect, without_authorities
from velox_core.operations.prefect_home import API_VARIABLE, HOME_VARIABLE, prefect_environment

FLOWS_THAT_OPEN: Final = frozenset({"trading_day", "market_open"})
FLOWS_THAT_TRADE: Final = frozenset({"trading_day", "intraday"})
AUTHORITIES_VARIABLE: Final = "SSL_CERT_FILE"  # read by httpx
NO_FLOWS: Final = frozenset({"__main__", "ahead", "client", "command", "guards", "parameters", "policy"})


def main() -> None:
    """Get the environment and a server ready, then run the flow that the first argument names, and exit as it ended."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    known = sorted({found.name for found in pkgutil.iter_modules(flows.__path__)} - NO_FLOWS)
    if name not in known:
        sys.stderr.write(f"velox: there is no flow {name!r}; name one of {', '.join(known)}\n")
        sys.exit(EXIT_BAD_USAGE)
    sys.argv[:2] = [f"flows {name}"]
    try:
        _set_environment()
    except VeloxError as error:
        sys.stderr.write(f"velox: {error}\n")
        sys.exit(error.exit_code)
    server = None if os.environ.get(API_VARIABLE) else EmbeddedPrefect(os.environ)
    if server is not None:
        atexit.register(server.stop)  # after Prefect's own end, which sends the last records: see `EmbeddedPrefect.stop`
        os.environ[API_VARIABLE] = server.url
    elif name in FLOWS_THAT_TRADE:
        get_engine_ready()
    try:
        authorities = without_authorities(os.environ[API_VARIABLE], Path(os.environ[HOME_VARIABLE]))
        for name_of, value in authorities.items():
            os.environ.setdefault(name_of, value)
        gc.disable()  # what is imported stays: to look through it again and again is a tenth of the import's time
        with _few_authorities(authorities):
            module = importlib.import_module(f"flows.{name}")
            command = importlib.import_module("flows.command")
        gc.freeze()
        gc.enable()
        if server is not None:
            if name in FLOWS_THAT_TRADE:
                get_engine_ready()
            server.wait()
        try:
            command.run_flow(getattr(module, name), MARKET_OPEN if name in FLOWS_THAT_OPEN else ())
        finally:
            gc.freeze()  # the process ends: what it holds need not be looked through once more
    except VeloxError as error:
        sys.stderr.write(f"velox: {error}\n")
        sys.exit(error.exit_code)


@contextmanager
def _few_authorities(authorities: Mapping[str, str]) -> Iterator[None]:
    """Have what opens no connection while it is imported, and prepares for one, read few authorities, too."""
    if not authorities or AUTHORITIES_VARIABLE in os.environ:
        yield
        return
    os.environ[AUTHORITIES_VARIABLE] = next(iter(authorities.values()))
    try:
        yield
    finally:
        del os.environ[AUTHORITIES_VARIABLE]


def _set_environment() -> None:
    """Set what Prefect reads when it is imported. Raises ConfigError."""
    if HOME_VARIABLE in os.environ:
        return
    from velox_core.settings import load_settings, paths

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", type=Path)
    settings = load_settings(parser.parse_known_args()[0].config, os.environ)
    os.environ.update(prefect_environment(paths(os.environ, settings.root).var, os.environ))


if __name__ == "__main__":
    main()
