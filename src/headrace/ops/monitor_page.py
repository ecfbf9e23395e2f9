"""The page of `headrace monitor`: one HTML file with its pictures inside, which needs nothing else to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from headrace.features.time import format_instant
from headrace.flows.drift import Drift
from headrace.materialize.monitoring import Bars, FeatureReport, Report

WIDTH, HEIGHT = 360, 120
STYLE = """
:root { color-scheme: light dark; --line: #8884; --old: #8aa4c8; --new: #e07b39; --alarm: #c62828; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin: 0 0 .4rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .15rem .7rem .15rem 0; text-align: right }
td:first-child, th:first-child { text-align: left } th { font-weight: 600; border-bottom: 1px solid var(--line) }
section { border-top: 1px solid var(--line); padding: 1rem 0; display: grid; gap: 1.2rem }
section { grid-template-columns: 380px 1fr }
section > h2 { grid-column: 1 / -1 } .alarm { color: var(--alarm); font-weight: 600 } .quiet { opacity: .7 }
.old { fill: var(--old) } .new { fill: none; stroke: var(--new); stroke-width: 2 }
svg text { font-size: 10px; fill: currentColor }
i { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em }
@media (max-width: 50rem) { section { grid-template-columns: 1fr } }
"""


def page(report: Report, made_us: int, drifts: Sequence[Drift] = ()) -> str:
    """The report as HTML. made_us: when it was made, microseconds. drifts: what detectors found, oldest first."""
    beside = "no reference" if report.reference is None else f"beside {escape(report.reference)}"
    count = len(report.features)
    verdict = (
        f'<p class="alarm">{report.alarms} of {count} features are beyond a limit.</p>'
        if report.alarms
        else f"<p>None of {count} features is beyond a limit.</p>"
    )
    key = "" if report.reference is None else (
        '<p class="quiet"><i style="background:var(--old)"></i>reference'
        '<i style="border:2px solid var(--new)"></i>now</p>'
    )  # fmt: skip
    body = [
        f"<h1>Features of {escape(report.source)}</h1>",
        f'<p class="quiet">{beside}; made {format_instant(made_us)} by <code>headrace monitor</code></p>',
        verdict,
        _overview(report),
        key,
        *map(_section, report.features),
        _drifts(drifts),
    ]
    if report.left:
        rows = "".join(f"<li>{escape(each)}: {escape(why)}</li>" for each, why in sorted(report.left.items()))
        body.append(f"<h2>Not compared</h2><ul>{rows}</ul>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Features: {escape(report.source)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"{''.join(body)}</body></html>\n"
    )


def _overview(report: Report) -> str:
    rows = "".join(
        f'<tr><td>{"<span class=alarm>▲</span> " if each.alarms else ""}<a href="#{_anchor(each)}">'
        f"{escape(each.view)}.{escape(each.feature)}</a></td><td>{each.seen.rows:,}</td>"
        f"<td>{each.seen.missing_share:.1%}</td><td>{_number(each.psi)}</td><td>{_number(each.ks)}</td></tr>"
        for each in sorted(report.features, key=lambda each: (not each.alarms, -(each.psi or 0.0)))
    )
    return f"<table><tr><th>feature</th><th>rows</th><th>missing</th><th>PSI</th><th>KS</th></tr>{rows}</table>"


def _section(each: FeatureReport) -> str:
    picture = _picture(each.bars) if each.bars is not None else '<p class="quiet">no picture</p>'
    alarms = "".join(f'<p class="alarm">{escape(alarm)}</p>' for alarm in each.alarms)
    lines = [f"<tr><th></th>{'<th>reference</th>' if each.reference is not None else ''}<th>now</th></tr>"]

    def line(label: str, old: str | None, new: str) -> None:
        before = "" if each.reference is None else f"<td>{old or ''}</td>"
        lines.append(f"<tr><td>{label}</td>{before}<td>{new}</td></tr>")

    old = each.reference
    line("rows", None if old is None else f"{old.rows:,}", f"{each.seen.rows:,}")
    line("missing", None if old is None else f"{old.missing_share:.2%}", f"{each.seen.missing_share:.2%}")
    for label, value in (each.quantiles or {}).items():
        before = (each.reference_quantiles or {}).get(label)
        line(label, None if before is None else f"{before:.6g}", f"{value:.6g}")
    return (
        f'<section id="{_anchor(each)}"><h2>{escape(each.view)}.{escape(each.feature)} '
        f'<span class="quiet">{escape(each.dtype)}</span></h2><div>{picture}</div>'
        f"<div>{alarms}<table>{''.join(lines)}</table></div></section>"
    )


def _picture(bars: Bars) -> str:
    """A histogram: filled columns of the reference, outlined ones of now."""
    most = max((*(bars.reference or ()), *bars.current, 1e-9))
    step = WIDTH / len(bars.labels)
    columns = []
    for at, label in enumerate(bars.labels):
        told = [escape(label)]
        if bars.reference is not None:
            told.append(f"reference {bars.reference[at]:.1%}")
            columns.append(_column("old", at * step, step, bars.reference[at] / most))
        told.append(f"now {bars.current[at]:.1%}")
        columns.append(_column("new", at * step, step, bars.current[at] / most))
        columns.append(
            f'<rect x="{at * step:.1f}" y="0" width="{step:.1f}" height="{HEIGHT}" fill="transparent">'
            f"<title>{', '.join(told)}</title></rect>"
        )
    ends = (
        f'<text x="0" y="{HEIGHT + 12}">{escape(bars.labels[0][:28])}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 12}" text-anchor="end">{escape(bars.labels[-1][:28])}</text>'
    )
    return (
        f'<svg viewBox="-2 -4 {WIDTH + 4} {HEIGHT + 20}" width="100%" role="img" aria-label="distribution">'
        f"{''.join(columns)}{ends}</svg>"
    )


def _column(kind: str, x: float, width: float, share: float) -> str:
    height = HEIGHT * share
    return (
        f'<rect class="{kind}" x="{x + 1:.1f}" y="{HEIGHT - height:.1f}" width="{max(width - 2, 1):.1f}" '
        f'height="{height:.1f}"/>'
    )


def _drifts(drifts: Sequence[Drift]) -> str:
    if not drifts:
        return ""
    rows = "".join(
        f"<tr><td>{format_instant(each.at_us)}</td><td>{escape(each.view)}.{escape(each.feature)}</td>"
        f"<td>{escape(each.detector)}</td><td>{each.value:.6g}</td></tr>"
        for each in reversed(drifts)
    )
    return (
        "<h2>Drifts that the flow's detectors found</h2><table><tr><th>at</th><th>feature</th><th>detector</th>"
        f"<th>value</th></tr>{rows}</table>"
    )


def _anchor(each: FeatureReport) -> str:
    return escape(f"{each.view}-{each.feature}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
