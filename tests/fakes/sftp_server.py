"""A real OpenSSH server on a free port of the loopback, with a key of its own and SFTP alone, where it is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.fakes.bound_process import bound
from tests.fakes.ports import free_port

PROGRAM = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
KEY_PROGRAM = shutil.which("ssh-keygen")
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


class NoServerHere(Exception):
    """This machine runs no SSH server that takes this user: says what it lacks."""


class SftpServer:
    """A server. `home` holds a client's ~/.ssh, `files` is the folder that the URL names."""

    def __init__(self, folder: Path) -> None:
        if PROGRAM is None or KEY_PROGRAM is None:
            raise NoServerHere("no SSH server on this machine (Debian: apt-get install openssh-server)")
        self._program = PROGRAM
        self._folder = folder
        self._port = free_port()
        self._log = folder / "sshd.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.home, self.files = folder / "home", folder / "files"
        ssh = self.home / ".ssh"
        ssh.mkdir(parents=True, mode=0o700)
        self.files.mkdir()
        for key in (folder / "host_key", ssh / "id_ed25519"):
            subprocess.run([KEY_PROGRAM, "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (folder / "authorized_keys").write_bytes((ssh / "id_ed25519.pub").read_bytes())
        kind, key_text = (folder / "host_key.pub").read_text().split()[:2]
        (ssh / "known_hosts").write_text(f"[127.0.0.1]:{self._port} {kind} {key_text}\n")
        (folder / "sshd_config").write_text(CONFIGURATION.format(port=self._port, folder=folder))
        try:
            self.user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            raise NoServerHere("this user has no name on this machine: an SSH server takes none such") from None
        self.url = f"sftp://{self.user}@127.0.0.1:{self._port}{self.files}"

    def start(self) -> None:
        """Start it, and wait until it takes connections. Raises NoServerHere when it ends at once."""
        if os.geteuid() == 0:
            with suppress(OSError):  # it says itself what it lacks
                Path("/run/sshd").mkdir(parents=True, exist_ok=True)  # which only root's server asks for
        with self._log.open("ab") as log:
            command = bound([self._program, "-D", "-e", "-f", str(self._folder / "sshd_config")])
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS_MAX
        while not self._greets():
            if self._process.poll() is not None or time.monotonic() > until:
                raise NoServerHere(f"sshd did not start: {self._log.read_text()}")
            time.sleep(0.02)

    def log_in(self) -> None:
        """Log in once, with nothing of VELOX's. Raises NoServerHere when this machine's rules refuse it to this user."""
        import paramiko

        with paramiko.SSHClient() as client:
            client.load_host_keys(str(self.home / ".ssh" / "known_hosts"))
            key = str(self.home / ".ssh" / "id_ed25519")
            options = {"allow_agent": False, "look_for_keys": False, "banner_timeout": 60.0, "auth_timeout": 60.0}
            try:
                client.connect("127.0.0.1", self._port, self.user, key_filename=key, timeout=60.0, **options)
                client.open_sftp().listdir(str(self.files))
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise NoServerHere(f"sshd takes no {self.user} here: {error}: {self._log.read_text()}") from error

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 5.0) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def kill(self) -> None:
        """Kill it and each connection's process, as a power cut would."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(60)
            self._process = None

    def stop(self) -> None:
        """Have it and its connections go on with nothing: packets are taken, nobody answers."""
        self._signal(signal.SIGSTOP)

    def revive(self) -> None:
        """End a stop, or start it when it was killed."""
        if self._process is None:
            self.start()
        else:
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        import psutil

        if self._process is None:
            return
        try:
            server = psutil.Process(self._process.pid)
        except psutil.NoSuchProcess:  # it ended by itself
            return
        processes = [server]
        with suppress(psutil.NoSuchProcess):
            server.send_signal(signal.SIGSTOP)  # it makes no more of them meanwhile
            processes = [*server.children(recursive=True), server]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


@contextmanager
def sftp_server(folder: Path) -> Iterator[SftpServer]:
    """Give a running server that takes this user, and end it. Raises NoServerHere."""
    server = SftpServer(folder)
    try:
        server.start()
        server.log_in()
        yield server
    finally:
        server.kill()
