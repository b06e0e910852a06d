"""Warnings on the way to the day's loss limit: each share of it once, however the loss moves and the engine restarts.

- A loss that jumps past several shares is told once, with the highest; the lower ones are not told later.
- `next_paise` moves on with each warning, so that between two of them a tick costs the same whatever is held.
- A restarted engine counts as told what the worst loss in the journal's marks has passed. Marks leave out the charges of
  closing, so a share that was passed by less than those may be told twice; never is one left out.
"""

from __future__ import annotations

from typing import Final

WARNING_SHARES_PERCENT: Final = (50, 75, 90)


class LossWarnings:
    """Which shares of a limit were passed.

    Args:
        limit_paise: the day's loss limit, above 0.
    """

    def __init__(self, limit_paise: int) -> None:
        self._limit_paise = limit_paise
        self._told_percent = 0
        self.next_paise = self._next()  # the least loss that is worth the next warning; the limit when all were told

    def passed(self, loss_paise: int) -> int:
        """Return the highest share in percent that this loss has newly reached, 0 for none. Asking tells it."""
        reached = max((s for s in WARNING_SHARES_PERCENT if loss_paise * 100 >= self._limit_paise * s), default=0)
        if reached <= self._told_percent:
            return 0
        self._told_percent = reached
        self.next_paise = self._next()
        return reached

    def take_up(self, worst_loss_paise: int) -> None:
        """Count as told what an earlier process of the day has told: it passed the shares of its worst loss."""
        self.passed(worst_loss_paise)

    def _next(self) -> int:
        untold = (share for share in (*WARNING_SHARES_PERCENT, 100) if share > self._told_percent)
        return -(-self._limit_paise * next(untold, 100) // 100)
