"""InfluxDB 2 as its backup API shows it: real files in a real multipart and in real tars, packed with gzip when asked to.

The answers have the form of influxdata/influxdb's http/backup_service.go and backup/backup.go: no server was at hand.
"""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import struct
import tarfile
from contextlib import closing
from typing import Any, Final

from tests.fakes.http_server import Reply, Request
from velox_core.backup.influx2_files import BOLT_MAGIC, BOLT_VERSION, fnv_1a

ORG, BUCKET, TOKEN = "velox", "metrics", "operator-token-1"
ORG_ID, BUCKET_ID = "0a1b2c3d4e5f6071", "0123456789abcdef"
HEALTH: Final = json.dumps({"name": "influxdb", "status": "pass", "version": "v2.7.10"})
NOT_ALLOWED: Final = json.dumps({"code": "unauthorized", "message": f"read:authorizations is unauthorized for {TOKEN}"})
BOUNDARY: Final = "5e1f0c"
JSON: Final = {"Content-Type": "application/json; charset=utf-8"}


def bolt_file(*, page_bytes: int = 4096, root: int = 3, pages: int = 4, txid: int = 8) -> bytes:
    """Return a bolt file: two meta pages, an empty free list and an empty root page."""

    def page(number: int, flags: int, content: bytes = b"") -> bytes:
        return (struct.pack("<QHHI", number, flags, 0, 0) + content).ljust(page_bytes, b"\0")

    def meta(transaction: int) -> bytes:
        fields = struct.pack("<IIIIQQQQQ", BOLT_MAGIC, BOLT_VERSION, page_bytes, 0, root, 0, 2, pages, transaction)
        return fields + struct.pack("<Q", fnv_1a(fields))

    return page(0, 0x04, meta(txid)) + page(1, 0x04, meta(txid - 1)) + page(2, 0x10) + page(3, 0x02)


def sqlite_file() -> bytes:
    """Return a SQLite database with something in it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE migrations (name TEXT)")
        connection.executemany("INSERT INTO migrations VALUES (?)", [(f"m{number}" * 20,) for number in range(500)])
        connection.commit()
        return connection.serialize()


def shard_tar(number: int, *, files: int = 2) -> bytes:
    """Return a shard as a tar of its files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for file in range(files):
            content = bytes([number, file]) * 3_000
            entry = tarfile.TarInfo(f"{BUCKET_ID}/autogen/{number}/00000000{file}-000000001.tsm")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def listed(bucket: str, bucket_id: str, *groups: dict[str, Any]) -> dict[str, Any]:
    """Return a bucket as the server lists it."""
    policy = {
        "name": "autogen",
        "replicaN": 1,
        "duration": 0,
        "shardGroupDuration": 604_800_000_000_000,
        "shardGroups": list(groups),
        "subscriptions": [],
    }
    return {
        "organizationID": ORG_ID,
        "organizationName": ORG,
        "bucketID": bucket_id,
        "bucketName": bucket,
        "description": "VELOX",
        "defaultRetentionPolicy": "autogen",
        "retentionPolicies": [policy],
    }


def group(number: int, *shards: int, deleted: bool = False) -> dict[str, Any]:
    """Return a shard group as the server lists it."""
    times = {"startTime": f"2024-01-{number:02}T00:00:00Z", "endTime": f"2024-01-{number + 7:02}T00:00:00Z"}
    gone = {"deletedAt": "2024-02-20T09:00:00Z"} if deleted else {}
    owners = [{"nodeID": 1}]
    return {"id": number, **times, **gone, "shards": [{"id": shard, "shardOwners": owners} for shard in shards]}


class Influx2:
    """A server with two buckets, of which `metrics` is ours. A test changes what it has, or answers for a path itself."""

    def __init__(self, *, packs: bool = True) -> None:
        self.packs = packs
        self.files: dict[str, bytes] = {"kv": bolt_file(), "sql": sqlite_file()}
        self.buckets: Any = [listed("other", "f" * 16, group(1, 9)), listed(BUCKET, BUCKET_ID, group(1, 4), group(8, 5, 6))]
        self.shards = {4: shard_tar(4), 5: shard_tar(5), 6: shard_tar(6, files=0), 9: shard_tar(9)}
        self.instead: dict[str, Reply] = {}

    def __call__(self, request: Request) -> Reply:
        path = request.path.partition("?")[0]
        if path in self.instead:
            return self.instead[path]
        if path == "/health":
            return Reply(status=200, body=HEALTH, headers=JSON)
        if path == "/api/v2/backup/metadata":
            return self.packed(request, self.multipart(), f'multipart/mixed; boundary="{BOUNDARY}"')
        if path.startswith("/api/v2/backup/shards/"):
            number = int(path.rpartition("/")[2])
            if number in self.shards:
                return self.packed(request, self.shards[number], "application/octet-stream")
            return Reply(status=404, body=json.dumps({"code": "not found", "message": "shard not found"}), headers=JSON)
        return Reply()

    def multipart(self) -> bytes:
        """Return the metadata's body."""
        body = b""
        for name, content in {**self.files, "buckets": json.dumps(self.buckets).encode()}.items():
            kind = "application/json; charset=utf-8" if name == "buckets" else "application/octet-stream"
            head = f'--{BOUNDARY}\r\nContent-Disposition: attachment; name="{name}"\r\nContent-Type: {kind}\r\n\r\n'
            body += head.encode() + content + b"\r\n"
        return body + f"--{BOUNDARY}--\r\n".encode()

    def packed(self, request: Request, body: bytes, kind: str) -> Reply:
        """Return an answer, packed where that is asked for."""
        asked = {name.lower(): value for name, value in request.headers.items()}.get("accept-encoding", "")
        if self.packs and "gzip" in asked:
            return Reply(status=200, body=gzip.compress(body), headers={"Content-Type": kind, "Content-Encoding": "gzip"})
        return Reply(status=200, body=body, headers={"Content-Type": kind})
