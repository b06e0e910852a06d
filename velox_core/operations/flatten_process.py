"""`velox flatten` as a process of its own, seen from outside: started by a flow or a page, followed, never owned.

- It runs in its own session: what becomes of its starter changes nothing, and nothing here ends it.
- What it tells on the way and what it came to are two files below `var/output`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from velox_core.domain.errors import EXIT_DONE, EXIT_NOT_FLAT, NotFlatError, VeloxError
from velox_core.domain.money import rupees_display
from velox_core.operations.log_tail import last_lines
from velox_core.settings import Paths

LINES_SHOWN: Final = 30
WAY_LINES_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenCommand:
    """What is to be flattened; absent values are the command's own."""

    config: Path
    reason: str
    by: str
    on: str = ""
    run_id: str = ""

    def arguments(self) -> list[str]:
        """Return the command line, after the interpreter; whatever somebody wrote in a hurry is a text, never an option."""
        arguments = ["-m", "velox_core.cli", "flatten", "--yes", "--json"]
        told = (("--config", str(self.config)), ("--reason", self.reason), ("--by", self.by))
        chosen = tuple(pair for pair in (("--date", self.on), ("--run", self.run_id)) if pair[1])
        return [*arguments, *(f"{option}={_as_value(value)}" for option, value in (*told, *chosen))]


def _as_value(text: str) -> str:
    """Return a text as an option's value: without the byte that no argument may have, and none that argparse drops."""
    return " --" if text == "--" else text.replace("\0", " ")


class FlattenProcess:
    """One `velox flatten` that was started here. `told` and `answer` are the files that it writes."""

    def __init__(self, process: subprocess.Popen[bytes], told: Path, answer: Path) -> None:
        self.pid = process.pid
        self.told = told
        self.answer = answer
        self._process = process
        self._read = 0

    def exit_code(self) -> int | None:
        """Return the exit code, None while it works; negative when a signal ended it."""
        return self._process.poll()

    def news(self) -> list[str]:
        """Return the sentences that it told since the last call."""
        try:
            with self.told.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except OSError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode("utf-8", "replace").splitlines()

    def report(self) -> dict[str, Any]:
        """Return what it came to, empty while it has not said."""
        try:
            found = json.loads(self.answer.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def failure(self) -> VeloxError | None:
        """Return the error that its end stands for, None when it is FLAT."""
        code = self.exit_code()
        if code == EXIT_DONE:
            return None
        if code == EXIT_NOT_FLAT:
            return NotFlatError(str(self.report().get("message") or "the account is NOT FLAT"))
        said = " ".join(last_lines(self.told, LINES_SHOWN)).removeprefix("velox: ")
        ended = "has not ended" if code is None else f"ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
        error = VeloxError(f"velox flatten {ended}, so nobody has proven the account flat: {said or 'it said nothing'}")
        error.exit_code = code if code is not None and code > 0 else 1
        return error


def start_flatten(
    paths: Paths, command: FlattenCommand, environ: Mapping[str, str], *, interpreter: Sequence[str] = (sys.executable,)
) -> FlattenProcess:
    """Start it in a session of its own. Raises VeloxError when it cannot be started.

    Args:
        paths: below `var/output` its files lie.
        command: what is flattened.
        environ: of the process.
        interpreter: begins the command line.
    """
    folder = paths.var / "output"
    name = f"flatten-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    told, answer = folder / f"{name}.log", folder / f"{name}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with told.open("wb") as progress, answer.open("wb") as result:
            process = subprocess.Popen(
                [*interpreter, *command.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=progress,
                start_new_session=True,
                env=dict(environ),
            )
    except OSError as error:
        raise VeloxError(f"velox flatten cannot be started: {error}. Run it by hand: velox flatten --reason ...") from error
    return FlattenProcess(process, told, answer)


def report_markdown(report: Mapping[str, Any], told: Sequence[str] = ()) -> str:
    """Return the report of a flattening for the UI.

    Args:
        report: as `velox flatten --json` prints it.
        told: what it told on the way, oldest first: how each position came to zero.
    """
    symbols = report.get("symbols") or []
    rows = [
        f"| {line['symbol']} | {line['held_before']} | {line['held']} | {line['outcome']} | {_cell(str(line['text']))} |"
        for line in symbols
    ]
    header = ["| symbol | before | now | outcome | how |", "|---|---:|---:|---|---|"]
    head = [f"# {str(report.get('state', 'unknown')).replace('_', ' ')}", "", str(report.get("message", "")), ""]
    return "\n".join(
        [
            *head,
            "## Positions",
            "",
            *([*header, *rows] if rows else ["Nothing was open."]),
            "",
            "## Proof",
            "",
            *_proof(report),
            "",
            "## The way to zero",
            "",
            *(_way(told) or ["It told nothing on the way."]),
        ]
    )


def _proof(report: Mapping[str, Any]) -> list[str]:
    """Return who says that it is flat or why nobody does, under which halt, and what was not reached."""
    flat = report.get("flat") is True
    started, ended = report.get("started_ms"), report.get("ended_ms")
    span = f" {(ended - started) / 1_000:.1f} s after it began" if isinstance(started, int) and isinstance(ended, int) else ""
    said = (
        f"The broker's own book shows nothing held and nothing working{span}." if flat else f"NOT FLAT: {report.get('reason')}."
    )
    loss = report.get("loss_paise")
    lines = [f"- {said}", f"- Closed by: {report.get('closed_by', 'nobody')}."]
    if isinstance(loss, int):
        lines.append(f"- The day's P&L after it, charges included: {rupees_display(-loss)}.")
    stands = "" if report.get("halt_stands", True) else ", which stands in no store"
    lines.append(f"- Halt: {report.get('halt_id', 'none')}{stands}.")
    lines += [f"- not reached: {store}" for store in report.get("not_latched") or []]
    for key, what in (("not_recalled", "not all known of what was sent before"), ("not_imported", "not in the journal yet")):
        lines += [f"- {what}: {report[key]}"] if report.get(key) else []
    return lines


def _way(told: Sequence[str]) -> list[str]:
    left_out = len(told) - WAY_LINES_MAX
    more = [f"1. ({left_out} sentences are left out; all are in the run's log)"] if left_out > 0 else []
    return [*more, *(f"1. {_cell(sentence)}" for sentence in told[-WAY_LINES_MAX:])]


def _cell(text: str) -> str:
    """Return text that markdown shows as it is, on one line."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
