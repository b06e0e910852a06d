"""InfluxDB 2's own backup over its API: what is asked and written, and that nothing half is taken for whole."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import influx2 as fake
from tests.fakes.http_server import Reply, Served, serving
from tests.fakes.influx2 import BUCKET, ORG, TOKEN, Influx2
from velox_core.backup import influx2, influx2_files
from velox_core.backup.influx2 import Bucket, Refused, save_bucket
from velox_core.backup.manifest import BackupError
from velox_core.backup.multipart import MultipartReader, boundary_of

METADATA = "/api/v2/backup/metadata"
NOW = 1_705_312_800.0  # 2024-01-15 10:00:00 UTC
STAMP = "20240115T100000Z"
Saved = dict[str, tuple[bytes, dict[str, Any]]]


@pytest.fixture
def influx() -> Influx2:
    return Influx2()


@pytest.fixture
def served(influx: Influx2) -> Iterator[Served]:
    with serving(influx) as server:
        yield server


def save(url: str, room: Path, *, org: str = ORG, bucket: str = BUCKET, token: str = TOKEN) -> Saved:
    """Save a bucket and return each file's content and notes, in the order they came; each passes its check and is removed."""
    room.mkdir(exist_ok=True)
    found: Saved = {}
    for saved in save_bucket(Bucket(url=url, org=org, bucket=bucket, token=token), room, wall_seconds=NOW):
        assert influx2_files.check(saved.file, saved.notes) == ""
        found[saved.path] = (saved.file.read_bytes(), dict(saved.notes))
        saved.file.unlink()
    assert list(room.iterdir()) == []
    return found


# -- what is saved -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packs", [True, False])
def test_bucket_is_saved_as_influx_restore_reads_it(packs: bool, influx: Influx2, served: Served, tmp_path: Path) -> None:
    influx.packs = packs
    saved = save(served.url, tmp_path / "room")
    folder = "metrics/influxdb"
    shards = {f"{folder}/{STAMP}.{number}.tar": influx.shards[number] for number in (4, 5, 6)}
    stores = {f"{folder}/{STAMP}.bolt": influx.files["kv"], f"{folder}/{STAMP}.sqlite": influx.files["sql"]}
    content, notes = saved.pop(f"{folder}/{STAMP}.manifest")
    assert {path: found[0] for path, found in saved.items()} == {**stores, **shards}

    def entry(ending: str) -> dict[str, Any]:
        name = f"{STAMP}.{ending}"
        return {"fileName": name, "size": len({**stores, **shards}[f"{folder}/{name}"]), "compression": 0}

    def shard(number: int) -> dict[str, Any]:
        return {"id": number, "shardOwners": [{"nodeID": 1}], **entry(f"{number}.tar")}

    first = {"id": 1, "startTime": "2024-01-01T00:00:00Z", "endTime": "2024-01-08T00:00:00Z", "shards": [shard(4)]}
    second = {"id": 8, "startTime": "2024-01-08T00:00:00Z", "endTime": "2024-01-15T00:00:00Z", "shards": [shard(5), shard(6)]}
    bucket = fake.listed(BUCKET, fake.BUCKET_ID, first, second)
    manifest = {"manifestVersion": 2, "kv": entry("bolt"), "sql": entry("sqlite"), "buckets": [bucket]}
    assert json.loads(content) == manifest
    assert notes["files"] == {path.rpartition("/")[2]: len(found) for path, found in {**stores, **shards}.items()}
    assert (notes["org"], notes["bucket"], notes["shards"]) == (ORG, BUCKET, 3)
    assert [request.path for request in served.requests] == [METADATA, *(f"/api/v2/backup/shards/{n}" for n in (4, 5, 6))]
    for request in served.requests:
        assert {name.lower(): value for name, value in request.headers.items()}["authorization"] == f"Token {TOKEN}"


