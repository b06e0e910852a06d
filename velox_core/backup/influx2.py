"""InfluxDB 2's own backup of one bucket, over its API: what `influx backup --bucket` saves, without that program.

- GET /api/v2/backup/metadata: a multipart of the key-value store (bolt), the SQL store (SQLite) and the list of buckets. Then
  GET /api/v2/backup/shards/ID for each shard of the bucket: a tar. Both want an operator token.
- Streamed to files, never whole in memory. Bounded: each wait for the server, each request, all of it, in seconds; the bytes;
  and what the disk must have left, so that it takes nothing from the rest of a backup.
- An answer that is cut off is an error, packed or not. A shard that the server removed meanwhile (retention) is left out, as
  `influx backup` does, but only when the server no longer lists it.
- Both stores are the whole server's, its users and tokens with them: see docs/adr/0060.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from velox_core.backup import influx2_files as files
from velox_core.backup import room as disk
from velox_core.backup.manifest import BackupError, Saved
from velox_core.backup.metrics_ways import OTHER_FORM, Way, authorization
from velox_core.backup.multipart import MultipartReader, boundary_of
from velox_core.backup.time_limit import TimeLimit

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 30.0  # without a byte from the server
REQUEST_SECONDS_MAX: Final = 300.0
TOTAL_SECONDS_MAX: Final = 900.0
TOTAL_BYTES_MAX: Final = 8 << 30
LIST_BYTES_MAX: Final = 64 << 20  # of all buckets of the server
SHARDS_MAX: Final = 10_000
ROOM_KEPT_BYTES: Final = 200_000_000  # on the disk of `var`, for everything else
_BLOCK_BYTES: Final = 1 << 20
_LOOK_AT_DISK_BYTES: Final = 16 << 20
_COPIES: Final = 2  # of a file, packed and restored, while it is verified
_TEXT_LENGTH_MAX: Final = 200


class Refused(BackupError):
    """The server is there and does not do what was asked: the token may not, or it does not know how. Ask for less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One bucket of a server. `token` must be an operator's; it is in a header only."""

    url: str
    org: str
    bucket: str
    token: str


