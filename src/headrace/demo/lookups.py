"""Lookups as tables: several entities side by side, and one entity at two instants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from rich.table import Table
from rich.text import Text

from headrace.demo.flights import NEW_YORK
from headrace.features.views import FeatureView
from headrace.serving import Client
from headrace.serving.vectors import FeatureVector

View = type[FeatureView]


def side_by_side(client: Client, view: View, keys: Sequence[Mapping[str, Any]], features: Sequence[str]) -> Table:
    """One lookup of several entities: a column each."""
    vectors = client.get_many(view, keys)
    table = _table(f"{vectors.view.name}, {clock(vectors[0].at)}")
    table.add_column("")
    for vector in vectors:
        table.add_column(" ".join(map(str, vector.key.values())), justify="right")
    for name in features:
        table.add_row(name, *(shown(vector[name]) for vector in vectors))
    newest = [vector.newest_event for vector in vectors]
    table.add_row("newest event", *("never seen" if each is None else clock(each) for each in newest), style="dim")
    return table


def then_and_now(then: FeatureVector, now: FeatureVector) -> Table:
    """One entity asked twice: a row for each feature, with the status of its value."""
    key = " ".join(f"{name}={value}" for name, value in now.key.items())
    table = _table(f"{now.view.name} {key}")
    table.add_column("feature")
    for vector in (then, now):
        table.add_column(clock(vector.at), justify="right")
        table.add_column("status", style="dim")
    for name in now:
        table.add_row(name, shown(then[name]), then.status[name], shown(now[name]), now.status[name])
    return table


def clock(instant: datetime) -> str:
    """An instant on New York's clock.

    >>> from datetime import UTC
    >>> clock(datetime(2013, 12, 30, 23, 0, tzinfo=UTC))
    '30 Dec 18:00'
    """
    return f"{instant.astimezone(ZoneInfo(NEW_YORK)):%-d %b %H:%M}"


def shown(value: Any) -> Text:
    """A value in a table; null greyed."""
    if value is None:
        return Text("null", style="dim")
    return Text(f"{value:.2f}" if isinstance(value, float) else str(value))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="cyan", box=None, padding=(0, 2, 0, 2))
