"""Telling a person, from a flow: the system log, and every channel that is configured."""

from __future__ import annotations

from tasks.policy import once
from velox_core.operations.second_layer import tell
from velox_core.ports import Severity
from velox_core.settings import Paths, Settings


@once("tell-a-person")
def tell_a_person(settings: Settings, paths: Paths, severity: Severity, title: str, text: str) -> str:
    """Send one alert and return what became of it."""
    return tell(settings, paths, severity, title, text)
