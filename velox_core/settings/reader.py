"""The steps of loading, in order: read, secrets out, overrides in, schema, checks between keys, values.

- Every step adds its problems and goes on, so that all show at once; only an unreadable file ends at the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from velox_core.domain.errors import ConfigError
from velox_core.settings import problems as wording
from velox_core.settings import shape
from velox_core.settings.checks import Reader, cross_checks
from velox_core.settings.document import Document, parse, read_file
from velox_core.settings.folders import project_root
from velox_core.settings.overrides import apply_overrides
from velox_core.settings.problems import PROBLEMS_MAX, Problem, TreePath
from velox_core.settings.resolve import resolve
from velox_core.settings.schema import Root, System
from velox_core.settings.secrets import SECRET_PATHS, Secrets, reject_in_file, take_file
from velox_core.settings.values import Settings


def read(source: Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings of `source`. Raises ConfigError; see `load.load_settings`."""
    shown = wording.one_line(str(source))
    document = parse(read_file(source), shown)
    if not isinstance(document.data, dict):
        found = wording.shown_value(document.data)
        raise ConfigError(f"{shown}:1: the file holds {found}: allowed is a mapping that starts with 'system:'")
    secrets = Secrets()
    reject_in_file(document)
    apply_overrides(document, environ, secrets)
    secrets_path = Reader(document).get("secrets_path")
    if isinstance(secrets_path, str):
        take_file(secrets, project_root(source) / secrets_path, document.problems)
    root, refused = validate(document)
    problems = [*document.problems, *refused, *cross_checks(document)]
    if problems or root is None:
        raise ConfigError(wording.lines(problems))
    return resolve(root.system, document, secrets, source)


def validate(document: Document) -> tuple[Root | None, list[Problem]]:
    """Hold a document against the schema. Returns the file, or None, and the problems, twice PROBLEMS_MAX at most."""
    try:
        return Root.model_validate(document.data), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        return None, [_problem(detail, document) for detail in details[: 2 * PROBLEMS_MAX]]


def _problem(detail: ErrorDetails, document: Document) -> Problem:
    path: TreePath = detail["loc"]
    place = path
    while place not in document.origins:
        place = place[:-1]
    return Problem(document.origins[place], _explain(detail, path))


def _explain(detail: ErrorDetails, path: TreePath) -> str:
    value, name, rule = detail["input"], wording.shown_path(path), shape.rule(path)
    if detail["type"] == "missing":
        return f"{name} is missing: allowed is {_wanted(path)}"
    if detail["type"] == "extra_forbidden":
        parent = shape.section(path[:-1])
        known = [] if parent is None else shape.keys(parent)
        return wording.unknown(path, value, known, _elsewhere(path), hide=_holds_secrets(path[:-1]))
    if rule is not None:
        return wording.refused(path, value, rule)
    kind = "text" if isinstance(value, str) else wording.shown_value(value)
    return f"{name} is {kind}: allowed is {_wanted(path)}"


def _wanted(path: TreePath) -> str:
    """Say what belongs at a path."""
    section, rule, list_rule = shape.section(path), shape.rule(path), shape.list_rule(path)
    if rule is not None:
        return rule.allowed
    if section is not None:
        return f"a mapping with the keys {', '.join(shape.keys(section))}"
    if list_rule is not None:
        return f"a list, each {list_rule.allowed}"
    lists = {"strategies": "a list of strategies", "channels": "a list of channels, each with name and minimum_severity"}
    return lists.get(str(path[-1]), "a mapping of names to values")


def _elsewhere(path: TreePath) -> list[TreePath]:
    """Return where a key of this name does belong."""
    sections: list[TreePath] = [("system", key) for key in shape.keys(System)]
    return [place for place in dict.fromkeys([*sections, *shape.leaves()]) if place[-1] == path[-1]]


def _holds_secrets(path: TreePath) -> bool:
    return any(("system", *secret[:-1]) == path[: len(secret)] for secret in SECRET_PATHS)
