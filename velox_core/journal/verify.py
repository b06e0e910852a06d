"""Is a journal still what was written? Each run's hash chain, its projections, and the heads that were noted elsewhere.

- The chain finds an edited, removed or reordered event, and names the first bad one of a run.
- What the chain cannot see is a run cut off at its end, or written anew as a whole: a head noted elsewhere (a report, a
  backup's manifest) finds that.
- The tables beside `event` are made again from the events and compared: a fill that was edited in its table alone is found.
- Checklists, day passes and summaries stand beside the chain and are not covered.
- Reads only, in one transaction, beside a running engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, TypeAlias

import orjson
from sqlalchemy import Boolean, Connection, Table, select
from sqlalchemy.exc import SQLAlchemyError

from velox_core.domain.errors import InvariantError
from velox_core.domain.events import EventKind
from velox_core.journal.chain import GENESIS, canonical, next_digest
from velox_core.journal.database import connect_to_read, open_database, unavailable
from velox_core.journal.projection import Row, Target, project
from velox_core.journal.schema import JournalTable

_TABLES: Final = JournalTable.metadata.tables
_KEYS: Final = {  # of the tables beside `event`, within a run
    "decision": "sequence",
    "intent": "client_order_id",
    "order_event": "sequence",
    "fill": "trade_id",
    "halt": "sequence",
    "exit_plan": "sequence",
}
EventRow: TypeAlias = tuple[int, int, str, str, str]  # sequence, ts_ms, kind, body, digest in hex
Rows: TypeAlias = dict[str, dict[object, Row]]  # table -> key -> row


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHead:
    """How far a run's chain goes: `events` is its newest sequence, `digest` (hex) stands for all of them."""

    scope_key: str
    trading_date: str
    run_id: str
    events: int
    digest: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {name: getattr(self, name) for name in ("scope_key", "trading_date", "run_id", "events", "digest")}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> RunHead:
        """Return what `to_json` made. Raises KeyError, ValueError and TypeError for anything else."""
        names = ("scope_key", "trading_date", "run_id", "digest")
        return cls(**{name: str(body[name]) for name in names}, events=int(body["events"]))

    @property
    def name(self) -> str:
        """Return the run for people: its id, or scope and date of an account's real day."""
        return self.run_id or f"{self.scope_key} {self.trading_date}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunVerdict:
    """What was found of one run: its head, and '' or the first thing that is wrong; `sequence` is the first bad event's."""

    head: RunHead
    problem: str = ""
    sequence: int | None = None


def head_of_day(heads: Iterable[RunHead]) -> str:
    """Return one hash (hex) for the runs of a day: it changes with any event of any of them. '' for no run."""
    rows = sorted((head.scope_key, head.trading_date, head.run_id, head.events, head.digest) for head in heads)
    return hashlib.sha256(orjson.dumps(rows)).hexdigest() if rows else ""


def check_chain(rows: Iterable[EventRow]) -> tuple[int, str, str, int | None]:
    """Follow a run's chain from its first event.

    Returns: (newest sequence that fits, its digest in hex, '' or what is wrong, the first bad sequence).
    """
    digest, expected = GENESIS, 1
    remaining = iter(rows)
    for sequence, ts_ms, kind, body, stored in remaining:
        if sequence != expected:
            missing = f"event {expected} is" if sequence == expected + 1 else f"events {expected} to {sequence - 1} are"
            return expected - 1, digest.hex(), f"{missing} missing", expected
        following = next_digest(digest, canonical(sequence, ts_ms, kind, body.encode()))
        if following.hex() != stored:
            return expected - 1, digest.hex(), _broken_at(sequence, stored, next(remaining, None)), sequence
        digest = following
        expected += 1
    return expected - 1, digest.hex(), "", None


def _broken_at(sequence: int, stored: str, after: EventRow | None) -> str:
    """Say what kind of break it is: when the next event follows the stored digest, this one alone was edited."""
    try:
        previous = bytes.fromhex(stored)
    except ValueError:
        return f"event {sequence} has no digest of ours"
    if after is not None and next_digest(previous, canonical(*after[:3], after[3].encode())).hex() == after[4]:
        return f"event {sequence} was edited"
    return f"event {sequence} was edited, or stands where another one was written"


def verify_runs(url: str, noted: Sequence[RunHead] = ()) -> list[RunVerdict]:
    """Check every run of a journal, oldest first.

    Args:
        url: SQLAlchemy URL of a journal at the head revision.
        noted: heads of its runs that were noted elsewhere, earlier.
    Raises: JournalUnavailable when it cannot be read.
    """
    engine = open_database(url, writer=False)
    try:
        with connect_to_read(engine) as connection, connection.begin():
            return [_verdict(connection, run, noted) for run in _runs(connection)]
    except SQLAlchemyError as error:
        raise unavailable(engine, "read", error) from error
    finally:
        engine.dispose()


def run_heads(url: str) -> list[RunHead]:
    """Return the head of every run as it stands, without following its chain. Raises JournalUnavailable."""
    engine = open_database(url, writer=False)
    event = _TABLES["event"]
    try:
        with connect_to_read(engine) as connection, connection.begin():
            heads = []
            for run in _runs(connection):
                query = select(event.c.sequence, event.c.digest).where(event.c.run_key == run["run_key"])
                newest = connection.execute(query.order_by(event.c.sequence.desc()).limit(1)).first()
                heads.append(_head(run, *((0, GENESIS.hex()) if newest is None else (int(newest[0]), str(newest[1])))))
            return heads
    except SQLAlchemyError as error:
        raise unavailable(engine, "read", error) from error
    finally:
        engine.dispose()


