"""What a metrics server answers to a batch of lines, and what is made of it: the good lines arrive, whatever the others are.

- A batch that is refused as malformed or as too large is halved until the line in question stands alone; that line is dropped.
  Lines written twice on the way are no harm: the same line replaces itself.
- Any other answer ends the delivery, and what was not written is given back to be tried later.
- The requests for one batch are bounded; what could not be told apart within the bound is dropped with the bad lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

POSTS_PER_BATCH_MAX: Final = 64  # finds six bad lines among a thousand


class AnswerKind(Enum):
    """What an answer means."""

    WRITTEN = "written"
    MALFORMED = "malformed"  # 400, 422: something in the batch is not right
    TOO_LARGE = "too large"  # 413
    UNAUTHORISED = "unauthorised"  # 401, 403
    MISSING = "missing"  # 404: no such bucket, organisation or path
    BUSY = "busy"  # 429, 503: later
    REFUSED = "refused"  # another answer that trying again does not change
    FAILED = "failed"  # 5xx, a time-out, a torn connection, nobody there


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A server's answer. `text` is for people; `retry_after_seconds` is the server's own wish, None without one."""

    kind: AnswerKind
    text: str = ""
    retry_after_seconds: float | None = None


@dataclass(slots=True, kw_only=True)
class Delivery:
    """What became of a batch: lines written, lines dropped, and `left`, in order, to be tried again.

    `answer` is the one that ended it, or the newest refusal of a line; None when all were simply written.
    """

    written: int
    malformed: int
    left: list[str]
    answer: Answer | None = None
    shrink: bool = False  # the server wants smaller batches


Post = Callable[[Sequence[str]], Answer]

OK: Final = Answer(kind=AnswerKind.WRITTEN)


def deliver(post: Post, lines: Sequence[str]) -> Delivery:
    """Post lines, dividing them where the server refuses some."""
    result = Delivery(written=0, malformed=0, left=[])
    pieces = [list(lines)] if lines else []
    for _ in range(POSTS_PER_BATCH_MAX):
        if not pieces:
            return result
        piece = pieces.pop()
        answer = post(piece)
        if answer.kind is AnswerKind.WRITTEN:
            result.written += len(piece)
        elif answer.kind in (AnswerKind.MALFORMED, AnswerKind.TOO_LARGE):
            result.answer = answer
            result.shrink |= answer.kind is AnswerKind.TOO_LARGE
            if len(piece) == 1:
                result.malformed += 1
            else:
                middle = len(piece) // 2
                pieces += [piece[middle:], piece[:middle]]  # the first half is posted next
        else:
            pieces.append(piece)
            result.answer = answer
            break
    if result.answer is not None and result.answer.kind is AnswerKind.MALFORMED:
        result.malformed += sum(len(piece) for piece in pieces)
    else:
        result.left = [line for piece in reversed(pieces) for line in piece]
    return result
