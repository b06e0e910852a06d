"""A session's report as one HTML page that opens from disk.

- Everything is in the file: the browser is told to load nothing, from nowhere, and to run no script.
- Every text is escaped; a strategy's reason is foreign text.
- Equal values give equal bytes: there is no clock in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from velox_core.operations import view
from velox_core.operations.session_sections import FLAGGED, Section, report_sections
from velox_core.operations.session_story import Story

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE: Final = """
:root{color-scheme:light}
body{font:15px/1.45 system-ui,sans-serif;color:#1c1e21;background:#f5f6f8;margin:0}
main{max-width:1060px;margin:0 auto;padding:24px 20px 60px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:0 0 10px}
section,header{background:#fff;border:1px solid #dfe3e8;border-radius:8px;padding:18px 20px;margin:0 0 16px;overflow-x:auto}
.sub{color:#5a6068;margin:0 0 14px}.note{color:#5a6068;margin:10px 0 0}
.figures{display:flex;flex-wrap:wrap;gap:10px 34px}.figures div{min-width:120px}
.figures b{display:block;font-size:22px}.figures span{color:#5a6068;font-size:13px}
.gain{color:#1a7f37}.loss{color:#c62828}
.loud{background:#c62828;color:#fff;font-weight:700;padding:10px 14px;border-radius:6px;margin:0 0 14px}
.synthetic{background:#fff3cd;color:#664d03;font-weight:700;padding:10px 14px;border-radius:6px;margin:0 0 14px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:5px 10px 5px 0;border-bottom:1px solid #eceff2;vertical-align:top}
th{color:#5a6068;font-weight:600;white-space:nowrap}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
svg{width:100%;height:auto;display:block}
"""


def report_page(
    report: Mapping[str, Any], story: Story, *, equity: str, symbols: Sequence[tuple[str, str]], left_out: int
) -> str:
    """Return the page.

    Args:
        report: see `docs/architecture.md`.
        story: what is listed beside it.
        equity: the equity curve, an SVG element that is trusted.
        symbols: each traded symbol's chart, as (symbol, trusted SVG element).
        left_out: how many traded symbols have no chart.
    """
    title = f"Session {report.get('trading_date', '')}, run {report.get('run_id') or report.get('account', '')}"
    parts = [_header(report, title), _chart("Equity against the loss limit", "equity", [equity])]
    if symbols:
        note = f"{left_out} more symbols were traded; their charts are left out." if left_out else ""
        parts.append(_chart("Trades on the price", "prices", [svg for _, svg in symbols], note=note))
    elif story.no_prices:
        parts.append(_chart("Trades on the price", "prices", [], note=f"No price chart: {story.no_prices}."))
    parts += [_section(section) for section in report_sections(report, story) if section.title != "Result"]
    parts.append(_section(report_sections(report, story)[0]))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _header(report: Mapping[str, Any], title: str) -> str:
    net = report.get("net_paise", 0)
    style = "gain" if net > 0 else "loss" if net < 0 else ""
    rows = dict(view.headline_rows(report))
    figures = [("Net P&L", style), ("Charges", ""), ("Trades won", ""), ("Worst loss of the day", ""), ("At the end", "")]
    shown = "".join(
        f'<div><span>{escape(name)}</span><b class="{kind}">{escape(rows.get(name, "-"))}</b></div>' for name, kind in figures
    )
    loud = [f"{name}: {rows[name]}" for name in ("Trading was halted", "The engine failed") if name in rows]
    loud += [] if report.get("flat") else [f"NOT FLAT: {view.open_text(report)}"]
    warnings = "".join(f'<p class="loud">{escape(text)}</p>' for text in loud)
    if report.get("synthetic"):
        warnings += f'<p class="synthetic">{escape(view.SYNTHETIC_NOTE)}</p>'
    facts = [f"{name} {report[name]}" for name in ("environment", "broker", "account") if report.get(name)]
    sub = ", ".join([*facts, *(str(report[name]) for name in ("source", "granularity") if report.get(name))])
    return (
        f'<header><h1>{escape(title)}</h1><p class="sub">{escape(sub)}</p>{warnings}<div class="figures">{shown}</div></header>'
    )


def _chart(title: str, name: str, svgs: Sequence[str], *, note: str = "") -> str:
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{"".join(svgs)}{below}</section>'


def _section(section: Section) -> str:
    note = f'<p class="note">{escape(section.note)}</p>' if section.note else ""
    if not section.rows:
        return f"<section><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>{note}</section>"
    head = "".join(f"<th{_class(section, column)}>{escape(cell)}</th>" for column, cell in enumerate(section.header))
    body = "".join(
        "<tr>" + "".join(f"<td{_class(section, n, cell)}>{escape(cell)}</td>" for n, cell in enumerate(row)) + "</tr>"
        for row in section.rows
    )
    head_row = f"<thead><tr>{head}</tr></thead>" if any(section.header) else ""
    return f"<section><h2>{escape(section.title)}</h2><table>{head_row}<tbody>{body}</tbody></table>{note}</section>"


def _class(section: Section, column: int, cell: str = "") -> str:
    names = ["n"] if column in section.figures else []
    if cell in FLAGGED:
        names.append("loss")
    elif column in section.figures and cell[:1] in "+-" and cell[1:2] == "₹":
        names.append("gain" if cell[0] == "+" else "loss")
    return f' class="{" ".join(names)}"' if names else ""
