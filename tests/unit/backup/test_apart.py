"""A place with backups that is worked on by a process of its own: what it does is done, and what hangs is given up."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from velox_core.backup import apart
from velox_core.backup.apart import ApartDestination
from velox_core.backup.courier import MODULE, STEP_BYTES, Moved
from velox_core.backup.destinations import Destination
from velox_core.backup.faults import BackupError
from velox_core.backup.folder_place import FolderDestination
from velox_core.backup.naming import MANIFEST_FILE
from velox_core.backup.opening import open_destination

PLACE = "sftp://somebody@far/velox"
WHERE = f"{PLACE}/simulated/primary"
GONE_SECONDS_MAX = 60.0
STARTS = "import sys, threading, time; sys.stdin.readline(); "
READY = "print('{\"ready\": true}', flush=True); "
READS = f"{STARTS}{READY}sys.stdin.readline(); "
HANGS = READS + "threading.Event().wait()"
CALLS: list[tuple[str, Callable[[Destination], object]]] = [
    ("names", lambda place: place.names()),
    ("manifest_content", lambda place: place.manifest_content("2024-01-15")),
    ("taken", lambda place: place.taken()),
    ("unfinished", lambda place: place.unfinished()),
    ("put", lambda place: place.put(Path("staged"), "2024-01-15", "host-00000000")),
    ("tidy", lambda place: place.tidy("host-00000000", 0)),
    ("probe", lambda place: place.probe()),
    ("fetch", lambda place: place.fetch("2024-01-15", "part", Path("target"))),
    ("remove", lambda place: place.remove("2024-01-15")),
]


def place_of(script: str, silence_seconds: float = 60.0) -> ApartDestination:
    """Return a place whose process is a script; it does not read the site's packages."""
    command = ("-S", "-c", script)
    return ApartDestination(
        WHERE, place=PLACE, account_folder="simulated/primary", silence_seconds=silence_seconds, command=command
    )


@pytest.mark.parametrize(("call", "ask"), CALLS)
def test_place_that_hangs_in_any_call_is_given_up_and_not_asked_again(
    call: str, ask: Callable[[Destination], object], tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    place = place_of(f"import os; open({str(pid_file)!r}, 'a').write(f'{{os.getpid()}} '); {HANGS}", silence_seconds=1.0)
    with closing(place):
        with pytest.raises(BackupError, match=rf"{WHERE} answered nothing and moved nothing for 1 s while ") as first:
            ask(place)
        assert "see its address, its server and the network" in first.value.advice
        for _, other in CALLS:
            with pytest.raises(BackupError) as again:
                other(place)
            assert again.value is first.value
        pids = pid_file.read_text().split() if pid_file.exists() else []
        assert len(pids) <= 1
        until = time.monotonic() + GONE_SECONDS_MAX
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < until, "the process of a place that was given up lives on"
            time.sleep(0.05)


def test_place_that_moves_bytes_is_waited_for_as_long_as_it_does() -> None:
    moves = "[(time.sleep(1), print('{\"moved\": %d}' % n, flush=True)) for n in range(12)]; "
    with closing(place_of(READS + moves + "print('{\"answer\": null}', flush=True)", silence_seconds=10.0)) as place:
        place.remove("2024-01-15")
        assert place._lost is None


def test_time_in_which_the_process_starts_is_no_silence_of_the_place() -> None:
    slow = f'{STARTS}time.sleep(5); {READY}sys.stdin.readline(); print(\'{{"answer": ["2024-01-15"]}}\', flush=True)'
    with closing(place_of(slow, silence_seconds=4.0)) as place:
        assert place.names() == ["2024-01-15"]


def test_process_that_does_not_start_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "START_SECONDS_MAX", 1.0)
    with closing(place_of(f"{STARTS}threading.Event().wait()")) as place:
        with pytest.raises(BackupError, match="the process that works there did not start within 1 s") as told:
            place.names()
        with pytest.raises(BackupError) as again:
            place.taken()
        assert again.value is told.value


