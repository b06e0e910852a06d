"""The journal: the append-only memory of a run, as a hash-chained file (replay) or in SQL (live, reports)."""
