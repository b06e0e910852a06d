"""The engine: one synchronous loop over minutes. `session` is the loop, `step` its pure parts."""
