"""Secrets: which there are, and reading them from the environment or from a file of mode 0600.

- A secret is never a key of the configuration file; one that stands there is refused and not shown.
- The environment (`VELOX__METRICS__INFLUXDB__TOKEN`) wins over the secrets file, which has the same keys without
  `system` and is named by `system.secrets_path`.
- A password in a store's URL is taken out of an environment override; the URL without it may be shown.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from velox_core.domain.errors import ConfigError
from velox_core.settings.document import Document, Plain, parse, read_file
from velox_core.settings.problems import SHOWN_MAX, Origin, Problem, TreePath, one_line, shown_path
from velox_core.settings.values import SecretStr, with_netloc

API_KEY = ("broker", "api_key")
API_SECRET = ("broker", "api_secret")
ACCESS_TOKEN = ("broker", "access_token")
INFLUX_TOKEN = ("metrics", "influxdb", "token")
ALERT_URLS = ("alerts", "urls")
REDIS_PASSWORD = ("stores", "redis", "password")
JOURNAL_PASSWORD = ("stores", "journal", "password")
SECRET_PATHS: tuple[tuple[str, ...], ...] = (
    API_KEY,
    API_SECRET,
    ACCESS_TOKEN,
    INFLUX_TOKEN,
    ALERT_URLS,
    REDIS_PASSWORD,
    JOURNAL_PASSWORD,
)
SECRET_LENGTH_MAX = 4096
SECRET_COUNT_MAX = 50


@dataclass(slots=True)
class Secrets:
    """The secrets that were found. Every path holds a tuple; all but the alert URLs hold at most one."""

    found: dict[tuple[str, ...], tuple[SecretStr, ...]] = field(default_factory=dict)

    def one(self, path: tuple[str, ...]) -> SecretStr | None:
        """Return the secret at a path, or None when it is not set."""
        values = self.found.get(path, ())
        return values[0] if values else None


def variable(path: tuple[str, ...]) -> str:
    """Return the environment variable of a key below `system`."""
    return "VELOX__" + "__".join(path).upper()


def reject_in_file(document: Document) -> None:
    """Take secrets out of a configuration's values, a problem for each."""
    for path in SECRET_PATHS:
        section: Plain = document.data
        for part in ("system", *path[:-1]):
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and path[-1] in section:
            del section[path[-1]]
            full: TreePath = ("system", *path)
            text = (
                f"{shown_path(full)} is a secret: allowed is the environment variable {variable(path)}, or a file of mode 0600"
            )
            document.problems.append(
                Problem(document.origins[full], f"{text} that secrets_path names (the value is not shown)")
            )


def take_variable(secrets: Secrets, path: tuple[str, ...], name: str, value: str, problems: list[Problem]) -> None:
    """Take one secret from the environment. Several alert URLs are divided by blanks."""
    parts = value.split() if path == ALERT_URLS else [value]
    if not parts or not all(_is_secret(part) for part in parts):
        problems.append(Problem(Origin(name, 0), f"{shown_path(path)} {_ALLOWED}"))
        return
    secrets.found[path] = tuple(SecretStr(part) for part in parts)


def take_file(secrets: Secrets, path: Path, problems: list[Problem]) -> None:
    """Take the secrets of a file that the environment did not set. Adds a problem for whatever is wrong with it."""
    source = one_line(str(path))
    try:
        text = read_file(path, private=True)
    except ConfigError as error:
        problems.extend(Problem(Origin(source, 1), one_line(line.removeprefix(f"{source}: "))) for line in error.problems)
        return
    take_text(secrets, text, source, problems)


def take_text(secrets: Secrets, text: str, source: str, problems: list[Problem]) -> None:
    """Take the secrets of a secrets file's text, `source` in messages. Adds a problem for whatever is wrong with it."""
    try:
        document = parse(text, source, private=True)
    except ConfigError as error:
        problems.extend(Problem(Origin(source, 1), one_line(line.removeprefix(f"{source}: "))) for line in error.problems)
        return
    problems.extend(Problem(problem.origin, "holds something that is not allowed") for problem in document.problems)
    if not isinstance(document.data, dict):
        problems.append(Problem(Origin(source, 1), "must be a mapping, such as metrics: {influxdb: {token: '...'}}"))
        return
    _take_section(secrets, document, document.data, (), problems)


def _take_section(
    secrets: Secrets, document: Document, section: dict[str, Plain], path: tuple[str, ...], problems: list[Problem]
) -> None:
    for key, value in section.items():
        below = (*path, key)
        origin = document.origins[below]
        if below in SECRET_PATHS:
            values = value if below == ALERT_URLS and isinstance(value, list) else [value]
            taken = tuple(SecretStr(item) for item in values if isinstance(item, str) and _is_secret(item))
            if len(taken) != len(values) or len(taken) > SECRET_COUNT_MAX:
                problems.append(Problem(origin, f"{shown_path(below)} {_ALLOWED}"))
            else:
                secrets.found.setdefault(below, taken)
        elif isinstance(value, dict) and any(known[: len(below)] == below for known in SECRET_PATHS):
            _take_section(secrets, document, value, below, problems)
        else:
            names = [shown_path(known) for known in SECRET_PATHS]
            near = difflib.get_close_matches(shown_path(below)[:SHOWN_MAX], names, n=1)
            hint = f"the nearest is {near[0]}; " if near else ""
            problems.append(Problem(origin, f"{shown_path(below)} is not a known secret: {hint}known are {', '.join(names)}"))


def split_password(url: str) -> tuple[str, str | None]:
    """Return a URL without its password, and the password or None. Raises ValueError for what is not a URL."""
    parts = urlsplit(url)
    if parts.password is None:
        return url, None
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    host = parts.netloc.rpartition("@")[2]
    return with_netloc(parts, f"{user}@{host}" if user else host), unquote(parts.password)


def _is_secret(value: str) -> bool:
    return 0 < len(value) <= SECRET_LENGTH_MAX and value.isprintable() and value == value.strip()


_ALLOWED = f"is refused: allowed is text of 1 to {SECRET_LENGTH_MAX} printable characters, quoted (the value is not shown)"
