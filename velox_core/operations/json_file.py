"""A JSON file: written whole or not at all, durably; read as an object, or as an empty one."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from velox_core.domain.errors import VeloxError


def write_json(path: Path, body: object) -> None:
    """Replace a JSON file: readers see the old one or the new one. Raises VeloxError when it cannot be written."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")  # two threads may write one file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("w", encoding="utf-8") as file:
            json.dump(body, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise VeloxError(f"{path} cannot be written: {error}. Check the disk and the folder's owner.") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one when the file is missing, torn or of another shape."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
