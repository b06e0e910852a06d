"""The content of one tick file as numpy columns, as read and before any judgement.

- Times are epoch ms of the trade, or of the snapshot; `UNREADABLE_MS` where the text is no time.
- Prices are rupees as float64, volumes the CUMULATIVE shares of the day as float64; NaN where the text is no number.
"""

from __future__ import annotations

from dataclasses import dataclass

from velox_core.feeds.columns import Floats, Ints, Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTicks:
    """One file as columns of equal length n, in file order.

    Attributes:
        file_name: for messages.
        symbols: distinct symbols.
        symbol_codes: int64[n], index into `symbols`, or NO_SYMBOL for a row without a valid one.
        ts_ms: int64[n], epoch ms, or UNREADABLE_MS.
        prices: float64[n], rupees.
        volumes: float64[n], shares traded since the day began; all 0 where the file has no volumes.
        naive: bool[n], which times had no offset and were read as Indian; None: none of them.
        broken_rows: rows that could not even be split into fields; they are in no column.
        broken_example: the first of them.
    """

    file_name: str
    symbols: tuple[str, ...]
    symbol_codes: Ints
    ts_ms: Ints
    prices: Floats
    volumes: Floats
    naive: Mask | None = None
    broken_rows: int = 0
    broken_example: str = ""
