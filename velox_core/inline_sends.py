"""The send queue of a broker that is called inline: nothing ever waits in it.

- An order has left, and is answered, before its submission returns; so there is never anything to withdraw.
"""

from __future__ import annotations


class InlineSends:
    """A SendQueue that is always empty."""

    def withdraw(self, client_order_id: str) -> bool:
        """Return False: the order has left."""
        return False

    def withdraw_entries(self) -> None:
        """Do nothing: every entry has left."""

    def withdraw_exits(self) -> None:
        """Do nothing: every exit has left."""

    def is_owed(self, client_order_id: str) -> bool:
        """Return False: its request has ended."""
        return False

    def hurry(self, wanted: bool) -> None:
        """Do nothing: a read of such a broker waits for its answer by itself."""