def _runs(connection: Connection) -> list[Row]:
    run = _TABLES["run"]
    columns = (run.c.run_key, run.c.scope_key, run.c.trading_date, run.c.run_id)
    return [dict(row) for row in connection.execute(select(*columns).order_by(run.c.run_key)).mappings()]


def _head(run: Row, events: int, digest: str) -> RunHead:
    day = run["trading_date"].isoformat()
    return RunHead(scope_key=run["scope_key"], trading_date=day, run_id=run["run_id"], events=events, digest=digest)


def _verdict(connection: Connection, run: Row, noted: Sequence[RunHead]) -> RunVerdict:
    digests: dict[int, str] = {}
    sought = {head.events for head in noted}
    expected: Rows = {name: {} for name in _KEYS}
    faults: list[str] = []
    rows = _followed(_event_rows(connection, run["run_key"]), expected, digests, sought, faults)
    events, digest, problem, sequence = check_chain(rows)
    head = _head(run, events, digest)
    if not problem:
        problem, sequence = _against_noted(head, digests, noted)
    if not problem and faults:
        problem = faults[0]
    if not problem:
        problem = _first_difference(connection, run["run_key"], expected)
    return RunVerdict(head=head, problem=problem, sequence=sequence)


def _event_rows(connection: Connection, run_key: int) -> Iterator[EventRow]:
    event = _TABLES["event"]
    columns = (event.c.sequence, event.c.ts_ms, event.c.kind, event.c.body, event.c.digest)
    query = select(*columns).where(event.c.run_key == run_key).order_by(event.c.sequence)
    for row in connection.execute(query):
        yield row[0], row[1], row[2], row[3], row[4]


def _followed(
    rows: Iterator[EventRow], expected: Rows, digests: dict[int, str], sought: set[int], faults: list[str]
) -> Iterator[EventRow]:
    """Pass events on, and note on the way what the tables beside them must hold and the digests that are asked for."""
    for row in rows:
        sequence, ts_ms, kind, body, digest = row
        if sequence in sought:
            digests[sequence] = digest
        try:
            _apply(expected, sequence, ts_ms, EventKind(kind), orjson.loads(body))
        except (ValueError, InvariantError) as error:
            faults.append(f"event {sequence} cannot be read: {error}")
        yield row


def _apply(expected: Rows, sequence: int, ts_ms: int, kind: EventKind, body: Any) -> None:
    """Do to the expected rows what the journal's statements did to the tables."""
    for target, row in project(kind, ts_ms, body):
        if target is Target.INTENT_STATE:
            intent = expected["intent"].get(row["of_client_order_id"])
            if intent is not None:
                changed = ("state", "live", "filled_quantity", "broker_order_id", "updated_ms")
                intent.update({name: row[f"new_{name}"] for name in changed})
        elif target is Target.EXIT_PLAN_ENDED:
            for plan in expected["exit_plan"].values():
                if plan["live"]:
                    plan.update(live=False, ended_ms=row["new_ended_ms"])
        else:
            whole = {**row, "sequence": sequence}
            expected[target.value].setdefault(whole[_KEYS[target.value]], whole)


def _against_noted(head: RunHead, digests: Mapping[int, str], noted: Sequence[RunHead]) -> tuple[str, int | None]:
    """Compare a whole chain with the heads that were noted of this run."""
    identity = (head.scope_key, head.trading_date, head.run_id)
    for known in noted:
        if (known.scope_key, known.trading_date, known.run_id) != identity or known.events == 0:
            continue
        if head.events < known.events:
            return f"events {head.events + 1} to {known.events}, which were noted elsewhere, are missing", head.events + 1
        if digests.get(known.events) != known.digest:
            return f"event {known.events} is not the one whose hash was noted elsewhere: the run was written anew", known.events
    return "", None


def _first_difference(connection: Connection, run_key: int, expected: Rows) -> str:
    """Return where the tables beside the events say something else than the events, '' when nowhere."""
    for name, key in _KEYS.items():
        table = _TABLES[name]
        found = {row[key]: row for row in _plain_rows(connection, table, run_key)}
        wanted = expected[name]
        for missing in wanted.keys() - found.keys():
            return f"table {name}: the row of {key} {missing} is missing, the events have it"
        for added in found.keys() - wanted.keys():
            return f"table {name}: the row of {key} {added} comes from no event"
        for value, row in wanted.items():
            wrong = [column for column, content in row.items() if found[value][column] != content]
            if wrong:
                return f"table {name}: the row of {key} {value} was edited ({', '.join(sorted(wrong))})"
    return ""


def _plain_rows(connection: Connection, table: Table, run_key: int) -> Iterator[Row]:
    """Return a run's rows of a table, in the form of `project`: dates as text, flags as flags."""
    flags = {column.name for column in table.columns if isinstance(column.type, Boolean)}
    for row in connection.execute(select(table).where(table.c.run_key == run_key)).mappings():
        values = dict(row)
        for name, value in row.items():
            if name in flags:
                values[name] = bool(value)
            elif isinstance(value, date):
                values[name] = value.isoformat()
        yield values
