"""The commands about backups and journals, from the line to the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.fakes.journals import RUN_ID, day_events, tamper, write_journal
from velox_core.cli.app import app
from velox_core.domain.errors import VeloxError

ROOT = Path(__file__).resolve().parents[3]
Invoke = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VELOX__VAR", str(tmp_path / "var"))
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "var" / "replay" / "primary" / RUN_ID
    write_journal(folder / "journal.db")
    return folder


@pytest.fixture
def velox(run: Path) -> Invoke:
    config = str(ROOT / "config" / "system_simulated.yaml")

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments, "--config", config])

    return invoke


def test_backup_is_taken_listed_verified_and_restored(velox: Invoke, run: Path, tmp_path: Path) -> None:
    assert velox("backups", "list").output == "none yet\n"
    taken = velox("backup")  # of the newest run
    assert taken.exit_code == 0
    assert taken.output.startswith("2024-01-15: verified, ")
    assert "every day on record has a good backup" in velox("backup", "--missing").output
    assert "good" in velox("backups", "list").output
    (listed,) = json.loads(velox("backups", "list", "--json").output)
    assert (listed["name"], listed["good"]) == ("2024-01-15", True)
    assert velox("backups", "verify").output.startswith("ok      2024-01-15")
    (run / "journal.db").unlink()
    assert "Would be restored" in velox("restore", "--date", "2024-01-15", "--dry-run").output
    assert "Restored: 2024-01-15" in velox("restore", "--date", "2024-01-15").output
    elsewhere = velox("restore", "--date", "2024-01-15", "--to", str(tmp_path / "copy"), "--json")
    assert json.loads(elsewhere.output)["done"] is True
    other = json.loads(velox("backup", "--date", "2024-01-15", "--to", str(tmp_path / "disk"), "--json").output)
    assert other["destinations"][0]["place"].startswith(str(tmp_path / "disk"))
    assert velox("backups", "verify", str(tmp_path / "disk"), "--json").exit_code == 0


def test_backup_that_is_damaged_ends_verify_with_one(velox: Invoke, tmp_path: Path) -> None:
    velox("backup")
    (file,) = (tmp_path / "var" / "backups").rglob("journal.db.zst")
    file.write_bytes(file.read_bytes()[:-1])
    verified = velox("backups", "verify")
    assert verified.exit_code == 1
    assert verified.output.startswith("NOT OK  2024-01-15")
    assert velox("backup", "--missing", "--date", "2024-01-15").exit_code == 2
    with pytest.raises(VeloxError, match="there is no good backup of 2024-01-16"):
        raise velox("restore", "--date", "2024-01-16").exception


def test_journal_verify_names_what_was_changed_and_ends_with_one(velox: Invoke, run: Path) -> None:
    whole = velox("journal", "verify")
    assert whole.exit_code == 0
    assert f"ok      {RUN_ID}" in whole.output
    head = json.loads(velox("journal", "head", "--date", "2024-01-15", "--json").output)["head"]
    assert len(head) == 64
    assert velox("journal", "head", "--date", "2024-01-16").exit_code == 1
    tamper(run / "journal.db", "UPDATE event SET body = '{}' WHERE sequence = 4")
    changed = velox("journal", "verify", "--json", "--date", "2024-01-15")
    assert changed.exit_code == 1
    (finding,) = json.loads(changed.output)["journals"]
    assert (finding["run"], finding["sequence"], finding["problem"]) == (RUN_ID, 4, "event 4 was edited")
    assert "NOT OK  2024-01-15-1: event 4 was edited" in velox("journal", "verify").output


def test_journal_verify_knows_the_heads_that_backups_and_summaries_noted(velox: Invoke, run: Path) -> None:
    velox("backup")
    tables = ("event", "halt", "decision", "intent", "order_event", "fill", "exit_plan")
    tamper(run / "journal.db", *(f"DELETE FROM {table}" for table in tables))
    cut = velox("journal", "verify")
    assert cut.exit_code == 1
    assert f"events 1 to {len(day_events())}, which were noted elsewhere, are missing" in cut.output
    tamper(run / "journal.db", "DELETE FROM run")
    assert "the run, which was noted elsewhere, is missing" in velox("journal", "verify", "--run", RUN_ID).output
    (file,) = (run.parents[2] / "backups").rglob("manifest.json")
    file.unlink()
    assert velox("journal", "verify").exit_code == 0
    noted = {"scope_key": f"simulated:primary:{RUN_ID}", "trading_date": "2024-01-15", "run_id": RUN_ID, "digest": "d"}
    (run / "summary.json").write_text(json.dumps({"journal_head": {**noted, "events": 3}}))
    assert velox("journal", "verify").exit_code == 1


def test_journal_that_cannot_be_read_and_a_damaged_emergency_file_are_findings(velox: Invoke, run: Path) -> None:
    (run / "emergency.jsonl").write_bytes(b'[1,2,"MARK",{}]\n#' + b"0" * 64 + b"\n")
    damaged = velox("journal", "verify")
    assert damaged.exit_code == 1
    assert "emergency.jsonl: event 1 was edited, removed or damaged" in damaged.output
    (run / "journal.db").write_bytes(b"no database")
    assert "is not a journal" in velox("journal", "verify").output


def test_journal_of_an_older_revision_is_migrated_and_its_chain_is_whole(velox: Invoke, run: Path) -> None:
    columns = ("approved_by", "approval_note", "approved_wall_ms")
    tamper(
        run / "journal.db",
        "DROP TABLE approval",
        *(f"ALTER TABLE day_pass DROP COLUMN {column}" for column in columns),
        "UPDATE alembic_version SET version_num = '0003'",
    )
    assert f"ok      {RUN_ID}" in velox("journal", "verify").output


def test_what_is_no_backup_is_listed_with_its_host_age_and_size_and_how_to_remove_it(velox: Invoke, tmp_path: Path) -> None:
    velox("backup")
    left = tmp_path / "var" / "backups" / "simulated" / "primary" / ".partial-2024-01-14.nas-0123abcd~0"
    left.mkdir()
    (left / "part").write_bytes(bytes(1_500_000))
    listed = velox("backups", "list")
    assert listed.exit_code == 0
    told = " ".join(listed.output.split())
    assert "No backups: under way, or left of one that was killed" in told
    assert "nas-0123abcd" in told
    assert "0.0 h ago 1.5 MB" in told
    assert "rm -r" in told
    _, unfinished = json.loads(velox("backups", "list", "--json").output)
    assert (unfinished["unfinished"]["made_by"], unfinished["unfinished"]["bytes"]) == ("nas-0123abcd", 1_500_000)


def test_missing_brings_a_good_backup_to_the_place_that_lacks_it(run: Path, tmp_path: Path) -> None:
    text = (ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")
    text = text.replace("data/tcs_2024-01-15.csv", str(ROOT / "data" / "tcs_2024-01-15.csv"))
    config = tmp_path / "system.yaml"
    far = tmp_path / "far"
    far.write_text("in the way")
    config.write_text(f"{text.rstrip()}\n\n  backup: {{copies: ['{far}']}}\n", encoding="utf-8")

    def velox(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments, "--config", str(config)])

    first = json.loads(velox("backup", "--json").output)
    assert [place["is_there"] for place in first["destinations"]] == [True, False]
    far.unlink()
    (brought,) = json.loads(velox("backup", "--missing", "--json").output)
    assert (brought["name"], brought["good"]) == (first["name"], True)
    assert [path.name for path in (far / "simulated" / "primary").iterdir()] == [first["name"]]
    assert velox("backup", "--missing").output == "every day on record has a good backup in every place\n"
    config.write_text(config.read_text().replace(str(far), "sftp://nobody@127.0.0.1:1/velox"))
    unknown = velox("backup", "--missing")
    assert unknown.exit_code == 1
    assert unknown.output.startswith("what it lacks is not known: cannot read sftp://nobody@127.0.0.1:1/velox")
