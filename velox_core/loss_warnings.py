"""Warnings on the way to the day's loss limit: each share of it once, however the loss moves and the engine restarts.

- A loss that jumps past several shares is told once, with the highest; the lower ones are not told later.
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

    @property
    def first_paise(self) -> int:
        """Return the least loss that can be worth a warning."""
        return min(self._limit_paise, self._limit_paise * WARNING_SHARES_PERCENT[0] // 100)

    def passed(self, loss_paise: int) -> int:
        """Return the highest share in percent that this loss has newly reached, 0 for none. Asking tells it."""
        reached = max((s for s in WARNING_SHARES_PERCENT if loss_paise * 100 >= self._limit_paise * s), default=0)
        if reached <= self._told_percent:
            return 0
        self._told_percent = reached
        return reached

    def take_up(self, worst_loss_paise: int) -> None:
        """Count as told what an earlier process of the day has told: it passed the shares of its worst loss."""
        self.passed(worst_loss_paise)
