"""The simulated broker's book in SQLite: what a broker would still know after our process died.

- Every accepted order, cancel and row of fills is one transaction; what was answered is in the file.
- WAL with `synchronous=NORMAL`: a kill of the process loses nothing; a power cut may lose the last moments, but
  never leaves half a transaction.
- Several processes may open one book (engine, guard, command line). Each takes the write lock before it changes
  anything, and reads the book again when another one has written.
- A book that cannot be read is a BrokerError that says what to do; it is never replaced by an empty one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from velox_core.brokers.simulated_exchange import NEVER_MS, SimulatedExchange
from velox_core.brokers.simulated_orders import AccountPosition, ManualOrder, SimulatedOrder
from velox_core.domain.errors import BrokerError
from velox_core.domain.orders import TERMINAL_STATES, OrderState, Product, Side
from velox_core.domain.time import MS_PER_DAY
from velox_core.ports import BrokerFill

BOOK_VERSION = 1
LOCK_WAIT_SECONDS = 0.2  # below the 250 ms that a call in the engine's loop may take

_SCHEMA = """
CREATE TABLE account (
    one INTEGER PRIMARY KEY CHECK (one = 1), order_sequence INTEGER NOT NULL, trade_sequence INTEGER NOT NULL,
    day_end_ms INTEGER NOT NULL) STRICT;
CREATE TABLE orders (
    number INTEGER PRIMARY KEY, tag TEXT NOT NULL, symbol TEXT NOT NULL, product TEXT NOT NULL, side TEXT NOT NULL,
    is_market INTEGER NOT NULL, quantity INTEGER NOT NULL, filled_quantity INTEGER NOT NULL,
    limit_price_paise INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, placed_ms INTEGER NOT NULL,
    arrives_ms INTEGER NOT NULL, visible_ms INTEGER NOT NULL, first_part INTEGER NOT NULL,
    margin_paise INTEGER NOT NULL, day_end_ms INTEGER NOT NULL) STRICT;
CREATE INDEX orders_by_day ON orders (day_end_ms);
CREATE TABLE trades (
    number INTEGER PRIMARY KEY, ts_ms INTEGER NOT NULL, tag TEXT NOT NULL, broker_order_id TEXT NOT NULL,
    symbol TEXT NOT NULL, side TEXT NOT NULL, quantity INTEGER NOT NULL, price_paise INTEGER NOT NULL,
    day_end_ms INTEGER NOT NULL) STRICT;
CREATE INDEX trades_by_day ON trades (day_end_ms);
CREATE TABLE positions (
    symbol TEXT NOT NULL, product TEXT NOT NULL, quantity INTEGER NOT NULL, cost_paise INTEGER NOT NULL,
    realised_paise INTEGER NOT NULL, PRIMARY KEY (symbol, product)) STRICT;
