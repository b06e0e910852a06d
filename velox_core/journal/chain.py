"""The hash chain of a run's events.

- digest(n) = sha256(digest(n-1) + canonical(n)); the first digest follows 32 zero bytes.
- canonical(n) is the compact JSON list [sequence, ts_ms, "KIND", body], with the body's bytes as they were written.
- The same events have the same digests in a file and in SQL. An export leaves digests out.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

GENESIS = bytes(32)


def canonical(sequence: int, ts_ms: int, kind: str, body: bytes) -> bytes:
    """Return the bytes of an event that are hashed. `body` is its JSON text."""
    return b'[%d,%d,"%s",%s]' % (sequence, ts_ms, kind.encode(), body)


def next_digest(previous: bytes, event: bytes) -> bytes:
    """Return the digest of an event, given its canonical bytes and the digest before it."""
    return sha256(previous + event).digest()


def first_broken(events: Iterable[tuple[int, bytes, str]]) -> int | None:
    """Return the sequence at which the chain breaks: a gap, or a digest that does not fit. None when it holds.

    Args:
        events: (sequence, canonical bytes, stored digest in hex), oldest first, from the first event on.
    """
    digest, expected = GENESIS, 1
    for sequence, event, stored in events:
        digest = next_digest(digest, event)
        if sequence != expected or digest.hex() != stored:
            return expected
        expected += 1
    return None
