"""The courier: a process that delivers one channel's messages by apprise. Run as `python -m velox_core.alerts.courier`.

- apprise takes seconds to import and holds the interpreter meanwhile; here it keeps no trading thread from running, and a
  delivery that hangs can be killed.
- One JSON object a line on stdin, one on stdout. The first line has the channel's URL, which therefore stands in no
  argument list; the answer is `{"why": ""}`, or why the URL cannot be used. Then messages: `title`, `body`, `kind`.
- `why` is put together from known words and a status number. What apprise says may hold the URL, so it is never passed on.
- Ends when stdin ends, or by itself after `LIFE_AFTER_LINE_SECONDS` in one delivery.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from typing import Any, TextIO

SOCKET_SECONDS = 4.0  # to connect, and to read; apprise's own default is the same
PAUSE_SECONDS_MAX = 1.0  # between two messages; apprise sleeps up to 5.5 s
LIFE_AFTER_LINE_SECONDS = 60
_STATUS = re.compile(r"error=([0-9]{3})(?![0-9])")


class _Heard(logging.Handler):
    """Keeps what apprise logs during one delivery, for `reason` alone."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.lines.append(record.getMessage())


def reason(lines: list[str]) -> str:
    """Return why a delivery failed, in words that cannot hold a secret."""
    text = "\n".join(lines)
    status = _STATUS.search(text)
    if status is not None:
        return f"the service answered with status {status[1]}"
    if "timed out" in text.lower() or "timeout" in text.lower():
        return "the service did not answer in time"
    if "onnection" in text or "ocket" in text:
        return "the service could not be connected to"
    return "the service did not take it"


def open_channel(url: str) -> Any:
    """Return apprise's sender for a URL, or None when apprise does not understand it."""
    import apprise  # seconds: only here

    channel = apprise.Apprise.instantiate(url)
    if channel is None:
        return None
    channel.socket_connect_timeout = channel.socket_read_timeout = SOCKET_SECONDS
    channel.request_rate_per_sec = min(channel.request_rate_per_sec, PAUSE_SECONDS_MAX)
    sender = apprise.Apprise()
    sender.add(channel)
    return sender


def deliver(channel: Any, heard: _Heard, message: dict[str, str]) -> str:
    """Send one message. Returns '' or why it failed. A module of apprise that raises ends the process."""
    heard.lines.clear()
    done = channel.notify(body=message["body"], title=message["title"], notify_type=message["kind"], body_format="text")
    return "" if done else reason(heard.lines)


def main() -> None:
    """Serve one channel until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever else prints must not be taken for an answer
    heard = _Heard()
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(heard)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    serve(sys.stdin, answers, heard)


def serve(lines: TextIO, answers: TextIO, heard: _Heard) -> None:
    """Answer each line. The first one opens the channel."""
    channel = None
    for line in lines:
        signal.alarm(LIFE_AFTER_LINE_SECONDS)
        message = json.loads(line)
        if "url" in message:
            channel = open_channel(message["url"])
            why = "" if channel is not None else "apprise does not understand its URL"
        else:
            why = deliver(channel, heard, message)
        answers.write(json.dumps({"why": why}) + "\n")
        answers.flush()
        signal.alarm(0)


if __name__ == "__main__":
    main()
