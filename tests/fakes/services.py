"""A service whose process is a number."""

from __future__ import annotations

from velox_core.domain.errors import VeloxError
from velox_core.ports import LockHolder


def process(pid: int) -> LockHolder:
    return LockHolder(host="here", pid=pid, started=f"start-{pid}")


class FakeService:
    """A service whose process is a number. `log` is shared, so that an order can be seen."""

    def __init__(self, name: str = "guard", *, is_shared: bool = False, log: list[str] | None = None) -> None:
        self.name = name
        self.where = "nowhere"
        self.is_shared = is_shared
        self.unready_seconds_max: float | None = None
        self.output = f"{name}.log"
        self.log = [] if log is None else log
        self.alive: LockHolder | None = None
        self.ready = True
        self.is_late = False  # it answers, and only a question that is patient
        self.code: int | None = None
        self.fault = ""
        self.needs: list[str] = []
        self.started = 0

    def life(self) -> LockHolder | None:
        return self.alive

    def is_ready(self) -> bool:
        return self.ready

    def answers_at_last(self) -> bool:
        self.log.append(f"ask {self.name}")
        return self.ready or self.is_late

    def start(self) -> None:
        self.started += 1
        if self.fault:
            raise VeloxError(self.fault)
        self.alive = process(100 + self.started)
        self.log.append(f"start {self.name}")

    def exit_code(self) -> int | None:
        return self.code

    def needed_by(self) -> list[str]:
        if self.fault:
            raise VeloxError(self.fault)
        return self.needs

    def end(self, holder: LockHolder) -> str:
        self.log.append(f"end {self.name} {holder.pid}")
        self.alive = None
        return "ended"

    def kill(self, holder: LockHolder) -> None:
        if self.fault:
            raise VeloxError(self.fault)
        self.log.append(f"kill {self.name} {holder.pid}")
        self.alive = None

    def die(self, code: int = -9) -> None:
        self.alive, self.code = None, code
