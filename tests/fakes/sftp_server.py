"""A real OpenSSH server on a free port of the loopback, with a key of its own and SFTP alone, where it is installed."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.fakes.ports import free_port

PROGRAM = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
START_SECONDS_MAX = 120.0
CONFIGURATION = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


class SftpServer:
    """A server. `home` holds a client's ~/.ssh, `files` is the folder that the URL names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped: list[int] = []
        self.home, self.files = folder / "home", folder / "files"
        ssh = self.home / ".ssh"
        ssh.mkdir(parents=True, mode=0o700)
        self.files.mkdir()
        for key in (folder / "host_key", ssh / "id_ed25519"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (folder / "authorized_keys").write_bytes((ssh / "id_ed25519.pub").read_bytes())
        kind, key_text = (folder / "host_key.pub").read_text().split()[:2]
        (ssh / "known_hosts").write_text(f"[127.0.0.1]:{self._port} {kind} {key_text}\n")
        (folder / "sshd_config").write_text(CONFIGURATION.format(port=self._port, folder=folder))
        self.url = f"sftp://{getpass.getuser()}@127.0.0.1:{self._port}{self.files}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        if PROGRAM is None:
            raise RuntimeError("sshd is not installed: skip the test")
        with suppress(PermissionError):  # which only root's server asks for
            Path("/run/sshd").mkdir(parents=True, exist_ok=True)
        with (self._folder / "sshd.log").open("ab") as log:
            command = [PROGRAM, "-D", "-e", "-f", str(self._folder / "sshd_config")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self._port), 5.0) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"sshd did not start: {(self._folder / 'sshd.log').read_text()}") from error
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it and each connection's process, as a power cut would."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(60)
            self._process = None

    def stop(self) -> None:
        """Have it and its connections go on with nothing: packets are taken, nobody answers."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End the stop."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        import psutil

        if self._process is None:
            return
        server = psutil.Process(self._process.pid)
        for process in [server, *server.children(recursive=True)]:  # the server first: it makes no more of them
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue


@contextmanager
def sftp_server(folder: Path) -> Iterator[SftpServer]:
    """Give a running server, and end it."""
    server = SftpServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
