"""An online store filled from the log: after it was lost, moved, or left behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.features.errors import DataError
from headrace.features.views import definition
from headrace.stores.offline import OfflineLog
from headrace.stores.online import OnlineStore

BATCH = 50_000
"""Rows per write: one transaction each, so readers never wait long."""


def sync(
    store: OnlineStore, views: Any | Iterable[Any], *, log: OfflineLog, at_us: int | None = None
) -> dict[str, int]:
    """Write the newest row of every entity as of an instant to an online store, and set its clock there.

    Rows that the store has newer stay, so a flow may write meanwhile. To get rid of entities that the log does not
    have, drop the view there first.

    Args:
        store: the online store.
        views: one view or several.
        log: the log of the flow that computed them.
        at_us: the instant, microseconds; by default where the flow stood at its newest commit. Later is fine:
            provisional rows tell what will have expired by then if no further event comes.

    Returns:
        rows written, by view name.

    Raises:
        MissingStoreError: the log has nothing of a view.
        SchemaMismatchError: the log or the store holds rows of another definition of a view.
        DataError: the log does not say where its flow stood, so `at_us` is needed.
    """
    several = views if isinstance(views, Iterable) and not hasattr(views, "__view__") else [views]
    clock = log.manifest().clock
    if at_us is None:
        if clock is None:
            raise DataError(
                f"{log!r} was committed without a clock. Say as of when to fill the store: sync(..., at_us=...)."
            )
        at_us = clock.us
    written = {}
    for view in map(definition, several):
        rows = log.latest(view, to_us=at_us)
        batches = (rows.slice(start, BATCH) for start in range(0, rows.num_rows, BATCH))
        written[view.name] = sum(store.write(view, batch) for batch in batches)
    store.set_clock(at_us, "stream" if clock is None else clock.kind)
    return written
