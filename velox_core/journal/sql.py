"""The SQL journal: events and their projections, durable in one transaction before an order leaves.

- `append` encodes and projects at once, so that a bad body fails there; `commit` writes everything buffered.
- One held connection, prepared inserts through the driver itself, no ORM and no compilation on this way.
- A failed commit keeps the buffer. Whether it went through after all is seen from the chain, and not written twice.
- Another process may append to the same run (a halt from the command line): the chain then continues after it.
- An intent that a backstop refuses is dropped from the buffer, the rest is written, and IntentRefused is raised.
- A commit that had to wait in vain (another writer, a server that does not answer) is not tried again for `PAUSE_SECONDS`:
  the next ones fail at once, so that a step of the loop waits once. A halt, a clear and the session's own events are
  tried all the same. What fails at once anyway (a full disk) has no pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeAlias

import orjson
from sqlalchemy import Connection, Engine, bindparam, func, insert, select, update
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import PoolProxiedConnection

from velox_core.domain.errors import IntentRefused, InvariantError, JournalUnavailable
from velox_core.domain.events import Body, EventKind, JournalEvent
from velox_core.journal.chain import GENESIS, canonical, next_digest
from velox_core.journal.database import WrittenFile, connect_to_read, open_database, unavailable
from velox_core.journal.projection import Projection, Target, project
from velox_core.journal.run import RunIdentity
from velox_core.journal.schema import JournalTable

ENGINE_BUSY_TIMEOUT_MS = 200  # the engine's loop never waits longer than 250 ms
PAUSE_SECONDS = 1.0
_ATTEMPTS_MAX = 3
_WITHOUT_PAUSE = frozenset({EventKind.HALT, EventKind.HALT_CLEARED, EventKind.SESSION})
_TABLES = JournalTable.metadata.tables
_RUN, _EVENT, _INTENT = _TABLES["run"], _TABLES["event"], _TABLES["intent"]
_HALT = _TABLES["halt"]
Prepared: TypeAlias = tuple[str, tuple[str, ...] | None]  # SQL, and the order of its parameters when they are positional


class _Buffered:
    """One appended event: what is hashed of it, and its rows."""

    __slots__ = ("body", "kind", "projection", "ts_ms")

    def __init__(self, kind: str, ts_ms: int, body: bytes, projection: Projection) -> None:
        self.kind = kind
        self.ts_ms = ts_ms
        self.body = body
        self.projection = projection


class SqlJournal:
    """One run's journal in SQL.

    Args:
        url: SQLAlchemy URL of the database; created or migrated if need be.
        run: which run; its row is created, or found again.
        busy_timeout_ms: how long a commit waits for another writer.
        monotonic: seconds that never go back, for the pause after such a wait.
    Raises: JournalUnavailable when the database cannot be used.
    """

    def __init__(
        self,
        url: str,
        run: RunIdentity,
        *,
        busy_timeout_ms: int = ENGINE_BUSY_TIMEOUT_MS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = open_database(url, check=True)
        self._file = WrittenFile(self._engine)
        self._busy_timeout_ms = busy_timeout_ms
        self._begins_itself = self._engine.dialect.name == "sqlite"  # see database.py; other drivers begin unasked
        self._driver_error = _driver_error(self._engine)
        prepared = _prepared(self._engine)
        self._insert_event, self._select_newest_halt, self._statements = prepared.event, prepared.halt, prepared.projections
        self._buffer: list[_Buffered] = []
        self._connection: Connection | None = None
        self._tail: tuple[int, bytes] | None = None
        self._attempt: tuple[int, str, int] | None = None
        self._monotonic = monotonic
        self._paused_until, self._paused_by = 0.0, ""
        self.run_key: int = self._guard("open", lambda: _open_run(self._engine, run))
        self._guard("open", self._read_tail_again)

    def append(self, kind: EventKind, ts_ms: int, body: Body) -> None:
        """Add one event, in order. Raises InvariantError for a body that lacks what its kind needs."""
        try:
            encoded = orjson.dumps(body)
        except TypeError as error:
            raise InvariantError(f"{kind} event {body!r} cannot be journaled: {error}") from error
        self.append_encoded(kind, ts_ms, body, encoded)

    def append_encoded(self, kind: EventKind, ts_ms: int, body: Body, encoded: bytes) -> None:
        """Add one event whose body is encoded already: an import keeps the bytes, and so the digests."""
        self._buffer.append(_Buffered(kind.value, ts_ms, encoded, project(kind, ts_ms, body)))
        if kind in _WITHOUT_PAUSE:
            self._paused_by = ""

    def commit(self) -> None:
        """Make every appended event durable. Raises JournalUnavailable (events stay buffered), IntentRefused."""
        if not self._buffer:
            return
        self._refuse_during_pause()
        try:
            self._commit()
        except SQLAlchemyError as error:
            raise self._failed("write", error) from error

    def _refuse_during_pause(self) -> None:
        if self._paused_by:
            if self._monotonic() < self._paused_until:
                raise JournalUnavailable(self._paused_by)
            self._paused_by = ""

    def _failed(self, doing: str, error: SQLAlchemyError) -> JournalUnavailable:
        """Let the connection go, begin a pause if the failure took a wait, and return the error to raise."""
        self._let_go()
        failure = unavailable(self._engine, doing, error)
        if _waited(self._engine, error):
            self._paused_until, self._paused_by = self._monotonic() + PAUSE_SECONDS, str(failure)
        return failure

    def _commit(self) -> None:
        for _ in range(_ATTEMPTS_MAX):
            known_tail = self._tail
            try:
                self._write()
                return
            except IntegrityError as error:
                tail = self._read_tail_again()
                if known_tail is not None and tail == known_tail:
                    self._drop_refused(error)
        raise JournalUnavailable(f"another process keeps writing to run {self.run_key} of the journal: end it, then go on")

    def _write(self) -> None:
        """Write the buffer in one transaction, after what an unclear earlier commit may have left."""
        self._file.check()
        connection = self._held_connection()
        if self._tail is None:
            with connection.begin():
                self._tail = _read_tail(connection, self.run_key)
                self._forget_what_is_in(connection)
        try:
            tail = self._write_rows(connection.connection, self._tail)
        except self._driver_error as error:
            # typed as SQLAlchemy would have typed it: the callers tell a refused row from a store that fails
            raise DBAPIError.instance(None, None, error, self._driver_error, dialect=self._engine.dialect) from error
        self._tail = tail
        self._attempt = None
        self._buffer.clear()

    def _write_rows(self, driver: PoolProxiedConnection, tail: tuple[int, bytes]) -> tuple[int, bytes]:
        """Write events and projections in one transaction, or nothing. Returns the new tail."""
        dialect, committed = self._engine.dialect, False
        cursor = driver.cursor()
        try:
            if self._begins_itself:
                cursor.execute("BEGIN IMMEDIATE")
            first = tail[0] + 1
            tail = self._write_events(cursor, *tail)
            self._attempt = (tail[0], tail[1].hex(), len(self._buffer))
            rows = (
                (target, {**row, "sequence": first + position, "run_key": self.run_key, "of_run_key": self.run_key})
                for position, buffered in enumerate(self._buffer)
                for target, row in buffered.projection
            )
            for target, group in groupby(rows, key=itemgetter(0)):
                _execute(cursor, self._statements[target], [row for _, row in group])
            dialect.do_commit(driver)
            committed = True
        finally:
            with suppress(self._driver_error):
                cursor.close()
                if not committed:
                    dialect.do_rollback(driver)
        return tail

    def _write_events(self, cursor: DBAPICursor, sequence: int, digest: bytes) -> tuple[int, bytes]:
        """Chain and insert the buffered events after the given tail, and return the new one."""
        rows: list[dict[str, Any]] = []
        for buffered in self._buffer:
            sequence += 1
            digest = next_digest(digest, canonical(sequence, buffered.ts_ms, buffered.kind, buffered.body))
            rows.append(
                {
                    "run_key": self.run_key,
                    "sequence": sequence,
                    "ts_ms": buffered.ts_ms,
                    "kind": buffered.kind,
                    "body": buffered.body.decode(),
                    "digest": digest.hex(),
                }
            )
        if rows:
            _execute(cursor, self._insert_event, rows)
        return sequence, digest

    def _forget_what_is_in(self, connection: Connection) -> None:
        """Drop from the buffer what the last attempt wrote although its commit seemed to fail."""
        if self._attempt is None:
            return
        sequence, digest, number = self._attempt
        of_run = (_EVENT.c.run_key == self.run_key) & (_EVENT.c.sequence == sequence)
        if connection.execute(select(_EVENT.c.digest).where(of_run)).scalar() == digest:
            del self._buffer[:number]
        self._attempt = None

    def _read_tail_again(self) -> tuple[int, bytes]:
        connection = self._held_connection()
        with connection.begin():
            self._tail = _read_tail(connection, self.run_key)
        return self._tail

    def _drop_refused(self, cause: IntegrityError) -> None:
        """Find the intents that a backstop refuses, write the rest, and raise IntentRefused."""
        refused = self._refused_intents()
        if not refused:
            raise unavailable(self._engine, "write", cause) from cause
        names = ", ".join(
            f"{row['client_order_id']} ({row['role']} {row['symbol']})"
            for buffered in refused
            for _, row in buffered.projection
        )
        self._buffer = [buffered for buffered in self._buffer if buffered not in refused]
        durable = [
            str(row["client_order_id"])
            for buffered in self._buffer
            for target, row in buffered.projection
            if target is Target.INTENT
        ]
        self._write()
        raise IntentRefused(
            f"the journal refused intent {names}: its id is used already, or the symbol has an entry that is not terminal; "
            "it was not sent. Reconcile before the next entry",
            durable,
        ) from cause

    def _refused_intents(self) -> list[_Buffered]:
        """Try the projections one by one behind savepoints, take everything back, and return the intents that failed."""
        refused = []
        connection = self._held_connection()
        with connection.begin() as transaction:
            for position, buffered in enumerate(self._buffer):
                for target, row in buffered.projection:
                    numbered = {**row, "sequence": -1 - position, "run_key": self.run_key, "of_run_key": self.run_key}
                    try:
                        with connection.begin_nested():  # its savepoint takes back what fails
                            prepared = self._statements[target]
                            connection.exec_driver_sql(prepared[0], _parameters(prepared, numbered))
                    except IntegrityError:
                        if target is Target.INTENT:
                            refused.append(buffered)
            transaction.rollback()
        return refused

    def tail(self) -> tuple[int, str]:
        """Return (sequence, digest in hex) of the newest committed event, (0, zeros) for none. Raises JournalUnavailable."""
        if self._tail is None:
            sequence, digest = self._guard("read", self._read_tail_again)
            return sequence, digest.hex()
        return self._tail[0], self._tail[1].hex()

    def events(self, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
        """Return the run's committed events, oldest first. Raises JournalUnavailable."""
        try:
            with connect_to_read(self._engine) as connection:
                yield from read_events(connection, self.run_key, kinds)
        except SQLAlchemyError as error:
            raise unavailable(self._engine, "read", error) from error

    def newest_halt(self) -> int:
        """Return the sequence of the newest halt or clear record of the run, 0 for none. Raises JournalUnavailable.

        It is the end of an index, read on the held connection: with the writer's time-out, and not during its pause.
        """
        self._refuse_during_pause()
        try:
            self._file.check()
            return self._read_newest_halt(self._held_connection().connection)
        except self._driver_error as error:
            typed = DBAPIError.instance(None, None, error, self._driver_error, dialect=self._engine.dialect)
            raise self._failed("read", typed) from error
        except SQLAlchemyError as error:
            raise self._failed("read", error) from error

    def _read_newest_halt(self, driver: PoolProxiedConnection) -> int:
        cursor = driver.cursor()
        try:
            _execute(cursor, self._select_newest_halt, [{"of_run_key": self.run_key}])
            row = cursor.fetchone()
        finally:
            with suppress(self._driver_error):
                cursor.close()
                self._engine.dialect.do_rollback(driver)  # a server began a transaction unasked
        return 0 if row is None or row[0] is None else int(row[0])

    def finish(self, status: str) -> None:
        """Note how the run ended, e.g. ENDED or STOPPED. Raises JournalUnavailable."""
        row = {"status": status, "ended_wall_ms": time.time_ns() // 1_000_000}

        def write() -> None:
            connection = self._held_connection()
            with connection.begin():
                connection.execute(update(_RUN).where(_RUN.c.run_key == self.run_key).values(row))

        self._guard("write", write)

    def close(self) -> None:
        """Close the connection. What was not committed is gone."""
        self._let_go()
        self._engine.dispose()

    def _guard(self, doing: str, work: Any) -> Any:
        try:
            return work()
        except SQLAlchemyError as error:
            self._let_go()
            raise unavailable(self._engine, doing, error) from error

    def _held_connection(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._engine.connect()
            if self._engine.dialect.name == "sqlite":
                self._connection.exec_driver_sql(f"PRAGMA busy_timeout={self._busy_timeout_ms}")
                self._connection.rollback()
        return self._connection

    def _let_go(self) -> None:
        """Forget connection and tail after a failure: the next commit begins with a fresh look."""
        connection, self._connection, self._tail = self._connection, None, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def read_events(connection: Connection, run_key: int, kinds: Iterable[EventKind] | None = None) -> Iterator[JournalEvent]:
    """Return a run's events, oldest first, as they stand on an open connection."""
    query = select(_EVENT.c.sequence, _EVENT.c.ts_ms, _EVENT.c.kind, _EVENT.c.body, _EVENT.c.digest)
    query = query.where(_EVENT.c.run_key == run_key).order_by(_EVENT.c.sequence)
    if kinds is not None:
        query = query.where(_EVENT.c.kind.in_([kind.value for kind in kinds]))
    for sequence, ts_ms, kind, body, digest in connection.execute(query):
        yield JournalEvent(sequence, ts_ms, EventKind(kind), orjson.loads(body), digest)


def _open_run(engine: Engine, run: RunIdentity) -> int:
    """Return the key of the run's row, creating it when the run is new."""
    same = (_RUN.c.scope_key == run.scope_key) & (_RUN.c.trading_date == run.trading_date) & (_RUN.c.run_id == run.run_id)
    with engine.begin() as connection:
        found = connection.execute(select(_RUN.c.run_key).where(same)).scalar()
        if found is not None:
            return int(found)
        row = {
            "scope_key": run.scope_key,
            "trading_date": run.trading_date,
            "run_id": run.run_id,
            "mode": run.mode,
            "config_hash": run.config_hash,
            "data_source": run.data_source,
            "started_wall_ms": run.started_wall_ms,
            "status": "RUNNING",
        }
        connection.execute(insert(_RUN).values(row))
        return int(connection.execute(select(_RUN.c.run_key).where(same)).scalar_one())


def _read_tail(connection: Connection, run_key: int) -> tuple[int, bytes]:
    """Return (sequence, digest) of the run's newest event."""
    query = select(_EVENT.c.sequence, _EVENT.c.digest).where(_EVENT.c.run_key == run_key)
    newest = connection.execute(query.order_by(_EVENT.c.sequence.desc()).limit(1)).first()
    return (0, GENESIS) if newest is None else (int(newest[0]), bytes.fromhex(newest[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statements:
    event: Prepared
    halt: Prepared
    projections: Mapping[Target, Prepared]


_BY_DRIVER: Final[dict[tuple[str, str], _Statements]] = {}


def _prepared(engine: Engine) -> _Statements:
    """Return the statements of a journal in the driver's own SQL, compiled once in a process: 10 ms."""
    driver = engine.dialect.name, engine.dialect.driver
    if driver not in _BY_DRIVER:
        newest = select(func.max(_HALT.c.sequence)).where(_HALT.c.run_key == bindparam("of_run_key"))
        _BY_DRIVER[driver] = _Statements(
            event=_prepare(engine, insert(_EVENT)),
            halt=_prepare(engine, newest),
            projections=_prepare_projections(engine),
        )
    return _BY_DRIVER[driver]


def _prepare(engine: Engine, statement: Any, suffix: str = "") -> Prepared:
    """Return a statement in the driver's own SQL, so that executing it costs no compilation."""
    compiled = statement.compile(dialect=engine.dialect)
    return str(compiled) + suffix, tuple(compiled.positiontup) if compiled.positional else None


def _prepare_projections(engine: Engine) -> dict[Target, Prepared]:
    """Prepare what orders write. A fill that is written twice stays one; an intent is not forgiven."""
    change = (
        update(_INTENT)
        .where(_INTENT.c.run_key == bindparam("of_run_key"), _INTENT.c.client_order_id == bindparam("of_client_order_id"))
        .values(
            state=bindparam("new_state"),
            live=bindparam("new_live"),
            filled_quantity=bindparam("new_filled_quantity"),
            broker_order_id=bindparam("new_broker_order_id"),
            updated_ms=bindparam("new_updated_ms"),
        )
    )
    plan = _TABLES["exit_plan"]
    ended = (
        update(plan)
        .where(plan.c.run_key == bindparam("of_run_key"), plan.c.live)
        .values(live=bindparam("new_live"), ended_ms=bindparam("new_ended_ms"))
    )
    return {
        Target.DECISION: _prepare(engine, insert(_TABLES["decision"])),
        Target.INTENT: _prepare(engine, insert(_INTENT)),
        Target.INTENT_STATE: _prepare(engine, change),
        Target.ORDER_EVENT: _prepare(engine, insert(_TABLES["order_event"])),
        Target.FILL: _prepare(engine, insert(_TABLES["fill"]), " ON CONFLICT DO NOTHING"),
        Target.HALT: _prepare(engine, insert(_TABLES["halt"])),
        Target.EXIT_PLAN_ENDED: _prepare(engine, ended),
        Target.EXIT_PLAN: _prepare(engine, insert(plan)),
    }


def _driver_error(engine: Engine) -> type[Exception]:
    """Return the base class of what the database's driver raises."""
    driver = engine.dialect.dbapi
    if driver is None:
        raise InvariantError(f"the dialect {engine.dialect.name} has no driver")
    error: type[Exception] = driver.Error
    return error


def _waited(engine: Engine, error: SQLAlchemyError) -> bool:
    """Return whether a failure came after a wait: SQLite waits for locks alone, a server can be waited for in any way."""
    return isinstance(error, OperationalError) and (engine.dialect.name != "sqlite" or "locked" in str(error.orig))


def _parameters(prepared: Prepared, row: dict[str, Any]) -> Any:
    order = prepared[1]
    return row if order is None else tuple([row[name] for name in order])


def _execute(cursor: DBAPICursor, prepared: Prepared, rows: list[dict[str, Any]]) -> None:
    if len(rows) == 1:
        cursor.execute(prepared[0], _parameters(prepared, rows[0]))
    else:
        cursor.executemany(prepared[0], [_parameters(prepared, row) for row in rows])