@pytest.mark.parametrize("place", ["sftp://somebody@far/velox", "s3://bucket/velox", "memory://velox", "/srv/velox"])
def test_process_is_ready_when_what_its_place_needs_is_imported(place: str) -> None:
    script = (
        "import sys; from velox_core.backup import opening\n"
        f"opening.load_libraries({place!r})\n"
        "print(*sorted({'paramiko', 's3fs', 'fsspec'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    needed = {"sftp": ["fsspec", "paramiko"], "s3": ["fsspec", "s3fs"], "memory": ["fsspec"], "/srv/velox": []}
    assert shown == needed[place.partition("://")[0]]


def test_place_whose_process_breaks_says_what_it_said_last() -> None:
    with closing(place_of(READS + "sys.exit('the library is broken')")) as place:
        with pytest.raises(BackupError, match="the process that works there ended: the library is broken"):
            place.names()
        with pytest.raises(BackupError, match="the library is broken"):
            place.taken()


def test_place_that_tells_a_problem_keeps_problem_and_advice_apart_and_is_asked_again() -> None:
    tells = 'print(\'{"problem": "no: such bucket", "advice": "see: its name"}\', flush=True); sys.stdin.readline(); '
    with closing(place_of(READS + tells + 'print(\'{"answer": ["2024-01-15"]}\', flush=True)')) as place:
        with pytest.raises(BackupError) as told:
            place.names()
        assert (told.value.problem, told.value.advice) == ("no: such bucket", "see: its name")
        assert str(told.value) == "no: such bucket: see: its name"
        assert place.names() == ["2024-01-15"]


def test_folder_through_a_process_does_what_it_does_here(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    (staged / "a").mkdir(parents=True)
    (staged / "a" / "part.zst").write_bytes(b"content")
    (staged / MANIFEST_FILE).write_bytes(b"{\xff}")
    here = FolderDestination(tmp_path / "far" / "simulated" / "primary")
    with closing(open_destination(str(tmp_path / "far"), "simulated/primary", 60.0)) as place:
        assert isinstance(place, ApartDestination)
        assert place.where == here.where
        assert place.names() == []
        place.put(staged, "2024-01-15", "host-00000000")
        left = here.folder / ".partial-2024-01-16.host-00000000~1"
        (left / "x").mkdir(parents=True)
        assert (place.names(), place.taken()) == (["2024-01-15"], {"2024-01-15", "2024-01-16"})
        assert place.manifest_content("2024-01-15") == b"{\xff}"
        assert place.unfinished() == here.unfinished()
        assert [each.made_by for each in place.unfinished()] == ["host-00000000"]
        assert place.tidy("host-00000000", 0) == [left.name]
        place.fetch("2024-01-15", "a/part.zst", tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == b"content"
        assert "is writable" in place.probe()
        with pytest.raises(BackupError, match="is there already"):
            place.put(staged, "2024-01-15", "host-00000000")
        place.remove("2024-01-15")
        assert here.names() == []


def test_process_of_a_place_ends_when_the_one_that_started_it_is_gone() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-m", MODULE], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"at": "/nowhere", "account_folder": "x", "parent": 0}\n')  # its parent is another by now
        process.stdin.flush()
        assert process.wait(120) == 1


FAILS = {
    "a look that fails": "def boom(): courier.os.getppid = lambda: 0; raise OSError(24, 'Too many open files')\n"
    "courier.bytes_by_socket = boom\n",
    "a listener that is gone": "looks = []\ndef grow(): looks.append(1); return {'a socket': len(looks) << 20}\n"
    "courier.bytes_by_socket = grow\n",
}


@pytest.mark.parametrize("case", FAILS)
def test_process_of_a_place_ends_also_after_what_its_telling_cannot_do(case: str) -> None:
    script = f"import velox_core.backup.courier as courier\n{FAILS[case]}courier.main(lambda place, folder, moved: None)\n"
    pipe = subprocess.PIPE
    hello = {"at": "/nowhere", "account_folder": "x", "parent": os.getpid()}
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(hello).encode() + b"\n")
            process.stdin.flush()
            assert "ready" in json.loads(process.stdout.readline())
            process.stdout.close()
            assert process.wait(60) == 1
        finally:
            process.kill()


def test_bytes_that_the_other_end_confirms_count_as_moved_and_stay_counted() -> None:
    moved = Moved()
    moved.add(7)
    with socket.create_server(("127.0.0.1", 0)) as server:
        before = moved.total()
        with socket.create_connection(server.getsockname()) as client:
            taken, _ = server.accept()
            with taken:
                client.sendall(bytes(4 * STEP_BYTES))
                got = 0
                while got < 4 * STEP_BYTES:
                    got += len(taken.recv(STEP_BYTES))
                during = moved.total()
    assert before >= 7
    assert during - before >= 4 * STEP_BYTES
    assert moved.total() >= during


@pytest.mark.parametrize(
    "url",
    [
        "sftp://somebody:hunter2@far/velox",
        "sftp://somebody:hun/ter2@far/velox",
        "sftp://somebody:hun#ter2@far/velox",
        "sftp://somebody:hun?ter2@far/velox",
        "sftp://somebody:hun@ter2@far/velox",
        "s3://AKIA:hun/ter2@bucket",
        "file://somebody:hun/ter2@far",
    ],
)
def test_password_in_a_url_is_refused_and_shown_nowhere(url: str) -> None:
    with pytest.raises(BackupError) as told:
        open_destination(url, "simulated/primary", 60.0)
    assert "may have a password in it" in str(told.value)
    for part in ("hun", "ter2"):
        assert part not in f"{told.value} {told.value.__cause__} {told.value.__context__}"


@pytest.mark.parametrize("url", ["simplecache::sftp://somebody:hunter2@far/velox", "simplecache::sftp://somebody@far/velox"])
def test_url_that_chains_systems_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(BackupError, match="'::' in its scheme") as told:
        open_destination(url, "simulated/primary", 60.0)
    assert "somebody" not in f"{told.value} {told.value.__cause__} {told.value.__context__}"


@pytest.mark.parametrize(
    "place",
    ["sftp://somebody@far:2222/velox", "sftp://far:2222/velox", "sftp://somebody@[::1]/velox", "s3://bucket/a:b", "/srv/a:b@c"],
)
def test_place_without_a_password_is_taken(place: str) -> None:
    with closing(open_destination(place, "simulated/primary", 60.0)) as destination:
        assert destination.where == f"{place}/simulated/primary"


def test_process_takes_no_module_from_the_folder_that_one_works_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "velox_core").mkdir()
    (tmp_path / "velox_core" / "__init__.py").write_text("raise SystemExit('another')")
    monkeypatch.chdir(tmp_path)
    with closing(open_destination(str(tmp_path / "far"), "simulated/primary", 60.0)) as place:
        assert place.names() == []


def test_address_of_a_place_stands_in_no_command_line() -> None:
    with closing(place_of(READS + "print('{\"answer\": []}', flush=True); sys.stdin.read()")) as place:
        place.names()
        assert place._process is not None
        shown = Path(f"/proc/{place._process.pid}/cmdline").read_bytes()
        assert b"far" not in shown
        assert os.getpgid(place._process.pid) != os.getpgid(0)
