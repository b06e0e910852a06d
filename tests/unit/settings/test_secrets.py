from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle

import pytest

from velox_core.settings import SecretStr
from velox_core.settings.secrets import SECRET_PATHS, variable

PRIVATE = "hunter2-xyzzy"


def environment() -> dict[str, str]:
    return {variable(path): PRIVATE for path in SECRET_PATHS} | {
        "VELOX__ALERTS__URLS": f"tgram://{PRIVATE}/1 mailto://{PRIVATE}"
    }


def check_seen_nowhere(text: object) -> None:
    assert "hunter2" not in str(text)


def test_secrets_come_from_the_environment_and_show_nowhere(project):
    environ = environment() | {
        "VELOX__STORES__REDIS__URL": "redis://u@h:6379/0",
        "VELOX__STORES__JOURNAL__URL": "postgresql://u@h/velox",
    }
    settings = project.load(environ=environ)
    assert settings.metrics.influxdb.token == SecretStr(PRIVATE)
    assert [url.get_secret_value() for url in settings.alerts.urls] == [f"tgram://{PRIVATE}/1", f"mailto://{PRIVATE}"]
    credentials = settings.broker.credentials
    assert {credentials.api_key, credentials.api_secret, credentials.access_token} == {SecretStr(PRIVATE)}
    assert settings.stores.redis.url == f"redis://u:{PRIVATE}@h:6379/0"
    assert settings.stores.journal.url == f"postgresql://u:{PRIVATE}@h/velox"
    for shown in (
        repr(settings),
        str(settings),
        f"{settings}",
        settings.redacted(),
        json.dumps(settings.redacted()),
        dataclasses.asdict(settings),
    ):
        check_seen_nowhere(shown)
    redacted = settings.redacted()
    assert isinstance(redacted["alerts"], dict)
    assert redacted["alerts"]["urls"] == ["(set)", "(set)"]


def test_config_hash_does_not_depend_on_secrets(project):
    assert project.load(environ=environment()).config_hash == project.load().config_hash


def test_secret_str_shows_nothing_and_is_not_stored():
    secret = SecretStr(PRIVATE)
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{[secret]}", "%s" % secret):  # noqa: UP031
        check_seen_nowhere(shown)
    assert copy.copy(secret) is secret
    assert copy.deepcopy(secret) is secret
    assert secret != SecretStr("other")
    assert secret != PRIVATE
    assert len({secret, SecretStr(PRIVATE)}) == 1
    with pytest.raises(TypeError, match="not stored"):
        pickle.dumps(secret)


@pytest.mark.parametrize(
    "section",
    [
        f"metrics: {{influxdb: {{token: {PRIVATE}}}}}",
        f"alerts: {{urls: ['tgram://{PRIVATE}']}}",
        f"broker: {{type: simulated, capital: 100000, api_key: {PRIVATE}}}",
        f"stores: {{redis: {{password: {PRIVATE}}}}}",
    ],
)
def test_secret_in_the_file_is_refused_and_not_shown(project, guide, section):
    text = guide.replace(
        "  broker:\n    type: simulated  # Change for live: zerodha | upstox\n    capital: 100000  # Your actual capital\n", ""
    )
    broker = "" if section.startswith("broker") else "  broker: {type: simulated, capital: 100000}\n"
    (problem,) = project.problems(f"{text}{broker}  {section}\n")
    check_seen_nowhere(problem)
    assert "is a secret: allowed is the environment variable VELOX__" in problem


@pytest.mark.parametrize(
    "section",
    [
        f"metrics: {{influxdb: {{tokn: {PRIVATE}}}}}",
        f"alerts: {{url: {PRIVATE}}}",
        f"alerts: {PRIVATE}",
        f"metrics: {{influxdb: {PRIVATE}}}",
        f"api_key: {PRIVATE}",
        f"my_password: {PRIVATE}",
        f"stores: {{redis: {{url: 'redis://:{PRIVATE}@h'}}}}",
        f"stores: {{journal: {{url: 'postgresql://h/v?password={PRIVATE}'}}}}",
        f"metrics: {{influxdb: {{url: 'http://u:{PRIVATE}@h'}}}}",
        f"backup: {{destination: 's3://k:{PRIVATE}@bucket'}}",
        f"backup: {{destination: 's3://k:{PRIVATE}/{PRIVATE}@bucket'}}",
        f"backup: {{copies: ['sftp://k:{PRIVATE}#{PRIVATE}@host/x']}}",
        f"backup: {{copies: ['simplecache::sftp://{PRIVATE}@host/x']}}",
        f"stores: {{redis: {{url: 'redis://:{PRIVATE}?{PRIVATE}@h'}}}}",
    ],
)
def test_secret_in_the_wrong_place_is_refused_and_not_shown(project, guide, section):
    (problem,) = project.problems(f"{guide}  {section}\n")
    check_seen_nowhere(problem)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VELOX__METRICS__INFLUXDB__TOKN", PRIVATE),
        ("VELOX__METRICS__INFLUXDB__TOKEN", PRIVATE + "\n"),
        ("VELOX__METRICS__INFLUXDB__TOKEN", ""),
        ("VELOX__ALERTS__URLS", "  "),
        ("VELOX__BROKER__API_KEY", PRIVATE + " " * 5000),
        ("VELOX__STORES__REDIS__URL", f"redis://:{PRIVATE}@[bad"),
        ("VELOX__STORES__REDIS__URL", f"http://:{PRIVATE}@h"),
        ("VELOX__STORES__REDIS__URL", f"redis://:{PRIVATE}%0A@h"),
        ("VELOX__METRICS__INFLUXDB__URL", f"http://u:{PRIVATE}@h"),
    ],
)
def test_secret_variable_that_does_not_fit_is_refused_and_not_shown(project, name, value):
    (problem,) = project.problems(environ={name: value})
    check_seen_nowhere(problem)
    assert name in problem


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hunter2%2Fx@h:6379/0", "redis://h:6379/0"),
        ("redis://me:hunter2@h:6379/0", "redis://me@h:6379/0"),
        ("unix://:hunter2@/run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis://h:6379/0", "redis://h:6379/0"),
    ],
)
def test_password_in_a_url_of_the_environment_is_kept_apart(project, url, shown):
    settings = project.load(environ={"VELOX__STORES__REDIS__URL": url})
    assert settings.stores.redis.display_url == shown
    assert settings.stores.redis.url == url
    check_seen_nowhere(settings)
    check_seen_nowhere(settings.redacted())


