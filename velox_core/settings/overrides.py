"""Environment overrides: `VELOX__RISK__MAX_DAILY_LOSS=1500` replaces `system.risk.max_daily_loss`.

- The path stands below `system`, in any case; the value is one YAML scalar, or for a list key a list: `[TCS, INFY]`.
- A variable that names no key is a problem, never ignored: a limit misspelled in the environment must not be lost.
- `VELOX__VAR` is not an override. Entries of `strategies` cannot be overridden.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from velox_core.domain.errors import ConfigError
from velox_core.settings import shape
from velox_core.settings.document import Document, Plain, parse, scalar
from velox_core.settings.folders import VAR_VARIABLE
from velox_core.settings.problems import SHOWN_MAX, Origin, Problem, TreePath, one_line, shown_path
from velox_core.settings.secrets import (
    JOURNAL_PASSWORD,
    REDIS_PASSWORD,
    SECRET_PATHS,
    Secrets,
    split_password,
    take_variable,
    variable,
)

PREFIX = "VELOX__"
_URLS_WITH_PASSWORD: dict[tuple[str, ...], tuple[str, ...]] = {
    ("stores", "redis", "url"): REDIS_PASSWORD,
    ("stores", "journal", "url"): JOURNAL_PASSWORD,
}


def apply_overrides(document: Document, environ: Mapping[str, str], secrets: Secrets) -> None:
    """Put the environment's values and secrets in place, and a problem for each variable that does not fit."""
    seen: dict[tuple[str, ...], str] = {}
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX) or name == VAR_VARIABLE:
            continue
        path = tuple(name[len(PREFIX) :].lower().split("__"))
        shown = one_line(name)
        problem = _path_problem(path)
        if path in seen:
            problem = f"sets the same key as {seen[path]}: keep one"
        seen[path] = shown
        if problem:
            document.problems.append(Problem(Origin(shown, 0), problem))
        elif path in SECRET_PATHS:
            take_variable(secrets, path, shown, environ[name], document.problems)
        else:
            _put(document, path, shown, environ[name], secrets)


def _path_problem(path: tuple[str, ...]) -> str:
    full: TreePath = ("system", *path)
    if path in SECRET_PATHS or shape.rule(full) is not None or shape.list_rule(full) is not None:
        return ""
    section = shape.section(full)
    if section is not None:
        keys = ", ".join(shape.keys(section))
        return f"names the section {shown_path(full)}: allowed is one key of it ({keys})"
    if path[0] == "strategies":
        return "names a part of system.strategies: allowed is to change it in the file"
    if path[:2] == ("alerts", "channels"):
        return "names a part of system.alerts.channels: allowed is to change it in the file (URLs by VELOX__ALERTS__URLS)"
    known = [variable(tuple(str(part) for part in leaf[1:])) for leaf in shape.leaves()]
    known += [variable(secret) for secret in SECRET_PATHS]
    near = difflib.get_close_matches(variable(path)[: 2 * SHOWN_MAX], known, n=1)
    hint = f"the nearest is {near[0]}" if near else "allowed is VELOX__SECTION__KEY, as the keys of the file"
    return f"names no known key, {shown_path(full)}: {hint}"


def _put(document: Document, path: tuple[str, ...], name: str, text: str, secrets: Secrets) -> None:
    origin = Origin(name, 0)
    full: TreePath = ("system", *path)
    try:
        value = _value(text, path, secrets, is_list=shape.list_rule(full) is not None)
    except (ConfigError, ValueError):
        document.problems.append(
            Problem(origin, f"{shown_path(full)} cannot be read: allowed is one YAML value, quoted if need be")
        )
        return
    section = document.data
    for part in ("system", *path[:-1]):
        if not isinstance(section, dict):
            return  # the file's own problem with this section is reported
        section = section.setdefault(part, {})
    if isinstance(section, dict):
        section[path[-1]] = value
        for length in range(1, len(full)):
            document.origins.setdefault(full[:length], origin)
        for stale in [known for known in document.origins if known[: len(full)] == full]:
            del document.origins[stale]
        document.origins[full] = origin


def _value(text: str, path: tuple[str, ...], secrets: Secrets, *, is_list: bool) -> Plain:
    """Read one value. Raises ConfigError or ValueError when it is none."""
    password_path = _URLS_WITH_PASSWORD.get(path)
    if password_path is not None and "://" in text:
        url, password = split_password(text)
        if password is not None:
            problems: list[Problem] = []
            take_variable(secrets, password_path, "", password, problems)
            if problems:
                raise ValueError("a password that cannot be used")
        return url
    if not text.strip():
        return scalar("")
    parsed = parse(text, "value")
    if parsed.problems:
        raise ValueError("not a plain value")
    if isinstance(parsed.data, dict) or (isinstance(parsed.data, list) and not is_list):
        raise ValueError("not one value")
    return parsed.data
