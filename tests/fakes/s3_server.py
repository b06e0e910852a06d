"""An S3 server in a process of its own, on a free port of the loopback: moto's, which keeps all in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.fakes.bound_process import bound

SERVE = """
import sys
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
host, port = server.get_host_and_port()
print(port, flush=True)
sys.stdin.read()
server.stop()
"""


class S3Server:
    """A server. `environ` is what a client needs in its environment."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.environ = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Start one, and end it."""
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL  # it writes a line for each request
    process = subprocess.Popen(bound([sys.executable, "-c", SERVE]), stdin=pipe, stdout=pipe, stderr=nothing, text=True)
    try:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("the server has no pipes")
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError("the S3 server did not start")
        yield S3Server(int(port), process)
    finally:
        process.kill()
        process.wait(60)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
