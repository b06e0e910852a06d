"""The metrics in a day's backup: the server's own backup, what is done instead, and how each goes back."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import re
import shlex
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.fakes import influx2 as fake
from tests.fakes.http_server import Reply, Request, Served, serving
from tests.fakes.influx2 import Influx2
from tests.fakes.journals import DAY, RUN_ID, day_events, write_journal
from tests.fakes.metrics import mark
from velox_core.backup import influx2, make, room
from velox_core.backup.influx2_files import missing_files
from velox_core.backup.manifest import BackupError, Part, read_manifest
from velox_core.backup.naming import MANIFEST_FILE
from velox_core.backup.room import size_of_folder
from velox_core.cli.app import app
from velox_core.domain.events import EventKind
from velox_core.journal.run import RunIdentity
from velox_core.operations.backup import BackupOutcome, backup_day, restore
from velox_core.operations.backup_places import verify_backups
from velox_core.operations.day import Day, DayRequest
from velox_core.operations.eod_record import StepResult, StepState
from velox_core.operations.eod_steps import STEPS
from velox_core.operations.evening import open_evening, run_step
from velox_core.operations.metrics import backfill
from velox_core.operations.recorded import find_run
from velox_core.settings import Paths, Settings, load_settings

Load = Callable[..., Settings]
METADATA, QUERY = "/api/v2/backup/metadata", "/api/v2/query"
RUN_FOLDER = f"replay/primary/{RUN_ID}"
CSV = "#datatype,string,long\r\n#group,false,false\r\n#default,_result,\r\n,result,table,_value\r\n,,0,1\r\n,,0,2\r\n\r\n"
JOURNAL = f"{RUN_FOLDER}/journal.db.zst"


@pytest.fixture
def run(paths: Paths) -> Path:
    """Return the folder of a run with a journal that has points of each kind, and the limit that it traded by."""
    folder = paths.var / RUN_FOLDER
    events = [(kind, mark(7) if kind is EventKind.MARK else body) for kind, body in day_events(3)]
    write_journal(folder / "journal.db", events=events)
    (folder / "status.json").write_text('{"loss_limit_paise": 4242}', encoding="utf-8")
    return folder


@pytest.fixture
def influx() -> Influx2:
    return Influx2()


@pytest.fixture
def served(influx: Influx2) -> Iterator[Served]:
    with serving(influx) as server:
        yield server


@pytest.fixture
def configured(settings_with: Load) -> Callable[..., Settings]:
    """Load a configuration whose metrics go to an address."""

    def load(url: str, *, flavour: str = "auto", token: str = fake.TOKEN) -> Settings:
        place = f'enabled: true, url: "{url}", org: {fake.ORG}, bucket: {fake.BUCKET}, flavour: {flavour}'
        source = settings_with(f"\n  metrics: {{influxdb: {{{place}}}}}\n").source
        return load_settings(source, {"VELOX__METRICS__INFLUXDB__TOKEN": token})

    return load


def stored(paths: Paths) -> Path:
    return paths.var / "backups" / "simulated" / "primary"


def metrics_parts(outcome: BackupOutcome) -> dict[str, Part]:
    return {part.path: part for part in outcome.manifest.parts if part.path.startswith("metrics/")}


def wanted_layout(influx: Influx2) -> dict[str, bytes]:
    shards = {f"{number}.tar": influx.shards[number] for number in (4, 5, 6)}
    return {"bolt": influx.files["kv"], "sqlite": influx.files["sql"], **shards}


# -- InfluxDB 2's own backup ---------------------------------------------------------------------------------------


def test_buckets_backup_is_in_the_days_and_is_verified_with_it(
    run: Path, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    settings = configured(served.url)
    outcome = backup_day(settings, paths, DAY)
    assert (outcome.name, outcome.good, outcome.exit_code) == ("2024-01-15", True, 0)
    assert len(metrics_parts(outcome)) == 6
    (words,) = [text for text in outcome.sentences if text.startswith("InfluxDB's own backup")]
    assert "bucket metrics (3 shards); that server's users and tokens are in it" in words
    (verdict,) = verify_backups(settings, paths)
    assert verdict.problems == ()
    assert list(stored(paths).glob("*/metrics/day*")) == []


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_server_that_refuses_after_it_gave_files_leaves_all_of_them_out(
    status: int, run: Path, influx: Influx2, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    del influx.shards[5]  # so it is asked again whether that one is gone

    def rule(request: Request) -> Reply:
        if [each.path for each in served.requests].count(METADATA) > 1 and request.path == METADATA:
            return Reply(status=status, body=fake.NOT_ALLOWED, headers=fake.JSON)
        return Reply(status=200, body=CSV) if request.path.startswith(QUERY) else influx(request)

    served.rule = rule
    outcome = backup_day(configured(served.url), paths, DAY)
    assert metrics_parts(outcome) == {}
    assert list(stored(paths).glob("*/metrics/**/*.zst")) == []
    (left_out,) = outcome.manifest.without
    assert left_out.startswith("metrics/day: the server lacks shard 5, and refuses to say whether it is gone: ")
    assert (outcome.name, outcome.manifest.good, outcome.exit_code) == ("2024-01-15", True, 1)


def test_files_of_influx_without_its_manifest_are_told(
    run: Path, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    parts = backup_day(configured(served.url), paths, DAY).manifest.parts
    assert missing_files(parts) == []
    kept = [part for part in parts if not part.path.endswith(".manifest.zst")]
    told = missing_files(kept)
    assert len(told) == 5
    assert all(text.startswith("metrics/influxdb/") and "InfluxDB's manifest is missing" in text for text in told)


@pytest.mark.parametrize("ending", ["bolt", "sqlite", "4.tar", "6.tar", "manifest"])
def test_one_flipped_bit_and_a_file_that_is_gone_are_found(
    ending: str, run: Path, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    settings = configured(served.url)
    backup_day(settings, paths, DAY)
    (file,) = stored(paths).glob(f"*/metrics/influxdb/*.{ending}.zst")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x04
    file.write_bytes(content)
    (verdict,) = verify_backups(settings, paths)
    (problem,) = verdict.problems
    assert problem.startswith(f"metrics/influxdb/{file.name}: ")
    file.unlink()
    (verdict,) = verify_backups(settings, paths)
    (problem,) = verdict.problems
    assert problem.startswith(f"metrics/influxdb/{file.name}: ")


def test_shard_that_the_backups_manifest_does_not_have_is_missed(
    run: Path, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    settings = configured(served.url)
    made = backup_day(settings, paths, DAY).manifest
    parts = list(made.parts)
    assert missing_files(parts) == []
    (shard,) = [part for part in parts if part.path.endswith(".5.tar.zst")]
    assert missing_files([part for part in parts if part is not shard]) == [
        f"{shard.path}: it is missing, though InfluxDB's manifest names it"
    ]
    smaller = replace(shard, content_bytes=shard.content_bytes - 512)
    assert missing_files([smaller if part is shard else part for part in parts]) == [
        f"{shard.path}: its size is not the one that InfluxDB's manifest names"
    ]
    without = replace(made, parts=tuple(part for part in parts if part is not shard))
    (stored(paths) / made.name / MANIFEST_FILE).write_bytes(without.encoded())
    (verdict,) = verify_backups(settings, paths)
    assert verdict.problems == (f"{shard.path}: it is missing, though InfluxDB's manifest names it",)


def test_restore_lays_the_files_out_for_influx_restore_and_says_the_command(
    run: Path, influx: Influx2, served: Served, configured: Callable[..., Settings], paths: Paths, tmp_path: Path
) -> None:
    settings = configured(served.url)
    backup_day(settings, paths, DAY)
    target = tmp_path / "there"
    outcome = restore(settings, paths, DAY, to=str(target))
    folder = target / "metrics" / "influxdb"
    (manifest,) = folder.glob("*.manifest")
    stamp = manifest.name.removesuffix(".manifest")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path != manifest} == {
        f"{stamp}.{ending}": content for ending, content in wanted_layout(influx).items()
    }
    body = json.loads(manifest.read_text())
    assert body["kv"] == {"fileName": f"{stamp}.bolt", "size": len(influx.files["kv"]), "compression": 0}
    command = shlex.join(
        ["influx", "restore", "--host", served.url, "--token", "TOKEN", "--org", "velox", "--bucket", "metrics", str(folder)]
    )
    (words,) = outcome.metrics
    assert words.startswith(f"Metrics: {command} (into a bucket that is not there")
    in_place = restore(settings, paths, DAY, dry_run=True)
    assert "metrics backfill --config" in in_place.metrics[0]
    assert "restore --config" in in_place.metrics[0]
    assert not any("metrics" in str(step.target) for step in in_place.steps)
    shown = CliRunner().invoke(
        app, ["restore", "--config", str(settings.source), "--date", "2024-01-15", "--to", str(tmp_path / "x"), "--dry-run"],
        env={"VELOX__VAR": str(paths.var)},
    )  # fmt: skip
    assert "Metrics: influx restore --host" in shown.stdout, shown.output


def test_server_that_breaks_off_in_the_middle_leaves_nothing_of_it_and_the_rest_is_good(
    run: Path, influx: Influx2, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    influx.instead["/api/v2/backup/shards/5"] = Reply(status=200, body=influx.shards[5][:5_000], tears=True)
    settings = configured(served.url)
    outcome = backup_day(settings, paths, DAY)
    assert (outcome.name, outcome.manifest.good, outcome.exit_code) == ("2024-01-15", True, 1)
    (without,) = outcome.manifest.without
    assert without.startswith(f"metrics/day: the metrics server at {served.url} breaks off")
    assert any(f"without (it is made anew from the journal): {without}" == text for text in outcome.sentences)
    assert JOURNAL in {part.path for part in outcome.manifest.parts}
    assert [path for path in stored(paths).rglob("*.zst") if "influxdb" in str(path)] == []
    (verdict,) = verify_backups(settings, paths)
    assert verdict.problems == ()


def test_file_that_does_not_come_back_takes_the_others_with_it(
    run: Path, influx: Influx2, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    influx.files["sql"] = influx.files["sql"][:4096] + b"\xff" * 4096 + influx.files["sql"][8192:]
    outcome = backup_day(configured(served.url), paths, DAY)
    (without,) = outcome.manifest.without
    assert without.startswith("metrics/day: metrics/influxdb/")
    assert ".sqlite.zst: SQLite finds it damaged" in without
    assert [path for path in stored(paths).rglob("*.zst") if "influxdb" in str(path)] == []


def test_disk_that_has_no_room_for_the_bucket_keeps_room_for_the_rest(
    run: Path, served: Served, configured: Callable[..., Settings], paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = configured(served.url)
    with monkeypatch.context() as patch:
        patch.setattr(influx2, "ROOM_KEPT_BYTES", 1 << 60)
        near = backup_day(settings, paths, DAY)

    def full(server: object, content: object, target: Path) -> None:
        target.write_bytes(b"as far as it went")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(influx2._Server, "_write", full)
        reached = backup_day(settings, paths, DAY)
    for outcome, said in ((near, "MB free, InfluxDB's backup needs"), (reached, "has no room for it: free some space")):
        assert (outcome.manifest.good, outcome.exit_code) == (True, 1)
        (without,) = outcome.manifest.without
        assert without.startswith("metrics/day: ")
        assert said in without
        assert JOURNAL in {part.path for part in outcome.manifest.parts}
        assert metrics_parts(outcome) == {}


# -- instead of it -------------------------------------------------------------------------------------------------


def test_token_that_may_not_back_up_gets_the_days_points_and_that_is_said(
    run: Path, influx: Influx2, served: Served, configured: Callable[..., Settings], paths: Paths, tmp_path: Path
) -> None:
    influx.instead[METADATA] = Reply(status=401, body=fake.NOT_ALLOWED, headers=fake.JSON)
    influx.instead[QUERY] = Reply(status=200, body=CSV)
    settings = configured(served.url)
    outcome = backup_day(settings, paths, DAY)
    (part,) = metrics_parts(outcome).values()
    assert (part.path, part.notes["points"], outcome.exit_code) == ("metrics/day.zst", 2, 0)
    said = str(part.notes["instead"])
    assert said.startswith("no backup of the bucket: the token may not back up (401")
    assert "create an operator token" in said
    assert said.endswith(". The day's points were exported instead")
    assert f"metrics: {said}" in outcome.sentences
    kept = read_manifest((stored(paths) / outcome.name / MANIFEST_FILE).read_bytes(), "it")
    assert [each.notes["instead"] for each in kept.parts if each.path == part.path] == [said]
    assert fake.TOKEN not in json.dumps(outcome.to_json())
    target = tmp_path / "there"
    (words,) = restore(settings, paths, DAY, to=str(target)).metrics
    assert words.endswith(f"--token TOKEN --format csv --file {target}/metrics/day")
    assert (target / "metrics" / "day").read_bytes() == CSV.encode()


def sent_by_backfill(settings: Settings, paths: Paths, served: Served) -> list[str]:
    before = len(served.written)
    assert backfill(settings, find_run(settings, paths, on=DAY)).stopped == ""
    return served.written[before:]


def influx3(request: Request) -> Reply:
    if request.path.startswith("/ping"):
        return Reply(status=200, body='{"version":"3.8.0"}', headers={**fake.JSON, "x-influxdb-version": "3.8.0"})
    return Reply() if request.path.startswith("/api/v2/write") else Reply(status=404, body="not found")


@pytest.mark.parametrize("flavour", ["auto", "influx3"])
def test_day_of_influx_3_is_saved_as_the_lines_that_a_backfill_sends(
    flavour: str, run: Path, served: Served, configured: Callable[..., Settings], paths: Paths, tmp_path: Path
) -> None:
    served.rule = influx3
    settings = configured(served.url, flavour=flavour)
    outcome = backup_day(settings, paths, DAY)
    (part,) = metrics_parts(outcome).values()
    assert (part.path, outcome.exit_code) == ("metrics/day.lp.zst", 0)
    assert "InfluxDB 3 has no export of a day's points. The day's points were saved instead" in outcome.sentences[1]
    assert "without what only the running engine knew: the metrics server" in outcome.sentences[1]
    assert "answers no query: 404" in outcome.sentences[1]
    target = tmp_path / "there"
    (words,) = restore(settings, paths, DAY, to=str(target)).metrics
    lines = (target / "metrics" / "day.lp").read_text(encoding="utf-8").splitlines()
    assert lines == sent_by_backfill(settings, paths, served)
    assert part.notes["points"] == len(lines) == 26
    assert all("limit_paise=4242i" in line for line in lines if line.startswith("velox_pnl"))
    assert words == (
        f"Metrics: curl -f -H 'Authorization: Token TOKEN' --data-binary @{target}/metrics/day.lp "
        f"'{served.url}/api/v2/write?org=velox&bucket=metrics&precision=ns'"
    )
    (verdict,) = verify_backups(settings, paths)
    assert verdict.problems == ()


def test_what_only_influx_3_has_of_the_day_stands_behind_the_journals_points(
    run: Path, served: Served, configured: Callable[..., Settings], paths: Paths, tmp_path: Path
) -> None:
    row = {"time": "2024-01-15T03:45:00", "broker": "simulated", "account": "primary", "queue": "alerts", "waiting": 2}

    def rule(request: Request) -> Reply:
        if request.path != "/api/v3/query_sql":
            return influx3(request)
        found = row if "velox_queue" in request.body else {"table_name": "velox_queue"}
        return Reply(status=200, body=json.dumps(found) + "\n")

    served.rule = rule
    settings = configured(served.url)
    outcome = backup_day(settings, paths, DAY)
    (part,) = metrics_parts(outcome).values()
    assert str(part.notes["instead"]).endswith("what only the running engine knew was asked for (1 points)")
    assert part.notes["points"] == 27
    restore(settings, paths, DAY, to=str(tmp_path / "there"))
    *facts, last = (tmp_path / "there" / "metrics" / "day.lp").read_text(encoding="utf-8").splitlines()
    assert facts == sent_by_backfill(settings, paths, served)
    assert last == "velox_queue,account=primary,broker=simulated,queue=alerts waiting=2i 1705290300000000000"
    (verdict,) = verify_backups(settings, paths)
    assert verdict.problems == ()


def test_lines_hold_every_run_of_the_day_and_no_other_day_or_account(
    run: Path, served: Served, configured: Callable[..., Settings], paths: Paths, tmp_path: Path
) -> None:
    served.rule = influx3
    settings = configured(served.url)
    marks = [(EventKind.MARK, mark(5))]
    for run_id, account in (("2024-01-15-2", "primary"), ("2024-01-16-1", "primary"), ("2024-01-15-1", "other")):
        identity = RunIdentity(
            scope_key=f"simulated:{account}:{run_id}",
            trading_date=DAY.replace(day=int(run_id[8:10])),
            run_id=run_id,
            config_hash="c",
        )
        write_journal(paths.var / f"replay/{account}/{run_id}/journal.db", identity, events=marks)
    for account, number, day in (("other", 7, DAY), ("primary", 8, DAY.replace(day=16))):  # as in a journal that is shared
        key = f"simulated:{account}:{day}-{number}"
        write_journal(
            run / "journal.db",
            RunIdentity(scope_key=key, trading_date=day, run_id=f"{day}-{number}", config_hash="c"),
            events=marks,
        )
    (part,) = metrics_parts(backup_day(settings, paths, DAY)).values()
    assert part.notes["runs"] == [f"simulated:primary:{RUN_ID}", "simulated:primary:2024-01-15-2"]
    assert part.notes["points"] == 27


def test_server_that_refuses_everything_is_said_to_and_the_journals_points_are_saved(
    run: Path, influx: Influx2, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    influx.instead[METADATA] = Reply(status=404, body="404 page not found")
    influx.instead[QUERY] = Reply(status=401, body="{}")
    outcome = backup_day(configured(served.url), paths, DAY)
    (part,) = metrics_parts(outcome).values()
    assert (part.path, outcome.exit_code) == ("metrics/day.lp.zst", 0)
    said = str(part.notes["instead"])
    assert "no backup API of InfluxDB 2.1 or newer (404 404 page not found)" in said
    assert "exports nothing: it answers 401" in said


@pytest.mark.parametrize(("flavour", "token"), [("victoria", fake.TOKEN), ("influx2", "t\u00f6ken")])
def test_answer_or_token_of_another_form_leaves_the_metrics_out_and_nothing_else(
    flavour: str, token: str, run: Path, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    served.rule = lambda request: Reply(status=200, body="<html>log in</html>")
    outcome = backup_day(configured(served.url, flavour=flavour, token=token), paths, DAY)
    assert [text.partition(":")[0] for text in outcome.manifest.without] == ["metrics/day"]
    assert (outcome.name, outcome.exit_code, metrics_parts(outcome)) == ("2024-01-15", 1, {})
    assert JOURNAL in {part.path for part in outcome.manifest.parts}


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), TypeError("x"), OverflowError("x"), RecursionError("x")])
def test_trouble_with_metrics_that_nobody_thought_of_leaves_them_out_and_nothing_else(
    error: Exception,
    run: Path,
    served: Served,
    configured: Callable[..., Settings],
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(influx2._Server, "shard", fail)
    outcome = backup_day(configured(served.url), paths, DAY)
    (told,) = outcome.manifest.without
    assert told.startswith(f"metrics/day: what was saved of it has another form than this VELOX reads: {error!r}")
    assert (outcome.name, outcome.exit_code, metrics_parts(outcome)) == ("2024-01-15", 1, {})
    assert JOURNAL in {part.path for part in outcome.manifest.parts}


def test_files_with_a_servers_tokens_are_their_owners_alone(
    run: Path, served: Served, configured: Callable[..., Settings], paths: Paths, tmp_path: Path
) -> None:
    settings = configured(served.url)
    before = os.umask(0o022)
    try:
        backup_day(settings, paths, DAY)
        restore(settings, paths, DAY, to=str(tmp_path / "there"))
    finally:
        os.umask(before)
    for folder in (stored(paths) / "2024-01-15", tmp_path / "there"):
        files = [path for path in (folder / "metrics").rglob("*") if path.is_file()]
        assert len(files) == 6
        assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
        (journal,) = folder.rglob("journal.db*")
        assert oct(journal.stat().st_mode & 0o777) == "0o644"


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC, errno.EEXIST, errno.EIO])
def test_trouble_with_a_file_of_the_metrics_leaves_them_out_and_the_day_is_complete(
    number: int,
    run: Path,
    served: Served,
    configured: Callable[..., Settings],
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(server: object, content: object, target: Path) -> None:
        raise OSError(number, "boom", str(target))

    monkeypatch.setattr(influx2._Server, "_write", fail)
    outcome = backup_day(configured(served.url), paths, DAY)
    assert [text.partition(":")[0] for text in outcome.manifest.without] == ["metrics/day"]
    assert (outcome.name, outcome.manifest.missing, outcome.exit_code) == ("2024-01-15", (), 1)


def test_shard_that_is_listed_twice_is_told_by_its_number(
    run: Path, influx: Influx2, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    influx.buckets = [fake.listed(fake.BUCKET, fake.BUCKET_ID, fake.group(1, 4, 5, 4))]
    outcome = backup_day(configured(served.url), paths, DAY)
    (told,) = outcome.manifest.without
    assert told.startswith("metrics/day: the server lists shard 4 twice")
    assert (outcome.name, outcome.exit_code) == ("2024-01-15", 1)


def test_bucket_whose_second_copy_has_no_room_is_left_out_and_the_rest_is_delivered(
    run: Path,
    influx: Influx2,
    served: Served,
    configured: Callable[..., Settings],
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    influx.packs = False
    shards = range(1, 11)
    influx.buckets = [fake.listed(fake.BUCKET, fake.BUCKET_ID, fake.group(1, *shards))]
    influx.shards = {number: random_tar(number) for number in shards}
    every = sum(len(shard) for shard in influx.shards.values())
    left = 50_000_000 + every * 3 // 2  # room for all of it once, and not twice
    there = size_of_folder(paths.var)
    monkeypatch.setattr(influx2, "ROOM_KEPT_BYTES", 50_000_000)
    monkeypatch.setattr(room, "free_bytes", lambda folder: left + there - size_of_folder(paths.var))
    outcome = backup_day(configured(served.url), paths, DAY)
    (told,) = outcome.manifest.without
    assert told.startswith("metrics/day: ")
    assert re.search(r"has \d+ MB free, InfluxDB's backup needs \d+ MB", told)
    assert (outcome.name, outcome.exit_code, metrics_parts(outcome)) == ("2024-01-15", 1, {})
    assert (stored(paths) / outcome.name / JOURNAL).is_file()
    left += 2 * every
    assert backup_day(configured(served.url), paths, DAY).exit_code == 0


def test_what_is_staged_already_is_counted_with_a_metrics_part(
    run: Path, configured: Callable[..., Settings], paths: Paths, monkeypatch: pytest.MonkeyPatch, served: Served
) -> None:
    served.rule = lambda request: Reply(status=200, body="")
    (run / "status.json").write_text(json.dumps({"noise": random.Random(1).randbytes(2_000_000).hex()}))
    settings = configured(served.url, flavour="victoria")
    asked: list[int] = []
    monkeypatch.setattr(make, "require_room_to_deliver", lambda staged, staging: asked.append(staged))
    outcome = backup_day(settings, paths, DAY)
    assert asked == [sum(part.bytes for part in outcome.manifest.parts)]
    assert asked[0] > 2_000_000
    monkeypatch.setattr(room, "free_bytes", lambda folder: 52_000_000)
    room.require_room_to_deliver(2_000_000, paths.var)
    with pytest.raises(BackupError, match="has 52 MB free, a copy of all that is saved needs 53 MB"):
        room.require_room_to_deliver(3_000_000, paths.var)


def random_tar(number: int) -> bytes:
    """Return a shard that cannot be packed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("x.tsm")
        entry.size = 1_000_000
        archive.addfile(entry, io.BytesIO(random.Random(number).randbytes(entry.size)))
    return out.getvalue()


