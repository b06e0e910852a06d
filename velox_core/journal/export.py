"""The export of a run: what two runs of the same day must have in common, byte for byte.

- JSON Lines of the exported kinds, renumbered from 1, without digests; SESSION events and their wall-clock facts stay out.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from velox_core.domain.events import EXPORTED_KINDS, JournalEvent


def export_events(events: Iterable[JournalEvent]) -> bytes:
    """Return the events as JSON Lines, oldest first."""
    exported = (event for event in events if event.kind in EXPORTED_KINDS)
    lines = [
        orjson.dumps({"sequence": number, "ts_ms": event.ts_ms, "kind": event.kind, "body": event.body}) + b"\n"
        for number, event in enumerate(exported, start=1)
    ]
    return b"".join(lines)
