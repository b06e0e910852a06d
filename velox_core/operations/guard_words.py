"""What a guard's terminal says: what it watches and by which bounds, a line for each change, a heartbeat, and its last words.

- Pure: views of the guarded runs in (`AccountGuard.view`), lines out. Which changes are told is decided here.
- Money in paise comes in, rupees go out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from velox_core.domain.money import rupees_display
from velox_core.guard import loss_trigger_paise
from velox_core.operations.hints import velox
from velox_core.settings import Settings

View = Mapping[str, Any]
NOT_GUARDED: Final = "NOT GUARDED"
_ENGINE: Final = {
    "alive": "engine alive",
    "silent": "engine SILENT",
    "ended": "engine ended",
    "keeps": "engine ended and keeps its positions on purpose: excused",
    "closing": "engine closes everything by itself: excused while it does",
}
_CLOSING: Final = {
    "": "CLOSING: it begins",
    "LATCHING": "CLOSING: the halt is being written",
    "ASKING": "CLOSING: an engine that runs is asked to acknowledge the halt",
    "FOLLOWING": "CLOSING: the engine acknowledged and closes; it is watched",
    "TAKING_OVER": "CLOSING: taking the account over from whoever does not answer",
    "CLOSING": "CLOSING: this guard closes",
}


def opening_lines(settings: Settings, *, pid: int, logs: str) -> list[str]:
    """Return what the guard watches, by which bounds it acts, and how to end it."""
    guard, limit = settings.guard, settings.risk.limits.loss_limit_paise
    trigger = rupees_display(loss_trigger_paise(limit, guard.loss_margin_bps))
    return [
        f"guard of account {settings.account} ({settings.broker.type.value}), process {pid}; log: {logs}",
        f"It closes everything that is open when the engine is silent for {guard.heartbeat_timeout_seconds:g} s;",
        f"and, unless the engine closes within {guard.act_seconds:g} s, at a loss of {trigger} (the limit "
        f"{rupees_display(limit)} and a margin)",
        f"or {guard.flat_by_margin_seconds:g} s after flat_by. Paced runs only. It ends no engine that answers.",
        "Ctrl-C ends the guard, and closes nothing.",
    ]


def changes(before: Mapping[str, View], now: Mapping[str, View]) -> list[str]:
    """Return a line for each thing that changed between two looks at the runs, each keyed by its id."""
    lines = [f"{run}: not watched any more" for run in before if run not in now]
    for run, view in now.items():
        known = before.get(run)
        if known is None:
            lines.append(f"{run}: {run_text(view)}" if _is_guarded(view) else f"{run}: {_not_guarded(view)}")
        else:
            lines.extend(f"{run}: {text}" for text in _run_changes(known, view))
    return lines


def _run_changes(before: View, now: View) -> list[str]:
    if not _is_guarded(now):
        return [_not_guarded(now)] if _is_guarded(before) else []
    texts = [] if _is_guarded(before) else ["watched again"]
    if _differs(before, now, "engine"):
        texts.append(_engine(now))
    if _differs(before, now, "open", "exposed"):
        texts.append(_open(now))
    if now.get("state") == "closing" and _differs(before, now, "state", "closing"):
        texts.append(_CLOSING.get(str(now.get("closing", "")), "CLOSING"))
    elif before.get("state") == "closing" and now.get("state") != "closing":
        texts.append(_outcome(now))
    elif _differs(before, now, "state") and now.get("state") != "closing":
        texts.append(str(now.get("state")))
    gone = [fault for fault in _faults(before) if fault not in _faults(now)]
    texts += [f"FAULT: {fault}" for fault in _faults(now) if fault not in _faults(before)]
    return texts + [f"mended: {fault.partition(':')[0]}" for fault in gone]


def heartbeat(views: Sequence[View]) -> str:
    """Return in one line what is watched and how it stands; of one run it fits 80 columns."""
    if not views:
        return "alive; no run to watch"
    return "; ".join(f"{view.get('run_id')}: {_beat(view) if _is_guarded(view) else NOT_GUARDED}" for view in views)


def _beat(view: View) -> str:
    """Return a run's state in few words: its engine, what is open, the loss, and what is out of the ordinary."""
    engine = str(view.get("engine", "")) or "not heard of"
    engine = engine.upper() if engine == "silent" else engine
    unusual = "" if view.get("state") == "watching" else f", {str(view.get('state', '')).upper()}"
    faults = f", {len(_faults(view))} FAULTS" if _faults(view) else ""
    return f"{engine}{_heard(view)}, {_open(view)}, {_loss(view)}{unusual}{faults}"


def _heard(view: View) -> str:
    ages = view.get("beat_ages")
    return f" {min(ages):.0f} s" if isinstance(ages, list) and ages else ""


def run_text(view: View) -> str:
    """Return how one run stands: its engine, what is open, its loss against the limit, and what the guard does."""
    heard = f" ({_heard(view).strip()} ago)" if _heard(view) else ""
    closing = view.get("state") == "closing"
    does = _CLOSING.get(str(view.get("closing", "")), "CLOSING") if closing else str(view.get("state", ""))
    return f"{_engine(view)}{heard}, {_open(view)}, {_loss(view)}, {does}"


def closing_lines(settings: Settings, views: Sequence[View]) -> list[str]:
    """Return the guard's last words: what is no longer watched, and how it is watched again."""
    watched = [view for view in views if _is_guarded(view)]
    lines = ["the guard has ended; no run was watched"] if not watched else ["the guard has ended. NOT watched any more:"]
    lines += [f"  {view.get('run_id')}: {_engine(view)}, {_open(view)}" for view in watched]
    if any(view.get("state") == "closing" for view in watched):
        lines.append("a closing was under way and is NOT finished: start the guard again, it goes on; or velox flatten")
    return [*lines, f"Start it again: {velox('guard', settings=settings)}"]


def _is_guarded(view: View) -> bool:
    return view.get("state") != NOT_GUARDED


def _not_guarded(view: View) -> str:
    return f"{NOT_GUARDED}: {'; '.join(_faults(view)) or 'it cannot be opened'}"


def _engine(view: View) -> str:
    return _ENGINE.get(str(view.get("engine", "")), "engine not heard of yet")


def _open(view: View) -> str:
    if view.get("exposed") is not True:
        return "nothing open"
    lines = view.get("open")
    shown = ", ".join(str(line) for line in lines) if isinstance(lines, list) else ""
    return f"open: {shown}" if shown else "open: not known"


def _outcome(view: View) -> str:
    outcome = view.get("outcome")
    if outcome == "FLAT":
        return "FLAT, the broker confirms it"
    return "NOT_FLAT within the bound; it begins again" if outcome == "NOT_FLAT" else "the closing broke off; it begins again"


def _loss(view: View) -> str:
    loss, limit = view.get("loss_paise"), view.get("loss_limit_paise")
    if not isinstance(loss, int):
        return "loss not known"
    told = f"loss {rupees_display(loss)}" if loss > 0 else f"profit {rupees_display(-loss)}"
    return f"{told} of {rupees_display(limit)}" if isinstance(limit, int) else told


def _differs(before: View, now: View, *keys: str) -> bool:
    return any(before.get(key) != now.get(key) for key in keys)


def _faults(view: View) -> list[str]:
    faults = view.get("faults")
    return [str(fault) for fault in faults] if isinstance(faults, list) else []
