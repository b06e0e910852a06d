"""The rules of risk, as pure functions over values: limits, sizing, layers, gate, breach, ledger values. No I/O."""
