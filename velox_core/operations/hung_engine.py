"""Taking a run over from an engine that hangs: the account's locks, halt stores and status, joined for `take_over`.

- Called before the next engine starts; what that one does with the halt (close everything) is its own.
- The halt goes to the halt file and the ledger; the next engine finds it there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import date
from pathlib import Path
from typing import Final

from velox_core.bootstrap import RunRequest, prepare
from velox_core.control import FileControl, LedgerControl
from velox_core.domain.errors import LedgerUnavailable, VeloxError
from velox_core.domain.halts import HaltKind, HaltRecord
from velox_core.engine_lock import LockView, end_holder, settle_closer_lock
from velox_core.halt_file import HALT_FILE, JsonLinesHaltFile
from velox_core.lease import REQUEST_SECONDS_MAX
from velox_core.ledger.redis import RedisLedger
from velox_core.run_stores import CLOSER_LOCK, ENGINE_LOCK, redis_url
from velox_core.runs import RunFolder, RunState
from velox_core.settings import BrokerType, Paths, Settings
from velox_core.take_over import TakeOver, TakeOverPorts, TakeOverResult, take_over

SIMULATED_REQUEST_SECONDS: Final = 0.0  # the simulated broker is in the engine's process: its requests end with it


def take_over_run(settings: Settings, paths: Paths, request: RunRequest, *, by: str, reason: str) -> tuple[RunFolder, TakeOver]:
    """Free the run that a request belongs to from an engine that does not answer.

    Returns the run and what came of it. Raises: VeloxError when no run is under way, its holder cannot be ended, or no
    store took the halt; what `prepare` raises when the run could not be traded afterwards.
    """
    run = prepare(settings, paths, request).run
    if run.state is RunState.NEW:
        raise VeloxError(f"no run of {request.date} is under way: there is nothing to take over")
    try:
        server = redis_url(settings, paths)
    except VeloxError:
        server = f"unix://{paths.var / 'redis' / 'absent.sock'}"
    with closing(RedisLedger(server, run.scope.key, request.date)) as ledger:
        files = FileControl(run.folder)

        def statuses() -> Iterator[Mapping[str, object]]:
            if (by_file := files.status()) is not None:
                yield by_file
            with suppress(LedgerUnavailable):
                if (by_ledger := LedgerControl(ledger).status()) is not None:
                    yield by_ledger

        ports = TakeOverPorts(
            locks=(LockView(run.folder / ENGINE_LOCK), LockView(run.folder / CLOSER_LOCK)),
            latch=lambda halt: _latch(run.folder, ledger, halt),
            statuses=statuses,
            end_holder=end_holder,
            monotonic=time.monotonic,
            sleep=time.sleep,
        )
        halt = _record(request.date, by=by, reason=reason, status=files.status() or {})
        is_simulated = settings.broker.type is BrokerType.SIMULATED
        done = take_over(ports, halt, request_seconds=SIMULATED_REQUEST_SECONDS if is_simulated else REQUEST_SECONDS_MAX)
        if done.result is TakeOverResult.FREE:
            settle_closer_lock(run.folder / CLOSER_LOCK)  # its last request was waited out
        return run, done


def _record(on: date, *, by: str, reason: str, status: Mapping[str, object]) -> HaltRecord:
    """Return the halt of a take-over. Its time is the engine's last published one, its id unlike any other."""
    engine_ms = status.get("engine_ms")
    return HaltRecord(
        halt_id=f"{on:%Y%m%d}-{HaltKind.FAULT.value}-T{time.time_ns() // 1_000_000}",
        kind=HaltKind.FAULT,  # closes everything, whoever acts on it
        trading_date=on,
        reason=f"take-over: {reason}",
        by=by,
        at_ms=engine_ms if isinstance(engine_ms, int) else 0,
    )


def _latch(folder: Path, ledger: RedisLedger, halt: HaltRecord) -> list[str]:
    """Put the halt into file and ledger. Returns what failed; raises VeloxError when both did."""
    failed = []
    try:
        JsonLinesHaltFile(folder / HALT_FILE).append(halt)
    except VeloxError as error:
        failed.append(f"the halt file: {error}")
    try:
        ledger.latch_halt(halt)
    except LedgerUnavailable as error:
        failed.append(f"the ledger: {error}")
    if len(failed) == 2:
        raise VeloxError(f"the halt of the take-over could not be latched anywhere, nothing was done: {'; '.join(failed)}")
    return failed
