"""A real PostgreSQL server in a folder of its own, on a unix socket, for a test; never the machine's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

READY_SECONDS_MAX = 240.0
USER = "nobody"  # the server refuses root


def server_folder() -> Path | None:
    """Return where the server's programs are: in the path, or where Debian keeps them; None without any."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


@contextmanager
def running_server(programs: Path) -> Iterator[Path]:
    """Run a server without a port; yield the folder of its socket. The user is 'velox', without a password."""
    folder = Path(tempfile.mkdtemp(prefix="velox-pg-", dir="/tmp"))  # a socket's path is short
    as_user = {"user": USER, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    if as_user:
        shutil.chown(folder, USER, "nogroup")
    data, environ = folder / "data", {"LC_ALL": "C", "PATH": os.environ.get("PATH", "")}
    try:
        options = ["--auth=trust", "--username=velox", "--encoding=UTF8", "--no-sync", "--pgdata", str(data)]
        subprocess.run(
            [programs / "initdb", *options],
            check=True, capture_output=True, timeout=READY_SECONDS_MAX, cwd=folder, env=environ, **as_user,  # type: ignore[call-overload]
        )  # fmt: skip
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", f"unix_socket_directories={folder}"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", str(data), *settings],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=environ, **as_user,  # type: ignore[call-overload]
            )  # fmt: skip
        try:
            _await(folder, process)
            yield folder
        finally:
            process.terminate()
            try:
                process.wait(READY_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder)


def make_database(folder: Path, name: str) -> str:
    """Make a database; returns its URL."""
    import psycopg

    with closing(psycopg.connect(f"host={folder} user=velox dbname=postgres", autocommit=True)) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
    return f"postgresql+psycopg://velox@/{name}?host={folder}"


def _await(folder: Path, process: subprocess.Popen[bytes]) -> None:
    import psycopg

    until = time.monotonic() + READY_SECONDS_MAX
    while True:
        try:
            psycopg.connect(f"host={folder} user=velox dbname=postgres", connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError((folder / "log").read_text(errors="replace")) from None
        time.sleep(0.05)
