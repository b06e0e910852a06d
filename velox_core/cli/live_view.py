"""What a running day looks like on a terminal: one screen made from a published status.

- Values in, a picture out: nothing is read here and nothing decided. Without colour the words say the same.
- Fits 80 columns; lines that are longer are cut, never wrapped, so that the screen stands still. What does not fit in the
  height is cut from the decisions first: the oldest go.
- Money in rupees, times in IST of the engine's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from velox_core.cli.tables import money_style
from velox_core.domain.money import rupees_display, rupees_text
from velox_core.domain.time import MS_PER_SECOND, ist_clock_text
from velox_core.operations.journal_bodies import int_of, text_of
from velox_core.operations.status import Status
from velox_core.operations.view import SYNTHETIC_NOTE, halt_lines, halted_text, loss_share, signed_rupees

BAR_WIDTH: Final = 24
WIDTH_MIN: Final = 40
ROWS_MAX: Final = 6
DECISIONS_MIN: Final = 2
HALTS_MAX: Final = 3
STALE_DATA_MS: Final = 90_000
STALE_STATUS_SECONDS: Final = 5.0


def live_screen(status: Status, *, age_seconds: float, width: int, height: int, hint: str = "") -> RenderableType:
    """Return the screen.

    Args:
        status: what the engine published last.
        age_seconds: how long ago, by the machine's clock.
        width, height: the terminal's columns and rows.
        hint: one line at the bottom, such as what Ctrl-C does.
    """
    top = [*_halts(status), _clock(status, age_seconds), _money(status)]
    positions, orders = _positions(status), _orders(status)
    taken = len(top) + len(positions) + len(orders) + 6  # the frame, money's second line, a heading, the hint and one to spare
    room = max(DECISIONS_MIN, height - taken)
    parts: list[RenderableType] = [*top, *positions, *orders, *_decisions(status, room)]
    if hint:
        parts.append(_line(hint, "dim"))
    title = f"VELOX  {status.text('trading_date')}  {status.run_id or status.folder.name}"
    return Panel(
        Group(*parts),
        title=Text(title, style="bold"),
        subtitle=Text(f" {SYNTHETIC_NOTE} ", style="bold black on yellow") if status.flag("synthetic") else None,
        border_style="bold red" if status.flag("halted") else "yellow" if status.flag("synthetic") else "dim",
        box=ROUNDED,
        width=max(WIDTH_MIN, width),
        padding=(0, 1),
    )


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _row(*cells: RenderableType) -> Table:
    grid = Table.grid(padding=(0, 2))
    for _ in cells:
        grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_row(*cells)
    return grid


def _halts(status: Status) -> list[RenderableType]:
    """Return the reason first, loud and short enough for a narrow screen, and below it what each halt is."""
    if not status.flag("halted"):
        return []
    details = [_line(f" {line}", "bold red") for line in halt_lines(status, brief=True)[:HALTS_MAX]]
    return [_line(f" HALTED  {halted_text(status)} ", "bold white on red"), *details]


def _clock(status: Status, age_seconds: float) -> RenderableType:
    engine_ms, data_ms = status.number("engine_ms"), status.number("data_ms")
    data_age_ms = max(0, engine_ms - data_ms) if data_ms else 0
    data = f"data {data_age_ms / MS_PER_SECOND:.0f} s old" if data_ms else "no data yet"
    stale = age_seconds > STALE_STATUS_SECONDS and not status.ended
    said = f"SILENT for {age_seconds:.0f} s" if stale else ""
    return _row(
        Text(ist_clock_text(engine_ms) if engine_ms else "--:--:--", style="bold"),
        Text(status.doing, style="bold red" if status.flag("halted") else "bold cyan"),
        ProgressBar(total=1.0, completed=status.progress, width=BAR_WIDTH),
        f"{status.progress * 100:.0f} %",
        Text(data, style="bold red" if data_age_ms > STALE_DATA_MS else "dim"),
        Text(said, style="bold red"),
    )


def _money(status: Status) -> RenderableType:
    net, limit = status.number("net_paise"), status.number("loss_limit_paise")
    used = loss_share(status)
    filled = round(min(1.0, used) * BAR_WIDTH)
    style = "green" if used < 0.5 else "yellow" if used < 0.8 else "bold red"
    bar = Text.assemble(("█" * filled, style), ("░" * (BAR_WIDTH - filled), "dim"))
    headroom = status.number("headroom_paise")
    left = f"headroom {rupees_display(headroom)}" if headroom >= 0 else f"PAST THE LIMIT by {rupees_display(-headroom)}"
    return Group(
        _row(
            Text(f"P&L {signed_rupees(net)}", style=f"bold {money_style(net)}".strip()),
            bar,
            Text(f"{used * 100:.0f} % of -{rupees_display(limit)}", style=style),
        ),
        _row(
            Text(left, style="" if headroom >= 0 else "bold red"),
            Text(
                f"realised {rupees_text(status.number('realised_paise'))}, open {rupees_text(status.number('open_paise'))}, "
                f"charges {rupees_text(status.number('charges_paise'))}",
                style="dim",
            ),
        ),
    )


def _heading(text: str) -> Text:
    return _line(text, "bold underline")


def _listed(heading: str, lines: list[Text], count: int) -> list[RenderableType]:
    more = [_line(f"… and {count - len(lines)} more", "dim")] if count > len(lines) else []
    return [_heading(heading), *lines, *more] if lines else []


def _positions(status: Status) -> list[RenderableType]:
    held = status.positions
    lines = [_position(position) for position in held[:ROWS_MAX]]
    return _listed(f"Positions ({len(held)})", lines, len(held)) or [_line("No position is open.", "dim")]


def _position(position: Mapping[str, Any]) -> Text:
    open_paise = int_of(position, "open_paise")
    text = _line(
        f"{text_of(position, 'symbol'):<12}{int_of(position, 'quantity'):>+6}  "
        f"{rupees_text(int_of(position, 'average_paise')):>10} → {rupees_text(int_of(position, 'last_paise')):>10} "
    )
    text.append(f"{rupees_text(open_paise):>10}", style=money_style(open_paise))
    stop_paise, target_paise = int_of(position, "stop_paise"), int_of(position, "target_paise")
    kept = [f"stop {rupees_text(stop_paise)}"] if stop_paise else []
    kept += [f"target {rupees_text(target_paise)}"] if target_paise else []
    return text.append(f"  {' '.join([*kept, text_of(position, 'strategy')])}", style="dim")


def _orders(status: Status) -> list[RenderableType]:
    live = status.rows("working_orders")
    lines = [
        _line(
            f"{ist_clock_text(int_of(order, 'created_ms'))} {text_of(order, 'side')} "
            f"{int_of(order, 'filled')}/{int_of(order, 'quantity')} {text_of(order, 'symbol')} {text_of(order, 'state')} "
            f"{text_of(order, 'role').lower()} {text_of(order, 'strategy')}",
            "bold yellow" if text_of(order, "state") == "UNKNOWN" else "",
        )
        for order in live[:ROWS_MAX]
    ]
    return _listed(f"Working orders ({status.number('live_orders')})", lines, status.number("live_orders"))


def _decisions(status: Status, room: int) -> list[RenderableType]:
    counts = f"{status.number('decisions')}, {status.number('refusals')} refused; {status.number('fills')} fills"
    newest_first = list(reversed(status.rows("last_decisions")))[:room]
    return [_heading(f"Last decisions ({counts})"), *(_decision(decision) for decision in newest_first)]


def _decision(decision: Mapping[str, Any]) -> Text:
    approved, layer = decision.get("approved") is True, int_of(decision, "layer")
    head = (
        f"{ist_clock_text(int_of(decision, 'ms'))} {text_of(decision, 'strategy') or '(nobody)'} "
        f"{text_of(decision, 'kind').lower()} {text_of(decision, 'side')} {text_of(decision, 'symbol')} "
    )
    verdict = "ok" if approved else f"REFUSED by layer {layer}" if layer else "REFUSED"
    text = _line(head)
    text.append(verdict, style="green" if approved else "bold red")
    return text.append(f": {text_of(decision, 'reason')}", style="dim")
