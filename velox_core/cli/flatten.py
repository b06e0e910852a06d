"""`velox flatten`: parsed without the other commands' parser, so that little is imported before the broker is asked.

- Asks for a typed word, unless --yes is given.
- Exit codes: 0 FLAT, 4 NOT FLAT, 1 nothing could be done, 2 bad usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Final, TextIO

from velox_core.control import FileControl
from velox_core.domain.errors import EXIT_BAD_USAGE, VeloxError
from velox_core.domain.money import rupees_text

WORD: Final = "FLATTEN"
BOUND_SECONDS_MAX: Final = 3_600.0


def flatten(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code. Raises VeloxError, and SystemExit for bad usage."""
    chosen = _parser().parse_args(arguments)
    from velox_core.operations.flatten import flatten_run, run_to_flatten
    from velox_core.settings import load_settings, paths

    settings = load_settings(chosen.config, os.environ)
    folders = paths(os.environ, settings.root)
    recorded = run_to_flatten(settings, folders, on=chosen.date, run_id=chosen.run)
    if not chosen.yes:
        _ask(settings.account, recorded.run.run_id, _known(recorded.folder, recorded.trading_date))
    stream = sys.stderr if chosen.json else sys.stdout

    def tell(sentence: str) -> None:
        _print(sentence, stream)

    report = flatten_run(settings, folders, recorded, reason=chosen.reason, by=chosen.by, tell=tell, bound_seconds=chosen.wait)
    if chosen.json:
        import json

        _print(json.dumps(report.to_json(), ensure_ascii=False, indent=2), sys.stdout)
    else:
        _print("\n".join([*report.sentences[1:], "done"]), sys.stdout)  # the first was told before the slow part
    return report.exit_code


def _print(text: str, stream: TextIO | None) -> None:
    """Print to a stream that may be closed, full or without a reader: the exit code says what came of it all the same."""
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except OSError:
        # what stays in its buffer would fail again when Python ends, and change the exit code
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except ValueError:  # it was closed
        pass


def _known(folder: Path, on: date) -> str:
    """Return what the run's engine said last, a line for people to decide by; only the date when it said nothing."""
    status = FileControl(folder).status() or {}
    lines = status.get("positions")
    held = [line for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
    shown = ", ".join(f"{line.get('quantity')} {line.get('symbol')}" for line in held) or "nothing"
    if not status:
        return f"{on}: no engine has said anything.\n"
    net = status.get("net_paise")
    gained = f", P&L {rupees_text(net)}" if isinstance(net, int) else ""
    return f"{on}, last said by the engine: {status.get('state', 'state unknown')}, open {shown}{gained}.\n"


def _ask(account: str, run_id: str, known: str) -> None:
    """Have the word typed. Raises VeloxError when it is not."""
    is_there = sys.stdin is not None and sys.stdin.isatty()
    sys.stderr.write(
        f"This closes every position of account {account}, run {run_id}, and halts it. "
        "An engine that hangs is killed.\n"
        f"{known}Entries stay refused afterwards; `velox reset` lets it trade again.\nType {WORD} to do it: "
    )
    sys.stderr.flush()
    if sys.stdin is None or sys.stdin.readline().strip() != WORD:
        asked = "" if is_there else "no terminal: give --yes. "
        error = VeloxError(f"{asked}{WORD} was not typed: nothing was done (--yes does not ask)")
        sys.stderr.write("\n")
        error.exit_code = EXIT_BAD_USAGE
        raise error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="velox flatten",
        description="Halt the account and close every position of the day's product, now, engine or not. "
        "An engine that hangs is killed.",
        epilog="Of the run that an engine trades, else of the newest. Exit code 0 FLAT, 4 NOT FLAT.",
        allow_abbrev=False,
    )
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why, kept in the record")
    parser.add_argument("--by", default="command line", metavar="NAME", help="who asks (default: command line)")
    parser.add_argument("--yes", action="store_true", help=f"do not ask for the word {WORD}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (default: config/system_simulated.yaml)")
    parser.add_argument("--date", type=_date, metavar="YYYY-MM-DD", help="the newest run of this date")
    parser.add_argument("--run", metavar="ID", help="this run, e.g. 2024-01-15-1")
    parser.add_argument("--wait", type=_seconds, default=180.0, metavar="SECONDS", help="give up after so long (default: 180)")
    parser.add_argument("--json", action="store_true", help="print JSON; progress goes to stderr")
    return parser


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date; write it as 2024-01-15") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= BOUND_SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {BOUND_SECONDS_MAX:.0f}")
    return seconds
