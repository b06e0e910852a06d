"""`velox backup`, `velox backups`, `velox restore`: a day's backup taken, looked at and put back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from velox_core.cli.options import ConfigOption, JsonOption, open_settings, optional_date, parse_date

if TYPE_CHECKING:
    from velox_core.operations.backup import BackupOutcome, RestoreOutcome
    from velox_core.operations.backup_places import StoredBackup
    from velox_core.settings import Paths, Settings

backups_app = typer.Typer(help="The backups that there are.", no_args_is_help=True, rich_markup_mode=None)

PlaceArgument = Annotated[
    str | None, typer.Argument(metavar="[DIR|URL]", help="Where they are.", show_default="the configured destinations")
]


def backup(
    *,
    config: ConfigOption = None,
    date: Annotated[
        str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="The day.", show_default="of the newest run")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="What is lacking: days without a good one, places without it.")
    ] = False,
    to: Annotated[
        str | None, typer.Option("--to", metavar="DIR|URL", help="Where to.", show_default="the configured destinations")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Back a day up: journals, the simulated broker's book, Redis, state files, configuration, calendar, charges.

    Each part is restored into an empty place and compared before the backup gets its name. Exit code 1 when something is
    missing or a destination did not take it; the output says what.
    """
    from velox_core.operations.backup import backup_day

    settings, paths = open_settings(config)
    if missing and date is not None:
        raise typer.BadParameter("--missing takes the days that lack one: leave out --date")
    outcomes: list[BackupOutcome] = []
    silent: list[str] = []
    for outcome in (
        _what_lacks(settings, paths, to, silent)
        if missing
        else [backup_day(settings, paths, optional_date(date) or _newest_day(settings, paths), to=to)]
    ):
        outcomes.append(outcome)
        if not as_json:
            typer.echo("\n".join(outcomes[-1].sentences))
    if as_json:
        bodies = [outcome.to_json() for outcome in outcomes]
        _print_json(bodies if missing else bodies[0])
    elif not outcomes and not silent:
        typer.echo("every day on record has a good backup in every place")
    for problem in silent:
        typer.echo(f"what it lacks is not known: {problem}", err=True)
    raise typer.Exit(max((outcome.exit_code for outcome in outcomes), default=0) or min(1, len(silent)))