def test_bucket_may_be_named_by_ids_and_another_is_never_taken(served: Served, tmp_path: Path) -> None:
    assert len(save(served.url, tmp_path / "room", org=fake.ORG_ID, bucket=fake.BUCKET_ID)) == 6
    for wrong in ({"bucket": "nosuch"}, {"org": "nosuch"}):
        with pytest.raises(BackupError, match="has no bucket"):
            save(served.url, tmp_path / f"{wrong}", **wrong)


# -- who may not, and what is not there ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "the token may not back up (401 read:authorizations is unauthorized for ***); create an operator token"),
        (403, "the token may not back up (403 read:authorizations is unauthorized for ***); create an operator token"),
        (404, "the server has no backup API of InfluxDB 2.1 or newer (404"),
        (405, "the server has no backup API of InfluxDB 2.1 or newer (405"),
    ],
)
def test_server_that_refuses_its_backup_is_told_from_one_that_fails(
    status: int, said: str, influx: Influx2, served: Served, tmp_path: Path
) -> None:
    influx.instead[METADATA] = Reply(status=status, body=fake.NOT_ALLOWED, headers=fake.JSON)
    with pytest.raises(Refused) as told:
        save(served.url, tmp_path / "room")
    assert said in str(told.value)
    assert TOKEN not in str(told.value)


def test_server_that_fails_is_no_refusal(influx: Influx2, served: Served, tmp_path: Path) -> None:
    influx.instead[METADATA] = Reply(status=500, body="<html>boom</html>")
    with pytest.raises(BackupError, match="makes no backup: 500 <html>boom</html>") as told:
        save(served.url, tmp_path / "room")
    assert not isinstance(told.value, Refused)
    with pytest.raises(BackupError, match="breaks off: ConnectError") as nobody:
        save("http://127.0.0.1:1", tmp_path / "room")
    assert not isinstance(nobody.value, Refused)


def test_shard_that_is_removed_meanwhile_is_left_out_and_noted(influx: Influx2, served: Served, tmp_path: Path) -> None:
    influx.buckets[1] = fake.listed(BUCKET, fake.BUCKET_ID, fake.group(1, 3, deleted=True), fake.group(8, 5))
    saved = save(served.url, tmp_path / "room")
    content, notes = saved[f"metrics/influxdb/{STAMP}.manifest"]
    assert (notes["shards"], notes["removed_meanwhile"]) == (1, [3])
    groups = json.loads(content)["buckets"][0]["retentionPolicies"][0]["shardGroups"]
    assert [(each["id"], [shard["id"] for shard in each["shards"]], each.get("deletedAt")) for each in groups] == [
        (1, [], "2024-02-20T09:00:00Z"),
        (8, [5], None),
    ]
    assert [request.path for request in served.requests].count(METADATA) == 1  # its group was on its way out already


def test_shard_that_retention_takes_while_the_backup_runs_is_asked_about(
    influx: Influx2, served: Served, tmp_path: Path
) -> None:
    del influx.shards[4]

    def rule(request: Any) -> Reply:
        reply = influx(request)
        if request.path.endswith("/shards/4"):
            influx.buckets[1] = fake.listed(BUCKET, fake.BUCKET_ID, fake.group(8, 5, 6))
        return reply

    served.rule = rule
    assert save(served.url, tmp_path / "room")[f"metrics/influxdb/{STAMP}.manifest"][1]["removed_meanwhile"] == [4]
    assert [request.path for request in served.requests].count(METADATA) == 2


def test_shard_that_is_listed_and_not_given_is_an_error(influx: Influx2, served: Served, tmp_path: Path) -> None:
    del influx.shards[5]
    with pytest.raises(BackupError, match="lists shard 5 and does not give it"):
        save(served.url, tmp_path / "room")


# -- half answers --------------------------------------------------------------------------------------------------


def cut(influx: Influx2) -> Reply:
    return Reply(status=200, body=influx.multipart()[:-20], headers=multipart_headers())


def multipart_headers(**more: str) -> dict[str, str]:
    return {"Content-Type": f"multipart/mixed; boundary={fake.BOUNDARY}", **more}


