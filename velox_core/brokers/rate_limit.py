"""How many requests may leave within a second, so that no exit is refused for coming too fast.

- The broker counts when requests arrive, which nobody here can see. A request that is answered has arrived; one that is not
  is taken to arrive within `ARRIVAL_SECONDS_MAX`. It holds its place until one second after that, so that no second at the
  broker sees more than the limit, whatever the requests' travel times.
- A request that hangs holds its place for `ARRIVAL_SECONDS_MAX` and a second, no longer: a broker that answers nothing must
  not keep exits from leaving. The limit is set below the broker's own for what arrives later than that.
- Entries leave places free that only exits and cancels may take.
"""

from __future__ import annotations

WINDOW_SECONDS = 1.0
ARRIVAL_SECONDS_MAX = 0.25


class Departure:
    """One request that left: `frees` is the monotonic second at which its place is free again."""

    __slots__ = ("frees",)

    def __init__(self, frees: float) -> None:
        self.frees = frees


class RateLimit:
    """A sliding window over one account's requests. Whoever uses it holds a lock.

    Args:
        per_second: requests in any second, cancels counted, at least 1.
    """

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self.entries_per_second = max(1, per_second - max(1, per_second // 4))
        self._departures: list[Departure] = []
        self._full_until = 0.0

    def wait_seconds(self, now: float, *, is_entry: bool, places: int = 0) -> float:
        """Return how long the next request has to wait, 0.0 when it may leave. `places`: fewer than the limit's, if given."""
        held = sorted(departure.frees for departure in self._departures if departure.frees > now)
        places = places or (self.entries_per_second if is_entry else self.per_second)
        wait = held[len(held) - places] - now if len(held) >= places else 0.0
        return max(wait, self._full_until - now)

    def fill(self, now: float) -> None:
        """Count every place as taken now: another process may have sent as much a moment ago. Needs no lock."""
        self._full_until = now + ARRIVAL_SECONDS_MAX + WINDOW_SECONDS

    def leave(self, now: float) -> Departure:
        """Note that a request leaves."""
        self._departures = [departure for departure in self._departures if departure.frees > now]
        departure = Departure(now + ARRIVAL_SECONDS_MAX + WINDOW_SECONDS)
        self._departures.append(departure)
        return departure

    def answered(self, departure: Departure, now: float) -> None:
        """Note that a request was answered: it has arrived."""
        departure.frees = min(departure.frees, now + WINDOW_SECONDS)
