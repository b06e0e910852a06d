"""SFTP as a backup wants it: the server's key is known, and what is renamed never replaces anything.

- fsspec's own client trusts whoever answers at first. A journal is not sent to a stranger: the server's key stands in
  ~/.ssh/known_hosts, or nothing is sent.
- Who one is there comes from ~/.ssh/config, an ssh agent and the keys in ~/.ssh, as with the ssh command.
- Every wait is bounded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from velox_core.backup.faults import BackupError

CONNECT_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 60.0
REQUESTS_MAX: Final = 64  # under way at once while a file is read
SSH_PORT: Final = 22


def open_sftp(url: str) -> tuple[SFTPFileSystem, str]:
    """Return a connection, and the path on the server. Raises BackupError, OSError and paramiko's errors."""
    parts = urlsplit(url)
    return KnownServer(parts.hostname or "", port=parts.port, username=parts.username), parts.path.rstrip("/")


class StrangersRefused(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Sends nothing to a server whose key is not known."""

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Raise BackupError that says what to compare, and where to put it."""
        raise BackupError(
            f"the key of {hostname} is not known: it shows {key.get_name()} {key.fingerprint}",
            "compare it with the server's own (ssh-keygen -lf there), then connect once with the ssh command: it keeps the key "
            "in ~/.ssh/known_hosts",
        )


class KnownServer(SFTPFileSystem):  # type: ignore[misc]
    """A connection to a server that is known."""

    cachable = False
    protocol = ("sftp", "ssh")

    def _connect(self) -> None:
        wanted = _as_configured(self.host)
        self.client = paramiko.SSHClient()
        self.client.load_system_host_keys()
        self.client.set_missing_host_key_policy(StrangersRefused())
        self.client.connect(
            str(wanted.get("hostname", self.host)),
            port=self.ssh_kwargs.get("port") or int(wanted.get("port", SSH_PORT)),
            username=self.ssh_kwargs.get("username") or wanted.get("user"),
            key_filename=wanted.get("identityfile"),
            timeout=CONNECT_SECONDS,
            banner_timeout=CONNECT_SECONDS,
            auth_timeout=CONNECT_SECONDS,
            channel_timeout=CONNECT_SECONDS,
        )
        self.ftp = self.client.open_sftp()
        channel = self.ftp.get_channel()
        if channel is not None:
            channel.settimeout(ANSWER_SECONDS)

    def mv(self, old: str, new: str, **_: Any) -> None:
        """Rename a file or a folder at once; what is there under the name stays, and that is an error."""
        self.ftp.rename(self._strip_protocol(old), self._strip_protocol(new))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file; one to read is asked for ahead, since each answer takes a whole way there and back."""
        file = self.ftp.open(path, mode)
        if mode == "rb":
            file.prefetch(max_concurrent_requests=REQUESTS_MAX)
        return file

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove a file, or a folder with all that is in it; what cannot be removed is an error."""
        path = self._strip_protocol(path)
        if recursive and self.info(path)["type"] == "directory":
            for entry in self.ls(path, detail=True):
                self.rm(entry["name"], recursive=True)
            self.ftp.rmdir(path)
        else:
            self.ftp.remove(path)


def _as_configured(host: str) -> dict[str, Any]:
    file = Path.home() / ".ssh" / "config"
    return dict(paramiko.SSHConfig.from_path(str(file)).lookup(host)) if file.is_file() else {}