def packed(body: bytes) -> Reply:
    return Reply(status=200, body=body, headers=multipart_headers(**{"Content-Encoding": "gzip"}))


def with_error_inside(influx: Influx2) -> Reply:
    body = influx.multipart()
    half = body[: body.index(b"sql") + 200] + b'{"code":"internal error","message":"boom"}'
    return Reply(status=200, body=half, headers=multipart_headers())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            lambda influx: Reply(status=200, body=influx.multipart()[:900], headers=multipart_headers(), tears=True),
            "breaks off",
        ),
        (cut, "cut off before its last boundary"),
        (with_error_inside, "cut off before its last boundary"),
        (lambda influx: packed(gzip.compress(influx.multipart())[:-200]), "is cut off"),
        (
            lambda influx: packed(gzip.compress(influx.multipart())[:-1]),
            "the answer is cut off$",
        ),  # all is there but its checksum
        (lambda influx: packed(gzip.compress(influx.multipart()) + b"more"), "something behind its end"),
        (lambda influx: packed(b"no gzip"), "is damaged"),
        (lambda influx: packed(gzip.compress(influx.multipart()[:-20])), "cut off before its last boundary"),
        (lambda influx: Reply(status=200, body="{}", headers=fake.JSON), "no multipart but application/json"),
        (lambda influx: Reply(status=200, body="", headers=multipart_headers()), "cut off before its last boundary"),
    ],
)
def test_metadata_that_is_not_whole_is_never_a_backup(
    answer: Callable[[Influx2], Reply], said: str, influx: Influx2, served: Served, tmp_path: Path
) -> None:
    influx.instead[METADATA] = answer(influx)
    with pytest.raises(BackupError, match=said):
        save(served.url, tmp_path / "room")
    assert [request.path for request in served.requests] == [METADATA]


def test_gzip_with_one_flipped_bit_is_found(influx: Influx2, served: Served, tmp_path: Path) -> None:
    body = bytearray(gzip.compress(influx.multipart(), compresslevel=0))
    body[body.index(b"CREATE TABLE migrations") + 3] ^= 0x01
    influx.instead[METADATA] = packed(bytes(body))
    with pytest.raises(BackupError, match="is damaged"):
        save(served.url, tmp_path / "room")


@pytest.mark.parametrize("name", ["kv", "sql"])
def test_metadata_without_one_of_its_parts_is_an_error(name: str, influx: Influx2, served: Served, tmp_path: Path) -> None:
    del influx.files[name]
    with pytest.raises(BackupError, match=f"lacks its part '{name}'"):
        save(served.url, tmp_path / "room")


def sparse_header() -> bytes:
    """Return a tar whose header of a sparse file has a size that is no number."""
    entry = tarfile.TarInfo("x")
    entry.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "a,b"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(entry)
    return out.getvalue()


def listed_as(influx: Influx2, buckets: bytes) -> Reply:
    influx.buckets = "HERE"
    return Reply(status=200, body=influx.multipart().replace(b'"HERE"', buckets), headers=multipart_headers())


@pytest.mark.parametrize(
    ("buckets", "said"),
    [
        (b"[" * 100_000, "list of buckets cannot be read"),
        (b"\xff", "list of buckets cannot be read"),
        (
            json.dumps([fake.listed(BUCKET, fake.BUCKET_ID, fake.group(1, 4))]).replace('"id": 4', '"id": 1e999').encode(),
            "form",
        ),
        (json.dumps([fake.listed(BUCKET, "\ud800", fake.group(1, 4))]).encode(), "another form than this VELOX reads"),
    ],
)
def test_list_of_buckets_that_no_manifest_can_hold_is_told(
    buckets: bytes, said: str, influx: Influx2, served: Served, tmp_path: Path
) -> None:
    influx.instead[METADATA] = listed_as(influx, buckets)
    with pytest.raises(BackupError, match=said):
        save(served.url, tmp_path / "room")