CREATE TABLE prices (symbol TEXT PRIMARY KEY, price_paise INTEGER NOT NULL) STRICT;
"""
_PUT_ORDER = "INSERT OR REPLACE INTO orders VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_PUT_TRADE = "INSERT INTO trades VALUES (?,?,?,?,?,?,?,?,?)"
_PUT_POSITION = "INSERT OR REPLACE INTO positions VALUES (?,?,?,?,?)"
_PUT_PRICE = "INSERT OR REPLACE INTO prices VALUES (?,?)"
_PUT_ACCOUNT = "INSERT OR REPLACE INTO account VALUES (1,?,?,?)"


class SqliteBook:
    """One account's book file. Not for use by two threads at once: the broker holds a lock around it."""

    def __init__(self, path: Path) -> None:
        """Open or create the book. Raises BrokerError when the file is not a sound book."""
        self.path = path
        self._version_seen = -1
        self._day_written_ms = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=LOCK_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            raise self._unusable(error) from error
        except BrokerError:
            self._connection.close()
            raise

    def begin(self) -> bool:
        """Take the write lock; return whether another process has written since we last looked. Raises BrokerError."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            return self.changed_elsewhere()
        except sqlite3.Error as error:
            self.roll_back()
            raise self._unusable(error) from error

    def changed_elsewhere(self) -> bool:
        """Return whether another connection has written since `restore` or this question. Raises BrokerError."""
        try:
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        changed = version != self._version_seen
        self._version_seen = version
        return changed

    def commit(self, exchange: SimulatedExchange) -> None:
        """Write what the exchange changed since `begin`, and make it durable. Raises BrokerError; nothing is written then."""
        touched = exchange.touched or {}
        day_end_ms = exchange.day_end_ms
        positions = exchange.all_positions() if day_end_ms != self._day_written_ms else _positions_of(touched.values())
        execute = self._connection.execute
        try:
            if touched or exchange.fresh_trades or day_end_ms != self._day_written_ms:
                many = self._connection.executemany
                many(_PUT_ORDER, [_order_row(order, day_end_ms) for order in touched.values()])
                many(_PUT_TRADE, [_trade_row(fill, day_end_ms) for fill in exchange.fresh_trades])
                many(_PUT_POSITION, [_position_row(position) for position in positions])
                listings = {order.listing.symbol: order.listing for order in touched.values()}
                many(_PUT_PRICE, [(symbol, exchange.last_price_paise(listing)) for symbol, listing in listings.items()])
                execute(_PUT_ACCOUNT, (exchange.order_sequence, exchange.trade_sequence, day_end_ms))
            execute("COMMIT")
        except sqlite3.Error as error:
            self.roll_back()
            raise self._unusable(error) from error
        self._day_written_ms = day_end_ms
        touched.clear()
        exchange.fresh_trades.clear()

    def roll_back(self) -> None:
        """Give the write lock back without writing; a no-op outside a transaction."""
        with suppress(sqlite3.Error):  # a connection that cannot roll back is broken, and SQLite drops what it began
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def restore(self, exchange: SimulatedExchange) -> None:
        """Put the book's content into a fresh exchange. Raises BrokerError when it makes no sense."""
        execute = self._connection.execute
        alone = not self._connection.in_transaction
        try:
            if alone:
                execute("BEGIN")
            account = execute("SELECT * FROM account").fetchone()
            if account is not None:
                self._restore_account(exchange, account)
            self._version_seen = execute("PRAGMA data_version").fetchone()[0]
            if alone:
                execute("COMMIT")
        except (sqlite3.Error, ValueError, TypeError) as error:
            self.roll_back()
            raise self._unusable(error) from error
        self._day_written_ms = exchange.day_end_ms if account is not None else -1
        exchange.touched = {}

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols with an open position, so that a feed can be asked for them too. Raises BrokerError."""
        try:
            rows = self._connection.execute("SELECT DISTINCT symbol FROM positions WHERE quantity <> 0 ORDER BY symbol")
            return tuple(row[0] for row in rows)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def last_prices(self) -> dict[str, int]:
        """Return the recorded price of every symbol that an order was ever placed in, paise. Raises BrokerError."""
        try:
            rows = self._connection.execute("SELECT symbol, price_paise FROM prices ORDER BY symbol")
            return {row[0]: row[1] for row in rows}
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Close the file; committed transactions are safe with or without it."""
        self._connection.close()

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=NORMAL")
        sound = execute("PRAGMA quick_check(1)").fetchone()[0]
        if sound != "ok":
            raise self._unusable(sound)
        execute("BEGIN IMMEDIATE")
        try:
            version = execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and not execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                for statement in _SCHEMA.split(";"):
                    execute(statement)
                execute(f"PRAGMA user_version={BOOK_VERSION}")
            elif version != BOOK_VERSION:
                raise self._unusable(f"it has version {version}, this program reads version {BOOK_VERSION}")
            execute("COMMIT")
        except (sqlite3.Error, BrokerError):
            self.roll_back()
            raise

    def _restore_account(self, exchange: SimulatedExchange, account: sqlite3.Row) -> None:
        exchange.order_sequence = account["order_sequence"]
        exchange.trade_sequence = account["trade_sequence"]
        exchange.day_end_ms = account["day_end_ms"]
        today = (exchange.day_end_ms,)
        for row in self._connection.execute("SELECT symbol, price_paise FROM prices"):
            exchange.listing(row["symbol"]).recorded_price_paise = row["price_paise"]
        for row in self._connection.execute("SELECT * FROM positions"):
            _restore_position(exchange, row)
        for row in self._connection.execute("SELECT * FROM orders WHERE day_end_ms = ? ORDER BY number", today):
            _restore_order(exchange, row)
        for row in self._connection.execute("SELECT * FROM trades WHERE day_end_ms = ? ORDER BY number", today):
            _restore_fill(exchange, row)
        exchange.recount()

    def _unusable(self, cause: object) -> BrokerError:
        return BrokerError(
            f"the simulated broker's book {self.path} cannot be used: {cause}. If another process holds it, wait for it; "
            "if the disk is full, make room; if the file is damaged, move it aside (a new book starts flat) or restore a backup"
        )


