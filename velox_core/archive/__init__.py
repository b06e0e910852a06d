"""The log archive.

- lines: which lines of the live files belong to a date.
- store: compressing them, the manifest, reading it all back.
- retention: what may be removed, of the archives and of the files that rotation left.
"""

from velox_core.archive.retention import prune_archives, prune_rotated
from velox_core.archive.store import MANIFEST_FILE, Manifest, archive_date, archive_problems, read_manifest

__all__ = [
    "MANIFEST_FILE",
    "Manifest",
    "archive_date",
    "archive_problems",
    "prune_archives",
    "prune_rotated",
    "read_manifest",
]
