"""A real VictoriaMetrics on a free port, where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.ports import free_port

PROGRAM = shutil.which("victoria-metrics")
START_SECONDS_MAX = 240.0


class Victoria:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def series(self, match: str) -> dict[tuple[str, ...], list[tuple[int, float]]]:
        """Return what is stored: by name and `label=value` in order, the samples as epoch ms and value."""
        self._get("/internal/force_flush")
        found: dict[tuple[str, ...], list[tuple[int, float]]] = {}
        for line in self._get("/api/v1/export", {"match[]": match}).splitlines():
            row = json.loads(line)
            name = row["metric"].pop("__name__")
            key = (name, *(f"{label}={value}" for label, value in sorted(row["metric"].items())))
            found.setdefault(key, []).extend(zip(row["timestamps"], row["values"], strict=True))
        return {key: sorted(samples) for key, samples in found.items()}

    def _get(self, path: str, query: dict[str, str] | None = None) -> str:
        url = self.url + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        with urllib.request.urlopen(url, timeout=120) as answer:
            return str(answer.read().decode())


@contextmanager
def victoria(folder: Path) -> Iterator[Victoria]:
    """Start one with its data in a folder, and end it."""
    if PROGRAM is None:
        raise RuntimeError("victoria-metrics is not installed: skip the test")
    port = free_port()
    command = [PROGRAM, f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder}", "-retentionPeriod=100y"]
    command += ["-search.latencyOffset=0s", "-dedup.minScrapeInterval=1ms", "-loggerLevel=ERROR", "-memory.allowedBytes=64MB"]
    with (folder.parent / "victoria.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = Victoria(port)
    try:
        _await(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(120)


def _await(server: Victoria, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            server._get("/health")
            return
        except (urllib.error.URLError, OSError) as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"victoria-metrics did not start: {error}") from error
            time.sleep(0.05)
