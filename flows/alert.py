"""alert: tell a person what an automation saw, behind the alerts that engine, guard and checklist send by themselves."""

from __future__ import annotations

import os
from typing import Any, Literal

from flows.parameters import day_request
from flows.policy import flow
from tasks.alert import tell_a_person
from velox_core.ports import Severity
from velox_core.settings import load_settings, paths


@flow(name="alert")
async def alert(
    title: str = "A test of the alert flow",
    text: str = "Nothing has happened, and nothing is to be done.",
    severity: Literal["INFO", "WARNING", "CRITICAL"] = "INFO",
    config: str = "",
) -> Any:
    """Tell a person something, by the system log and by every alert channel that is configured.

    Args:
        title: what it is about, in a few words.
        text: what happened and what is to be done.
        severity: INFO, WARNING or CRITICAL; a channel gets what reaches its own least severity.
        config: configuration file; empty is config/system_simulated.yaml.
    """
    settings = load_settings(day_request(config, None).config, os.environ)
    return tell_a_person(settings, paths(os.environ, settings.root), Severity(severity), title, text)


if __name__ == "__main__":
    from flows.command import run_flow

    run_flow(alert)
