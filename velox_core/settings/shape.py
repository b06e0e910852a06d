"""Finds its way in the schema by path: which rule, which keys, which default. Used for messages and overrides."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, get_args, get_origin, get_type_hints

from velox_core.settings.problems import TreePath
from velox_core.settings.rules import Rule
from velox_core.settings.schema import Root, Section


@cache
def _hints(section: type[Section]) -> dict[str, object]:
    return get_type_hints(section, include_extras=True)


def keys(section: type[Section]) -> list[str]:
    """Return a section's keys, in the schema's order."""
    return list(section.model_fields)


def annotation(path: TreePath) -> object:
    """Return the annotation at a path, or None when the schema has nothing there."""
    current: object = Root
    for part in path:
        current = _below(current, part)
        if current is None:
            return None
    return current


def rule(path: TreePath) -> Rule | None:
    """Return the rule of the value at a path, or None when it is a section, a list or unknown."""
    return _rule(annotation(path))


def section(path: TreePath) -> type[Section] | None:
    """Return the section at a path, or None."""
    found = annotation(path)
    return found if isinstance(found, type) and issubclass(found, Section) else None


def list_rule(path: TreePath) -> Rule | None:
    """Return the rule of the elements of the list at a path, or None when there is no list of plain values."""
    found = annotation(path)
    return _rule(get_args(found)[0]) if get_origin(found) is list else None


def default(path: TreePath) -> object:
    """Return the default of the key at a path in inside units, or None when it is required or in a list."""
    parent = section(path[:-1])
    if parent is None:
        return None
    found = parent.model_fields[str(path[-1])]
    return None if found.is_required() else found.get_default()


@cache
def leaves() -> tuple[TreePath, ...]:
    """Return the path of every key that holds a value or a list of plain values."""
    return tuple(_leaves((), Root))


def _leaves(path: TreePath, section_type: type[Section]) -> Iterator[TreePath]:
    for name in keys(section_type):
        below = (*path, name)
        inner = section(below)
        if inner is not None:
            yield from _leaves(below, inner)
        elif rule(below) is not None or list_rule(below) is not None:
            yield below


def _below(current: object, part: str | int) -> object:
    if isinstance(current, type) and issubclass(current, Section):
        return _hints(current).get(part) if isinstance(part, str) else None
    if get_origin(current) is list and isinstance(part, int):
        return get_args(current)[0]
    if get_origin(current) is dict and isinstance(part, str):
        return get_args(current)[1]
    return None


def _rule(found: object) -> Rule | None:
    if get_origin(found) is not Annotated:
        return None
    return next((item for item in get_args(found)[1:] if isinstance(item, Rule)), None)
