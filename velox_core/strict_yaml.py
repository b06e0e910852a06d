"""Read a YAML data file strictly: every value is asked for by name and type, and every complaint names file and line.

- Nothing is guessed: an unknown key, a missing key, a wrong type, a duplicate key, an anchor or an alias is refused.
- Numbers are read from their text, so 0.1 stays exact; a time of day is `09:15`, a date is `2026-08-03`.
- Each reader of a file chooses the error class it raises; a problem reads `FILE, line N: what; what to do`.
- Owns no meaning: which keys there are is the caller's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, time
from decimal import Decimal
from pathlib import Path

import yaml

from velox_core.domain.errors import VeloxError

FILE_BYTES_MAX = 1_000_000
_DEPTH_MAX = 20
_TAG = "tag:yaml.org,2002:"
_NUMBER = re.compile(r"-?\d{1,12}(\.\d{1,12})?")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Value:
    """One value of the file and where it stands. `where` is its path in the file, for messages ('sessions[2].date')."""

    __slots__ = ("_document", "_node", "line", "where")

    def __init__(self, document: Document, node: yaml.Node, where: str) -> None:
        self._document = document
        self._node = node
        self.where = where
        self.line = node.start_mark.line + 1

    def fail(self, problem: str, remedy: str) -> VeloxError:
        """Return the error to raise about this value."""
        return self._document.fail(self.line, f"{self.where}: {problem}", remedy)

    def text(self) -> str:
        """Return a non-empty text."""
        if self._is("str") and self._node.value.strip():
            return str(self._node.value)
        raise self._wrong("a text")

    def whole_number(self) -> int:
        """Return an integer."""
        if self._is("int") and re.fullmatch(r"-?\d{1,12}", self._node.value):
            return int(self._node.value)
        raise self._wrong("a whole number")

    def number(self) -> Decimal:
        """Return an exact number that is not negative."""
        if (self._is("int") or self._is("float")) and _NUMBER.fullmatch(self._node.value):
            value = Decimal(self._node.value)
            if value >= 0:
                return value
        raise self._wrong("a number, 0 or above")

    def truth(self) -> bool:
        """Return true or false."""
        if self._is("bool") and self._node.value.lower() in ("true", "false"):
            return bool(self._node.value.lower() == "true")
        raise self._wrong("true or false")

    def day(self) -> date:
        """Return a date."""
        if self._is("timestamp") and _DATE.fullmatch(self._node.value):
            try:
                return date.fromisoformat(self._node.value)
            except ValueError:
                raise self._wrong("a date that exists, as YYYY-MM-DD") from None
        raise self._wrong("a date as YYYY-MM-DD")

    def clock(self) -> time:
        """Return a time of day."""
        found = _TIME.fullmatch(self._node.value) if isinstance(self._node, yaml.ScalarNode) else None
        if found is None:
            raise self._wrong("a time of day as HH:MM")
        return time(int(found[1]), int(found[2]), int(found[3] or 0))

    def choice(self, *allowed: str) -> str:
        """Return a text that is one of `allowed`."""
        text = self.text()
        if text not in allowed:
            raise self.fail(f"'{text}' is not known", f"write one of {', '.join(allowed)}")
        return text

    def items(self) -> list[Value]:
        """Return the values of a list."""
        if not isinstance(self._node, yaml.SequenceNode):
            raise self._wrong("a list")
        return [Value(self._document, node, f"{self.where}[{index}]") for index, node in enumerate(self._node.value)]

    def section(self, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> Section:
        """Return a mapping that has all `required` keys, and no key beyond those and the `optional` ones."""
        entries = dict(self._entries())
        for name, value in entries.items():
            if name not in required and name not in optional:
                raise value.fail("unknown key", f"remove it, or write one of {', '.join(required + optional)}")
        for name in required:
            if name not in entries:
                raise self.fail(f"the key '{name}' is missing", f"add '{name}:'")
        return Section(entries)

    def pairs(self) -> list[tuple[str, Value]]:
        """Return a mapping with free keys, in file order."""
        return list(self._entries())

    def dated_pairs(self) -> list[tuple[date, Value]]:
        """Return a mapping whose keys are dates, in file order."""
        for key, _ in self._mapping().value:
            Value(self._document, key, self.where).day()
        return [(date.fromisoformat(name), value) for name, value in self._entries()]

    def _mapping(self) -> yaml.MappingNode:
        if not isinstance(self._node, yaml.MappingNode):
            raise self._wrong("a section of keys and values")
        return self._node

    def _entries(self) -> Iterator[tuple[str, Value]]:
        seen: dict[str, int] = {}
        for key, node in self._mapping().value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if not isinstance(key, yaml.ScalarNode):
                raise self._document.fail(line, f"{self.where}: a key must be a plain word", "write 'name: value'")
            if name in seen:
                raise self._document.fail(
                    line, f"{self.where}: '{name}' stands on line {seen[name]} already", "keep one of them"
                )
            seen[name] = line
            yield name, Value(self._document, node, f"{self.where}.{name}" if self.where else name)

    def _is(self, tag: str) -> bool:
        return isinstance(self._node, yaml.ScalarNode) and self._node.tag == _TAG + tag

    def _wrong(self, wanted: str) -> VeloxError:
        if isinstance(self._node, yaml.ScalarNode):
            found = f"'{str(self._node.value)[:60]}'"
        else:
            found = "a list" if isinstance(self._node, yaml.SequenceNode) else "a section"
        return self.fail(f"{found} is not {wanted}", f"write {wanted}")


class Section:
    """The values of a mapping by key."""

    __slots__ = ("_entries",)

    def __init__(self, entries: dict[str, Value]) -> None:
        self._entries = entries

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Value:
        return self._entries[name]


class Document:
    """One file: its name and the class of error that complaints about it raise."""

    __slots__ = ("error", "name")

    def __init__(self, name: str, error: Callable[[str], VeloxError]) -> None:
        self.name = name
        self.error = error

    def fail(self, line: int, problem: str, remedy: str) -> VeloxError:
        """Return the error to raise about a line."""
        return self.error(f"{self.name}, line {line}: {problem}; {remedy}")


def read_document(path: Path, error: Callable[[str], VeloxError]) -> Value:
    """Read a file and return its top value.

    Args:
        path: the YAML file.
        error: the class of error to raise, built from one line of text.
    Raises: `error` when the file cannot be read, is too big, is empty or is not YAML without anchors.
    """
    document = Document(str(path), error)
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= FILE_BYTES_MAX else b""
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror}); check that the file exists") from problem
    if size > FILE_BYTES_MAX:
        raise error(f"{path} has {size} bytes, at most {FILE_BYTES_MAX} are read; this is not the right file")
    try:
        node = yaml.compose(data.decode("utf-8"), Loader=_LOADER)
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 text (byte {problem.start}); save it as UTF-8") from problem
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise document.fail(line, f"this is not YAML ({problem.problem})", "correct the line") from problem
    except (yaml.YAMLError, RecursionError) as problem:
        raise error(f"{path} is not YAML; {type(problem).__name__}: replace the file") from problem
    if node is None:
        raise error(f"{path} is empty; restore it")
    _refuse_aliases(document, node, set(), 0)
    return Value(document, node, "")


def _refuse_aliases(document: Document, node: yaml.Node, seen: set[int], depth: int) -> None:
    if id(node) in seen or depth > _DEPTH_MAX:
        raise document.fail(node.start_mark.line + 1, "anchors, aliases and deep nesting are not read", "write the values out")
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_aliases(document, child, seen, depth + 1)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            _refuse_aliases(document, key, seen, depth + 1)
            _refuse_aliases(document, child, seen, depth + 1)
