"""Market values: instruments with dated tick sizes, session phases, bars and ticks."""
