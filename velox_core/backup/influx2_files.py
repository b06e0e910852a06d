"""The files of an InfluxDB 2 backup as `influx restore` reads them: their names, their manifest, and what shows each whole.

- In one folder: STAMP.manifest (JSON, version 2), STAMP.bolt (the server's key-value store), STAMP.sqlite, and STAMP.SHARD.tar
  for each shard of the bucket. `influx restore` of a bucket reads the manifest and the shards; `--full` reads all.
- They lie unpacked (`compression` 0): a backup packs each file itself, and `influx restore` takes either form.
- A tar ends in zeros and has nothing behind them, a bolt file has a meta page with a fitting checksum and is as long as that
  says, a SQLite file passes its integrity check. What is inside of the points' own files is not looked at.

Read 2026-11 in influxdata/influx-cli (clients/backup, clients/restore, internal/backup_restore/manifest.go),
influxdata/influxdb (http/backup_service.go, backup/backup.go, pkg/tar/stream.go) and etcd-io/bbolt (db.go).
"""

from __future__ import annotations

import json
import struct
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from velox_core.backup.databases import check_integrity
from velox_core.backup.manifest import BackupError, Part
from velox_core.backup.metrics_ways import OTHER_FORM, Way
from velox_core.backup.packing import SUFFIX, blocks

FOLDER: Final = "metrics/influxdb"
MANIFEST_VERSION: Final = 2
UNPACKED: Final = 0  # the manifest's word for a file without gzip

BOLT_MAGIC: Final = 0xED0CDAED
BOLT_VERSION: Final = 2
_BOLT_META: Final = struct.Struct("<IIIIQQQQQQ")  # magic, version, page size, flags, root, sequence, freelist, pages, txid, sum
_BOLT_PAGE: Final = struct.Struct("<QHHI")  # id, flags, count, overflow
_BOLT_TREE_FLAGS: Final = frozenset({0x01, 0x02})  # a branch, a leaf
_BOLT_PAGE_BYTES: Final = tuple(1024 << power for power in range(15))
_FNV_OFFSET, _FNV_PRIME, _WORD = 0xCBF29CE484222325, 0x100000001B3, 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A shard of a bucket; `deleted` when the server says that its group is on its way out."""

    number: int
    deleted: bool


def find_bucket(listed: object, *, org: str, bucket: str) -> dict[str, Any]:
    """Return a bucket of the server's list, by its name or id. Raises BackupError when it is not there."""
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise BackupError("the server's list of buckets is of another form than this VELOX reads")
    for entry in listed:
        in_org = org in (entry.get("organizationName"), entry.get("organizationID"))
        if in_org and bucket in (entry.get("bucketName"), entry.get("bucketID")):
            return dict(entry)
    raise BackupError(f"the server has no bucket {bucket!r} in organisation {org!r}: see system.metrics.influxdb")


def shards_of(bucket: Mapping[str, Any]) -> list[Shard]:
    """Return a bucket's shards. Raises KeyError, TypeError, ValueError for a list of another form."""
    return [
        Shard(number=int(shard["id"]), deleted=bool(group.get("deletedAt")))
        for policy in bucket["retentionPolicies"] or ()
        for group in policy["shardGroups"] or ()
        for shard in group["shards"] or ()
    ]


def manifest_of(
    *, kv: tuple[str, int], sql: tuple[str, int], bucket: Mapping[str, Any], shards: Mapping[int, tuple[str, int]]
) -> dict[str, Any]:
    """Return the manifest. A file is its name and bytes, `shards` by number; one that is not there is left out.

    Raises: KeyError, TypeError for a list of another form.
    """
    names = ("organizationID", "organizationName", "bucketID", "bucketName", "defaultRetentionPolicy")
    described = {"description": bucket["description"]} if bucket.get("description") else {}
    entry = {**{name: str(bucket[name]) for name in names}, **described}
    entry["retentionPolicies"] = [_policy(policy, shards) for policy in bucket["retentionPolicies"] or ()]
    return {
        "manifestVersion": MANIFEST_VERSION,
        "kv": _file(*kv),
        "sql": _file(*sql),
        "buckets": [entry],
    }


def _file(name: str, size: int) -> dict[str, Any]:
    return {"fileName": name, "size": size, "compression": UNPACKED}


def _policy(policy: Mapping[str, Any], shards: Mapping[int, tuple[str, int]]) -> dict[str, Any]:
    kept = {name: policy[name] for name in ("name", "replicaN", "duration", "shardGroupDuration")}
    groups = []
    for group in policy["shardGroups"] or ():
        times = {name: group[name] for name in ("startTime", "endTime", "deletedAt", "truncatedAt") if group.get(name)}
        saved = [
            {"id": shard["id"], "shardOwners": shard.get("shardOwners") or [], **_file(*shards[int(shard["id"])])}
            for shard in group["shards"] or ()
            if int(shard["id"]) in shards
        ]
        groups.append({"id": group["id"], **times, "shards": saved})
    return {**kept, "shardGroups": groups, "subscriptions": policy.get("subscriptions") or []}


