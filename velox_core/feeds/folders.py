"""Which files hold market data, and which share and date their names give.

- A path is one file, or a folder of them: one per share, one per day, or folders of either, FOLDER_DEPTH_MAX deep.
- A folder with a manifest of `velox data import` holds what its manifest names, and nothing else (`store`).
- Without a symbol column the share is the first part of the file's name that is neither a date nor a common word
  (`TCS_minute.csv`, `2024-01-15_TCS.csv`), else the folder's name (`TCS/2024-01-15.csv`).
- A folder named by a date is not opened for dates far from it; a file's own name never keeps it from being read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from velox_core.domain.errors import DataError

CSV_SUFFIX = ".csv"
ZSTANDARD_SUFFIX = ".zst"
PARQUET_SUFFIX = ".parquet"
MANIFEST_NAME = "velox-manifest.json"
FOLDER_DEPTH_MAX = 3
FILES_MAX = 20_000
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9&-]{0,29}")
_DATE = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)")
_COMMON_WORDS = frozenset(("BARS", "MINUTE", "MINUTES", "TICK", "TICKS", "DATA", "CANDLES", "1MIN", "1M", "5MIN", "5M", "NSE"))
_HOW = "give a .csv, .csv.zst or .parquet file, or a folder of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file of market data.

    Attributes:
        path: where it is.
        named_symbol: the share that its name or folder gives, '' when neither does.
        folder_date: the date that a folder above it is named by, None without one.
    """

    path: Path
    named_symbol: str
    folder_date: date | None = None

    @property
    def is_parquet(self) -> bool:
        """Return whether it is a Parquet file; all others are CSV."""
        return self.path.suffix.lower() == PARQUET_SUFFIX


def data_files(path: Path) -> list[DataFile]:
    """Return the data files at `path`: itself, or those in that folder and below, by name.

    Raises DataError when there is nothing there that could hold bars.
    """
    if path.is_dir():
        found: list[Path] = []
        _walk(path, FOLDER_DEPTH_MAX, found)
        if not found:
            raise DataError(f"no .csv or .parquet file in the folder {path}; put one file per symbol there")
        return [_data_file(child, path) for child in sorted(found)]
    if not path.exists():
        raise DataError(f"{path} does not exist; {_HOW}")
    if not has_data_name(path):
        raise DataError(f"{path} is neither .csv nor .parquet; {_HOW}")
    return [_data_file(path, path.parent)]


def has_data_name(path: Path) -> bool:
    """Return whether a file's name is that of a CSV, compressed CSV or Parquet file."""
    name = path.name.lower()
    return name.endswith((CSV_SUFFIX, CSV_SUFFIX + ZSTANDARD_SUFFIX, PARQUET_SUFFIX))


def is_symbol(text: str) -> bool:
    """Return whether `text` could be an exchange symbol: capital letters, digits, '&' and '-'."""
    return _SYMBOL.fullmatch(text) is not None


def exchange_symbol(text: str) -> str:
    """Return NSE's own symbol of a share as vendors write it (`tcs`, `TCS.NS`, `NSE:TCS`); '' when it is none."""
    plain = text.strip().upper().removeprefix("NSE:").removesuffix(".NS")
    return plain if is_symbol(plain) else ""


def date_from_name(text: str) -> date | None:
    """Return the date that a name is: 2024-01-15 or 20240115; None for any other name."""
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None


def _walk(folder: Path, depth: int, found: list[Path]) -> None:
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror}; check its permissions") from error
    for child in children:
        if child.name.startswith("."):
            continue
        if child.is_dir():
            if depth > 1:
                _walk(child, depth - 1, found)
        elif has_data_name(child) and child.is_file():
            found.append(child)
        if len(found) > FILES_MAX:
            raise DataError(f"{folder} holds more than {FILES_MAX} data files; choose a folder further down")


def _data_file(path: Path, root: Path) -> DataFile:
    above = [folder.name for folder in path.parents if folder != root and folder.is_relative_to(root)]
    dates = [found for found in map(date_from_name, above) if found is not None]
    words = re.sub(r"(?i)(\.csv(\.zst)?|\.parquet)$", "", path.name).removesuffix(".NS")
    named = next((part for part in [*re.split(r"[_.]", words), *above] if not _is_no_share(part)), "")
    if not named and path.parent == root and not _is_no_share(root.name) and exchange_symbol(root.name) == root.name:
        named = root.name
    return DataFile(path=path, named_symbol=exchange_symbol(named), folder_date=dates[0] if dates else None)


def _is_no_share(part: str) -> bool:
    return date_from_name(part) is not None or part.upper() in _COMMON_WORDS
