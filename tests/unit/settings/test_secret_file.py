from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from velox_core.domain.errors import ConfigError
from velox_core.settings import SecretStr
from velox_core.settings.secret_file import write_secret_file

PRIVATE = "hunter2-xyzzy"
WANTED = {"broker": {"api_key": PRIVATE}, "alerts": {"urls": [f"json://h/{PRIVATE}", "mail=mailto://u@h"]}}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "var" / "secrets" / "simulated-primary.yaml"


def test_written_file_has_mode_0600_in_a_folder_of_the_owner_and_is_read_by_the_settings(project, place, guide):
    previous = os.umask(0)
    try:
        names = write_secret_file(place, WANTED)
    finally:
        os.umask(previous)
    assert names == ["broker.api_key", "alerts.urls"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    settings = project.load(guide + f"  secrets_path: {place}\n")
    assert settings.broker.credentials.api_key == SecretStr(PRIVATE)
    assert len(settings.alerts.urls) == 2


def test_text_of_a_file_is_kept_as_it_is(place):
    text = f"# made by hand\nmetrics: {{influxdb: {{token: '{PRIVATE}'}}}}\n"
    assert write_secret_file(place, text) == ["metrics.influxdb.token"]
    assert place.read_text() == text


@pytest.mark.parametrize(
    "content",
    [
        {"broker": {"api_key": "good", "api_kee": PRIVATE}},
        PRIVATE,
        "",
        f"broker: {{api_kee: {PRIVATE}}}",
        {"broker": {"api_key": 5}},
        {"broker": PRIVATE},
        {},
        f"{{ {PRIVATE}",
    ],
)
def test_what_is_no_secrets_file_replaces_nothing_and_is_not_shown(place, content):
    write_secret_file(place, WANTED)
    before = place.read_bytes()
    with pytest.raises(ConfigError) as caught:
        write_secret_file(place, content)
    assert "hunter2" not in str(caught.value)
    assert place.read_bytes() == before
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_link_in_its_place_is_replaced_and_its_target_left_alone(tmp_path, place):
    target = tmp_path / "other.txt"
    target.write_text("mine")
    place.parent.mkdir(parents=True)
    place.symlink_to(target)
    write_secret_file(place, WANTED)
    assert not place.is_symlink()
    assert target.read_text() == "mine"


def test_failed_writing_leaves_the_old_file_and_no_other(place, monkeypatch):
    write_secret_file(place, WANTED)
    before = place.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("velox_core.settings.secret_file.os.fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        write_secret_file(place, {"broker": {"api_key": "other"}})
    assert place.read_bytes() == before
    assert [path.name for path in place.parent.iterdir()] == [place.name]
