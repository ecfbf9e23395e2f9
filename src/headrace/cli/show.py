"""Values, rows and summaries on a terminal, and the same as JSON."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.features.dtypes import TIMESTAMP, split_list, split_map
from headrace.features.time import format_instant


def plain(value: Any, dtype: str) -> Any:
    """A value as JSON has it: instants in ISO 8601, bytes in base64, what is no number as null.

    >>> plain(0, "timestamp"), plain([1.5, float("nan")], "list<float64>"), plain({1: 2}, "map<int64,int64>")
    ('1970-01-01T00:00:00Z', [1.5, None], {'1': 2})
    """
    element, pair = split_list(dtype), split_map(dtype)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if element is not None:
        return [plain(each, element) for each in value]
    if pair is not None:
        return {str(plain(key, pair[0])): plain(each, pair[1]) for key, each in value.items()}
    if dtype == TIMESTAMP:
        return format_instant(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def cell(value: Any, dtype: str) -> Text:
    """A value in a table: floats to six digits, null greyed."""
    shown = plain(value, dtype)
    if shown is None:
        return Text("null", style="dim")
    if isinstance(shown, str):
        return Text(shown)
    return Text(json.dumps(_rounded(shown), ensure_ascii=False).replace('"', ""))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return value


def instant(us: int | None) -> str | None:
    return None if us is None else format_instant(us)


def print_json(answer: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(answer, ensure_ascii=False))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))


def print_features(
    title: str,
    values: Mapping[str, Any],
    statuses: Mapping[str, str],
    dtypes: Mapping[str, str],
    notes: Mapping[str, str | None],
) -> None:
    """One entity's features, a line each with the status, and below them the notes (as of, newest event)."""
    table = _table(title)
    table.add_column("feature", overflow="fold")
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("status", style="dim")
    for name, value in values.items():
        table.add_row(name, cell(value, dtypes[name]), statuses[name])
    console = Console()
    console.print(table)
    for name, note in notes.items():
        console.print(Text.assemble((f"{name}: ", "dim"), note or "never"))


def print_rows(title: str, rows: Sequence[Mapping[str, Any]], dtypes: Mapping[str, str], notes: Iterable[str]) -> None:
    """Rows of one entity over time, a line each."""
    table = _table(title)
    for name, dtype in dtypes.items():
        table.add_column(name, justify="left" if dtype == TIMESTAMP else "right", overflow="fold")
    for row in rows:
        table.add_row(*(cell(row[name], dtype) for name, dtype in dtypes.items()))
    console = Console()
    console.print(table)
    for note in notes:
        console.print(Text(note, style="dim"))


def print_summary(title: str, lines: Mapping[str, str]) -> None:
    """Names and figures, a line each."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), show_header=False
    )
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, figure in lines.items():
        table.add_row(name, figure)
    Console().print(table)