def test_token_that_no_header_holds_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="see VELOX__METRICS__INFLUXDB__TOKEN"):
        save("http://127.0.0.1:1", tmp_path / "room", token="t\u00f6ken")


def test_refusal_that_no_manifest_can_hold_is_told_without_what_cannot_be_written(
    influx: Influx2, served: Served, tmp_path: Path
) -> None:
    influx.instead[METADATA] = Reply(status=500, body='{"message": "a\\ud800b"}')
    with pytest.raises(BackupError, match=r"makes no backup: 500 a\?b"):
        save(served.url, tmp_path / "room")


@pytest.mark.parametrize("buckets", [{}, [1], "x", [{"organizationName": ORG, "bucketName": BUCKET}]])
def test_list_of_buckets_of_another_form_is_told(buckets: object, influx: Influx2, served: Served, tmp_path: Path) -> None:
    influx.buckets = buckets
    with pytest.raises(BackupError, match="another form than this VELOX reads"):
        save(served.url, tmp_path / "room")


@pytest.mark.parametrize(
    ("shard", "said"),
    [
        (fake.shard_tar(5)[:4_000], "no tar that can be read|cut off"),
        (fake.shard_tar(5)[: 2 * (512 + 6_144)], "cut off: its end is missing"),
        (fake.shard_tar(5) + b'{"code":"internal error"}', "something behind the end"),
        (fake.shard_tar(5)[:6_656] + b"x" + fake.shard_tar(5)[6_657:], "something behind the end"),
        (b"", "no tar that can be read"),
        (sparse_header(), "no tar that can be read"),
        (b'{"code":"internal error","message":"boom"}', "no tar that can be read"),
    ],
)
def test_shard_that_is_no_whole_tar_is_an_error(
    shard: bytes, said: str, influx: Influx2, served: Served, tmp_path: Path
) -> None:
    influx.shards[5] = shard
    with pytest.raises(BackupError, match=said):
        save(served.url, tmp_path / "room")


def test_shard_that_the_server_fails_to_give_is_an_error(influx: Influx2, served: Served, tmp_path: Path) -> None:
    influx.instead["/api/v2/backup/shards/5"] = Reply(status=500, body='{"message": "engine closed"}')
    with pytest.raises(BackupError, match="gives no shard 5: 500 engine closed"):
        save(served.url, tmp_path / "room")


# -- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [METADATA, "/api/v2/backup/shards/4"])
def test_server_that_hangs_is_left_after_a_bound(
    path: str, influx: Influx2, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influx2, "ANSWER_SECONDS", 0.3)
    influx.instead[path] = Reply(hangs=True)
    with pytest.raises(BackupError, match=r"said nothing for 0\.3 s"):
        save(served.url, tmp_path / "room")


@pytest.mark.parametrize("bound", ["REQUEST_SECONDS_MAX", "TOTAL_SECONDS_MAX"])
def test_server_that_goes_on_too_long_is_left(
    bound: str, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influx2, bound, -1.0)
    with pytest.raises(BackupError, match="the server is too slow"):
        save(served.url, tmp_path / "room")


@pytest.mark.parametrize(
    ("bound", "value", "said"),
    [
        ("TOTAL_BYTES_MAX", 30_000, "the bucket is more than 0.0 GB"),
        ("LIST_BYTES_MAX", 100, "answer is more than 0 MB"),
        ("SHARDS_MAX", 2, "has 3 shards, more than 2"),
        ("ROOM_KEPT_BYTES", 1 << 60, "MB free, InfluxDB's backup needs"),
    ],
)
def test_too_much_is_told_instead_of_taken(
    bound: str, value: int, said: str, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influx2, bound, value)
    with pytest.raises(BackupError, match=said):
        save(served.url, tmp_path / "room")


