"""Opening a connection to Redis, and saying in one line what is wrong with it.

- No retries, RESP2, no greeting commands: a connect is one system call, and what happens next is ours to bound.
- A server that may evict keys is refused; one that does not let us look is trusted.
- A password never reaches a message: an address is host, port and path only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.retry import Retry

from velox_core.domain.errors import LedgerUnavailable
from velox_core.ledger import script


class LedgerClient(redis.Redis):
    """A client whose scripts take the straight way to its one connection.

    The general way (pool, retries, an encoding for each argument) costs a third of the whole round trip. Time-outs, errors
    and the dropping of a torn connection are the connection's own, and so the same.
    """

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Evaluate a loaded script: one request, one reply. Raises what the connection raises."""
        connection: Any = self.connection
        if connection is None:  # closed: the general way opens it again
            return super().evalsha(sha, numkeys, *keys_and_args)
        request: tuple[Any, ...] = ("EVALSHA", sha, numkeys, *keys_and_args)
        connection.send_packed_command((pack_command(request),))
        return connection.read_response()


Connect: TypeAlias = Callable[[float], redis.Redis]  # time-out in seconds -> client with one connection


def connect_to(url: str) -> Connect:
    """Return a function that connects to `url` with a time-out in seconds. Raises LedgerUnavailable for a bad URL."""
    try:
        redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
        urlsplit(url).port  # noqa: B018  (a port that is not a number raises here)
    except ValueError as error:
        raise LedgerUnavailable(
            f"stores.redis.url is not a Redis address ({error}): use unix:///path/redis.sock or redis://host:port/0"
        ) from None

    def connect(timeout_seconds: float) -> redis.Redis:
        return LedgerClient.from_url(
            url,
            single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            protocol=2,
            driver_info=None,
        )

    return connect


def place_of(url: str) -> str:
    """Return a URL for people, without user and password."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"Redis at {parts.path}"
    return f"Redis at {parts.hostname or '?'}:{parts.port or 6379}{parts.path}"


def open_client(connect: Connect, timeout_seconds: float, place: str) -> redis.Redis:
    """Connect, load the scripts, and refuse an evicting server: two round trips.

    Raises: LedgerUnavailable for a policy that evicts, redis errors and OSError for what the connection says.
    """
    with ExitStack() as on_failure:
        client = connect(timeout_seconds)
        on_failure.callback(client.close)
        pipeline = client.pipeline(transaction=False)
        for text in script.ALL:
            pipeline.script_load(text)
        pipeline.execute()
        policy = _eviction_policy(client)
        if policy not in ("", "noeviction"):
            raise LedgerUnavailable(
                f"{place} may evict keys (maxmemory-policy {policy}): a limit could vanish. "
                "Set maxmemory-policy noeviction, or use a server of its own"
            )
        on_failure.pop_all()
    return client


def _eviction_policy(client: redis.Redis) -> str:
    """Return the server's maxmemory-policy, '' when it does not let us look."""
    try:
        memory: dict[str, Any] = client.info("memory")
    except redis.ResponseError:
        return ""
    return str(memory.get("maxmemory_policy", ""))


_REMEDIES: tuple[tuple[str, str], ...] = (
    ("WRONGPASS", "it refused user or password: correct stores.redis.url"),
    ("invalid username-password", "it refused user or password: correct stores.redis.url"),
    ("NOAUTH", "it wants a password: put it in stores.redis.url"),
    ("Authentication required", "it wants a password: put it in stores.redis.url"),
    ("NOPERM", "the user lacks a permission: allow its scripts and keys velox:* (ACL SETUSER)"),
    ("No permissions", "the user lacks a permission: allow its scripts and keys velox:* (ACL SETUSER)"),
    ("READONLY", "it is a read-only replica: point stores.redis.url at the primary"),
    ("read only replica", "it is a read-only replica: point stores.redis.url at the primary"),
    ("OOM", "it is out of memory: raise maxmemory or free some, then rebuild"),
    ("maxmemory", "it is out of memory: raise maxmemory or free some, then rebuild"),
    ("MISCONF", "it cannot save to its disk: free space, see its log"),
    ("NOREPLICAS", "it lacks replicas to write to: see its log"),
    ("loading the dataset", "it is still loading its data: wait and try again"),
    ("Timeout", "it did not answer in time: see whether it runs and is not overloaded (velox check starts the embedded one)"),
    ("timed out", "it did not answer in time: see whether it runs and is not overloaded (velox check starts the embedded one)"),
)


def explain(place: str, error: BaseException | None, client: redis.Redis | None = None, keys: Sequence[str] = ()) -> str:
    """Return one line for people: where, what the server said, and what to do."""
    text = f"{type(error).__name__}: {error}" if error is not None else "no answer"
    if "WRONGTYPE" in text and client is not None:
        return f"{place}: {_wrong_types(client, keys)}: delete the key (DEL) and restart the engine, which rebuilds the ledger"
    if "GARBAGE" in text and keys:
        return f"{place}: key {keys[0]}: {error}; delete the key (DEL) and restart the engine, which rebuilds the ledger"
    for sign, remedy in _REMEDIES:
        if sign in text:
            return f"{place}: {remedy} ({error})"
    return f"{place}: {text}; see whether it runs (velox check starts the embedded one)"


def _wrong_types(client: redis.Redis, keys: Sequence[str]) -> str:
    """Name the keys that hold a value of another type than the ledger writes."""
    wrong = []
    try:
        for key in keys:
            found = str(client.type(key).decode())  # type: ignore[union-attr]
            if found not in ("none", "hash"):
                wrong.append(f"{key} is a {found}")
    except (redis.RedisError, OSError):
        return "a key of the ledger has the wrong type"
    return ", ".join(wrong) or "a key of the ledger has the wrong type"
