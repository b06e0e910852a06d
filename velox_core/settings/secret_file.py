"""Writing the secrets file that `system.secrets_path` names: checked first, then put in place in one step, mode 0600.

- What does not read as a secrets file replaces none: a working file stays as it is.
- The file is never there half, nor for a moment with another mode; a symbolic link in its place is replaced, not followed.
- No message holds a value.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from velox_core.domain.errors import ConfigError
from velox_core.settings import problems as wording
from velox_core.settings.problems import Problem, one_line, shown_path
from velox_core.settings.secrets import Secrets, take_text


def write_secret_file(path: Path, content: str | Mapping[str, object]) -> list[str]:
    """Put a secrets file in place and return the names of the secrets in it.

    Args:
        path: the file; its folder is made, for its owner only, when it is not there.
        content: the file's YAML text, or its mapping, such as {"broker": {"api_key": "..."}}.
    Raises: ConfigError for what is no secrets file, or a place that cannot be written.
    """
    source = one_line(str(path))
    text = content if isinstance(content, str) else json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    secrets, problems = Secrets(), list[Problem]()
    take_text(secrets, text, f"what was to be written to {source}", problems)
    if problems:
        raise ConfigError(wording.lines(problems))
    if not secrets.found:
        raise ConfigError(f"{source}: nothing was written: there is no secret in what was given")
    try:
        _replace(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{source}: cannot be written: {error.strerror}; name a file in a folder of this user") from error
    return [shown_path(found) for found in secrets.found]


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    finally:
        with contextlib.suppress(OSError):  # it is gone when all went well
            os.unlink(name)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
