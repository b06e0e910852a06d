"""Redis: what an account's ledger held, for looking back and for a drill; trading never needs it.

- The embedded server saves itself (BGSAVE), and its dump is taken. On a server of yours, where its disk is out of reach and
  other people's keys may be, the account's own keys are read (DUMP, all of them in one transaction).
- A scratch server that nobody else can reach loads what was saved and is asked for the keys.
- A dump is never put back into a living ledger: an engine builds its ledger from journal and broker.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from velox_core.backup.manifest import BackupError
from velox_core.domain.errors import LedgerUnavailable
from velox_core.redis_server import EmbeddedRedis, find_executable

ANSWER_SECONDS: Final = 5.0
SAVE_SECONDS_MAX: Final = 120.0
READY_SECONDS_MAX: Final = 30.0
KEYS_MAX: Final = 100_000
_POLL_SECONDS: Final = 0.002
_KEYS_AT_ONCE: Final = 1_000
DUMP_FILE, KEYS_FILE = "dump.rdb", "keys.jsonl"
_FAILURES: Final = (redis.RedisError, OSError, LedgerUnavailable, BackupError)


def save_embedded(folder: Path, scope_key: str, target: Path) -> dict[str, Any]:
    """Have the embedded server of a folder save itself, and take the dump. Returns what to check later.

    Raises: BackupError.
    """
    dump = folder / DUMP_FILE
    try:
        with closing(_client(EmbeddedRedis(folder).start())) as client:
            names = _lasting_keys(client, scope_key)
            _save(client, dump)
            version = str(_info(client, "server").get("redis_version", ""))
        shutil.copyfile(dump, target)
    except _FAILURES as error:
        raise BackupError(f"the embedded Redis in {folder} was not saved: {error}") from error
    finally:
        with suppress(OSError):
            dump.unlink(missing_ok=True)  # a ledger that is old must not be found by a server that starts
    return {"method": "BGSAVE", "redis": version, "keys": names}


def save_keys(url: str, place: str, scope_key: str, target: Path) -> dict[str, Any]:
    """Read an account's keys from a server, all at one moment. `place` names it in messages. Raises BackupError."""
    try:
        with closing(_client(url)) as client:
            keys = sorted(_scanned(client, scope_key))
            pipeline = client.pipeline(transaction=True)
            for key in keys:
                pipeline.dump(key)
                pipeline.pttl(key)
            answers = pipeline.execute() if keys else []
            version = str(_info(client, "server").get("redis_version", ""))
        rows = zip(keys, answers[::2], answers[1::2], strict=True)
        kept = [(key, dump, ttl_ms) for key, dump, ttl_ms in rows if dump is not None]
        target.write_bytes(b"".join(_line(*row) for row in kept))
    except _FAILURES as error:
        raise BackupError(f"{place} was not saved: {error}") from error
    return {"method": "DUMP", "redis": version, "keys": [key.decode() for key, _, _ in kept]}


def check(saved: Path, notes: Mapping[str, Any]) -> str:
    """Load what was saved into a scratch server. Returns '' when every key of `notes` is there, else what is wrong."""
    wanted = {str(key) for key in notes.get("keys", ())}
    try:
        with tempfile.TemporaryDirectory(prefix="velox-redis-") as name:
            folder = Path(name)
            if notes.get("method") == "BGSAVE":
                shutil.copyfile(saved, folder / DUMP_FILE)
            with _scratch_server(folder) as client:
                if notes.get("method") == "DUMP":
                    _load(client, saved)
                found = {key.decode() for key in client.scan_iter(count=_KEYS_AT_ONCE)}
    except (*_FAILURES, ValueError, KeyError) as error:
        return f"a scratch redis-server does not load it: {error}"
    lost = sorted(wanted - found)
    return f"a scratch redis-server lacks {len(lost)} of {len(wanted)} keys, such as {lost[0]}" if lost else ""


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
    )


def _info(client: redis.Redis, section: str) -> dict[str, Any]:
    answer: Any = client.info(section)
    return dict(answer)


def _scanned(client: redis.Redis, scope_key: str) -> set[bytes]:
    """Return the keys of a scope, velox:{simulated:primary}:…, and of its runs, velox:{simulated:primary:RUN}:…."""
    found: set[bytes] = set()
    for pattern in (f"velox:{{{scope_key}}}:*", f"velox:{{{scope_key}:*"):
        for key in client.scan_iter(match=pattern, count=_KEYS_AT_ONCE):
            found.add(key)
            if len(found) > KEYS_MAX:
                raise BackupError(f"there are more than {KEYS_MAX} keys of {scope_key}: this is no ledger of ours")
    return found


def _lasting_keys(client: redis.Redis, scope_key: str) -> list[str]:
    """Return the account's keys that do not expire: those a dump must still have when it is loaded later."""
    keys = sorted(_scanned(client, scope_key))
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.pttl(key)
    return [key.decode() for key, ttl_ms in zip(keys, pipeline.execute(), strict=True) if ttl_ms == -1]


def _save(client: redis.Redis, dump: Path) -> None:
    """Have the server write a dump, and wait for it. Raises BackupError."""
    until = time.monotonic() + SAVE_SECONDS_MAX
    dump.unlink(missing_ok=True)
    begun = False
    while time.monotonic() < until:
        state = _info(client, "persistence")
        if not int(state["rdb_bgsave_in_progress"]):
            if begun and state["rdb_last_bgsave_status"] != "ok":
                raise BackupError("its background save failed: free its disk, see redis.log")
            if begun and dump.is_file():
                return
            try:
                client.bgsave(schedule=True)  # behind a rewrite of the append-only file, if one runs
                begun = True
            except redis.ResponseError as error:
                if "progress" not in str(error):
                    raise
        time.sleep(_POLL_SECONDS)
    raise BackupError(f"its background save did not end within {SAVE_SECONDS_MAX:g} s: see redis.log")


def _line(key: bytes, dump: bytes, ttl_ms: int) -> bytes:
    body = {"key": key.decode(), "ttl_ms": ttl_ms, "dump": base64.b64encode(dump).decode()}
    return json.dumps(body).encode() + b"\n"


def _load(client: redis.Redis, saved: Path) -> None:
    for line in saved.read_bytes().splitlines():
        body = json.loads(line)
        client.restore(body["key"], 0, base64.b64decode(body["dump"]))  # its checksum is in it, and is checked


@contextmanager
def _scratch_server(folder: Path) -> Iterator[redis.Redis]:
    """Run a server on a socket of its own, which loads the dump of the folder if there is one. Ended at the end."""
    socket_path = folder / "s"
    flags = ["--port", "0", "--unixsocket", str(socket_path), "--dir", str(folder), "--dbfilename", DUMP_FILE]
    flags += ["--appendonly", "no", "--save", "", "--daemonize", "no"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([find_executable(), *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        with closing(_client(f"unix://{socket_path}")) as client:
            _await(client, process, folder / "log")
            yield client
    finally:
        process.kill()
        process.wait()


def _await(client: redis.Redis, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + READY_SECONDS_MAX
    while True:
        try:
            client.ping()
            return
        except (redis.RedisError, OSError) as error:  # not up yet, or still loading
            if process.poll() is not None or time.monotonic() > until:
                said = log.read_text(encoding="utf-8", errors="replace").splitlines()
                raise BackupError(f"it does not come up: {said[-1] if said else error}") from error
        time.sleep(_POLL_SECONDS)
