"""A multipart answer read as it comes: part by part, in bounded memory, whatever the size of a part.

- What is cut off before its last boundary is an error, never a short part.
- One part at a time: what was not read of it is skipped when the next one is asked for.

Form of the body: RFC 2046, section 5.1.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Final

from velox_core.backup.manifest import BackupError

HEADER_BYTES_MAX: Final = 8 << 10
_LINE: Final = b"\r\n"
_LAST: Final = b"--"


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type names. Raises BackupError when it is no multipart's."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_maintype() != "multipart" or not boundary:
        raise BackupError(f"the answer is no multipart but {content_type[:100] or 'of no type'}")
    return boundary.encode("latin-1", "replace")


class MultipartReader:
    """The parts of one body.

    Args:
        blocks: the body, in blocks of any size.
        boundary: what separates its parts, without dashes.
    """

    def __init__(self, blocks: Iterator[bytes], boundary: bytes) -> None:
        self._blocks = blocks
        self._mark = _LINE + _LAST + boundary
        self._buffer = _LINE  # the first boundary may be the body's first line

    def parts(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Return each part's name and its content. Raises BackupError for a body that is cut off or no multipart."""
        _skip(self._until_mark())
        while self._take(len(_LAST)) != _LAST:
            name = self._name()
            content = self._until_mark()
            yield name, content
            _skip(content)
        _skip(self._blocks)  # so that whoever checks the whole body sees its end

    def _name(self) -> str:
        while (end := self._buffer.find(_LINE + _LINE)) < 0:
            if len(self._buffer) > HEADER_BYTES_MAX:
                raise BackupError("the answer has a part without an end of its headers")
            self._more()
        headers = BytesHeaderParser().parsebytes(self._buffer[:end] + _LINE)
        self._buffer = self._buffer[end + len(_LINE + _LINE) :]
        return str(headers.get_param("name", "", header="content-disposition"))

    def _until_mark(self) -> Iterator[bytes]:
        """Return what comes before the next boundary, and go past it."""
        held = len(self._mark) - 1  # bytes that may be the beginning of a boundary
        while (place := self._buffer.find(self._mark)) < 0:
            if len(self._buffer) > held:
                ready, self._buffer = self._buffer[:-held], self._buffer[-held:]
                yield ready
            self._more()
        ready, self._buffer = self._buffer[:place], self._buffer[place + len(self._mark) :]
        if ready:
            yield ready

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _more(self) -> None:
        block = next(self._blocks, None)
        if block is None:
            raise BackupError("the answer is cut off before its last boundary")
        self._buffer += block


def _skip(blocks: Iterator[bytes]) -> None:
    for _ in blocks:
        pass
