"""What is said of the metrics in a backup: what was saved of them, and the command that puts it back into their server."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from velox_core.backup import influx2_files
from velox_core.backup.manifest import Manifest, Part, PartKind
from velox_core.backup.metrics_ways import Way
from velox_core.backup.packing import SUFFIX
from velox_core.operations.hints import velox
from velox_core.settings import Settings

TOKEN: Final = "TOKEN"  # what a person replaces


def metrics_words(manifest: Manifest) -> list[str]:
    """Return what a backup did about the metrics, where a person should know it."""
    said = []
    for part in _metrics(manifest):
        notes = part.notes
        if notes.get("method") == Way.INFLUX2_MANIFEST:
            removed = len(notes.get("removed_meanwhile", ()))
            shards = f"{notes['shards']} shards" + (f", {removed} removed by the server meanwhile" if removed else "")
            said.append(
                f"InfluxDB's own backup of bucket {notes['bucket']} ({shards}); that server's users and tokens are in it: "
                "keep it as safe as them"
            )
        if notes.get("instead"):
            said.append(f"metrics: {notes['instead']}")
    return said


def restore_words(settings: Settings, manifest: Manifest, folder: Path | None) -> list[str]:
    """Return how the metrics of a backup go back into their server.

    Args:
        settings: the configured server.
        manifest: the backup.
        folder: where its parts are put, None when the metrics are not among them.
    """
    parts = _metrics(manifest)
    if not parts:
        return []
    on = manifest.trading_date.isoformat()
    anew = velox("metrics", "backfill", "--date", on, settings=settings)
    if folder is None:
        files = velox("restore", "--date", on, "--to", "DIR", settings=settings)
        return [f"The metrics server was left alone. The day's points from the journal: {anew}. The saved files: {files}"]
    commands = [command for part in parts if (command := _command(settings, part, folder))]
    return [f"Metrics: {command}" for command in commands] or [f"Metrics: {anew}"]


def _metrics(manifest: Manifest) -> list[Part]:
    return [part for part in manifest.parts if part.kind is PartKind.METRICS]


def _command(settings: Settings, part: Part, folder: Path) -> str:
    """Return the command for a part, '' for one that another part's command covers, or that none takes."""
    influx = settings.metrics.influxdb
    file = str(folder / (part.origin or part.path.removesuffix(SUFFIX)))
    method = part.notes.get("method")
    if method == Way.INFLUX2_MANIFEST:
        command = _influx_restore(influx.url, part.notes, str(folder / influx2_files.FOLDER))
        return f"{command} (into a bucket that is not there: remove it first, or add --new-bucket NAME; an operator's token)"
    if method == Way.ANNOTATED_CSV:
        place = ["--host", influx.url, "--org", influx.org, "--bucket", influx.bucket]
        return shlex.join(["influx", "write", *place, "--token", TOKEN, "--format", "csv", "--file", file])
    if method == Way.LINE_PROTOCOL:
        query = urlencode({"org": influx.org, "bucket": influx.bucket, "precision": "ns"})
        address = f"{influx.url.rstrip('/')}/api/v2/write?{query}"
        return shlex.join(["curl", "-f", "-H", f"Authorization: Token {TOKEN}", "--data-binary", f"@{file}", address])
    if method == Way.VICTORIA_LINES:
        return shlex.join(["curl", "-f", "-T", file, f"{influx.url.rstrip('/')}/api/v1/import"])
    return ""


def _influx_restore(url: str, notes: Mapping[str, Any], folder: str) -> str:
    named = ["--org", str(notes["org"]), "--bucket", str(notes["bucket"])]
    return shlex.join(["influx", "restore", "--host", url, "--token", TOKEN, *named, folder])  # flags before the folder
