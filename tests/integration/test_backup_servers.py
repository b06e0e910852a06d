"""Backups at a real SFTP server and at an S3 server: sent, verified, restored; and the server dies, hangs, or is another."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import paused_courier, sftp_server
from tests.fakes.journals import DAY, RUN_ID, write_journal
from tests.fakes.paused_courier import when_reached
from tests.fakes.s3_server import S3Server, s3_server
from tests.fakes.sftp_server import SftpServer
from velox_core.backup.apart import ApartDestination
from velox_core.backup.naming import MANIFEST_FILE, PARTIAL
from velox_core.operations import backup_places
from velox_core.operations.backup import backup_day, bring_rest, restore
from velox_core.operations.backup_places import list_backups, verify_backups
from velox_core.settings import Paths, Settings, load_settings

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = "simulated/primary"
BUCKET = "velox-tests"
LEFT = bytes(1_000)
SILENCE = 60.0  # seconds
OF_THIS_MACHINE = ("AWS_", "FSSPEC_", "BOTO_")  # beginnings of variables that say where a client of S3 goes, and as whom


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    """A server for the tests of this file."""
    with ExitStack() as ending:
        try:
            server = ending.enter_context(sftp_server.sftp_server(tmp_path_factory.mktemp("sftp")))
        except sftp_server.NoServerHere as lacking:
            pytest.skip(str(lacking))
        yield server


@pytest.fixture
def sftp(ssh: SftpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[SftpServer, str, Path]:
    """The server, a URL of this test's own at it, and where its files are."""
    monkeypatch.setenv("HOME", str(ssh.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return ssh, f"{ssh.url}/{tmp_path.name}", ssh.files / tmp_path.name


@pytest.fixture(scope="module")
def objects() -> Iterator[S3Server]:
    """A server for the tests of this file."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(objects: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """A client of the server, and a URL of this test's own at it."""
    import boto3

    for name in list(os.environ):
        if name.startswith(OF_THIS_MACHINE) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in objects.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client, f"s3://{BUCKET}/{tmp_path.name}"
    client.close()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """An account with a day that was traded."""
    found = Paths(var=tmp_path / "var", logs=tmp_path / "logs")
    write_journal(found.var / f"replay/primary/{RUN_ID}" / "journal.db", count=3)
    return found


def settings_at(folder: Path, url: str, **more: object) -> Settings:
    text = (ROOT / "config" / "system_simulated.yaml").read_text(encoding="utf-8")
    text = text.replace("data/tcs_2024-01-15.csv", str(ROOT / "data" / "tcs_2024-01-15.csv"))
    backup = json.dumps({"copies": [url], "silence_seconds": 120, **more})
    (folder / "system.yaml").write_text(f"{text.rstrip()}\n\n  backup: {backup}\n", encoding="utf-8")
    return load_settings(folder / "system.yaml", {})


def round_trip(
    settings: Settings, paths: Paths, url: str, flip: Callable[[str], None], leave: Callable[[str], None], folder: Path
) -> None:
    """Take, verify and restore; the next day's removes the first; then a killed host leaves a part, and one bit flips."""
    first = backup_day(settings, paths, DAY)
    assert [(each.is_there, each.problem, each.warning, each.tidied) for each in first.deliveries] == [(True, "", "", ())] * 2
    done = restore(settings, paths, DAY, source=url, to=str(folder / "restored"))
    assert done.done
    original = paths.var / f"replay/primary/{RUN_ID}" / "journal.db"
    assert (folder / "restored" / original.relative_to(paths.var)).is_file()
    second = backup_day(settings, paths, DAY + timedelta(days=1))
    assert [each.removed for each in second.deliveries] == [(first.name,)] * 2
    leave(f"{ACCOUNT}/{PARTIAL}2024-01-01.elsewhere-0123abcd~0/part")
    whole, left = list_backups(settings, paths, at=url)
    assert (whole.name, whole.problem, whole.manifest) == (second.name, "", second.manifest)
    assert left.unfinished is not None
    assert (left.unfinished.made_by, left.unfinished.bytes) == ("elsewhere-0123abcd", len(LEFT))
    assert left.unfinished.touched_wall_ms > second.manifest.made_wall_ms - 5_000
    flip(f"{ACCOUNT}/{second.name}/config/config/charges.yaml.zst")
    (verdict,) = verify_backups(settings, paths, at=url)
    (problem,) = verdict.problems
    assert problem.startswith("config/config/charges.yaml.zst: ")


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_backup_at_a_real_sftp_server_comes_back_and_a_flipped_bit_is_found(
    sftp: tuple[SftpServer, str, Path], paths: Paths, tmp_path: Path
) -> None:
    _, url, files = sftp

    def flip(path: str) -> None:
        (files / path).write_bytes(flipped((files / path).read_bytes()))

    def leave(path: str) -> None:
        (files / path).parent.mkdir()
        (files / path).write_bytes(LEFT)

    settings = settings_at(tmp_path, url, keep_days=1, keep_weeks=0, keep_months=0)
    round_trip(settings, paths, url, flip, leave, tmp_path)


def test_backup_at_an_s3_server_comes_back_and_a_flipped_bit_is_found(
    s3: tuple[Any, str], paths: Paths, tmp_path: Path
) -> None:
    client, url = s3
    prefix = url.removeprefix(f"s3://{BUCKET}/")

    def flip(path: str) -> None:
        content = client.get_object(Bucket=BUCKET, Key=f"{prefix}/{path}")["Body"].read()
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{path}", Body=flipped(content))

    def leave(path: str) -> None:
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{path}", Body=LEFT)

    settings = settings_at(tmp_path, url, keep_days=1, keep_weeks=0, keep_months=0)
    round_trip(settings, paths, url, flip, leave, tmp_path)
    keys = [each["Key"] for each in client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")["Contents"]]
    assert [key for key in keys if PARTIAL in key] == [f"{prefix}/{ACCOUNT}/{PARTIAL}2024-01-01.elsewhere-0123abcd~0/part"]


def test_backup_into_a_bucket_that_is_not_there_is_told_and_makes_none(
    s3: tuple[Any, str], paths: Paths, tmp_path: Path
) -> None:
    client, _ = s3
    near, far = backup_day(settings_at(tmp_path, "s3://velox-tesst/x"), paths, DAY).deliveries
    assert (near.problem, far.is_there) == ("", False)
    assert "s3://velox-tesst/x/simulated/primary" in far.problem
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == [BUCKET]


@pytest.mark.parametrize("blow", ["killed", "stopped"])
def test_sftp_server_that_goes_midway_is_told_and_the_next_run_brings_the_rest(
    blow: str, sftp: tuple[SftpServer, str, Path], paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url, files = sftp
    settings = settings_at(tmp_path, url)
    command = ("-m", paused_courier.__name__, str(tmp_path), "3")

    def paused(place: str, folder: str, silence_seconds: float) -> Any:
        options = {"command": command} if place == url else {}
        silence = SILENCE if place == url else silence_seconds
        return ApartDestination(f"{place}/{folder}", place=place, account_folder=folder, silence_seconds=silence, **options)

    try:
        with monkeypatch.context() as patch, when_reached(tmp_path, server.kill if blow == "killed" else server.stop):
            patch.setattr(backup_places, "open_destination", paused)
            first = backup_day(settings, paths, DAY)
    finally:
        server.revive()
    near, far = first.deliveries
    assert (near.is_there, near.problem) == (True, "")
    assert not far.is_there
    if blow == "stopped":
        assert f"{url}/{ACCOUNT} answered nothing and moved nothing for {SILENCE:g} s while 2024-01-15 was sent" in far.problem
    else:
        assert f"cannot write {url}/{ACCOUNT}" in far.problem
    assert [path.name.startswith(PARTIAL) for path in (files / ACCOUNT).iterdir()] == [True]
    assert first.lacking == (f"{url}/{ACCOUNT}",)
    rest = bring_rest(settings, paths, DAY)
    assert rest is not None
    assert (rest.name, rest.exit_code) == (first.name, 0)
    assert [path.name for path in (files / ACCOUNT).iterdir()] == [first.name]
    assert (files / ACCOUNT / first.name / MANIFEST_FILE).read_bytes() == first.manifest.encoded()
    assert [verdict.problems for verdict in verify_backups(settings, paths)] == [(), ()]


def test_s3_server_that_hangs_is_given_up(
    s3: tuple[Any, str], objects: S3Server, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = s3
    opened = backup_places.open_destination

    def hastily(place: str, folder: str, silence_seconds: float) -> Any:
        return opened(place, folder, 4.0 if place == url else silence_seconds)  # a busy disk is no folder that hangs

    monkeypatch.setattr(backup_places, "open_destination", hastily)
    objects.process.send_signal(signal.SIGSTOP)
    try:
        near, far = backup_day(settings_at(tmp_path, url), paths, DAY).deliveries
    finally:
        objects.process.send_signal(signal.SIGCONT)
    assert far.problem.startswith(f"{url}/{ACCOUNT} answered nothing and moved nothing for 4 s while being listed")
    assert (near.is_there, near.problem) == (True, "")


def test_sftp_server_with_another_key_gets_nothing(sftp: tuple[SftpServer, str, Path], paths: Paths, tmp_path: Path) -> None:
    server, url, files = sftp
    known = server.home / ".ssh" / "known_hosts"
    kept = known.read_text()
    stranger = (server.home / ".ssh" / "id_ed25519.pub").read_text().split()[1]
    said = {}
    try:
        for case, lines in (("unknown", ""), ("other", f"{kept.rsplit(' ', 1)[0]} {stranger}\n")):
            known.write_text(lines)
            (_, far) = backup_day(settings_at(tmp_path, url), paths, DAY).deliveries
            said[case] = (far.is_there, far.problem)
    finally:
        known.write_text(kept)
    assert "is not known: it shows ssh-ed25519 SHA256:" in said["unknown"][1]
    assert "does not match" in said["other"][1]
    assert [is_there for is_there, _ in said.values()] == [False, False]
    assert not files.exists()
