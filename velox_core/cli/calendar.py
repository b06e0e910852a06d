"""`velox calendar`: the phases of one date, and the comparison with a calendar library."""

from __future__ import annotations

import json
import sys
from datetime import date
from typing import Any

from rich.console import Console
from rich.table import Table

from velox_core.calendar import Difference, cross_check, load_calendar
from velox_core.domain.errors import EXIT_DONE, EXIT_OPERATING_ERROR
from velox_core.domain.market.sessions import SessionCalendar
from velox_core.domain.time import ist_clock_text
from velox_core.settings import Settings


def show_date(settings: Settings, day: date, *, as_json: bool) -> int:
    """Print whether the market trades on a date, and its phases by security class."""
    calendar = load_calendar(settings.calendar_path)
    answer = describe_date(calendar, day)
    if as_json:
        json.dump(answer, sys.stdout, ensure_ascii=False, indent=2)
        sys.stdout.write("\n")
        return EXIT_DONE
    console = Console()
    if not answer["open"]:
        following = f"; next session {answer['next_session']}" if answer["next_session"] else ""
        console.print(f"{day}: no session ({answer['reason']}){following}", highlight=False)
        return EXIT_DONE
    title = f"{day}: {answer['name']}" + (" (special session)" if answer["special"] else "")
    table = Table(title=title, title_justify="left")
    for heading in ("Security class", "Phase", "From", "Until", "Note"):
        table.add_column(heading)
    for phase in answer["phases"]:
        table.add_row(phase["security_class"], phase["phase"], phase["from"], phase["until"], phase["note"])
    console.print(table)
    if answer["unconfirmed"]:
        console.print(f"To be confirmed with the exchange: {answer['unconfirmed']}", style="yellow", highlight=False)
    return EXIT_DONE


def describe_date(calendar: SessionCalendar, day: date) -> dict[str, Any]:
    """Return a date's session as JSON values; times are IST."""
    session = calendar.session(day)
    following = calendar.next_session(day)
    answer: dict[str, Any] = {
        "date": day.isoformat(),
        "open": session is not None,
        "known": calendar.is_known(day),
        "reason": calendar.closed_reason(day) if session is None else "",
        "next_session": following.trading_date.isoformat() if following is not None else None,
    }
    if session is not None:
        answer |= {
            "name": session.name,
            "special": session.special,
            "unconfirmed": session.unconfirmed,
            "phases": [
                {
                    "security_class": str(security_class),
                    "phase": str(window.phase),
                    "from": ist_clock_text(window.start_ms),
                    "until": ist_clock_text(window.end_ms),
                    "note": window.note,
                }
                for security_class, windows in session.windows.items()
                for window in windows
            ],
        }
    return answer


def check_calendar(settings: Settings, *, as_json: bool) -> int:
    """Compare the calendar with a library; exit code 1 when a difference is not explained in the calendar file."""
    calendar = load_calendar(settings.calendar_path)
    differences = cross_check(calendar, calendar.years)
    unexplained = [difference for difference in differences if not difference.known]
    if as_json:
        json.dump([_difference_json(difference) for difference in differences], sys.stdout, ensure_ascii=False, indent=2)
        sys.stdout.write("\n")
    else:
        _print_differences(differences, unexplained, calendar)
    return EXIT_OPERATING_ERROR if unexplained else EXIT_DONE


def _print_differences(differences: list[Difference], unexplained: list[Difference], calendar: SessionCalendar) -> None:
    console = Console()
    table = Table(title="Differences from the calendar library", title_justify="left")
    for heading in ("From", "To", "What", "Ours", "Theirs", "Why ours is kept"):
        table.add_column(heading, overflow="fold")
    for difference in differences:
        table.add_row(
            difference.first_date.isoformat(),
            difference.last_date.isoformat(),
            difference.subject,
            difference.ours,
            difference.theirs,
            difference.reason or "[bold red]NOT EXPLAINED[/]",
        )
    if differences:
        console.print(table)
    years = sorted(calendar.years)
    console.print(
        f"{years[0]} to {years[-1]}: {len(differences)} differences, {len(unexplained)} of them not explained", highlight=False
    )
    if unexplained:
        console.print("Check them with the exchange's circulars, then correct the calendar or write down why it is right.")


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        "first_date": difference.first_date.isoformat(),
        "last_date": difference.last_date.isoformat(),
        "sessions": difference.sessions,
        "subject": difference.subject,
        "ours": difference.ours,
        "theirs": difference.theirs,
        "reason": difference.reason,
        "known": difference.known,
    }
