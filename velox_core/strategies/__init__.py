"""Strategies: one file each, pure, independent of each other. `base` is the interface they share."""
