"""Probes of what the day leans on: Redis, InfluxDB, the dashboard, the backup folder, an earlier simulated day.

- A probe really uses the thing: PING and its eviction policy, one written point, one HTTP answer, one written file.
- Every probe has a time-out and answers with a `ProbeResult`; it raises nothing for a thing that is down.
- Heavy client libraries are imported inside the probe that needs them.
"""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from velox_core.domain.errors import VeloxError
from velox_core.operations.status import account_folders, read_summary
from velox_core.settings import InfluxSettings, Paths, Settings
from velox_core.settings.values import plain

TIMEOUT_SECONDS: Final = 2.0
RUNS_LOOKED_AT_MAX: Final = 200
REDIS_VERSION_MINIMUM: Final = (6, 2)
SAFE_EVICTION: Final = "noeviction"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """Whether the thing is in order, what was measured, and what to do when it is not."""

    ok: bool
    measured: str
    advice: str = ""


def probe_redis(settings: Settings, paths: Paths) -> ProbeResult:
    """Connect to the configured Redis (or start the embedded one), PING it and read its eviction policy."""
    from velox_core.run_stores import redis_url

    configured = settings.stores.redis
    if configured.url is not None:
        advice = (
            f"start the Redis server at {configured.display_url}, or remove system.stores.redis.url to use the embedded one"
        )
        return probe_redis_url(configured.url, shown=str(configured.display_url), advice=advice)
    advice = "install redis-server (Debian, Ubuntu: apt-get install redis-server) or reinstall the packages: make setup"
    try:
        url = redis_url(settings, paths)
    except VeloxError as error:
        return ProbeResult(ok=False, measured=f"embedded server: {error}", advice=advice)
    return probe_redis_url(url, shown="embedded server", advice=advice)


def probe_redis_url(url: str, *, shown: str, advice: str) -> ProbeResult:
    """Ask one Redis. `shown` names it without its password."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    client = redis.Redis.from_url(
        url,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
    )
    try:
        client.ping()
        answer = client.info()
    except (redis.RedisError, OSError) as error:
        return ProbeResult(ok=False, measured=f"{shown} does not answer: {error}", advice=advice)
    finally:
        client.close()
    info = answer if isinstance(answer, dict) else {}
    version, policy = str(info.get("redis_version", "0")), str(info.get("maxmemory_policy", "unknown"))
    measured = f"{shown} answers: version {version}, {policy}, append-only file {'on' if info.get('aof_enabled') else 'off'}"
    if policy != SAFE_EVICTION:
        return ProbeResult(
            ok=False, measured=measured, advice="set maxmemory-policy noeviction: an evicted claim is a doubled order"
        )
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < REDIS_VERSION_MINIMUM:
        return ProbeResult(ok=False, measured=measured, advice="use Redis 6.2 or newer")
    return ProbeResult(ok=True, measured=measured)


def probe_influxdb(influx: InfluxSettings) -> ProbeResult:
    """Ping the metrics server, check bucket and token where it has them, and write one point synchronously."""
    from velox_core.operations.metrics_server import look_at_server

    look = look_at_server(influx)
    return ProbeResult(ok=look.ok, measured=look.measured, advice=look.advice)


def probe_http(host: str, port: int) -> ProbeResult:
    """Ask a local HTTP server for its front page."""
    reached = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    connection = http.client.HTTPConnection(reached, port, timeout=TIMEOUT_SECONDS)
    advice = f"start the dashboard, or free port {port} for it"
    try:
        connection.request("GET", "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return ProbeResult(ok=False, measured=f"http://{reached}:{port} does not answer: {_one_line(error)}", advice=advice)
    finally:
        connection.close()
    return ProbeResult(ok=status < 500, measured=f"http://{reached}:{port} answers {status}", advice=advice)


def probe_backup_destination(settings: Settings, paths: Paths) -> ProbeResult:
    """Write, read back and remove a file in each place of the backups; look at the free space of a folder."""
    from velox_core.backup.faults import BackupError
    from velox_core.operations.backup_places import BACKUPS_FOLDER, probe_place

    told = []
    for place in (settings.backup.destination or str(paths.var / BACKUPS_FOLDER), *settings.backup.copies):
        try:
            told.append(probe_place(settings, paths, place))
        except BackupError as error:
            return ProbeResult(ok=False, measured=error.problem, advice=error.advice)
    return ProbeResult(ok=True, measured="; ".join(told))


def strategy_fingerprint(settings: Settings) -> str:
    """Return a digest of limits and strategies, the part of a configuration that a simulated day tests.

    A live configuration and the simulated one that tests it share it, though their config hashes differ.
    """
    tested = json.dumps([plain(settings.risk), plain(settings.strategies)], sort_keys=True, default=str)
    return hashlib.sha256(tested.encode()).hexdigest()


def completed_simulated_run(settings: Settings, paths: Paths) -> str:
    """Return the newest simulated run of this configuration, or of its limits and strategies, that ended as it should.

    That is: flat, by itself, with no halt, stop or fault. A run on real bars is preferred to one on synthetic ones, and
    the text says which kind it was: '2024-01-15-1 (real bars 2024-01-15)'. Empty when there is none.
    """
    synthetic = ""
    fingerprint = strategy_fingerprint(settings)
    folders = account_folders(paths.var, broker_type="simulated", account=settings.account)
    for folder in reversed(folders[-RUNS_LOOKED_AT_MAX:]):
        summary = read_summary(folder)
        if summary is None or not _ended_well(summary):
            continue
        if summary.get("config_hash") != settings.config_hash and summary.get("fingerprint") != fingerprint:
            continue
        run, on = str(summary.get("run_id") or folder.name), str(summary.get("trading_date") or folder.name[:10])
        if not summary.get("synthetic"):
            return f"{run} (real bars {on})"
        scenario = run.removeprefix(f"{on}-").rpartition("-")[0]
        synthetic = synthetic or f"{run} (synthetic {scenario}".rstrip() + ")"
    return synthetic


def _ended_well(summary: Mapping[str, Any]) -> bool:
    ended_otherwise = any(summary.get(key) for key in ("stopped", "halted", "halts", "fault"))
    return summary.get("exit_code") == 0 and bool(summary.get("flat")) and not ended_otherwise


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
