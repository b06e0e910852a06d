"""`velox data`: what market data hold and how they would be traded, and their import."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from velox_core.cli.options import ConfigOption, JsonOption, open_settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from velox_core.feeds.options import SourceOptions
    from velox_core.operations.data import DateNote, FileNote, Inspection
    from velox_core.settings import Settings

DATES_SHOWN_MAX = 40
FILES_SHOWN_MAX = 12
EXAMPLES_SHOWN_MAX = 30
PLAIN_WIDTH = 150  # columns, where no terminal says how many there are

data_app = typer.Typer(help="Look at market data, and import them.", no_args_is_help=True, rich_markup_mode=None)

PathArgument = Annotated[Path, typer.Argument(help="A .csv, .csv.zst or .parquet file, or a folder of them.")]
StampsOption = Annotated[
    str | None, typer.Option("--stamps", metavar="start|end", help="Which end of a bar its time names, where it is not shown.")
]
NaiveOption = Annotated[
    str | None, typer.Option("--naive-times", metavar="ist|utc", help="What a time without an offset means.")
]
MinutesOption = Annotated[int | None, typer.Option("--bar-minutes", metavar="N", help="The length of a bar.")]


@data_app.command("inspect")
def inspect_path(
    path: PathArgument,
    *,
    config: ConfigOption = None,
    stamps: StampsOption = None,
    naive_times: NaiveOption = None,
    bar_minutes: MinutesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a file or folder holds, what is wrong with it, and how it would be traded.

    Nothing is written. Exit code 1 when no date of it can be traded.
    """
    from velox_core.domain.errors import EXIT_DONE, EXIT_OPERATING_ERROR
    from velox_core.operations.data import inspect_data

    settings, _ = open_settings(config)
    found = inspect_data(settings, path, _options(settings, stamps, naive_times, bar_minutes))
    if as_json:
        _print_json(found.to_json())
    else:
        _show(found)
    raise typer.Exit(EXIT_DONE if found.usable else EXIT_OPERATING_ERROR)


