"""The two stores of the risk ledger: in memory (replay, tests) and on Redis (several processes, one account)."""
