"""Units and compose file: what must hold so that nothing of Prefect's can take the engine or the guard along."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from velox_core.cli.app import app
from velox_core.operations.prefect_services import (
    RUN_END_SECONDS,
    RUNS_ENDED_AT_ONCE,
    SERVE_END_SECONDS_REST,
    SERVER_END_SECONDS,
)
from velox_core.operations.up import GUARD_END_SECONDS
from velox_core.redis_server import server_flags

ROOT = Path(__file__).resolve().parents[3]
MACHINE_FOLDERS = ("work", "root", "home")  # a unit names none of them as its own
UNITS = ROOT / "deployments" / "systemd"
SERVE_SECONDS = RUN_END_SECONDS * RUNS_ENDED_AT_ONCE + SERVE_END_SECONDS_REST
STOP_SECONDS_MIN = {
    "velox-engine@.service": 240,
    "velox-guard.service": GUARD_END_SECONDS,
    "velox-redis.service": 10,
    "velox-up.service": SERVE_SECONDS + SERVER_END_SECONDS,
}


class Unit(configparser.ConfigParser):
    """A unit file; a key that stands twice keeps its last value."""

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, interpolation=None, delimiters=("=",))
        self.optionxform = str  # type: ignore[assignment,method-assign]
        self.text = (UNITS / name).read_text(encoding="utf-8")
        self.read_string(self.text)


def compose() -> dict[str, Any]:
    body = yaml.safe_load((ROOT / "deployments" / "compose.yaml").read_text(encoding="utf-8"))
    assert isinstance(body, dict)
    return body


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_units_are_these() -> None:
    assert {path.name for path in UNITS.iterdir()} == set(STOP_SECONDS_MIN)


@pytest.mark.parametrize("name", STOP_SECONDS_MIN)
def test_unit_is_given_the_time_that_its_end_takes_and_nobody_ends_with_it_or_ends_it(name: str) -> None:
    unit = Unit(name)
    assert float(unit["Service"]["TimeoutStopSec"]) >= STOP_SECONDS_MIN[name]
    assert not set(unit["Unit"]) & {"BindsTo", "PartOf", "Requires", "Requisite", "PropagatesStopTo", "Conflicts"}
    assert unit["Service"]["KillMode"] in ("process", "mixed")
    assert not [folder for folder in MACHINE_FOLDERS if f"/{folder}/" in unit.text]
    assert "password" not in unit.text.lower()


def test_engine_is_started_again_after_a_crash_alone_and_knows_nothing_of_prefect() -> None:
    unit = Unit("velox-engine@.service")
    assert (unit["Service"]["Restart"], unit["Service"]["KillMode"]) == ("on-abnormal", "mixed")
    assert unit["Service"]["ExecStart"].endswith("velox run --json --config config/system_production.yaml --as-requested")
    assert not any("velox-up" in value for section in unit.values() for value in section.values())
    assert "Install" not in unit


def test_up_leaves_what_it_started_alone_when_down_refuses_and_names_the_engines_unit() -> None:
    unit = Unit("velox-up.service")
    assert (unit["Service"]["Restart"], unit["Service"]["KillMode"]) == ("always", "process")
    assert "Environment=VELOX_ENGINE_UNIT=velox-engine@primary.service" in unit.text
    assert "velox down" in unit["Service"]["ExecStop"]
    assert "--flatten" not in unit["Service"]["ExecStop"]
    assert Unit("velox-guard.service")["Service"]["Restart"] == "always"


def flags(command: str, folder: str) -> list[str]:
    words = shlex.split(command.replace(folder, "/place"))
    return words[words.index("--port") :]


def test_redis_of_unit_and_compose_is_the_one_that_velox_starts_itself() -> None:
    wanted = server_flags(Path("/place"), Path("/place/redis.sock"))
    assert flags(Unit("velox-redis.service")["Service"]["ExecStart"], "%h/velox/var/redis") == wanted
    (line,) = compose()["services"]["redis"]["command"]
    assert flags(line, "/velox/var/redis") == wanted
    assert compose()["services"]["redis"]["entrypoint"] == ["sh", "-c"]
    assert line.startswith("mkdir -p -m 700 /velox/var/redis && exec redis-server ")


def test_systemd_itself_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    home = tmp_path / "velox"
    for name in STOP_SECONDS_MIN:  # it looks for the programs, so they are put where the copies say
        text = (UNITS / name).read_text(encoding="utf-8").replace("%h/velox", str(home))
        (tmp_path / name.replace("@.", "@primary.")).write_text(
            text.replace("/usr/bin/redis-server", str(home / ".venv/bin/velox"))
        )
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / ".venv" / "bin" / "velox").write_text("#!/bin/sh\n")
    (home / ".venv" / "bin" / "velox").chmod(0o755)
    names = [str(path) for path in tmp_path.glob("*.service")]
    assert len(names) == len(STOP_SECONDS_MIN)
    if program is None:  # no systemd here: then every line must at least be one that the units of this folder are made of
        known = re.compile(r"(#.*|\[(Unit|Service|Install)\]|[A-Z][A-Za-z]+=.*|)")
        assert all(known.fullmatch(line) for name in names for line in Path(name).read_text().splitlines())
        return
    done = subprocess.run([program, "verify", "--user", *names], capture_output=True, text=True, timeout=240, check=False)
    ours = [line for line in done.stderr.splitlines() if "velox" in line]
    assert (ours, [line for line in ours if "Unknown" in line]) == ([], [])


def test_compose_has_engine_and_guard_of_their_own_that_depend_on_nothing_of_prefect() -> None:
    services = compose()["services"]
    assert set(services) == {"redis", "guard", "engine", "prefect-server", "serve"}
    assert (services["engine"]["depends_on"], services["guard"]["depends_on"]) == (["redis"], ["redis"])
    assert "profiles" not in services["guard"]
    assert services["engine"]["profiles"] == ["trade"]


def test_compose_gives_each_the_time_that_its_end_takes() -> None:
    times = {name: seconds(service["stop_grace_period"]) for name, service in compose()["services"].items()}
    wanted = {
        "serve": SERVE_SECONDS,
        "engine": 240,
        "guard": GUARD_END_SECONDS,
        "prefect-server": SERVER_END_SECONDS,
        "redis": 10,
    }
    assert {name: times[name] >= least for name, least in wanted.items()} == dict.fromkeys(wanted, True)


def commands() -> dict[str, list[str]]:
    """Return what each container runs, as words."""
    found = {}
    for name, service in compose()["services"].items():
        command = service["command"]
        found[name] = shlex.split(command if isinstance(command, str) else command[0].partition("exec ")[2])
    return found


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_every_command_and_file_that_compose_names_exists() -> None:
    said = commands()
    assert {name: words[0] for name, words in said.items()} == {
        "redis": "redis-server",
        "guard": "velox",
        "engine": "velox",
        "prefect-server": "python",
        "serve": "python",
    }
    for name in ("guard", "engine"):
        words = said[name]
        (command,) = [one for one in app.registered_commands if _name_of(one) == words[1]]
        parser = get_command(app).get_command(None, words[1])  # type: ignore[attr-defined]
        assert command is not None
        assert {word for word in words if word.startswith("--")} <= {text for one in parser.params for text in one.opts}
    for name in ("guard", "engine", "serve"):
        assert (ROOT / option(said[name], "--config")).is_file()
    for name in ("prefect-server", "serve"):
        module = option(said[name], "-m")
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
        text = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert all(f'"{word}"' in text for word in said[name] if word.startswith("--"))


def _name_of(command: Any) -> str:
    return str(command.name or command.callback.__name__)


def test_image_is_built_from_what_there_is_and_has_what_the_containers_run() -> None:
    lines = (ROOT / "deployments" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(lines)
    body = compose()
    (build,) = {(one["build"]["context"], one["build"]["dockerfile"]) for one in body["services"].values()}
    assert build == ("..", "deployments/Dockerfile")
    (image,) = {one["image"] for one in body["services"].values()}
    assert image == f"velox:{version('velox')}"
    assert {"make", "redis-server"} <= set(text.split())
    assert "RUN make setup" in lines
    assert "WORKDIR /velox" in lines  # config/... in the commands is below it
    assert "ENV PATH=/velox/.venv/bin:$PATH" in text
    needed = re.search(r"FROM python:(\d+)\.(\d+)", text)
    wanted = re.search(r'requires-python = ">=(\d+)\.(\d+)', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert needed is not None
    assert wanted is not None
    assert tuple(map(int, needed.groups())) >= tuple(map(int, wanted.groups()))
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    used = {"Makefile", "pyproject.toml", "requirements.lock", "config", "deployments", "flows", "tasks", "velox_core"}
    assert not used & set(ignored)
    assert all((ROOT / name).exists() for name in used)


def test_folders_that_containers_share_are_the_checkouts_own() -> None:
    for service in compose()["services"].values():
        for volume in service["volumes"]:
            source, target, *_ = volume.split(":")
            assert source.startswith("../")
            assert target == f"/velox/{source.removeprefix('../')}"
    assert (ROOT / "config").is_dir()


def test_compose_shares_processes_network_and_state_of_one_host_and_publishes_nothing() -> None:
    for service in compose()["services"].values():
        assert (service["network_mode"], service["pid"]) == ("host", "host")
        assert "ports" not in service
        assert "privileged" not in service
        assert "../var:/velox/var" in service["volumes"]
        assert service["environment"]["VELOX__VAR"] == "/velox/var"
        assert service["environment"]["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_no_secret_stands_in_compose_file_or_image() -> None:
    shown = re.compile(r"(token|password|secret|api_key)\s*[:=]", re.IGNORECASE)
    for name in ("compose.yaml", "Dockerfile"):
        text = (ROOT / "deployments" / name).read_text(encoding="utf-8")
        assert [line for line in text.splitlines() if shown.search(line)] == []
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {"var", "logs", ".git", ".venv"} <= set(ignored)
