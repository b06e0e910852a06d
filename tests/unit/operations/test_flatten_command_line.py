"""The command line of a flatten that a form or an automation asked for: no text in it makes the command refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from velox_core.cli.flatten import _parser
from velox_core.operations.flatten_process import FlattenCommand


@pytest.mark.parametrize("text", ["-2150", "--panic", "-", "--", "-2%!", "", "loss\nof the day", "a\0b", "--yes=no"])
def test_whatever_is_written_as_reason_and_name_is_taken(text: str) -> None:
    command = FlattenCommand(config=Path("a b.yaml"), reason=text, by=text, on="2024-01-15", run_id="2024-01-15-1")
    arguments = command.arguments()
    assert arguments[:3] == ["-m", "velox_core.cli", "flatten"]
    chosen = _parser().parse_args(arguments[3:])
    assert chosen.reason.strip() == chosen.by.strip() == text.replace("\0", " ")
    assert (chosen.config, str(chosen.date), chosen.run, chosen.yes) == (Path("a b.yaml"), "2024-01-15", "2024-01-15-1", True)
    assert not any("\0" in argument for argument in arguments)
