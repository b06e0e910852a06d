"""The risk ledger on Redis: one script, one round trip, and no answer that is not certain.

- One synchronous connection, no retries, short time-outs. One call blocks at most `timeout_seconds`: a request
  has three fifths of it, and asking about a lost reply the rest.
- **A lost reply is asked about, never re-sent.** The asking script marks an unknown change as given up, so the request
  cannot take effect later, even if it is still on its way: found is Committed, not found is LedgerUnavailable for good.
- Any lost connection, a missing generation, or a version below the high-water mark makes `commit` and `snapshot`
  raise LedgerUnavailable until `rebuild`: Redis with `everysec` may have lost a second. Marks, the lease and halts
  need no rebuild. After a failed connect, calls fail at once for `PAUSE_SECONDS` instead of waiting again;
  `rebuild`, `latch_halt` and `acquire_lease` try anyway.
- A generation that somebody else rebuilt answers Conflict with the new content, which is the truth to decide on.
- Garbage, a refused login, a read-only or full server and an evicting policy raise LedgerUnavailable that names it.
- Content belongs to one trading date and expires after 8 days; halts, lease epoch and marks belong to the scope.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import redis

from velox_core.domain.errors import LedgerUnavailable, VeloxError
from velox_core.domain.halts import HaltRecord
from velox_core.lease import LEASE_SECONDS
from velox_core.ledger import script
from velox_core.ledger.codec import GarbageField, change_fields, halt_fields, halt_value, read_snapshot, snapshot_fields
from velox_core.ledger.connect import Connect, connect_to, explain, open_client, place_of
from velox_core.risk.ledger import CommitResult, Committed, Conflict, Fenced, LedgerChange, RiskSnapshot

TIMEOUT_SECONDS = 0.25
PAUSE_SECONDS = 1.0
EXPIRE_MS = 8 * 86_400_000
_REQUEST_SHARE = 0.6
_REBUILD = "no entries until the ledger is rebuilt from journal and broker (the engine does it; or restart it)"


class RedisLedger:
    """One account's shared limits for one trading date, on a Redis server.

    Args:
        server: a redis URL (`unix:///…/redis.sock`, `redis://…`), or a function from a time-out in seconds to a client.
        scope_key: see `velox_core.domain.scope`; it stands in every key.
        trading_date: the date whose content this ledger is.
        version_floor: the journal's high-water mark: content below it was lost.
        epoch_floor: the highest lease epoch the journal knows: a server that lost its memory does not repeat one.
        lease_seconds: how long a lease lives without a renewal.
        timeout_seconds: the most that one call blocks.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        server: str | Connect,
        scope_key: str,
        trading_date: date,
        *,
        version_floor: int = 0,
        epoch_floor: int = 0,
        lease_seconds: float = LEASE_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect_to(server) if isinstance(server, str) else server
        self._place = place_of(server) if isinstance(server, str) else "the given server"
        prefix = f"velox:{{{scope_key}}}:"
        self._scope, self._halts = prefix + "scope", prefix + "halts"
        self._lease, self._marks = prefix + "lease", prefix + "marks"
        self._content, self._changes = f"{prefix}ledger:{trading_date}", f"{prefix}changes:{trading_date}"
        self._commit_keys = (self._scope, self._content, self._changes, self._halts)
        self._request_seconds = timeout_seconds * _REQUEST_SHARE
        self._ask_seconds = timeout_seconds - self._request_seconds
        self._lease_ms, self._epoch_floor = int(lease_seconds * 1000), epoch_floor
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._client: redis.Redis | None = None
        self._pause_until = 0.0
        self._once_connected = False
        self._lost = ""
        self._generation = ""
        self._version_seen = version_floor
        self._held_epoch, self._holder = 0, ""

    def commit(self, expected_version: int, epoch: int, change: LedgerChange, change_id: str) -> CommitResult:
        """Apply a change if version and epoch still hold, a fact at any version: one round trip. Raises LedgerUnavailable."""
        with self._lock:
            if not self._generation:
                self.snapshot()
            client = self._trusted_client()
            deletes, pairs = change_fields(change)
            new_version = expected_version + 1
            kind = "1" if change.opens_risk else "2" if change.is_fact else "0"
            head = (self._generation, epoch, expected_version, change_id, new_version, kind, len(deletes))
            try:
                reply = self._evaluate(client, script.COMMIT, self._commit_keys, (*head, *deletes, *pairs))
            except _ReplyLost as error:
                return self._ask(change_id, error)
            return self._result(reply, change_id)

    def _result(self, reply: Sequence[Any], change_id: str) -> CommitResult:
        code = reply[0]
        if code == script.COMMITTED:
            version = int(reply[1])
            if len(reply) > 2:  # a fact that went in on top of what others committed
                return Committed(version, self._read(reply[2], reply[3], reply[4]))
            if version > self._version_seen:
                self._version_seen = version
            return Committed(version)
        if code == script.CONFLICT:
            return Conflict(self._read(reply[1], reply[2], reply[3]))
        if code == script.FENCED:
            return Fenced(int(reply[1]))
        if code == script.GIVEN_UP:
            raise LedgerUnavailable(f"change {change_id} was given up after a lost reply: decide again under a new change id")
        raise self._nothing_there()

    def _ask(self, change_id: str, cause: _ReplyLost) -> CommitResult:
        """Find out, on a new connection, whether a change whose reply was lost took effect. Never sends it again."""
        try:
            client = self._connect(self._ask_seconds)
            try:
                answer = client.eval(script.RESOLVE, 2, self._content, self._changes, change_id, self._generation)
            finally:
                client.close()
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(f"the reply to change {change_id} was lost and it cannot be asked about", error) from cause
        if not isinstance(answer, bytes) or not answer.isdigit():
            raise LedgerUnavailable(
                f"{self._place}: the reply to change {change_id} was lost and the change is not in: {_REBUILD}"
            ) from cause
        self._version_seen = max(self._version_seen, int(answer))
        return Committed(int(answer))

    def snapshot(self) -> RiskSnapshot:
        """Return the current state. Raises LedgerUnavailable when it is gone, went backwards or cannot be read."""
        with self._lock:
            keys = (self._scope, self._content, self._halts)
            content, halts, scope = self._run(self._trusted_client(), script.SNAPSHOT, keys, ())
            if not content:
                raise self._nothing_there()
            return self._read(content, halts, scope)

    def rebuild(self, snapshot: RiskSnapshot) -> RiskSnapshot:
        """Replace the content: a new generation and a higher version; halts and epoch stay, the snapshot's halts join them.

        Raises LedgerUnavailable when the store does not answer, or when another engine took the lease meanwhile.
        """
        with self._lock:
            client = self._connected(patient=False)
            caller_epoch = max(self._held_epoch, snapshot.epoch)
            version_floor = max(snapshot.version, self._version_seen)
            head = (uuid.uuid4().hex, caller_epoch, self._holder, self._epoch_floor, version_floor, EXPIRE_MS)
            arguments: list[bytes | str | int] = [*head, len(snapshot.halts)]
            for record in snapshot.halts:
                arguments += (record.halt_id, halt_value(record))
            arguments += snapshot_fields(snapshot)
            keys = (*self._commit_keys, self._lease)
            reply = self._run(client, script.REBUILD, keys, arguments)
            if reply[0] == script.FENCED:
                raise LedgerUnavailable(
                    f"{self._place}: rebuild by epoch {caller_epoch}, but the lease is at epoch {int(reply[1])} "
                    f"({reply[2].decode(errors='replace') or 'no live holder'}): another engine took over"
                )
            fresh = self._read(reply[1], reply[2], reply[3])
            self._lost = ""
            return fresh

    def latch_halt(self, record: HaltRecord) -> None:
        """Add a halt or a clear record, whatever the version. Safe to repeat, so a torn connection is tried once more."""
        with self._lock:
            keys = (self._scope, self._content, self._halts)
            arguments = (*halt_fields(record), halt_value(record))
            try:
                self._evaluate(self._connected(patient=False), script.LATCH, keys, arguments)
            except _ReplyLost as error:
                if isinstance(error.__cause__, redis.TimeoutError):
                    raise self._unavailable("a halt may not have been latched", error.__cause__) from error
                self._run(self._connected(patient=False), script.LATCH, keys, arguments)

    def acquire_lease(self, holder: str) -> int:
        """Become the one engine: return an epoch above every earlier one. Raises VeloxError when another live holder has it."""
        with self._lock:
            keys, arguments = (self._scope, self._lease), (holder, self._lease_ms, self._epoch_floor)
            reply = self._run(self._connected(patient=False), script.ACQUIRE, keys, arguments)
            if reply[0] == 0:
                raise VeloxError(
                    f"the account's lease is held by {reply[1].decode(errors='replace')} (epoch {reply[2].decode()}, "
                    f"{int(reply[3]) / 1000:.1f} s left): stop that engine, or wait until its lease runs out"
                )
            self._held_epoch, self._holder = int(reply[1]), holder
            return self._held_epoch

    def renew_lease(self, epoch: int) -> bool:
        """Prolong the lease; False when the epoch is no longer ours, or was given back."""
        with self._lock:
            if epoch != self._held_epoch or not self._holder:
                return False
            keys, arguments = (self._scope, self._lease), (epoch, self._holder, self._lease_ms)
            answer = self._run(self._connected(), script.RENEW, keys, arguments)
            if answer < 0:
                raise self._distrust("it does not know the lease any more")
            return bool(answer)

    def release_lease(self, epoch: int) -> None:
        """Give the lease back, if it is still ours."""
        with self._lock:
            if epoch == self._held_epoch:
                self._holder = ""
            self._run(self._connected(), script.RELEASE, (self._lease,), (epoch,))

    def put_mark(self, key: str, value: str) -> None:
        """Publish one value beside the version."""
        with self._lock:
            self._run(self._connected(), script.PUT_MARK, (self._marks,), (key, value))

    def get_mark(self, key: str) -> str | None:
        """Return a published value, or None."""
        with self._lock:
            value = self._run(self._connected(), script.GET_MARK, (self._marks,), (key,))
            return None if value is None else str(value.decode(errors="replace"))

    def close(self) -> None:
        """Close the connection. The next call would be a reconnect."""
        with self._lock:
            self._drop()

    def _read(self, content: Sequence[bytes], halts: Sequence[bytes], scope: Sequence[bytes | None]) -> RiskSnapshot:
        try:
            snapshot = read_snapshot(content, halts, scope)
        except GarbageField as error:
            scope_fields = ("epoch", "halted")
            key = self._halts if error.field.startswith("halt ") else self._content
            key = self._scope if error.field in scope_fields else key
            raise self._distrust(
                f"key {key}, field {error}: that is not what the ledger writes; delete the key (DEL) and restart the engine"
            ) from error
        if snapshot.version < self._version_seen:
            raise self._distrust(f"its version went back from {self._version_seen} to {snapshot.version}: it lost commits")
        self._version_seen, self._generation = snapshot.version, snapshot.generation
        return snapshot

    def _trusted_client(self) -> redis.Redis:
        if self._lost:
            raise LedgerUnavailable(f"{self._place}: {self._lost}: {_REBUILD}")
        client = self._connected()
        if self._lost:
            raise LedgerUnavailable(f"{self._place}: {self._lost}: {_REBUILD}")
        return client

    def _connected(self, *, patient: bool = True) -> redis.Redis:
        """Return the one connection, opened if need be. `patient` waits out the pause after a failure by failing at once."""
        if self._client is not None:
            return self._client
        if patient and self._monotonic() < self._pause_until:
            raise LedgerUnavailable(f"{self._place} did not answer a moment ago; {_REBUILD}")
        try:
            self._client = open_client(self._connect, self._request_seconds, self._place)
        except (redis.RedisError, OSError) as error:
            raise self._unavailable("cannot connect", error) from error
        if self._once_connected:
            self._lost = self._lost or "the connection was lost"
        self._once_connected = True
        return self._client

    def _run(self, client: redis.Redis, text: str, keys: Sequence[str], arguments: Sequence[bytes | str | int]) -> Any:
        """Evaluate a script whose repetition does no harm; a lost reply is LedgerUnavailable."""
        try:
            return self._evaluate(client, text, keys, arguments)
        except _ReplyLost as error:
            raise self._unavailable("no answer", error.__cause__) from error

    def _evaluate(self, client: redis.Redis, text: str, keys: Sequence[str], arguments: Sequence[bytes | str | int]) -> Any:
        """Evaluate a script once. Raises _ReplyLost when it may or may not have run, LedgerUnavailable when it did not."""
        sha = script.SHA[text]
        try:
            return client.evalsha(sha, len(keys), *keys, *arguments)
        except redis.exceptions.NoScriptError:  # refused before it ran: the server forgot its scripts
            return self._load_and_evaluate(client, text, keys, arguments)
        except (redis.AuthenticationError, redis.BusyLoadingError) as error:
            self._drop()
            raise self._unavailable("refused", error) from error
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            self._drop()
            self._lost = "the connection was lost"
            raise _ReplyLost from error
        except redis.ResponseError as error:
            raise LedgerUnavailable(explain(self._place, error, client, keys)) from error

    def _load_and_evaluate(
        self, client: redis.Redis, text: str, keys: Sequence[str], arguments: Sequence[bytes | str | int]
    ) -> Any:
        try:
            return client.eval(text, len(keys), *keys, *arguments)
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            self._drop()
            self._lost = "the connection was lost"
            raise _ReplyLost from error
        except redis.ResponseError as error:
            raise LedgerUnavailable(explain(self._place, error, client, keys)) from error

    def _nothing_there(self) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"{self._place}: it holds nothing for the date (a new date, or a server that lost its memory): {_REBUILD}"
        )

    def _distrust(self, why: str) -> LedgerUnavailable:
        """Stop trusting the content until it is rebuilt, and return the error to raise."""
        self._lost = self._lost or why
        return LedgerUnavailable(f"{self._place}: {why}: {_REBUILD}")

    def _unavailable(self, what: str, error: BaseException | None) -> LedgerUnavailable:
        """Note that the server does not answer, and return the error to raise."""
        self._drop()
        self._pause_until = self._monotonic() + PAUSE_SECONDS
        return LedgerUnavailable(f"{what}: {explain(self._place, error)}")

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


class _ReplyLost(Exception):
    """A request was sent, or partly sent, and its reply never came. Its cause is the connection's error."""
