"""VELOX: an intraday trading day on NSE equities whose whole point is safety.

Every module says in its own docstring what it owns; `docs/architecture.md` shows how they meet.
This package never imports Prefect.
"""
