"""`velox run --standby`: what an engine imports is imported, then the order is waited for; see `operations.engine_standby`.

Not for people: without a socket as its input it ends at once.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
import time
from contextlib import suppress
from typing import Final

from velox_core.domain.errors import EXIT_BAD_USAGE, EXIT_DONE
from velox_core.operations.engine_standby import receive_order

ENGINE_MODULES: Final = ("velox_core.cli.app", "velox_core.cli.run", "velox_core.settings.reader", "pyarrow.csv")


def stand_by() -> int | None:
    """Get ready, wait, and become what the order says, up to its command line. Returns the exit code when nothing is to run."""
    try:
        channel = socket.socket(fileno=os.dup(0))
    except OSError:
        sys.stderr.write("velox: --standby is for the process of a flow; use velox run\n")
        return EXIT_BAD_USAGE
    gc.disable()  # what is imported stays
    with suppress(Exception):  # what cannot be imported is told by the command, where it can be read
        for name in ENGINE_MODULES:
            importlib.import_module(name)
        from velox_core.cli.app import command_line

        command_line()
    gc.enable()
    with channel:
        order = receive_order(channel)
    if order is None:
        return EXIT_DONE
    os.environ.clear()
    os.environ.update(order.environ)
    time.tzset()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (order.output, 1), (order.output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(order.output)
    sys.argv[1:] = order.arguments
    return None
