"""Headrace's own views in Feast: materialized from the offline log of their flow, as Headrace's readers want them.

Read is the newest row of each entity as of the end of the range, provisional rows included, so that values fall as time
passes (C5). Rows before the end can still be corrected until the log settles; therefore the start of the range does not
say where the last run had come. In Redis a mark beside the rows does, as for `headrace materialize`; into other stores
every entity is written. Redis gets all that Headrace's own readers know, such as the newest event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from feast.infra.offline_stores.file_source import FileSource
from feast.value_type import ValueType

from headrace.features.errors import did_you_mean
from headrace.materialize.feast.instants import US, us_of
from headrace.materialize.feast.online_store import TAG
from headrace.materialize.feast.place import feast_redis_address
from headrace.materialize.feast.reading import MaterializeError, Reading, Work
from headrace.materialize.feast.writing import goes_straight, write_rows
from headrace.materialize.marks import mark_name
from headrace.materialize.newest import Asked, count_newest, stream_newest
from headrace.materialize.online import Step, fill
from headrace.stores.layout import EVENT_TIMESTAMP, NEWEST_EVENT, LoggedView
from headrace.stores.manifest import Manifest
from headrace.stores.offline import OfflineLog
from headrace.stores.redis import RedisStore

LOG = "headrace.log"
"""The tag that says where the log is; without it the path of the view's FileSource does."""


def log_reading(
    work: Work, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AbstractContextManager[Reading] | None:
    """Reads a view that a flow of Headrace's computes; others are left to the next reader."""
    root = log_root(work)
    return None if root is None else _reading(work, root, now())


def log_root(work: Work) -> str | None:
    """Where the log of a view of Headrace's is: a folder or a URL; None for any other view."""
    view = work.view
    if TAG not in (view.tags or {}):
        return None
    if LOG in view.tags:
        return str(view.tags[LOG])
    source = view.batch_source
    if not isinstance(source, FileSource):
        return None
    if "://" in source.path:
        path = source.path
    else:
        path = str(FileSource.get_uri_for_file_path(repo_path=work.config.repo_path, uri=source.path))
    root, found, _ = path.partition(f"/view={view.name}")
    return root if found else None


@contextmanager
def _reading(work: Work, root: str, now: datetime) -> Iterator[Reading]:
    log = OfflineLog(root if "://" in root else Path(root))
    manifest = log.manifest()
    view = _logged(work, log, manifest)
    end, start = us_of(work.task.end_time), us_of(work.task.start_time)
    if manifest.clock is None or manifest.clock.kind == "wall":
        end = min(end, us_of(now))  # what has not come yet is not known
    memory = work.options.memory_limit
    if not work.view.online:
        yield Reading(iter(()), 0)
    elif goes_straight(work) and not work.config.registry.enable_online_feature_view_versioning:
        address = feast_redis_address(work.config.online_store)
        with RedisStore(address, project=work.config.project, expire=work.options.expire) as store:
            reached = store.reached(mark_name(view, manifest))
            mark = None if reached is None else reached.position
            after = start if mark is not None and start < mark else None  # asked for what was written already: again

            def write(_: Iterator[pa.RecordBatch], progress: Callable[[int], None]) -> None:
                fill(store, view, log=log, from_us=after, to_us=end, memory=memory, progress=_growing(progress))

            asked = Asked(view, mark if after is None else after, end)
            yield Reading(iter(()), count_newest(log, asked, memory=memory), write)
    else:
        asked = Asked(view, None, end)

        def write_by_feast(_: Iterator[pa.RecordBatch], progress: Callable[[int], None]) -> None:
            def take(rows: pa.Table) -> None:
                write_rows(work, Reading(iter(_for_feast(work, rows).to_batches()), rows.num_rows), progress)

            stream_newest(log, asked, begin=lambda _: None, take=take, memory=memory)

        yield Reading(iter(()), count_newest(log, asked, memory=memory), write_by_feast)


def _logged(work: Work, log: OfflineLog, manifest: Manifest) -> LoggedView:
    """The view as its log knows it.

    Raises:
        MaterializeError: the log has nothing of it, or not what Feast's view says.
    """
    view, place = work.view, f"the log at {log.place}"
    if view.offline:
        raise MaterializeError(
            f"it has offline=True and is a view of Headrace's, whose rows are in {place} already. Set offline=False."
        )
    held = manifest.views.get(view.name)
    if held is None:
        there = ", ".join(sorted(manifest.views)) or "no view"
        raise MaterializeError(
            f"{place} has nothing of it; it has {there}. Run the flow that writes it first, or mend the view's source."
        )
    columns = {name for name, _ in held.layout.columns}
    missing = [name for name in (*work.keys, *work.features) if name not in columns]
    if missing:
        raise MaterializeError(
            f"{place} has no column '{missing[0]}' of it{did_you_mean(missing[0], columns)} Its columns are: "
            f"{', '.join(name for name, _ in held.layout.columns)}. The view in Feast is of another definition than "
            "the flow's: run `headrace feast apply`, or the flow of this definition."
        )
    return LoggedView(held.layout, view.ttl // US if view.ttl else None)


def _growing(progress: Callable[[int], None]) -> Callable[[Step], None]:
    """What `fill` tells, as rows that have come; rows that are written once more were told."""
    told = 0

    def step(step: Step) -> None:
        nonlocal told
        if step.done > told:
            progress(step.done - told)
            told = step.done

    return step


def _for_feast(work: Work, rows: pa.Table) -> pa.Table:
    """Rows of the log under Feast's names and types: the newest event may be declared as a number of microseconds."""
    if work.features.get(NEWEST_EVENT) == ValueType.INT64:
        at = rows.column_names.index(NEWEST_EVENT)
        rows = rows.set_column(at, NEWEST_EVENT, rows.column(NEWEST_EVENT).cast(pa.int64()))
    names = [work.time if name == EVENT_TIMESTAMP else name for name in rows.column_names]
    return rows.rename_columns(names)
