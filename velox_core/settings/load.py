"""The one way from a configuration file to `Settings`.

- `load_settings` is a function of the file and the environment it is given: it logs, prints and writes nothing.
- It raises ConfigError and nothing else, whatever the file holds.
- YAML and pydantic are imported when it runs, so that holding settings costs no import.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from velox_core.domain.errors import ConfigError
from velox_core.settings.folders import default_config
from velox_core.settings.values import Settings


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a configuration file.

    Args:
        path: the file; None takes `config/system_simulated.yaml` of the current folder, else the shipped one.
        environ: the process environment, for overrides and secrets.
    Raises: ConfigError with one line for every problem: file and line or variable, key, value, what is allowed.
    """
    from velox_core.settings.reader import read

    try:
        return read(default_config() if path is None else path, environ)
    except OSError as error:
        raise ConfigError(f"the configuration cannot be read: {error.strerror}") from error