def files_named(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return the files that a manifest names, with their bytes. Raises KeyError, TypeError, ValueError for another form."""
    if manifest["manifestVersion"] != MANIFEST_VERSION:
        raise ValueError(f"its version is {manifest['manifestVersion']}, not {MANIFEST_VERSION}")
    entries = [manifest["kv"], manifest["sql"]]
    for bucket in manifest["buckets"]:
        for policy in bucket["retentionPolicies"]:
            entries += [shard for group in policy["shardGroups"] for shard in group["shards"]]
    return {str(entry["fileName"]): int(entry["size"]) for entry in entries}


# -- is it whole ---------------------------------------------------------------------------------------------------


def check(file: Path, notes: Mapping[str, Any]) -> str:
    """Return '' when one of the files is what its notes say, else what is wrong. Raises OSError."""
    method = notes.get("method")
    if method == Way.INFLUX2_KV:
        return check_bolt(file)
    if method == Way.INFLUX2_SQL:
        found = check_integrity(file)
        return "" if found == "ok" else f"SQLite finds it damaged: {found}"
    return _check_shard(file, notes) if method == Way.INFLUX2_SHARD else _check_manifest(file, notes)


def check_bolt(file: Path) -> str:
    """Return '' for a bolt file with a meta page that holds, as long as it says, else what is wrong. Raises OSError."""
    size = file.stat().st_size
    for page_bytes, root, pages in _bolt_metas(file):
        if size < pages * page_bytes:
            return f"it is cut off: {size} bytes of {pages * page_bytes}"
        with file.open("rb") as content:
            content.seek(root * page_bytes)
            header = content.read(_BOLT_PAGE.size)
        if len(header) < _BOLT_PAGE.size:
            return "its root page is not in it"
        number, flags, _, _ = _BOLT_PAGE.unpack(header)
        return "" if number == root and flags in _BOLT_TREE_FLAGS else "its root page is another one"
    return "it has no meta page of bolt whose checksum fits"


def _bolt_metas(file: Path) -> Iterator[tuple[int, int, int]]:
    """Return page size, root page and number of pages of each meta page that holds; the newest first."""
    found = []
    with file.open("rb") as content:
        for place in (0, *_BOLT_PAGE_BYTES):
            content.seek(place + _BOLT_PAGE.size)
            meta = content.read(_BOLT_META.size)
            if len(meta) < _BOLT_META.size:
                break
            magic, version, page_bytes, _, root, _, _, pages, txid, checksum = _BOLT_META.unpack(meta)
            if (magic, version, checksum) == (BOLT_MAGIC, BOLT_VERSION, fnv_1a(meta[:-8])) and page_bytes in _BOLT_PAGE_BYTES:
                found.append((txid, page_bytes, root, pages))
    for _, page_bytes, root, pages in sorted(found, reverse=True):
        yield page_bytes, root, pages


def fnv_1a(content: bytes) -> int:
    """Return the 64-bit FNV-1a hash, which bolt's meta pages carry (http://www.isthe.com/chongo/tech/comp/fnv/)."""
    digest = _FNV_OFFSET
    for byte in content:
        digest = (digest ^ byte) * _FNV_PRIME & _WORD
    return digest


def read_tar(file: Path) -> int:
    """Return how many entries a tar has. Raises BackupError for one that is cut off, changed, or has more behind its end."""
    try:
        with tarfile.open(file, "r:") as archive:
            members = 0
            for _ in archive:
                members += 1
                vars(archive)["members"] = []  # it keeps every header otherwise
            end = archive.offset
    except (tarfile.TarError, *OTHER_FORM) as error:  # not all that tarfile finds wrong with a header is an error of its own
        raise BackupError(f"it is no tar that can be read: {error}") from error
    at, zeros = 0, 0
    for block in blocks(file):
        rest = block[max(end - at, 0) :]
        if rest.strip(b"\0"):
            raise BackupError("it has something behind the end of its tar, or a header that does not fit")
        zeros, at = zeros + len(rest), at + len(block)
    if zeros < 2 * tarfile.BLOCKSIZE:
        raise BackupError("it is a tar that is cut off: its end is missing")
    return members


def _check_shard(file: Path, notes: Mapping[str, Any]) -> str:
    try:
        members = read_tar(file)
    except BackupError as error:
        return str(error)
    return "" if members == notes.get("members") else f"it has {members} files, {notes.get('members')} were saved"


def _check_manifest(file: Path, notes: Mapping[str, Any]) -> str:
    try:
        named = files_named(json.loads(file.read_bytes()))
    except OTHER_FORM as error:
        return f"it is no manifest of InfluxDB: {error!r}"
    return "" if named == notes.get("files") else "it names other files than were saved"


def missing_files(parts: Sequence[Part]) -> list[str]:
    """Return what the parts of a backup lack of what its InfluxDB manifest names, each with the reason."""
    there = {part.path: part.content_bytes for part in parts}
    wanted = {
        f"{FOLDER}/{name}{SUFFIX}": size
        for part in parts
        if part.notes.get("method") == Way.INFLUX2_MANIFEST
        for name, size in part.notes["files"].items()
    }
    has_manifest = any(part.notes.get("method") == Way.INFLUX2_MANIFEST for part in parts)
    stray = [] if has_manifest else sorted(path for path in there if path.startswith(f"{FOLDER}/"))
    return [f"{path}: InfluxDB's manifest is missing, and without it influx restore takes nothing of it" for path in stray] + [
        f"{path}: its size is not the one that InfluxDB's manifest names"
        if path in there
        else f"{path}: it is missing, though InfluxDB's manifest names it"
        for path, size in sorted(wanted.items())
        if there.get(path) != size
    ]
