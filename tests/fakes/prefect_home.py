"""A home of Prefect with an empty, migrated database: made once for each version of Prefect on a machine, copied by all tests.

Migrating from nothing costs as much CPU as starting a server; a copy costs nothing. Delete the folder to have it made again.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

DATABASE: Final = "prefect.db"
MIGRATION_SECONDS_MAX: Final = 300.0


def migrated_home(target: Path) -> Path:
    """Make `target` a home with an empty, migrated database, and return it. Whoever comes first makes it, others wait."""
    kept = Path(tempfile.gettempdir()) / f"velox-prefect-{importlib.metadata.version('prefect')}-{os.getuid()}"
    kept.mkdir(mode=0o700, exist_ok=True)
    if kept.stat().st_uid != os.getuid():
        raise PermissionError(f"{kept} belongs to somebody else")
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (kept / DATABASE).exists():
            _migrate(kept)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(kept / DATABASE, target / DATABASE)
    return target


def _migrate(kept: Path) -> None:
    """Make the database beside its place, so that one which is half made is never taken."""
    with tempfile.TemporaryDirectory(dir=kept) as folder:
        quiet = {"PREFECT_HOME": folder, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
        environ = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
        subprocess.run(command, env=environ | quiet, check=True, capture_output=True, timeout=MIGRATION_SECONDS_MAX)
        (Path(folder) / DATABASE).rename(kept / DATABASE)
