"""Reads one YAML file or text into plain values that remember their lines, within bounds, whatever the bytes are.

- Size is checked before parsing, depth and number of values while parsing, aliases by the size they stand for:
  junk of any kind ends in a one-line error, quickly.
- Only plain decimal numbers are numbers: 0777, 0x10, 1e3 and 14:45 stay text, so no YAML 1.1 reading of a limit or
  a time can surprise.
- Duplicate keys, merge keys, tags and several documents are refused.
- What it does not do: know any key. That is `schema`.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import yaml
from yaml import events

from velox_core.domain.errors import ConfigError
from velox_core.settings.problems import PROBLEMS_MAX, Origin, Problem, TreePath, one_line, shown_path

BYTES_MAX = 1_000_000
DEPTH_MAX = 24
NODES_MAX = 10_000
DIGITS_MAX = 18

_PARSER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_DECIMAL = re.compile(r"[-+]?((0|[1-9][0-9_]*)\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]{1,4})?")
_NOT_FINITE = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "yes": True, "on": True}
_WORDS |= {"false": False, "no": False, "off": False}

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


@dataclass(slots=True)
class Document:
    """The plain values of a file or text, the origin of each by path, and what was wrong with it so far."""

    data: Plain
    origins: dict[TreePath, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    """A value with its line. `size` and `height` count what an alias to it stands for."""

    line: int
    kind: str
    scalar: str = ""
    value: None | bool | int | float | str = None
    children: list[_Node] = field(default_factory=list)
    size: int = 1
    height: int = 1
    anchor: str | None = None


class _Refused(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


def read_file(path: Path, *, private: bool = False) -> str:
    """Return the text of a configuration file.

    Args:
        path: the file.
        private: refuse a file that anybody else may read or write (mode other than 0600), one of another owner, and a
            symbolic link, whose target may change between two looks.
    Raises: ConfigError, one line, when it is not there, not a file, not readable, too large or not UTF-8.
    """
    shown = one_line(str(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if private else 0))
    except OSError as error:
        if private and error.errno == errno.ELOOP:
            raise ConfigError(f"{shown}: is a symbolic link: allowed is the file itself; name that") from error
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}; name an existing, readable file") from error
    except ValueError as error:
        raise ConfigError(f"{shown}: is not a file name: {one_line(str(error))}") from error
    try:
        content = _content(descriptor, shown, private=private)
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: is not UTF-8 text: byte 0x{content[error.start]:02x} at offset {error.start}") from error


def _content(descriptor: int, shown: str, *, private: bool) -> bytes:
    state = os.fstat(descriptor)
    mode = stat.S_IMODE(state.st_mode)
    if not stat.S_ISREG(state.st_mode):
        raise ConfigError(f"{shown}: is not a file; name a YAML file")
    if private and state.st_uid != os.geteuid():
        raise ConfigError(
            f"{shown}: it belongs to user {state.st_uid}, this process to {os.geteuid()}: allowed is a file of its own user "
            f"(chown {os.geteuid()} {shlex.quote(shown)}, then chmod 600)"
        )
    if private and mode != 0o600:
        raise ConfigError(
            f"{shown}: its mode is {mode:04o}: allowed is 0600, so that nobody else reads it (chmod 600 {shlex.quote(shown)})"
        )
    content = b""
    while state.st_size <= BYTES_MAX >= len(content) and (part := os.read(descriptor, BYTES_MAX + 1)):
        content += part
    size = max(state.st_size, len(content))
    if size > BYTES_MAX:
        raise ConfigError(f"{shown}: has {size:,} bytes: allowed are at most {BYTES_MAX:,}")
    return content


def parse(text: str, source: str, *, private: bool = False) -> Document:
    """Return the values of a YAML text.

    Args:
        text: the YAML.
        source: what messages call it: a file name.
        private: quote nothing of the text in messages.
    Raises: ConfigError, one line, when it is not YAML, or is beyond the bounds.
    """
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            builder.take(event)
    except _Refused as refused:
        raise ConfigError(f"{source}:{refused.line}: {'is not valid YAML' if private else refused.text}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        what = "" if private else f": {_explained(error, text, line)}"
        raise ConfigError(f"{source}:{line}: is not valid YAML{what}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        what = "" if private else f": {one_line(str(error))}"
        raise ConfigError(f"{source}: is not valid YAML{what}") from None
    if builder.root is None:
        raise ConfigError(f"{source}: is empty: it needs a mapping that starts with 'system:'")
    document = Document(data=None, problems=builder.problems)
    document.data = _plain(builder.root, (), source, document)
    return document


def _explained(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    what = one_line(error.problem or error.context or "")
    found = text.split("\n", line)[line - 1 : line]
    return f"{what} (the line holds a tab: indent with spaces)" if found and "\t" in found[0] else what


class _Builder:
    """Turns parse events into nodes, with an explicit stack, so that no depth of input reaches Python's own."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.root: _Node | None = None
        self.problems: list[Problem] = []
        self._open: list[_Node] = []
        self._anchors: dict[str, _Node | None] = {}
        self._nodes = 0

    def take(self, event: events.Event) -> None:
        """Add one event. Raises _Refused for what ends the reading."""
        line = 1 if event.start_mark is None else event.start_mark.line + 1
        match event:
            case events.DocumentStartEvent() if self.root is not None:
                raise _Refused(line, "a second document starts here: allowed is one")
            case events.AliasEvent():
                self._add(self._aliased(event.anchor or "", line))
            case events.ScalarEvent():
                self._add(
                    self._begin(event, _Node(line=line, kind="scalar", scalar=event.value, value=self._scalar(event, line)))
                )
            case events.SequenceStartEvent() | events.MappingStartEvent():
                kind = "list" if isinstance(event, events.SequenceStartEvent) else "mapping"
                self._open.append(self._begin(event, _Node(line=line, kind=kind)))
                if len(self._open) > DEPTH_MAX:
                    raise _Refused(line, f"is nested more than {DEPTH_MAX} levels deep")
            case events.SequenceEndEvent() | events.MappingEndEvent():
                self._add(self._open.pop())
            case _:
                pass  # stream and document marks say nothing

    def _begin(self, event: events.NodeEvent, node: _Node) -> _Node:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise _Refused(node.line, f"holds more than {NODES_MAX:,} values")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            self._problem(node.line, f"the tag {one_line(tag)} is not allowed: write the value without a tag")
        if event.anchor is not None:
            if event.anchor in self._anchors:
                raise _Refused(node.line, f"the anchor &{one_line(event.anchor)} is there twice")
            self._anchors[event.anchor] = None
            node.anchor = event.anchor
        return node

    def _aliased(self, anchor: str, line: int) -> _Node:
        if anchor not in self._anchors:
            raise _Refused(line, f"the alias *{one_line(anchor)} has no anchor &{one_line(anchor)} before it")
        node = self._anchors[anchor]
        if node is None:
            raise _Refused(line, f"the alias *{one_line(anchor)} stands inside its own anchor")
        return node

    def _add(self, node: _Node) -> None:
        """Close a node and hang it below the open one."""
        if node.anchor is not None:
            self._anchors[node.anchor] = node
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.children.append(node)
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if parent.size > NODES_MAX:
            raise _Refused(parent.line, f"holds more than {NODES_MAX:,} values, aliases counted")
        if len(self._open) + node.height > DEPTH_MAX + 1:
            raise _Refused(parent.line, f"is nested more than {DEPTH_MAX} levels deep, aliases counted")

    def _scalar(self, event: events.ScalarEvent, line: int) -> None | bool | int | float | str:
        is_plain = event.implicit[0] and event.tag is None
        value = scalar(event.value) if is_plain else event.value
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            self._problem(line, "holds half a character (a lone surrogate): write the whole character")
        return value

    def _problem(self, line: int, text: str) -> None:
        if len(self.problems) <= PROBLEMS_MAX:
            self.problems.append(Problem(Origin(self.source, line), text))


