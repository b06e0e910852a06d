"""What a closer reads of the run's journal: its rows, within a bound, whatever database it is in."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from tests.fakes.threads import join_named
from velox_core.domain.events import Body, EventKind
from velox_core.domain.orders import Side
from velox_core.journal import recall
from velox_core.journal.file import FileJournal
from velox_core.journal.run import RunIdentity
from velox_core.journal.sql import SqlJournal
from velox_core.lost_exits import LostOrder, RecordedEvent

recall_run = functools.partial(recall.recall_run, seconds_max=120.0)  # a busy machine is no journal that does not answer
SCOPE = "simulated:primary:2024-01-15-1"
ON = date(2024, 1, 15)
SENT_MS = 1_705_290_000_000


def tag(number: int) -> str:
    return f"240115E0001{number:07d}"


def intent(number: int) -> Body:
    return {
        "client_order_id": tag(number), "strategy": "orb", "symbol": "TCS", "side": "SELL", "quantity": 4,
        "order_type": "MARKET", "limit_price": 0, "product": "MIS", "role": "EXIT", "rank": 2, "reason": "stop",
        "stop": 0, "target": 0, "ledger_version": number,
    }  # fmt: skip


def order(number: int, state: str) -> Body:
    return {"client_order_id": tag(number), "state": state, "broker_order_id": "", "filled": 0, "reason": ""}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A journal with an exit that ended, one that is UNKNOWN, and one of another run."""
    path = tmp_path / "journal.db"
    for scope, numbers in ((SCOPE, (1, 2)), (f"{SCOPE}x", (3,))):
        journal = SqlJournal(f"sqlite:///{path}", RunIdentity(scope_key=scope, trading_date=ON, config_hash="abc"))
        for number in numbers:
            journal.append(EventKind.INTENT, SENT_MS, intent(number))
            journal.append(EventKind.ORDER, SENT_MS + 1, order(number, "REJECTED" if number == 1 else "UNKNOWN"))
        journal.commit()
        journal.close()
    return path


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])  # by the standard library; and as one on a server is read
def test_rows_of_this_run_s_journal_are_recalled(database: Path, scheme: str) -> None:
    found = recall_run(database.parent, f"{scheme}:///{database}", SCOPE, trading_date=ON)
    lost = LostOrder(
        client_order_id=tag(2), symbol="TCS", side=Side.SELL, quantity=4, created_ms=SENT_MS, is_exit=True,
        given_up=False,
    )  # fmt: skip
    assert (found.orders, found.missing) == ((lost,), "")
    assert found.ids == {tag(1), tag(2)}


def test_journal_that_does_not_answer_in_time_is_missing_and_holds_nobody_up(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def stuck(path: Path, scope_key: str, trading_date: date) -> Iterator[RecordedEvent]:
        gate.wait()
        yield from ()

    monkeypatch.setattr(recall, "_sqlite_events", stuck)
    try:
        found = recall_run(database.parent, f"sqlite:///{database}", SCOPE, trading_date=ON, seconds_max=0.05)
    finally:
        gate.set()
        join_named("recall")
    assert (found.orders, found.missing) == ((), "the journal: it did not answer within 0.05 s")


def test_journal_that_fails_as_nobody_expects_is_missing_and_says_why_at_once(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Iterator[RecordedEvent]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(recall, "_sqlite_events", broken)
    found = recall_run(database.parent, f"sqlite:///{database}", SCOPE, trading_date=ON)
    assert (found.orders, found.missing) == ((), "the journal: a bug")


def test_server_that_cannot_be_reached_is_missing_and_says_why(tmp_path: Path) -> None:
    found = recall_run(tmp_path, "postgresql+psycopg://velox@localhost:1/velox", SCOPE, trading_date=ON)
    assert (found.orders, found.ids) == ((), frozenset())
    assert found.missing.startswith("the journal: ")
    assert "postgresql" in found.missing or "psycopg" in found.missing or "connect" in found.missing


def test_server_on_which_the_run_never_began_holds_nothing(database: Path) -> None:
    found = recall_run(database.parent, f"sqlite+pysqlite:///{database}", "simulated:other", trading_date=ON)
    assert (found.orders, found.ids, found.missing) == ((), frozenset(), "")


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+pysqlite"])
def test_orders_of_an_earlier_date_hold_nothing_back_whichever_record_has_them(database: Path, scheme: str) -> None:
    file = FileJournal(database.parent / "emergency-a.jsonl")
    file.append(EventKind.INTENT, SENT_MS, intent(4))
    file.append(EventKind.INTENT, SENT_MS, {**intent(5), "client_order_id": f"240116{tag(5)[6:]}"})
    file.commit()
    file.close()
    url = f"{scheme}:///{database}"
    found = recall_run(database.parent, url, SCOPE, trading_date=date(2024, 1, 16))
    assert [order.client_order_id for order in found.orders] == [f"240116{tag(5)[6:]}"]
    assert found.ids == {f"240116{tag(5)[6:]}"}
    assert [order.client_order_id for order in recall_run(database.parent, url, SCOPE, trading_date=ON).orders] == [
        tag(4),
        tag(2),
    ]


def test_journal_that_is_not_there_is_missing_where_the_run_began(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    begun = ("run.json", "status.json")
    assert recall_run(tmp_path, url, SCOPE, trading_date=ON, begun=begun).missing == ""
    (tmp_path / "status.json").write_text("{}")
    told = f"the journal: journal.db is not in {tmp_path}, though status.json says that the run began"
    assert recall_run(tmp_path, url, SCOPE, trading_date=ON, begun=begun).missing == told
