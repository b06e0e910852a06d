"""From the name of a place to the place: a folder or a URL, here or in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from velox_core.backup.apart import ApartDestination
from velox_core.backup.destinations import STEP_BYTES, Destination, without_password
from velox_core.backup.folder_place import FolderDestination, moves_on
from velox_core.backup.url_place import OBJECT_STORES, SSH, UrlDestination


def open_here(text: str, account_folder: str, moved: Callable[[int], None] = moves_on) -> Destination:
    """Return the place that a setting or an option names, worked on by this process itself.

    Args:
        text: an absolute folder, or a URL.
        account_folder: the account's own part of it, 'simulated/primary'.
        moved: told how many bytes a folder took or gave, block by block; of a URL, each answer of many is told as one step.
    """
    if "://" in text and not text.startswith("file://"):
        return UrlDestination(text, account_folder, lambda: moved(STEP_BYTES))
    return FolderDestination(Path(text.removeprefix("file://")) / account_folder, moved)


def load_libraries(text: str) -> None:
    """Import what a place needs before its first call; what is not installed is told by the call."""
    if "://" not in text or text.startswith("file://"):
        return
    scheme = text.partition("://")[0]
    with suppress(ImportError):
        import_module("velox_core.backup.sftp" if scheme in SSH else "s3fs" if scheme in OBJECT_STORES else "fsspec")


def open_destination(text: str, account_folder: str, silence_seconds: float) -> Destination:
    """Return the same, worked on by a process of its own, which is given up after so long a silence (seconds).

    Raises: BackupError for a URL with a password in it.
    """
    where = open_here(without_password(text), account_folder).where
    return ApartDestination(where, place=text, account_folder=account_folder, silence_seconds=silence_seconds)