def newest_ms(path: Path) -> int:
    """Return the newest time of an order or trade in a book, epoch ms, without opening it for writing; 0 when unknown."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=LOCK_WAIT_SECONDS)) as book:
        placed, traded = book.execute("SELECT (SELECT max(placed_ms) FROM orders), (SELECT max(ts_ms) FROM trades)").fetchone()
        return max(placed or 0, traded or 0)
    return 0


def _position(exchange: SimulatedExchange, symbol: str, product: str) -> AccountPosition:
    listing = exchange.listing(symbol)
    return listing.intraday if Product(product) is Product.MIS else listing.delivery


def _restore_position(exchange: SimulatedExchange, row: sqlite3.Row) -> None:
    position = _position(exchange, row["symbol"], row["product"])
    position.quantity = row["quantity"]
    position.cost_paise = row["cost_paise"]
    position.realised_paise = row["realised_paise"]
    position.margin_paise = -(-abs(position.cost_paise) // position.multiplier)


def _restore_order(exchange: SimulatedExchange, row: sqlite3.Row) -> None:
    symbol = row["symbol"]
    request = ManualOrder(symbol, Side(row["side"]), row["quantity"], product=Product(row["product"]), tag=row["tag"])
    position = _position(exchange, symbol, row["product"])
    listing = exchange.listing(symbol)
    order = SimulatedOrder(f"O{row['number']}", request, listing, position, row["limit_price_paise"], row["placed_ms"])
    order.is_market = bool(row["is_market"])
    order.filled_quantity = row["filled_quantity"]
    order.state = OrderState(row["state"])
    order.reason = row["reason"]
    order.arrives_ms = row["arrives_ms"]
    order.visible_ms = row["visible_ms"]
    order.first_part = row["first_part"]
    order.margin_paise = row["margin_paise"]
    exchange.orders[order.broker_order_id] = order
    if order.state in TERMINAL_STATES:
        return
    exchange.working.append(order)
    if order.is_buy:
        position.buying_quantity += order.quantity - order.filled_quantity
    else:
        position.selling_quantity += order.quantity - order.filled_quantity


def _product_of(exchange: SimulatedExchange, broker_order_id: str) -> Product:
    order = exchange.orders.get(broker_order_id)
    return Product.MIS if order is None else order.position.product


def _restore_fill(exchange: SimulatedExchange, row: sqlite3.Row) -> None:
    exchange.trades.append(
        BrokerFill(
            row["ts_ms"],
            f"T{row['number']}",
            row["tag"],
            row["broker_order_id"],
            row["symbol"],
            Side(row["side"]),
            row["quantity"],
            row["price_paise"],
            _product_of(exchange, row["broker_order_id"]),
        )
    )


def _order_row(order: SimulatedOrder, day_end_ms: int) -> tuple[object, ...]:
    placed_day_ms = day_end_ms if day_end_ms == NEVER_MS or order.placed_ms >= day_end_ms - MS_PER_DAY else 0
    return (
        int(order.broker_order_id[1:]),
        order.tag,
        order.listing.symbol,
        order.position.product.value,
        order.side.value,
        int(order.is_market),
        order.quantity,
        order.filled_quantity,
        order.limit_price_paise,
        order.state.value,
        order.reason,
        order.placed_ms,
        order.arrives_ms,
        order.visible_ms,
        order.first_part,
        order.margin_paise,
        placed_day_ms,
    )


def _trade_row(fill: BrokerFill, day_end_ms: int) -> tuple[object, ...]:
    return (
        int(fill.trade_id[1:]),
        fill.ts_ms,
        fill.client_order_id,
        fill.broker_order_id,
        fill.symbol,
        fill.side.value,
        fill.quantity,
        fill.price_paise,
        day_end_ms,
    )


def _position_row(position: AccountPosition) -> tuple[object, ...]:
    return (
        position.symbol,
        position.product.value,
        position.quantity,
        position.cost_paise,
        position.realised_paise,
    )


def _positions_of(orders: Iterable[SimulatedOrder]) -> list[AccountPosition]:
    return list({(order.listing.symbol, order.position.product): order.position for order in orders}.values())