@backups_app.command("list")
def list_them(place: PlaceArgument = None, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the backups, oldest first. Exit code 1 when a destination does not answer."""
    from velox_core.operations.backup_places import list_backups

    settings, paths = open_settings(config)
    found = list_backups(settings, paths, at=place)
    if as_json:
        _print_json([stored.to_json() for stored in found])
    elif not found:
        typer.echo("none yet")
    else:
        _show(
            "Backups",
            ("Name", "State", "Made", "Size", "Files", "Where"),
            [_listed(stored) for stored in found if stored.unfinished is None],
        )
        if left := [stored for stored in found if stored.unfinished is not None]:
            _show(
                "No backups: under way, or left of one that was killed",
                ("Name", "Host", "Last touched", "Size", "Where", "To remove it"),
                [_left(stored) for stored in left],
            )
    raise typer.Exit(1 if any(stored.problem for stored in found) else 0)


@backups_app.command("verify")
def verify(
    place: PlaceArgument = None,
    *,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="This one, e.g. 2024-01-15-2.")] = None,
    date: Annotated[str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="Those of this day.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore backups into an empty place and compare everything again.

    Every byte, SQLite's integrity, each table's rows and checksum, the hash chains, the keys in a scratch Redis. Exit code 1
    when one is not what it was.
    """
    from velox_core.operations.backup_places import verify_backups

    settings, paths = open_settings(config)
    verdicts = verify_backups(settings, paths, at=place, name=name, on=optional_date(date))
    if as_json:
        _print_json([verdict.to_json() for verdict in verdicts])
    else:
        for verdict in verdicts:
            typer.echo(f"{'NOT OK' if verdict.problems else 'ok':<8}{verdict.name:<24}{verdict.where}")
            for problem in verdict.problems:
                typer.echo(f"        {problem}")
    raise typer.Exit(1 if any(verdict.problems for verdict in verdicts) else 0)


def restore(
    *,
    date: Annotated[str, typer.Option("--date", metavar="YYYY-MM-DD", help="The day.")],
    config: ConfigOption = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="DIR|URL", help="Where it is.", show_default="the configured destinations")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Which of the day's.", show_default="the newest good one")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DIR|URL", help="An empty folder, or a database without runs.", show_default="its place"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Move aside what is newer than the backup, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a day's backup back.

    It is verified first. What was there is moved aside, never deleted; what is newer than the backup stays unless --force.
    Refused while an engine of the account works. An engine builds its Redis ledger anew from journal and broker.
    """
    from velox_core.operations.backup import restore as put_back

    settings, paths = open_settings(config)
    outcome = put_back(settings, paths, parse_date(date), source=source, name=name, to=to, dry_run=dry_run, force=force)
    if as_json:
        _print_json(outcome.to_json())
    else:
        _show_restore(outcome)


def _newest_day(settings: Settings, paths: Paths) -> date:
    """Return the day of the newest run, today (IST) where there is none: the account's own stores are saved then."""
    from velox_core.operations.dates import today_ist
    from velox_core.operations.recorded import recorded_runs
    from velox_core.settings import BrokerType

    runs = recorded_runs(settings, paths) if settings.broker.type is BrokerType.SIMULATED else []
    return runs[-1].trading_date if runs else today_ist()


def _what_lacks(settings: Settings, paths: Paths, at: str | None, silent: list[str]) -> Iterator[BackupOutcome]:
    """Take a backup of each day that has no good one, and bring those that are good to the places that lack them.

    A place that does not answer is added to `silent` with its reason, and not waited for once more for each day.
    """
    from velox_core.backup.sources import run_dates
    from velox_core.operations.backup import backup_day, bring_rest, own_origin
    from velox_core.operations.backup_places import list_backups

    ours = ("", own_origin(settings, paths))
    stored = list_backups(settings, paths, at=at)
    silent += [each.problem for each in stored if not each.name]
    places = (1 if at is not None else 1 + len(settings.backup.copies)) - len(silent)
    kept: dict[date, dict[str, set[str]]] = {}
    for each in stored:
        if each.manifest is not None and each.manifest.good and each.manifest.made_by in ours:
            kept.setdefault(each.manifest.trading_date, {}).setdefault(each.name, set()).add(each.where)
    for day in run_dates(settings, paths):
        newest = max((day_of_places for day_of_places in kept.get(day, {}).values()), key=len, default=set())
        if not newest:
            yield backup_day(settings, paths, day, to=at)
        elif len(newest) < places:
            yield bring_rest(settings, paths, day, to=at) or backup_day(settings, paths, day, to=at)


def _listed(stored: StoredBackup) -> tuple[str, ...]:
    manifest = stored.manifest
    if manifest is None:
        return (stored.name or "-", "UNREADABLE", "-", "-", "-", stored.problem)
    state = "good" if manifest.good else f"INCOMPLETE: {len(manifest.missing)} missing" if manifest.missing else "NOT VERIFIED"
    return (
        stored.name,
        state,
        _moment(manifest.made_wall_ms),
        f"{manifest.packed_bytes / 1e6:.1f} MB",
        str(len(manifest.parts)),
        stored.where,
    )


def _left(stored: StoredBackup) -> tuple[str, ...]:
    left = stored.unfinished
    if left is None:
        return ()
    touched = "-" if not left.touched_wall_ms else f"{_moment(left.touched_wall_ms)}, {_age(left.touched_wall_ms)} ago"
    return (left.name, left.made_by or "-", touched, f"{left.bytes / 1e6:.1f} MB", stored.where, stored.remedy)


def _age(wall_ms: int) -> str:
    import time

    hours = max(0, time.time_ns() // 1_000_000 - wall_ms) / 3_600_000
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _moment(wall_ms: int) -> str:
    from datetime import datetime

    from velox_core.domain.time import IST

    return f"{datetime.fromtimestamp(wall_ms / 1_000, IST):%Y-%m-%d %H:%M}"


def _show_restore(outcome: RestoreOutcome) -> None:
    title = f"{'Restored' if outcome.done else 'Would be restored'}: {outcome.name} from {outcome.where}"
    rows = [(step.action.value, str(step.target), step.why) for step in outcome.steps]
    _show(title, ("What", "Where", "Why"), rows)
    for moved in outcome.moved:
        typer.echo(f"moved aside: {moved}")
    for words in outcome.metrics:
        typer.echo(words)
    if outcome.done:
        typer.echo("An engine builds its Redis ledger anew from journal and broker. Look with velox doctor --reconcile.")


def _show(title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
