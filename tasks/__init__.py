"""Prefect tasks: each makes one call into the core. No retries, no cache, no persisted result."""
