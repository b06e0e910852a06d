"""The journal's schema, step by step; run by `velox_core.journal.migrate`."""
