"""Secrets and Prefect: a block writes the file that trading processes read, and nothing of it comes back to Prefect."""

from __future__ import annotations

import asyncio
import stat
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from prefect.blocks.system import Secret
from prefect.settings import get_current_settings

from deployments import secret_file
from flows.market_open import market_open
from flows.trading_day import trading_day
from tasks.events import flush_events
from velox_core.operations.market_open import ChecklistFailed
from velox_core.redis_server import EmbeddedRedis

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
PRIVATE = "hunter2xyzzy"
DEAD = "127.0.0.1:9"


def kept_by_prefect() -> bytes:
    """Every byte of the server's database, with what is not yet checkpointed."""
    url = get_current_settings().server.database.connection_url
    assert url is not None
    path = Path(url.get_secret_value().partition(":///")[2])
    kept = b""
    for suffix in ("-wal", "-shm", "-journal", ""):  # the file itself last: what a checkpoint moves meanwhile is moved to it
        with suppress(FileNotFoundError):
            kept += path.with_name(path.name + suffix).read_bytes()
    return kept


async def test_secret_of_a_block_reaches_the_file_and_neither_prefect_nor_logs_nor_reports(
    var: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "secrets.yaml"
    strict = f"\n  secrets_path: {place}\n  metrics: {{influxdb: {{enabled: true, url: 'http://{DEAD}'}}}}\n"
    calm = config.with_name("calm.yaml")
    calm.write_text(config.read_text(encoding="utf-8") + f"\n  secrets_path: {place}\n", encoding="utf-8")
    config.write_text(config.read_text(encoding="utf-8") + strict, encoding="utf-8")
    token = {"metrics": {"influxdb": {"token": PRIVATE}}, "broker": {"api_key": PRIVATE, "access_token": PRIVATE}}
    value = {**token, "alerts": {"urls": [f"phone=json://user:{PRIVATE}@{DEAD}/{PRIVATE}"]}}
    await Secret(value=value).asave("velox-secrets", overwrite=True)
    monkeypatch.setattr(sys, "argv", ["secret_file", "--block", "velox-secrets", "--config", str(config)])
    assert await asyncio.to_thread(secret_file.main) == 0
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert PRIVATE in place.read_text(encoding="utf-8")

    with pytest.raises(ChecklistFailed, match="InfluxDB"):  # a server that is not there is asked with the token
        await market_open(config=str(config), date="2024-01-16", scenario="crash")
    report = await trading_day(config=str(calm), date="2024-01-16", speed=0.0, scenario="crash")
    assert report["worst_loss_paise"] >= report["loss_limit_paise"]  # so alerts were sent, to a channel that is dead
    assert await asyncio.to_thread(flush_events, 240.0)  # what was told of the run is noted in its folder by another thread
    await asyncio.sleep(2)  # the server records task runs in batches, once a second

    kept = kept_by_prefect()
    assert str(config).encode() in kept  # it is the database that these runs were kept in
    assert b"hunter2" not in kept
    told = capsys.readouterr()
    assert "hunter2" not in told.out + told.err
    EmbeddedRedis(var / "redis").stop()  # nothing comes and goes while all is read
    files = [path for path in var.rglob("*") if path.is_file()]
    assert any(path.name == "journal.db" for path in files)
    assert [path for path in files if b"hunter2" in path.read_bytes()] == []


@pytest.mark.parametrize("given", ["no-such-block", "velox-number"])
async def test_block_that_is_not_there_or_holds_no_secrets_writes_nothing(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await Secret(value=12345).asave("velox-number", overwrite=True)
    place = tmp_path / "secrets.yaml"
    monkeypatch.setattr(sys, "argv", ["secret_file", "--block", given, "--to", str(place)])
    assert await asyncio.to_thread(secret_file.main) in (1, 2)
    assert f"the Prefect Secret block '{given}'" in capsys.readouterr().err
    assert not place.exists()
