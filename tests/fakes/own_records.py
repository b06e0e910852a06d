"""What a test's own thread logged: a thread of Prefect's client, or of an earlier test, may say something meanwhile."""

from __future__ import annotations

import logging
import threading

import pytest


def own_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the records of our loggers that this thread made, oldest first."""
    own = threading.get_ident()
    return [record for record in caplog.records if record.thread == own and record.name.startswith("velox.")]
