"""What was verified, as the staged manifest tells it: what a place has in the end is compared with that, not with a later look.

The disk of `var` may give back another bit than it did when the backup was verified.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from velox_core.backup.faults import BackupError
from velox_core.backup.naming import MANIFEST_FILE
from velox_core.backup.packing import blocks


def verified_of(staged: Path) -> dict[str, str]:
    """Return the SHA-256 (hex) of each part of a staged backup, by its path; of none where the manifest cannot be read.

    Whoever gives the backup compares the manifest itself with the one it made. Raises OSError.
    """
    try:
        parts = json.loads((staged / MANIFEST_FILE).read_bytes())["parts"]
        return {str(part["path"]): str(part["sha256"]) for part in parts}
    except (ValueError, KeyError, TypeError):
        return {}


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 (hex). Raises OSError."""
    digest = hashlib.sha256()
    for block in blocks(path):
        digest.update(block)
    return digest.hexdigest()


def unlike(where: str, source: Path, verified: str, advice: str) -> BackupError:
    """Return what to raise when a place gives back something else: the staged file's fault, or with this advice its own."""
    if verified and sha256_of(source) != verified:
        problem = f"{source.name} is no longer what was verified, so {where} does not get it"
        return BackupError(problem, "see the health of var's disk, then take the backup again")
    return BackupError(f"{where}: {source.name} was read back as something else", advice)