def scalar(text: str) -> None | bool | int | float | str:
    """Return what an unquoted YAML scalar means: null, a flag, a plain decimal number, or else its text."""
    if text.lower() in _WORDS and text in (text.lower(), text.upper(), text.capitalize()):
        return _WORDS[text.lower()]
    if len(text) <= 2 * DIGITS_MAX and sum(letter.isdigit() for letter in text) <= DIGITS_MAX:
        if _INTEGER.fullmatch(text):
            return int(text.replace("_", ""))
        if _DECIMAL.fullmatch(text):
            return float(text.replace("_", ""))
    if text.lower() in _NOT_FINITE:
        return float(_NOT_FINITE[text.lower()])
    return text


def _plain(node: _Node, path: TreePath, source: str, document: Document) -> Plain:
    """Turn a node into plain values, and note where each stands. Aliases are written out: no value is shared."""
    document.origins.setdefault(path, Origin(source, node.line))
    if node.kind == "scalar":
        return node.value
    if node.kind == "list":
        return [_plain(child, (*path, index), source, document) for index, child in enumerate(node.children)]
    values: dict[str, Plain] = {}
    for key, value in zip(node.children[::2], node.children[1::2], strict=True):
        problem = _key_problem(key, path, values, document)
        if problem:
            if len(document.problems) <= PROBLEMS_MAX:
                document.problems.append(Problem(Origin(source, key.line), problem))
            continue
        below = (*path, key.scalar)
        document.origins[below] = Origin(source, key.line)
        values[key.scalar] = _plain(value, below, source, document)
    return cast("Plain", values)


def _key_problem(key: _Node, path: TreePath, values: dict[str, Plain], document: Document) -> str:
    if key.kind != "scalar":
        return f"a {key.kind} is used as a key below {shown_path(path)}: allowed is a word"
    if key.scalar == "<<":
        return f"{shown_path((*path, '<<'))}: merge keys are not allowed: write the keys out"
    if key.scalar in values:
        first = document.origins[(*path, key.scalar)].line
        return f"{shown_path((*path, key.scalar))} is there twice, first in line {first}: keep one"
    return ""
