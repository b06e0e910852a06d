"""The outermost frame of the command line: turns every failure into one message and an exit code."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import traceback
from contextlib import suppress

from velox_core.domain.errors import EXIT_OPERATING_ERROR, VeloxError

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit."""
    try:
        if sys.argv[1:2] == ["flatten"]:  # in an emergency nothing is imported that it can do without
            from velox_core.cli.flatten import flatten

            sys.exit(flatten(sys.argv[2:]))
        if sys.argv[1:] == ["run", "--standby"]:  # a flow's, see `operations.engine_standby`
            from velox_core.cli.standby import stand_by

            ended = stand_by()
            if ended is not None:
                sys.exit(ended)
        from velox_core.cli.app import command_line

        command_line()(prog_name="velox")
    except VeloxError as error:
        _say(f"velox: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("velox: interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # the reader of our output went away (`velox status | head`): not an error of ours, but never the end of a flattening
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_OPERATING_ERROR if sys.argv[1:2] == ["flatten"] else 0)
    except Exception as error:  # the outermost frame: a bug is told in one line and kept for its report
        _say(f"velox: internal error, {type(error).__name__}: {error}\nThis is a bug. Its details are in {_keep_traceback()}")
        sys.exit(EXIT_OPERATING_ERROR)
    finally:
        gc.freeze()  # the process ends: to look once more through all that it imported takes up to half a second


def _say(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # nobody may be there to read it; the exit code counts
        sys.stderr.write(text + "\n")


def _keep_traceback() -> str:
    with tempfile.NamedTemporaryFile("w", prefix="velox-error-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(traceback.format_exc())
    return file.name
