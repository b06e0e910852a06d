"""Reads from a broker on a thread of their own: the one who asks waits a moment at most, and never takes an old answer.

- An answer is handed out only when it was read entirely after it was asked for, when nothing but a cancel was sent and
  nothing was heard since the read began (`generation`), and when it is not older than `fresh_seconds`. Else it is no
  answer: it can prove neither that an order is absent nor that the account is flat.
- In a hurry (while the loop trades) a question waits once, `hurried_seconds`; every further call before its answer returns
  at once with a BrokerError. The question stays open for `question_seconds` after the last call, and so long the reader
  reads again whenever its answer became unusable: a slow broker is heard at the caller's next turn.
- At leisure (before and after the loop) each call is a question of its own and waits `patient_seconds`, all of them
  together no longer than `patience_seconds`.
- A question without an answer for `overdue_seconds` is overdue: whoever sends holds back what it can until it is answered.
- A read that takes `read_seconds` is abandoned: what it may still say is not used, and another thread reads, while fewer
  than `hung_max` hang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from velox_core.domain.errors import BrokerError

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBounds:
    """The bounds of reading, in monotonic seconds; `hung_max` in threads. The module docstring says what each bounds."""

    hurried_seconds: float = 0.02
    patient_seconds: float = 10.0
    patience_seconds: float = 30.0
    question_seconds: float = 10.0
    overdue_seconds: float = 5.0
    fresh_seconds: float = 1.5
    spacing_seconds: float = 0.25
    read_seconds: float = 5.0
    hung_max: int = 4


class _Reading(Generic[Answer]):
    """One read: when it began and ended (monotonic), what had been sent and heard by then, and its answer or its error."""

    __slots__ = ("answer", "began", "ended", "error", "generation")

    def __init__(self, began: float, generation: int) -> None:
        self.began = began
        self.generation = generation
        self.ended = 0.0
        self.answer: Answer | None = None
        self.error: BrokerError | None = None


class Answers(Generic[Answer]):
    """One kind of read of one broker.

    Args:
        what: its name, for messages and threads.
        read: the read itself; may hang, raises BrokerError.
        generation: grows with every order sent to the broker and whatever is heard of it.
        bounds: how long, and how many.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        what: str,
        read: Callable[[], Answer],
        generation: Callable[[], int],
        bounds: ReadBounds,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._read = read
        self._generation = generation
        self._bounds = bounds
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._is_hurried = False
        self._patience_left = bounds.patience_seconds
        self._asked = 0.0  # when the newest question was asked
        self._open_until = -1.0  # so long it is kept open
        self._latest: _Reading[Answer] | None = None
        self._under_way: _Reading[Answer] | None = None
        self._last_began = -bounds.spacing_seconds
        self._reader = 0  # number of the thread that reads; 0 for none
        self._readers = 0
        self._hung = 0

    def hurry(self, wanted: bool) -> None:
        """Say whether the one who asks trades meanwhile. At leisure the patience is full again."""
        with self._changed:
            self._is_hurried = wanted
            self._patience_left = self._bounds.patience_seconds

    def get(self) -> Answer:
        """Return a usable answer. Raises BrokerError when there is none yet, or when the read failed."""
        with self._changed:
            now = self._monotonic()
            found = self._usable(now) if self._is_hurried else None
            if found is None:
                found = self._await(now + self._ask(now))
            if found is None:
                raise BrokerError(f"the broker has not answered the read of its {self._what} yet; ask again")
            self._open_until = -1.0
            if found.error is not None:
                self._latest = None
                raise BrokerError(str(found.error)) from found.error
            return found.answer  # type: ignore[return-value]  # a reading without an error has one

    @property
    def is_overdue(self) -> bool:
        """Return whether the open question has been without an answer for `overdue_seconds`. Takes no lock."""
        now = self._monotonic()
        return now < self._open_until and now - self._asked >= self._bounds.overdue_seconds

    def close(self) -> None:
        """Let the reading thread end."""
        with self._changed:
            self._reader = 0
            self._open_until = -1.0
            self._changed.notify_all()

    # -- with the lock held -----------------------------------------------------------------------------------

    def _usable(self, now: float) -> _Reading[Answer] | None:
        latest = self._latest
        if (
            latest is not None
            and latest.began >= self._asked
            and latest.generation == self._generation()
            and now - latest.ended <= self._bounds.fresh_seconds
        ):
            return latest
        return None

    def _ask(self, now: float) -> float:
        """Ask, or keep the open question open. Returns how long the answer may be waited for, in seconds."""
        bounds = self._bounds
        is_new = not self._is_hurried or now >= self._open_until
        if is_new:
            self._asked = now
        self._open_until = now + bounds.question_seconds
        if self._under_way is not None and now - self._under_way.began >= bounds.read_seconds:
            self._under_way = None
            self._reader = 0
            self._hung += 1
        if not self._reader and self._hung < bounds.hung_max:
            self._start_reader()
        self._changed.notify_all()
        if self._is_hurried:
            return bounds.hurried_seconds if is_new else 0.0
        return min(bounds.patient_seconds, self._patience_left)

    def _start_reader(self) -> None:
        self._readers += 1
        self._reader = self._readers
        thread = threading.Thread(target=self._run, args=(self._reader,), name=f"read-{self._what}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            self._reader = 0
            raise BrokerError(f"no thread to read the broker's {self._what} on: {error}") from error

    def _await(self, deadline: float) -> _Reading[Answer] | None:
        began = self._monotonic()
        found = self._usable(began)
        while found is None and (left := deadline - self._monotonic()) > 0:
            self._changed.wait(left)
            found = self._usable(self._monotonic())
        if not self._is_hurried:
            self._patience_left = max(self._patience_left - (self._monotonic() - began), self._bounds.hurried_seconds)
        return found

    # -- on the reading thread --------------------------------------------------------------------------------

    def _run(self, number: int) -> None:
        is_whole = True
        while is_whole and (reading := self._begin(number)) is not None:
            is_whole = False
            try:
                reading.answer = self._read()
                is_whole = True
            except BrokerError as error:
                reading.error = error
                is_whole = True
            finally:
                if not is_whole:
                    reading.error = BrokerError(f"the read of the broker's {self._what} broke off")
                self._end(number, reading, goes_on=is_whole)

    def _begin(self, number: int) -> _Reading[Answer] | None:
        """Wait until there is something to read. Returns None when another thread reads now, or nobody."""
        bounds = self._bounds
        with self._changed:
            while self._reader == number:
                now = self._monotonic()
                if now >= self._open_until:
                    self._changed.wait()
                elif self._usable(now) is None and now - self._last_began >= (
                    0.0 if self._is_due(now) else bounds.spacing_seconds
                ):
                    self._last_began = now
                    self._under_way = _Reading(now, self._generation())
                    return self._under_way
                else:
                    self._changed.wait(bounds.spacing_seconds)
        return None

    def _is_due(self, now: float) -> bool:
        """Return whether nothing was read yet for the question: only repeated reads keep a distance."""
        return self._last_began < self._asked <= now

    def _end(self, number: int, reading: _Reading[Answer], *, goes_on: bool) -> None:
        with self._changed:
            if self._under_way is not reading:
                self._hung -= 1  # it was abandoned
                return
            reading.ended = self._monotonic()
            self._under_way = None
            self._latest = reading
            if not goes_on:
                self._reader = 0
            self._changed.notify_all()