def secrets_file(project, content: str, mode: int = 0o600) -> str:
    path = project.root / "secrets.yaml"
    path.write_text(content)
    path.chmod(mode)
    return "  secrets_path: secrets.yaml\n"


def test_secrets_file_of_mode_0600_is_read_and_the_environment_wins(project, guide):
    content = f"broker: {{api_key: {PRIVATE}, api_secret: '12345'}}\nalerts:\n  urls: ['json://{PRIVATE}']\n"
    text = guide + secrets_file(project, content)
    settings = project.load(text, {"VELOX__BROKER__API_KEY": "other"})
    credentials = settings.broker.credentials
    assert credentials.api_key == SecretStr("other")
    assert credentials.api_secret == SecretStr("12345")
    assert credentials.access_token is None
    assert settings.alerts.urls == (SecretStr(f"json://{PRIVATE}"),)
    check_seen_nowhere(settings)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o700, 0o400, 0o604])
def test_secrets_file_of_another_mode_is_refused(project, guide, mode):
    (problem,) = project.problems(guide + secrets_file(project, f"broker: {{api_key: {PRIVATE}}}", mode))
    assert f"its mode is {mode:04o}: allowed is 0600" in problem
    check_seen_nowhere(problem)


@pytest.mark.parametrize(
    "content",
    [
        PRIVATE,
        f"[{PRIVATE}]",
        f"*{PRIVATE}",
        f"broker: {PRIVATE}: {PRIVATE}",
        f"broker: {{api_kee: {PRIVATE}}}",
        f"broker: {PRIVATE}",
        f"broker: [{PRIVATE}]",
        "broker: {api_key: 12345}",
        "broker: {api_key: ''}",
        "alerts: {urls: [5]}",
        f"metrics: {{influxdb: {{token: !{PRIVATE} x}}}}",
        f"broker: {{api_key: {PRIVATE}, api_key: {PRIVATE}}}",
        "",
    ],
)
def test_secrets_file_that_does_not_fit_is_refused_and_not_shown(project, guide, content):
    (problem, *_) = project.problems(guide + secrets_file(project, content))
    check_seen_nowhere(problem)
    assert "secrets.yaml:" in problem


def test_secrets_file_that_is_missing_is_refused(project, guide):
    (problem,) = project.problems(guide + "  secrets_path: nowhere.yaml\n")
    assert "nowhere.yaml" in problem
    assert "No such file" in problem
    assert not os.path.exists(project.root / "nowhere.yaml")


def test_secrets_file_of_another_mode_names_the_command_that_mends_it(project, guide):
    (problem,) = project.problems(guide + secrets_file(project, f"broker: {{api_key: {PRIVATE}}}", 0o644))
    assert f"chmod 600 {project.root / 'secrets.yaml'}" in problem or "chmod 600 secrets.yaml" in problem


def test_secrets_file_of_another_user_is_refused(project, guide, monkeypatch):
    text = guide + secrets_file(project, f"broker: {{api_key: {PRIVATE}}}")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    (problem,) = project.problems(text)
    assert f"it belongs to user {owner}, this process to {owner + 1}" in problem
    assert f"chown {owner + 1}" in problem
    assert "chmod 600" in problem
    check_seen_nowhere(problem)


def test_secrets_file_that_is_a_symbolic_link_is_refused_also_to_a_good_file(project, guide):
    text = guide + secrets_file(project, f"broker: {{api_key: {PRIVATE}}}")
    (project.root / "secrets.yaml").rename(project.root / "elsewhere.yaml")
    (project.root / "secrets.yaml").symlink_to(project.root / "elsewhere.yaml")
    (problem,) = project.problems(text)
    assert "is a symbolic link: allowed is the file itself" in problem
    check_seen_nowhere(problem)
