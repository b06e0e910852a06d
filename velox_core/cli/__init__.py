"""The command line: parsing, showing, exit codes. Every command is one call into the core or one flow process.

- Never imports Prefect: commands that run flows start them as processes of their own.
- An operating error is one clean message on stderr and its exit code; nobody is shown a traceback.
- Exit codes: 0 done, 1 operating error, 2 bad usage or config, 3 checklist failed, 4 not flat.
"""

from __future__ import annotations

from velox_core.cli.entry import main

__all__ = ["main"]
