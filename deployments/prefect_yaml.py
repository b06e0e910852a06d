"""`prefect.yaml` from the definitions, for those who run workers: `python -m deployments.prefect_yaml` writes it.

- The file is the default configuration's, of the simulated account; a test compares it with what `serve` registers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from deployments.definitions import DEFAULT_CONFIG, DEPLOYMENTS, TIMEZONE, VERSION, WORK_POOL, Deployment

PREFECT_YAML: Final = Path(__file__).resolve().parents[1] / "prefect.yaml"
TESTED_PREFECT: Final = "3.8.8"

_HEADER: Final = """\
# Deployments for those who run Prefect workers. Written by `python -m deployments.prefect_yaml` from
# deployments/definitions.py: change them there. `velox up` needs no worker, it serves the same deployments itself.
#
#   python -m deployments.work_pool         makes the work pool and its queues where they are absent
#   prefect --no-prompt deploy --all
#   VELOX_HOME=$PWD prefect worker start --pool velox --work-queue trading --work-queue emergency
#
# VELOX_HOME is this folder on the worker's machine. Nothing here can move money: the configuration is the simulated one.
# The engine is a process of its own (docs/architecture.md), so stopping a worker never stops trading.
"""


def prefect_yaml() -> str:
    """Return the text of the file."""
    body = {
        "name": "velox",
        "prefect-version": TESTED_PREFECT,
        "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $VELOX_HOME }}"}}],
        "deployments": [_entry(deployment) for deployment in DEPLOYMENTS],
    }
    return _HEADER + yaml.safe_dump(body, sort_keys=False, width=120, allow_unicode=True)


def _entry(deployment: Deployment) -> dict[str, Any]:
    return {
        "name": deployment.flow,
        "entrypoint": deployment.file_entrypoint,
        "description": deployment.description,
        "version": VERSION,
        "tags": deployment.all_tags,
        "schedules": [
            {
                "slug": schedule.slug,
                "cron": schedule.cron,
                "timezone": TIMEZONE,
                "active": True,
                **({"parameters": dict(schedule.parameters)} if schedule.parameters else {}),
            }
            for schedule in deployment.schedules
        ],
        "parameters": {"config": DEFAULT_CONFIG, **deployment.parameters},
        "work_pool": {"name": WORK_POOL, "work_queue_name": deployment.queue},
    }


if __name__ == "__main__":
    PREFECT_YAML.write_text(prefect_yaml(), encoding="utf-8")
