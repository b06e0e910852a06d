"""Command lines that messages tell a person to run: they can be copied as they are.

- `velox` is written as the path from the current folder to the one of this environment, when there is one.
- Every part is quoted for a shell; `--config` is named only when it is not the default.
"""

from __future__ import annotations

import os
import shlex
import sys
from itertools import takewhile
from pathlib import Path

from velox_core.settings import Settings, default_config


def program(name: str) -> str:
    """Return how to call a program of this environment from the current folder, else just its name."""
    path = Path(sys.executable).with_name(name)
    if not path.is_file():
        return name
    below = os.path.relpath(path)
    return shlex.quote(str(path) if below.startswith("..") else below)


def velox(*arguments: str, settings: Settings | None = None) -> str:
    """Return a velox command line, with the configuration when it is not the default."""
    named = [] if settings is None or _is_default(settings) else ["--config", _short(settings.source)]
    words = list(takewhile(lambda argument: not argument.startswith("-"), arguments))  # `backups list` takes it, `backups` not
    return " ".join([program("velox"), *map(shlex.quote, [*words, *named, *arguments[len(words) :]])])


def _is_default(settings: Settings) -> bool:
    return Path(os.path.abspath(default_config())) == Path(os.path.abspath(settings.source))


def _short(path: Path) -> str:
    below = os.path.relpath(path)
    return str(path) if below.startswith("..") else below
