"""Deterministic simulation: seeded short days with faults, in virtual time, with the invariants checked at every event."""
