"""Redis in a backup, on real servers: the embedded one's dump, and the keys of one that is reached over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from velox_core.backup.manifest import BackupError
from velox_core.backup.redis_copy import DUMP_FILE, check, save_embedded, save_keys
from velox_core.redis_server import EmbeddedRedis

SCOPE = "simulated:primary"
OURS = {"velox:{simulated:primary}:halts", "velox:{simulated:primary:2024-01-15-1}:scope"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    made = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    made.start()
    with closing(redis.Redis.from_url(made.url)) as client:
        for key in (*OURS, "velox:{simulated:primary2}:halts", "somebody:else"):
            client.hset(key, mapping={"version": "7", "text": "x" * 100})
        client.set("velox:{simulated:primary}:lease", "1", px=600_000)
    yield made
    made.stop()


def test_embedded_server_is_saved_while_it_works_and_a_scratch_server_loads_it(server: EmbeddedRedis, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    notes = save_embedded(server.log_path.parent, SCOPE, saved)
    assert set(notes["keys"]) == OURS
    assert notes["method"] == "BGSAVE"
    assert check(saved, notes) == ""
    assert "lacks 1 of 3 keys, such as velox:{lost}" in check(saved, {**notes, "keys": [*notes["keys"], "velox:{lost}"]})
    assert not (server.log_path.parent / DUMP_FILE).exists()  # nothing old for a server that starts
    content = saved.read_bytes()
    saved.write_bytes(content[: len(content) // 2])
    assert "a scratch redis-server does not load it" in check(saved, notes)


def test_keys_of_a_server_are_saved_without_those_of_others(server: EmbeddedRedis, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    notes = save_keys(server.url, "Redis at test", SCOPE, saved)
    assert set(notes["keys"]) == {*OURS, "velox:{simulated:primary}:lease"}
    assert b"somebody" not in saved.read_bytes()
    assert check(saved, notes) == ""
    bent = saved.read_bytes().replace(b'"dump": "', b'"dump": "AA', 1)
    saved.write_bytes(bent)
    assert "a scratch redis-server does not load it" in check(saved, notes)


def test_server_that_is_down_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="Redis at nowhere was not saved"):
        save_keys(f"unix://{tmp_path / 'no.sock'}", "Redis at nowhere", SCOPE, tmp_path / "saved")
    blocked = tmp_path / "redis"
    blocked.write_text("a file where its folder should be")
    with pytest.raises(BackupError, match="was not saved"):
        save_embedded(blocked, SCOPE, tmp_path / "saved")
