"""`velox guard`: the dead-man's switch in the foreground, with its log files."""

from __future__ import annotations

import sys

from velox_core.alert_setup import open_alerts
from velox_core.domain.errors import EXIT_DONE
from velox_core.operations.guard import watch_account
from velox_core.operations.run_logs import logs_folder, open_logs
from velox_core.settings import Paths, Settings


def guard_foreground(settings: Settings, paths: Paths) -> int:
    """Guard the account until a signal asks for the end, and return the exit code. Raises ConfigError, VeloxError."""
    logs = open_logs(settings, paths, rotates=False, is_engine=False)
    sys.stderr.write(f"velox: guarding account {settings.account}; log: {logs_folder(settings, paths)}. Ctrl-C ends it\n")
    try:
        with open_alerts(settings, label="guard") as alerts:
            watch_account(settings, paths, alerts, alerts.counters)
    finally:
        losses = logs.stop()
        if losses.any:
            sys.stderr.write(f"velox: {losses}\n")
    return EXIT_DONE
