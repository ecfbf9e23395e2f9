"""Values, rows and summaries on a terminal, and the same as JSON."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.features.dtypes import TIMESTAMP, split_list, split_map
from headrace.features.services import FeatureService
from headrace.features.time import format_instant, instant_us
from headrace.features.views import ViewDefinition

if TYPE_CHECKING:  # a worker that shows what it did asks nothing
    from headrace.cli.answering import History
    from headrace.serving.vectors import FeatureVector


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
        pairs = value.items() if isinstance(value, Mapping) else value  # Arrow gives a map as a list of pairs
        return {str(plain(key, pair[0])): plain(each, pair[1]) for key, each in pairs}
    if dtype == TIMESTAMP:
        return format_instant(instant_us(value, dtype) if isinstance(value, datetime) else value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def cell(shown: Any) -> Text:
    """A plain value in a table: floats to six digits, null greyed."""
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


def print_json(answer: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(answer, ensure_ascii=False))


def _table(title: str, *, header: bool = True) -> Table:
    return Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
        show_header=header,
    )


def _note(console: Console, name: str, text: str) -> None:
    console.print(Text.assemble((f"{name}: ", "dim"), text))


def _named(view: ViewDefinition, keys: Mapping[str, Any]) -> str:
    return " ".join([view.name, *(f"{name}={value}" for name, value in keys.items())])


def _instant(moment: datetime | None) -> str | None:
    return None if moment is None else format_instant(instant_us(moment, "instant"))


def show_vector(view: ViewDefinition, vector: FeatureVector, *, as_json: bool) -> None:
    """One entity's features, each with its status, and how fresh they are."""
    values = {name: plain(value, view.dtypes[name]) for name, value in vector.items()}
    if as_json:
        print_json(
            {
                "view": view.name,
                "entity": vector.key,
                "at": _instant(vector.at),
                "newest_event": _instant(vector.newest_event),
                "features": values,
                "status": vector.status,
            }
        )
        return
    table = _table(_named(view, vector.key))
    table.add_column("feature", overflow="fold")
    table.add_column("value", justify="right", overflow="fold")
    table.add_column("status", style="dim")
    for name, value in values.items():
        table.add_row(name, cell(value), vector.status[name])
    console = Console()
    console.print(table)
    _note(console, "asked at", _instant(vector.at) or "")
    _note(console, "newest event", _instant(vector.newest_event) or "none: this entity was never seen")


def show_history(view: ViewDefinition, keys: Mapping[str, Any], history: History, *, as_json: bool) -> None:
    """One entity's rows, oldest first, a line each; provisional ones are marked."""
    rows = [{name: plain(row[name], dtype) for name, dtype in history.dtypes.items()} for row in history.rows]
    settled = "" if history.settled_us is None else format_instant(history.settled_us)
    final = [row["event_timestamp"] < settled for row in rows]
    if as_json:
        settling = [{**row, "settled": is_final} for row, is_final in zip(rows, final, strict=True)]
        print_json({"view": view.name, "entity": keys, "older": history.older, "rows": settling})
        return
    table = _table(_named(view, keys))
    for name, dtype in history.dtypes.items():
        at = name == "event_timestamp"
        table.add_column(name, justify="left" if dtype == TIMESTAMP else "right", overflow="fold", no_wrap=at)
    for row, is_final in zip(rows, final, strict=True):
        table.add_row(*map(cell, row.values()), style=None if is_final else "italic")
    console = Console()
    console.print(table)
    if history.older:
        _note(console, "older", f"{history.older:,} rows more; --limit 0 shows all")
    if not all(final):
        provisional = f"{final.count(False)} rows from {settled}: what follows if no further event comes"
        _note(console, "provisional", provisional if settled else "all rows: nothing has settled yet")


def show_dead(letters: Sequence[Mapping[str, Any]], older: int, *, as_json: bool) -> None:
    """Events that could not be taken, a line each."""
    rows = [{**letter, "event_time": _instant(letter["event_time"])} for letter in letters]
    if as_json:
        print_json({"older": older, "dead": rows})
        return
    table = _table("Events that could not be taken" if rows else "Every event was taken")
    for name in ("reason", "source", "offset", "detail", "payload") if rows else ():
        table.add_column(name, overflow="fold")
    for row in rows:
        where = f"{row['partition']}:{row['offset']}"
        table.add_row(row["reason"], row["topic"] or row["source"], where, row["detail"], row["payload"])
    console = Console()
    console.print(table)
    if older:
        _note(console, "older", f"{older:,} more; --limit 0 shows all")


def show_figures(title: str, lines: Mapping[str, str]) -> None:
    """Names and figures, a line each."""
    table = _table("", header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, figure in lines.items():
        table.add_row(name, figure)
    console = Console()
    console.print(Text(title, style="bold"))  # a title of the table would be folded to its width
    console.print(table)


def view_as_data(view: ViewDefinition) -> dict[str, Any]:
    """A view for `headrace views --json`."""
    return {
        "kind": "view",
        "name": view.name,
        "entity": view.entity.name,
        "keys": view.entity.keys,
        "source": repr(view.source),
        "ttl_us": view.ttl_us,
        "fingerprint": view.fingerprint(),
        "features": {name: {"dtype": view.dtypes[name]} for name in view.feature_names()},
    }


def service_as_data(service: FeatureService) -> dict[str, Any]:
    """A feature service for `headrace views --json`."""
    on_demand = {each.name: {"dtype": each.feature.dtype} for each in service.on_demand}
    return {
        "kind": "service",
        "name": service.name,
        "version": service.version,
        "keys": list(service.keys),
        "request": {each.name: {"dtype": each.dtype} for each in service.request},
        "fingerprint": service.fingerprint(),
        "features": {
            **{each.name: {"dtype": each.dtype, "of": f"{each.view.name}:{each.feature}"} for each in service.features},
            **on_demand,
        },
    }
