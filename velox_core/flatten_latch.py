"""The halt of a flattening on its way into every store that takes it.

- The files come first, they need a disk only; the other stores are tried before anything is sent, and keep nothing waiting.
- A store that did not take it is tried again: a file each second, the others while no store has it, all of them at the end.
- A halt that stands nowhere is lost when this process ends: whoever flattens must not call that done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from velox_core.domain.errors import VeloxError
from velox_core.domain.events import EventKind
from velox_core.domain.halts import HaltRecord
from velox_core.flatten_ports import FlattenPorts, FlattenRules, OwnEvents

RETRY_MS: Final = 1_000  # real time
_FILES: Final = ("halt file", "emergency file")

_log: Final = logging.getLogger("velox.emergency")


class HaltLatch:
    """One halt and its stores.

    Args:
        ports, rules: of the flattening; a halt file and the latches take the halt.
        journal: the emergency file, committed here.
        now_ms: engine time of the halt.
    """

    def __init__(self, ports: FlattenPorts, rules: FlattenRules, journal: OwnEvents, now_ms: int) -> None:
        self.record = record = HaltRecord(
            halt_id=rules.halt_id,
            kind=rules.kind,
            trading_date=rules.trading_date,
            reason=rules.reason,
            by=rules.by,
            at_ms=now_ms,
        )
        self.rest_is_tried = False
        self._why: dict[str, str] = {}
        self._is_in: set[str] = set()
        self._retry_from_ms = 0
        self._latches: dict[str, Callable[[HaltRecord], None]] = {
            _FILES[0]: ports.halt_file.append,
            _FILES[1]: lambda record: journal.commit(),
            **ports.latches,
        }
        journal.append(EventKind.HALT, now_ms, dict(record.to_body()))

    @property
    def stands(self) -> bool:
        """Return whether any store has the halt."""
        return bool(self._is_in)

    @property
    def missing(self) -> list[str]:
        """Return the stores that did not take it, each with why."""
        return [f"{store}: {self._why[store]}" for store in self._latches if store in self._why]

    def to_files(self, real_ms: int) -> None:
        """Write it to the files."""
        self._retry_from_ms = real_ms + RETRY_MS
        self._try(_FILES)

    def to_rest(self) -> None:
        """Write it to the stores that may take long, once."""
        if not self.rest_is_tried:
            self.rest_is_tried = True
            self._try(tuple(store for store in self._latches if store not in _FILES))

    def retry(self, real_ms: int) -> None:
        """Try again what is missing and can be waited for, each second of real time."""
        if self._why and real_ms >= self._retry_from_ms:
            self._retry_from_ms = real_ms + RETRY_MS
            self._try(_FILES)
            if not self._is_in:
                self._try(tuple(self._latches))

    def finish(self) -> None:
        """Try every store that is missing a last time."""
        self.rest_is_tried = True
        self._try(tuple(self._latches))

    def _try(self, stores: tuple[str, ...]) -> None:
        for store in stores:
            if store in self._is_in:
                continue
            try:
                self._latches[store](self.record)
            except VeloxError as error:
                if self._why.get(store) != str(error):
                    _log.error("[FLATTEN] the halt could not be written to the %s: %s", store, error)
                self._why[store] = str(error)
                continue
            self._is_in.add(store)
            if self._why.pop(store, None) is not None:
                _log.warning("[FLATTEN] the %s has the halt now", store)
