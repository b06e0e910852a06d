"""Values and rules of the market: money, sessions, orders, positions, charges. Standard library only, no I/O."""
