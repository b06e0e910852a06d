"""What a place with backups does, whichever it is: a folder, a URL, or either of them through a process of its own.

- A backup comes under another name, is on the disk (or read back and compared), and only then gets its own.
- Several hosts may share a place: what is under way has its maker in its name, so that nobody takes away or fills up
  another's, and of two that want one name at once at least one gives way.
- Object stores cannot rename a folder at once: there the manifest is what makes a backup, and it is written last.
- What fails is a BackupError that names the place; another destination is not concerned.
"""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from velox_core.backup.faults import BackupError
from velox_core.backup.naming import MANIFEST_FILE
from velox_core.domain.urls import may_hold_password

if TYPE_CHECKING:
    from velox_core.backup.manifest import Manifest

PROBE: Final = b"velox"
STEP_BYTES: Final = 1 << 16  # as much moved counts as progress of a place that is worked on by a process of its own
AGAIN: Final = "take the backup again, it then has the next number"
FREE_BYTES_MINIMUM: Final = 500_000_000
KEYS_MISSING: Final = frozenset({"NoCredentialsError", "PartialCredentialsError", "AuthenticationException", "SSHException"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """What lies at a place and is no backup: one under way, or what is left of one that was killed.

    Attributes:
        name: the entry.
        made_by: whose it is, see `store.origin_of`; '' where its name does not say.
        bytes: of its files.
        touched_wall_ms: when the newest of them was written, epoch ms of the place's clock; 0 where that is not known.
    """

    name: str
    made_by: str
    bytes: int
    touched_wall_ms: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


class Destination(Protocol):
    """One place with the backups of one account. Every method raises BackupError."""

    where: str  # for people, without a password

    @abstractmethod
    def names(self) -> list[str]:
        """Return the backups that are there, oldest first."""

    @abstractmethod
    def manifest_content(self, name: str) -> bytes:
        """Return the manifest file of one."""

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of one."""
        from velox_core.backup.manifest import read_manifest  # with the journal's schema: nothing that only copies needs it

        return read_manifest(self.manifest_content(name), f"{self.where}/{name}")

    @abstractmethod
    def taken(self) -> set[str]:
        """Return the names that are there, whole or what is left of one, or on their way."""

    @abstractmethod
    def unfinished(self) -> list[Unfinished]:
        """Return what is there and is no backup."""

    @abstractmethod
    def put(self, staged: Path, name: str, made_by: str) -> None:
        """Take a whole backup under a name that is not there yet. `made_by` tells its maker from others."""

    @abstractmethod
    def tidy(self, made_by: str, before_wall_ms: int) -> list[str]:
        """Remove what this maker left under way, and any maker's that nobody has touched since; returns their names."""

    @abstractmethod
    def probe(self) -> str:
        """Write, read back and remove a small file; returns what was seen, for people."""

    @abstractmethod
    def fetch(self, name: str, path: str, target: Path) -> None:
        """Copy one file of a backup."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a backup: first its name or its manifest, so that what is left of it is none, and is tidied away."""

    def close(self) -> None:
        """End what it holds open."""
        return None


def without_password(place: str) -> str:
    """Return a place as it may be shown.

    Raises: BackupError, which does not show it, for a URL that may have a password in it, and for one that chains systems with
        '::', which would go round what is done for the last of them.
    """
    scheme, behind, _ = place.partition("://")
    if not behind:
        return place
    if "::" in scheme:
        raise BackupError(
            "a URL with '::' in its scheme is no place for backups", "name the place itself, such as sftp://HOST/DIR"
        )
    if may_hold_password(place):
        raise BackupError(
            "a URL of a place for backups may have a password in it: a ':' stands before an '@'",
            'leave it out: an ssh agent, ~/.ssh or the environment holds keys (docs/runbook.md, "Backups")',
        )
    return place


def files_of(staged: Path) -> list[Path]:
    """Return the files of a staged backup, the manifest last."""
    found = sorted(path for path in staged.rglob("*") if path.is_file())
    return sorted(found, key=lambda path: path.name == MANIFEST_FILE)


def compare_sizes(where: str, staged: Path, size_of: Callable[[str], int], but: str = "") -> None:
    """Raise BackupError unless every file of a staged backup is there as long as it is; `but` is not looked at.

    Whoever copied this `var` may have taken the one under way for what is left of its own.
    """
    for source in files_of(staged):
        inside = source.relative_to(staged).as_posix()
        if inside == but:
            continue
        try:
            size = size_of(inside)
        except FileNotFoundError:
            size = -1
        if size != source.stat().st_size:
            found = "is gone" if size < 0 else f"has {size} bytes"
            raise BackupError(f"{where}: {inside} {found}, somebody else works there under this host's name", AGAIN)


def failed(place: str, doing: str, error: Exception) -> BackupError:
    """Return what to raise when a place fails with an error of its own."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    advice = "see whether it is there and yours to use"
    if getattr(error, "errno", None) == errno.ENOSPC:
        advice = "free some space there"
    elif type(error).__name__ in KEYS_MISSING or isinstance(error, PermissionError):
        advice = (
            "its keys are missing or refused, they belong where its own tools look for them (s3: AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials; sftp: an ssh agent or ~/.ssh)"
        )
    return BackupError(f"cannot {doing} {place}: {text}", advice)