def save_bucket(bucket: Bucket, room: Path, *, wall_seconds: float) -> Iterator[Saved]:
    """Bring the server's backup of a bucket into an empty folder, file by file, the manifest last.

    Whoever takes a file may remove it before asking for the next one.

    Args:
        bucket: which.
        room: the folder.
        wall_seconds: now, for the files' names.
    Raises: Refused before anything was saved; BackupError, OSError.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_seconds))
    with _Server(bucket, room) as server:
        kv, sql = room / f"{stamp}.bolt", room / f"{stamp}.sqlite"
        listed = server.metadata({"kv": kv, "sql": sql})
        sizes = {path: path.stat().st_size for path in (kv, sql)}
        found = files.find_bucket(listed, org=bucket.org, bucket=bucket.bucket)
        shards = _shards(found)
        for path, method in ((kv, Way.INFLUX2_KV.value), (sql, Way.INFLUX2_SQL.value)):
            yield _saved(path, {"method": method})
        saved: dict[int, tuple[str, int]] = {}
        gone = []
        for shard in shards:
            path = room / f"{stamp}.{shard.number}.tar"
            if not server.shard(shard.number, path):
                gone.append(shard.number)
                continue
            saved[shard.number] = (path.name, path.stat().st_size)
            yield _saved(path, {"method": Way.INFLUX2_SHARD.value, "members": files.read_tar(path)})
        server.require_gone([shard.number for shard in shards if shard.number in gone and not shard.deleted])
    manifest = files.manifest_of(kv=(kv.name, sizes[kv]), sql=(sql.name, sizes[sql]), bucket=found, shards=saved)
    path = room / f"{stamp}.manifest"
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    notes: dict[str, Any] = {"method": Way.INFLUX2_MANIFEST.value, "files": files.files_named(manifest), "shards": len(saved)}
    notes |= {"org": str(found["organizationName"]), "bucket": str(found["bucketName"])}
    yield _saved(path, notes | ({"removed_meanwhile": gone} if gone else {}))


def _shards(found: dict[str, Any]) -> list[files.Shard]:
    try:
        shards = files.shards_of(found)
        made = files.manifest_of(kv=("", 0), sql=("", 0), bucket=found, shards={})
        json.dumps(made, ensure_ascii=False).encode()  # its form is known before anything is fetched
    except OTHER_FORM as error:
        raise BackupError(f"the server describes its bucket in another form than this VELOX reads: {error!r}") from error
    numbers = [shard.number for shard in shards]
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise BackupError(f"the server lists shard {twice} twice: look at its log, then try again")
    if len(shards) > SHARDS_MAX:
        raise BackupError(f"the bucket has {len(shards)} shards, more than {SHARDS_MAX}: save it with influx backup")
    return shards


def _saved(path: Path, notes: dict[str, Any]) -> Saved:
    return Saved(path=f"{files.FOLDER}/{path.name}", file=path, notes=notes)


class _Server:
    """One conversation with a server. It ends within `TOTAL_SECONDS_MAX`, and `TOTAL_BYTES_MAX` is all that it brings."""

    def __init__(self, bucket: Bucket, room: Path) -> None:
        self._bucket, self._room = bucket, room
        self._until = time.monotonic() + TOTAL_SECONDS_MAX
        self._bytes = 0
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        headers = authorization("Token", bucket.token)
        self._client = httpx.Client(timeout=timeout, headers={**headers, "Accept-Encoding": "gzip"})
        self._limit = TimeLimit(f"the metrics server at {bucket.url}")

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def metadata(self, wanted: dict[str, Path]) -> object:
        """Bring the parts that are wanted into files, and return the list of buckets. Raises Refused, BackupError, OSError."""
        listed: list[bytes] = []
        there = set()
        with self._asked("/api/v2/backup/metadata") as answer:
            _require_backup(answer, self._said(answer))
            reader = MultipartReader(self._content(answer), boundary_of(answer.headers.get("content-type", "")))
            for name, content in reader.parts():
                there.add(name)
                if name in wanted:
                    self._write(content, wanted[name])
                elif name == "buckets":
                    listed = list(_bounded(content, LIST_BYTES_MAX))
        lacking = [name for name in (*wanted, "buckets") if name not in there]
        if lacking:
            raise BackupError(f"the server's answer lacks its part {lacking[0]!r}")
        try:
            found: object = json.loads(b"".join(listed))
        except (ValueError, RecursionError) as error:
            raise BackupError(f"the server's list of buckets cannot be read: {error}") from error
        return found

    def shard(self, number: int, target: Path) -> bool:
        """Bring a shard into a file; False when the server has none of that number. Raises BackupError, OSError."""
        with self._asked(f"/api/v2/backup/shards/{number}") as answer:
            if answer.status_code == httpx.codes.NOT_FOUND:
                return False
            if answer.status_code != httpx.codes.OK:
                raise BackupError(f"the server gives no shard {number}: {self._said(answer)}")
            self._write(self._content(answer), target)
        return True

    def require_gone(self, numbers: list[int]) -> None:
        """Raise BackupError when the server still lists a shard that it does not give, or does not say so."""
        if not numbers:
            return
        try:
            listed = self.metadata({})
        except Refused as refused:  # files were handed on already: half a backup is none, and no reason to ask for less
            raise BackupError(
                f"the server lacks shard {numbers[0]}, and refuses to say whether it is gone: {refused}"
            ) from refused
        found = files.find_bucket(listed, org=self._bucket.org, bucket=self._bucket.bucket)
        still = {shard.number for shard in _shards(found) if not shard.deleted} & set(numbers)
        if still:
            raise BackupError(f"the server lists shard {min(still)} and does not give it: look at its log, then try again")

    @contextmanager
    def _asked(self, path: str) -> Iterator[httpx.Response]:
        seconds = min(REQUEST_SECONDS_MAX, self._until - time.monotonic())
        url = f"{self._bucket.url}{path}"
        try:
            with self._limit.within(seconds), self._client.stream("GET", url, extensions=self._limit.extensions) as answer:
                yield answer
        except httpx.TimeoutException as error:
            seconds = CONNECT_SECONDS if isinstance(error, httpx.ConnectTimeout) else ANSWER_SECONDS
            raise BackupError(f"the metrics server at {self._bucket.url} said nothing for {seconds:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BackupError(f"the metrics server at {self._bucket.url} breaks off: {type(error).__name__} {error}") from error

    def _said(self, answer: httpx.Response) -> str:
        """Return a refusal in one line, without the token."""
        if answer.status_code == httpx.codes.OK:
            return ""
        text = b"".join(_bounded(self._content(answer), LIST_BYTES_MAX)).decode("utf-8", "replace")
        try:
            text = str(json.loads(text)["message"])
        except OTHER_FORM:
            text = " ".join(text.split())
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair, which JSON can name, fits into no manifest
        shown = text.replace(self._bucket.token, "***") if self._bucket.token else text
        return f"{answer.status_code} {shown[:_TEXT_LENGTH_MAX]}".strip()

    def _content(self, answer: httpx.Response) -> Iterator[bytes]:
        """Return an answer's body, unpacked, within the bounds. Raises BackupError when it is cut off or too much."""
        packed = answer.headers.get("content-encoding", "").lower() == "gzip"
        for block in _unpacked(answer.iter_raw()) if packed else answer.iter_raw():
            self._bytes += len(block)
            if self._bytes > TOTAL_BYTES_MAX:
                raise BackupError(
                    f"the bucket is more than {TOTAL_BYTES_MAX / 1e9:.1f} GB: save it with influx backup, or keep it shorter"
                )
            yield block

    def _write(self, content: Iterator[bytes], target: Path) -> None:
        """Write a file, as long as the disk has room for its copies, and for the copy of all in a destination."""
        size, looked = 0, -_LOOK_AT_DISK_BYTES
        with target.open("xb") as file:
            for block in content:
                if size - looked >= _LOOK_AT_DISK_BYTES:
                    looked = size
                    self._require_room(size)
                file.write(block)
                size += len(block)
        self._require_room(size)

    def _require_room(self, size: int) -> None:
        free = disk.free_bytes(self._room)
        needed = _COPIES * size + self._bytes + ROOM_KEPT_BYTES  # by default the destination is on the same disk
        if free < needed:
            raise BackupError(f"{self._room} has {free / 1e6:.0f} MB free, InfluxDB's backup needs {needed / 1e6:.0f} MB")


