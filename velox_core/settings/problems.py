"""What is wrong with a configuration, as one line each: where, which key, which value, what is allowed, what is near.

- A line never holds a line break, an unprintable character, or the value of a secret.
- The number of lines is bounded; a last one says when there are more.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from velox_core.settings.rules import SECRET_NAME, Rule

PROBLEMS_MAX = 100
SHOWN_MAX = 80

TreePath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from: a file and line, or an environment variable (line 0)."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else f"environment variable {self.source}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One line for the operator."""

    origin: Origin
    text: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}"


def lines(problems: Iterable[Problem]) -> list[str]:
    """Return the problems as text, file lines first and in order, without repeats, at most PROBLEMS_MAX."""
    ordered = sorted(
        set(problems), key=lambda problem: (problem.origin.line == 0, problem.origin.source, problem.origin.line, problem.text)
    )
    shown = [str(problem) for problem in ordered[:PROBLEMS_MAX]]
    if len(ordered) > PROBLEMS_MAX:
        shown.append("and more problems: correct these first")
    return shown


def one_line(text: str) -> str:
    """Return text fit for one line: printable, short, blanks joined."""
    joined = " ".join(text.split())
    clean = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in joined[: 3 * SHOWN_MAX])
    return clean


def shown_path(path: TreePath) -> str:
    """Write a path as a person reads it: system.strategies[0].name."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        name = part if part.isprintable() and part and len(part) <= SHOWN_MAX and " " not in part else ascii(part[:SHOWN_MAX])
        text += f".{name}" if text else name
    return text or "the file"


def shown_value(value: object) -> str:
    """Write a value as it looks in a file, shortened: 'abc', 5, true, null, a list of 2 values."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"a mapping of {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)} values"
    if isinstance(value, str):
        return ascii(value) if len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]!a}... ({len(value)} characters)"
    return str(value)


def refused(path: TreePath, value: object, rule: Rule) -> str:
    """Return the text for a value that its rule does not take."""
    shown = "not shown" if rule.hides_value and isinstance(value, str) else shown_value(value)
    hint = ""
    if isinstance(value, str) and not rule.wants_text and value:
        hint = " (this is text: write it without quotes, in plain digits)" if "number" in rule.allowed else " (this is text)"
    elif isinstance(value, bool | int | float) and rule.wants_text:
        hint = " (put it in quotes)"
    return f"{shown_path(path)} is {shown}: allowed is {rule.allowed}{hint}"


def unknown(path: TreePath, value: object, known: Iterable[str], elsewhere: Iterable[TreePath], *, hide: bool) -> str:
    """Return the text for a key that its section does not have."""
    names = sorted(known)
    key = str(path[-1])
    near = difflib.get_close_matches(key[:SHOWN_MAX].lower(), names, n=1, cutoff=0.6)
    hidden = isinstance(value, str) and (
        hide or bool(SECRET_NAME.search(".".join(map(str, path)))) or bool(near and SECRET_NAME.search(near[0]))
    )
    text = f"{shown_path(path)} is not a known key (value {'not shown' if hidden else shown_value(value)})"
    if near:
        return f"{text}: the nearest is {near[0]}; allowed are {', '.join(names)}"
    places = [shown_path(place) for place in elsewhere]
    if places:
        return f"{text}: did you mean {' or '.join(places[:3])}? Allowed here are {', '.join(names)}"
    return f"{text}: allowed are {', '.join(names)}"
