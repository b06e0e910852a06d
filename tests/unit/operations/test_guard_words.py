"""What a guard's terminal says: a line for each change of each run, over the views of a guard over fakes."""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.test_guard_watch import World, holding
from velox_core.flat_proof import FlattenState
from velox_core.operations.guard_words import changes, closing_lines, heartbeat, opening_lines
from velox_core.settings import Settings

Load = Callable[..., Settings]
RUN = "2024-01-15-1"


class Terminal:
    """The views of a world's guard, and what changed since the last look."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.known: dict[str, dict[str, object]] = {}

    def look(self) -> list[str]:
        view = self.world.guard.view(self.world.now)
        before, self.known = self.known, {RUN: view}
        return [line.removeprefix(f"{RUN}: ") for line in changes(before, self.known)]


def test_opening_names_the_account_every_bound_and_how_to_end_it(settings_with: Load) -> None:
    text = "\n".join(opening_lines(settings_with(), pid=42, logs="logs/simulated"))
    for part in ("account primary (simulated), process 42", "silent for 20 s", "within 10 s", "₹2,100.00", "₹2,000.00"):
        assert part in text, part
    assert "Ctrl-C ends the guard, and closes nothing." in text


def test_engine_that_dies_is_told_from_alive_over_silent_and_closing_to_flat() -> None:
    world = holding()
    world.script = [FlattenState.CLOSING, FlattenState.FLAT]
    terminal = Terminal(world)
    world.live(3)
    (first,) = terminal.look()
    assert first.startswith("engine alive (0 s ago), open: 1 AAA, profit ₹0.00 of ")
    assert first.endswith(", watching")
    told: list[str] = []
    for _ in range(24):
        world.silent(1)
        told += terminal.look()
    assert told[0] == "engine SILENT"
    assert told[1] == "CLOSING: it begins"
    assert "CLOSING: this guard closes" in told
    assert told[told.index("CLOSING: this guard closes") + 1 :][:2] == ["nothing open", "FLAT, the broker confirms it"]
    line = heartbeat([{**world.guard.view(world.now), "run_id": "2024-01-16-crash-1", "loss_paise": 1_652}])
    assert line.startswith("2024-01-16-crash-1: SILENT 2")
    assert len(f"14:06:12 {line}") < 100


def test_closing_that_ends_not_flat_or_breaks_off_is_told_as_such() -> None:
    before = {RUN: {"state": "closing", "closing": "CLOSING", "outcome": ""}}
    assert changes(before, {RUN: {"state": "watching", "closing": "", "outcome": "NOT_FLAT"}}) == [
        f"{RUN}: NOT_FLAT within the bound; it begins again"
    ]
    assert changes(before, {RUN: {"state": "watching", "closing": "", "outcome": ""}}) == [
        f"{RUN}: the closing broke off; it begins again"
    ]


def test_positions_and_the_engines_end_and_excuses_are_told_once() -> None:
    world = World()
    terminal = Terminal(world)
    world.live(2)
    terminal.look()
    world.live(2)
    assert terminal.look() == []
    world.live(1, state="FLATTENING")
    assert terminal.look() == ["engine closes everything by itself: excused while it does"]
    world.live(1, state="DONE")
    assert terminal.look() == ["engine ended"]
    world.holds = True
    assert terminal.look() == ["engine ended and keeps its positions on purpose: excused"]


def test_position_that_opens_and_feed_that_is_lost_and_back_are_told() -> None:
    open_before = {RUN: {"state": "watching", "exposed": False, "open": [], "faults": []}}
    open_now = {RUN: {"state": "watching", "exposed": True, "open": ["1 AAA"], "faults": ["The guard has no prices: gone"]}}
    assert changes(open_before, open_now) == [f"{RUN}: open: 1 AAA", f"{RUN}: FAULT: The guard has no prices: gone"]
    assert changes(open_now, open_before) == [f"{RUN}: nothing open", f"{RUN}: mended: The guard has no prices"]


def test_run_that_cannot_be_guarded_or_ends_is_told() -> None:
    blind = {RUN: {"run_id": RUN, "state": "NOT GUARDED", "faults": ["no book"]}}
    assert changes({}, blind) == [f"{RUN}: NOT GUARDED: no book"]
    assert heartbeat(list(blind.values())) == f"{RUN}: NOT GUARDED"
    assert changes(blind, {}) == [f"{RUN}: not watched any more"]
    assert heartbeat([]) == "alive; no run to watch"


def test_last_words_name_what_is_no_longer_watched_and_an_unfinished_closing(settings_with: Load) -> None:
    view = {"run_id": RUN, "state": "closing", "engine": "silent", "exposed": True, "open": ["1 AAA"]}
    lines = closing_lines(settings_with(), [view])
    assert lines[0] == "the guard has ended. NOT watched any more:"
    assert lines[1] == f"  {RUN}: engine SILENT, open: 1 AAA"
    assert "NOT finished" in lines[2]
    assert " guard" in lines[3]
    assert closing_lines(settings_with(), [])[0] == "the guard has ended; no run was watched"