def _require_backup(answer: httpx.Response, said: str) -> None:
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise Refused(
            f"the token may not back up ({said}); create an operator token (influx auth create --operator; with the server "
            "stopped influxd recovery auth create-operator) and give it as VELOX__METRICS__INFLUXDB__TOKEN"
        )
    if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED):
        raise Refused(f"the server has no backup API of InfluxDB 2.1 or newer ({said})")
    if answer.status_code != httpx.codes.OK:
        raise BackupError(f"the server makes no backup: {said}")


def _unpacked(raw: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip in blocks of a bounded size. Raises BackupError for what is damaged, cut off or followed by more."""
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        for packed in raw:
            rest = packed
            while rest:
                if unpacker.eof:
                    raise BackupError("the answer has something behind its end")
                yield unpacker.decompress(rest, _BLOCK_BYTES)
                rest = unpacker.unconsumed_tail or unpacker.unused_data
            while not unpacker.eof and (more := unpacker.decompress(b"", _BLOCK_BYTES)):
                yield more
    except zlib.error as error:
        raise BackupError(f"the answer is damaged: {error}") from error
    if not unpacker.eof:
        raise BackupError("the answer is cut off")


def _bounded(content: Iterator[bytes], bytes_max: int) -> Iterator[bytes]:
    size = 0
    for block in content:
        size += len(block)
        if size > bytes_max:
            raise BackupError(f"the server's answer is more than {bytes_max / 1e6:.0f} MB")
        yield block
