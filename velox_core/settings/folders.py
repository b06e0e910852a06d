"""Where things lie: the project folder of a configuration, the shipped files, and the var and logs folders.

- Relative paths of a configuration are taken from its project folder: the parent of a folder named `config`, else
  the file's own folder.
- `VELOX__VAR=DIR` moves var to DIR and the logs to DIR/logs, together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VAR_VARIABLE = "VELOX__VAR"
DEFAULT_CONFIG = "config/system_simulated.yaml"
SHIPPED_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """The two folders that a process writes to: state below `var`, log files below `logs`."""

    var: Path
    logs: Path


def paths(environ: Mapping[str, str], root: Path | None = None) -> Paths:
    """Return the var and logs folders, absolute.

    Args:
        environ: the process environment; `VELOX__VAR` moves both folders, an empty one counts as not set.
        root: the project folder (`Settings.root`); the current folder when it is not known.
    """
    moved = environ.get(VAR_VARIABLE, "")
    if moved:
        var = Path(os.path.abspath(moved))
        return Paths(var=var, logs=var / "logs")
    base = Path.cwd() if root is None else root
    return Paths(var=base / "var", logs=base / "logs")


def default_config() -> Path:
    """Return the configuration that is used when none is named: the current folder's, else the shipped one."""
    local = Path(DEFAULT_CONFIG)
    return local if local.is_file() else SHIPPED_ROOT / DEFAULT_CONFIG


def project_root(source: Path) -> Path:
    """Return the folder that relative paths in the configuration `source` are taken from."""
    folder = Path(os.path.abspath(source)).parent
    return folder.parent if folder.name == "config" else folder


def shipped_file(root: Path, name: str) -> Path:
    """Return the project's `config/<name>`, or the one shipped with VELOX when the project has none of its own."""
    own = root / "config" / name
    return own if own.is_file() else SHIPPED_ROOT / "config" / name


def portable(path: Path, root: Path) -> str:
    """Write a path so that it is the same on every machine: relative to the project or to VELOX, if it lies below."""
    for base in (root, SHIPPED_ROOT):
        if path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.as_posix()