@data_app.command("import")
def import_path(
    path: PathArgument,
    *,
    config: ConfigOption = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Where to.", show_default="var/data/NAME")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite an import of other data there.")] = False,
    stamps: StampsOption = None,
    naive_times: NaiveOption = None,
    bar_minutes: MinutesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write bars in VELOX's own columnar format, judged once and read fast.

    The same data twice change nothing. `velox run --data DIR` takes the folder.
    """
    from velox_core.operations.data import import_data

    settings, paths = open_settings(config)
    options = _options(settings, stamps, naive_times, bar_minutes)
    outcome = import_data(settings, paths, path, options, to=to, replace=replace)
    if as_json:
        _print_json(outcome.to_json())
    else:
        typer.echo(outcome.sentence)


def _options(settings: Settings, stamps: str | None, naive_times: str | None, bar_minutes: int | None) -> SourceOptions:
    """Return what was said on the command line, else in the configuration."""
    from velox_core.feeds.options import BAR_MINUTES, NaiveTimes, SourceOptions, Stamps

    reading = settings.feed.reading
    if stamps is not None and stamps not in set(Stamps):
        raise typer.BadParameter(f"--stamps {stamps!r}: write start or end")
    if naive_times is not None and naive_times not in set(NaiveTimes):
        raise typer.BadParameter(f"--naive-times {naive_times!r}: write ist or utc")
    if bar_minutes is not None and bar_minutes not in BAR_MINUTES:
        raise typer.BadParameter(f"--bar-minutes {bar_minutes}: write one of {', '.join(map(str, BAR_MINUTES))}")
    return SourceOptions(
        stamps=reading.stamps if stamps is None else Stamps(stamps),
        naive_times=reading.naive_times if naive_times is None else NaiveTimes(naive_times),
        bar_minutes=bar_minutes or reading.bar_minutes,
    )


def _show(found: Inspection) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    console.print(f"{found.path}" + (f": an import of {found.imported_from}" if found.imported_from else ""), style="bold")
    if found.files:
        _show_files(console, found.files)
    if found.dates:
        _show_dates(console, found.dates)
        _show_findings(console, found.dates)
        _show_trading(console, found.dates)
    if found.problem:
        console.print(f"\nvelox run refuses this path: {found.problem}", style="bold red")


def _show_files(console: Console, files: tuple[FileNote, ...]) -> None:
    """Print what the files are; files that are alike share a line."""
    alike: dict[tuple[str, str, int], list[FileNote]] = {}
    for note in files:
        alike.setdefault((note.layout, note.error or note.times, note.bar_minutes), []).append(note)
    table = _table("Files", "Layout", "Rows*", "Shares", "Bar*", "Times")
    for (layout, times, minutes), notes in list(alike.items())[:FILES_SHOWN_MAX]:
        name = notes[0].name if len(notes) == 1 else f"{len(notes)}: {notes[0].name} ..."
        symbols = list(dict.fromkeys(symbol for note in notes for symbol in note.symbols))
        shares = ", ".join(symbols[:3]) + (f" and {len(symbols) - 3} more" if len(symbols) > 3 else "")
        table.add_row(
            name, layout or "-", str(sum(note.rows for note in notes)), shares, f"{minutes} min" if minutes else "", times
        )
    console.print(table)
    if len(alike) > FILES_SHOWN_MAX:
        console.print(f"and {len(alike) - FILES_SHOWN_MAX} more kinds; --json shows all")


def _show_dates(console: Console, dates: tuple[DateNote, ...]) -> None:
    ticks, problems = any(note.ticks for note in dates), any(note.problem for note in dates)
    headings = ["Date", "Session", "Shares*", "Bars*", "A share*", *(["Ticks*"] if ticks else []), "Dropped*", "Noted*"]
    table = _table(*headings, *(["Problem"] if problems else []))
    for note in dates[-DATES_SHOWN_MAX:]:
        cells = [f"{note.day} {note.day:%a}", note.session or "-"]
        if note.problem:
            cells += ["-"] * (len(headings) - 2)
        else:
            span = f"{note.bars_min}" if note.bars_min == note.bars_max else f"{note.bars_min}-{note.bars_max}"
            cells += [str(len(note.symbols)), str(note.bars), f"{span} of {note.bars_whole}"]
            cells += [str(note.ticks)] if ticks else []
            cells += [str(sum(drop.count for drop in note.findings if drop.kept is kept)) for kept in (False, True)]
        table.add_row(*cells, *([note.problem] if problems else []))
    console.print(table)
    if len(dates) > DATES_SHOWN_MAX:
        console.print(f"and {len(dates) - DATES_SHOWN_MAX} dates before; --json shows all")


def _show_findings(console: Console, dates: tuple[DateNote, ...]) -> None:
    from velox_core.feeds.quality import COUNTED_IN_MINUTES

    rows = [(note.day, drop) for note in dates for drop in note.findings]
    if not rows:
        console.print("No row was refused, and nothing is unusual.")
        return
    table = _table("Date", "", "Rule", "Count*", "Shares*", "First or longest")
    for day, drop in rows[:EXAMPLES_SHOWN_MAX]:
        word = "noted" if drop.kept else "dropped"
        unit = "minute" if drop.rule in COUNTED_IN_MINUTES else "row"
        count = f"{drop.count} {unit}{'' if drop.count == 1 else 's'}"
        table.add_row(str(day), word, drop.rule, count, str(len(drop.by_symbol) or "-"), drop.example)
    console.print(table)
    if len(rows) > EXAMPLES_SHOWN_MAX:
        console.print(f"and {len(rows) - EXAMPLES_SHOWN_MAX} more findings; --json shows all")


def _show_trading(console: Console, dates: tuple[DateNote, ...]) -> None:
    """Say how the dates would be traded; dates that are traded alike share their lines."""
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for note in dates:
        if not note.problem:
            alike.setdefault((note.granularity, note.phases), []).append(str(note.day))
    for (granularity, phases), days in alike.items():
        console.print(f"\nTraded on {days[0] if len(days) == 1 else f'{len(days)} dates from {days[0]} to {days[-1]}'}:")
        for line in (granularity, *phases):
            console.print(f"  {line}")


def _table(*headings: str) -> Table:
    """Return a plain table; a heading with a star is of figures."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings:
        figure = heading.endswith("*")
        table.add_column(
            heading.rstrip("*"), justify="right" if figure else "left", overflow="fold", no_wrap=figure or heading == "Date"
        )
    return table


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
