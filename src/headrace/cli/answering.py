"""Answers of `headrace get` and `headrace history` from a data folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.cli.places import LOG, part_of
from headrace.features.dtypes import TIMESTAMP
from headrace.features.errors import HeadraceError
from headrace.features.time import instant_us
from headrace.features.views import ViewDefinition
from headrace.serving.client import Client
from headrace.serving.vectors import FeatureVector
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.memory import MemoryStore
from headrace.stores.offline import OfflineLog


@dataclass(frozen=True)
class History:
    """Rows of one entity, oldest first.

    dtypes: type of each column shown, in order. older: how many rows were left out before the first. settled_us: rows
    at or after it are provisional, None when all are.
    """

    rows: list[dict[str, Any]]
    dtypes: Mapping[str, str]
    older: int
    settled_us: int | None


def as_of(view: ViewDefinition, keys: Mapping[str, Any], at: str, data: str | Path) -> FeatureVector:
    """What serving would have said at an instant, from the log: nothing from after it, expiry included (C11)."""
    rows = OfflineLog(part_of(data, LOG)).scan(view, [keys], to_us=instant_us(at, "--at"))
    then = MemoryStore()
    then.write(view, rows.slice(max(0, rows.num_rows - 1)))
    return Client(then).get(view, keys, at=at)


def history(
    view: ViewDefinition,
    keys: Mapping[str, Any],
    data: str | Path,
    *,
    from_us: int | None = None,
    to_us: int | None = None,
    limit: int = 0,
) -> History:
    """Rows of the log in (from, to]; with a limit the newest so many.

    Without `to_us` up to the flow's clock: provisional rows after it have not come about yet. A view that thins its log
    (`log_every`) has the rows that it kept; one without a log raises `MissingStoreError`.
    """
    log = OfflineLog(part_of(data, LOG))
    clock = log.manifest().clock
    if to_us is None and clock is not None:
        to_us = clock.us
    shown = ["event_timestamp", *view.feature_names()]
    rows = log.scan(view, [keys], from_us=from_us, to_us=to_us, columns=shown)
    older = max(0, rows.num_rows - limit) if limit else 0
    dtypes = {"event_timestamp": TIMESTAMP, **{name: view.dtypes[name] for name in shown[1:]}}
    return History(rows.slice(older).to_pylist(), dtypes, older, log.settled_us(view))


def dead_letters(data: str | Path, limit: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Events that runs into the folder could not take, oldest first, and how many older ones the limit leaves out."""
    log = OfflineLog(part_of(data, LOG))
    if not log.manifest().parts:
        raise HeadraceError(f"{data} holds no log. Fill it with `headrace run FILE --data {data}`.")
    rows = read_dead_letters(log)
    older = max(0, rows.num_rows - limit) if limit else 0
    return rows.slice(older).to_pylist(), older