def test_answer_that_unpacks_to_very_much_is_never_whole_in_memory(
    influx: Influx2, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influx2, "_BLOCK_BYTES", 1_000)
    sizes = []
    content = influx2._Server._content

    def watched(server: Any, answer: Any) -> Iterator[bytes]:
        for block in content(server, answer):
            sizes.append(len(block))
            yield block

    monkeypatch.setattr(influx2._Server, "_content", watched)
    influx.shards[5] = fake.shard_tar(5)[:-1024] + bytes(3_000_000)
    save(served.url, tmp_path / "room")
    assert max(sizes) == 1_000
    assert sum(sizes) > 3_000_000


# -- the checks ----------------------------------------------------------------------------------------------------


def changed(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (fake.bolt_file(), ""),
        (fake.bolt_file(page_bytes=16_384), ""),
        (changed(fake.bolt_file(), 40), ""),  # bolt itself takes the other meta page then
        (changed(fake.bolt_file(page_bytes=8_192), 40), ""),
        (changed(changed(fake.bolt_file(), 40), 4096 + 40), "it has no meta page of bolt whose checksum fits"),
        (fake.bolt_file()[:-1], "it is cut off: 16383 bytes of 16384"),
        (fake.bolt_file(root=2), "its root page is another one"),
        (changed(fake.bolt_file(), 3 * 4096), "its root page is another one"),
        (fake.bolt_file(root=9), "its root page is not in it"),
        (b"", "it has no meta page of bolt whose checksum fits"),
        (b"SQLite format 3\0" * 400, "it has no meta page of bolt whose checksum fits"),
    ],
)
def test_bolt_file_is_known_by_its_meta_pages_its_length_and_its_root(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "kv").write_bytes(content)
    assert influx2_files.check(tmp_path / "kv", {"method": "influx2-kv"}) == problem


def test_fnv_is_the_published_one() -> None:
    assert (influx2_files.fnv_1a(b""), influx2_files.fnv_1a(b"foobar")) == (0xCBF29CE484222325, 0x85944171F73967E8)


def test_damaged_sqlite_other_shards_and_other_manifests_are_found(tmp_path: Path) -> None:
    file = tmp_path / "file"
    content = fake.sqlite_file()
    file.write_bytes(content[:4096] + b"\xff" * 4096 + content[8192:])
    assert "SQLite finds it damaged" in influx2_files.check(file, {"method": "influx2-sql"})
    file.write_bytes(fake.shard_tar(4, files=3))
    assert influx2_files.check(file, {"method": "influx2-shard", "members": 2}) == "it has 3 files, 2 were saved"
    for content, said in ((b"{", "no manifest of InfluxDB"), (b'{"manifestVersion": 1}', "its version is 1")):
        file.write_bytes(content)
        assert said in influx2_files.check(file, {"method": "influx2-manifest", "files": {}})


# -- multipart -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_multipart_is_the_same_in_blocks_of_any_size(size: int) -> None:
    contents = {"kv": b"\r\n--5e1f0\r\n--\r\n\r\n", "sql": b"", "buckets": b"\r\n--" * 50}
    influx = Influx2()
    influx.files = {name: contents[name] for name in ("kv", "sql")}
    influx.buckets = []
    body = b"a preamble\r\n" + influx.multipart() + b"an epilogue"
    blocks = (body[at : at + size] for at in range(0, len(body), size))
    reader = MultipartReader(blocks, boundary_of(f'multipart/mixed; boundary="{fake.BOUNDARY}"'))
    found = {name: b"".join(content) for name, content in reader.parts()}
    assert found == {**influx.files, "buckets": b"[]"}
    assert next(blocks, None) is None


def test_part_that_nobody_reads_is_skipped_and_endless_headers_are_refused() -> None:
    influx = Influx2()
    reader = MultipartReader(iter([influx.multipart()]), fake.BOUNDARY.encode())
    assert [name for name, _ in reader.parts()] == ["kv", "sql", "buckets"]
    endless = MultipartReader(iter([f"--{fake.BOUNDARY}\r\n".encode(), *[b"x" * 1_000] * 20]), fake.BOUNDARY.encode())
    with pytest.raises(BackupError, match="without an end of its headers"):
        list(endless.parts())