def test_journal_that_cannot_be_read_leaves_the_part_out(
    run: Path, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    served.rule = influx3
    (run / "journal.db").write_bytes(b"no journal")
    outcome = backup_day(configured(served.url), paths, DAY)
    assert [text.partition(":")[0] for text in outcome.manifest.without] == ["metrics/day"]
    assert outcome.name.endswith(".incomplete")


def test_day_without_a_run_has_no_lines_and_is_told_like_any(
    served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    served.rule = influx3
    settings = configured(served.url)
    (part,) = metrics_parts(backup_day(settings, paths, DAY)).values()
    assert (part.notes["points"], part.notes["runs"], part.content_bytes) == (0, [], 0)
    (verdict,) = verify_backups(settings, paths)
    assert verdict.problems == ()


def test_backup_without_metrics_has_no_word_of_them(run: Path, settings_with: Load, paths: Paths, tmp_path: Path) -> None:
    outcome = backup_day(settings_with(), paths, DAY)
    assert metrics_parts(outcome) == {}
    assert not any(text.startswith(("metrics", "InfluxDB")) for text in outcome.sentences)
    assert restore(settings_with(), paths, DAY, to=str(tmp_path / "there")).metrics == ()


# -- the evening's step --------------------------------------------------------------------------------------------


def evening_backup(settings: Settings, paths: Paths) -> StepResult:
    """Return what the end of day's step for backups came to."""
    day = Day(
        request=DayRequest(date=DAY), settings=settings, paths=paths, trading_date=DAY, closed_reason="", wall_clock=False
    )
    (step,) = [step for step in STEPS if step.name == "backup"]
    with open_evening(day, find_run(settings, paths, on=DAY)) as work:
        return run_step(work, step)


def test_evening_says_what_was_saved_instead_and_is_done(
    run: Path, influx: Influx2, served: Served, configured: Callable[..., Settings], paths: Paths
) -> None:
    influx.instead[METADATA] = Reply(status=403, body=fake.NOT_ALLOWED, headers=fake.JSON)
    influx.instead[QUERY] = Reply(status=200, body=CSV)
    told = evening_backup(configured(served.url), paths)
    assert told.state is StepState.DONE
    assert "; metrics: no backup of the bucket: the token may not back up (403" in told.text
    assert "The day's points were exported instead; " in told.text


def test_evening_with_the_metrics_server_down_saves_the_rest_and_says_what_is_missing(
    run: Path, configured: Callable[..., Settings], paths: Paths
) -> None:
    told = evening_backup(configured("http://127.0.0.1:1"), paths)
    assert told.state is StepState.FAILED
    assert told.text.startswith("2024-01-15: verified, ")
    assert (
        "; without (it is made anew from the journal): metrics/day: the metrics server at http://127.0.0.1:1 does not"
        in told.text
    )
    (verdict,) = verify_backups(configured("http://127.0.0.1:1"), paths)
    assert (verdict.name, verdict.problems) == ("2024-01-15", ())
