"""Training sets by two roads that agree: from the log of a flow, or recomputed from raw events, for features that
never ran.

    spine, log     -> headrace.materialize.training     the newest row of the log by each instant
    spine, events  -> headrace.from_events              the newest row that there would have been
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace.features.errors import DefinitionError
from headrace.materialize import training as from_log
from headrace.materialize.training import Form
from headrace.stores.offline import OfflineLog

if TYPE_CHECKING:
    from headrace.flows.backfill import Step


def training_set(
    spine: Any,
    features: Any,
    *,
    log: OfflineLog | None = None,
    events: Any = None,
    arrival: str | Mapping[str, str] | None = None,
    as_known: Literal["beside", "only"] | None = None,
    repair: bool = False,
    time: str = "event_timestamp",
    keys: Mapping[str, str] | None = None,
    prefix: bool = False,
    statuses: bool = False,
    zone: str | None = None,
    ambiguous: str = "refuse",
    nonexistent: str = "refuse",
    as_: Form = "arrow",
    to: str | Path | None = None,
    memory: str | None = None,
    threads: int | None = None,
    folder: str | Path | None = None,
    progress: Callable[[Step], None] | None = None,
) -> Any:
    """The spine with the features of each row's entity as of each row's instant; nothing from the future, expiry
    included (contract C11).

    From the log of a flow, or without `log` recomputed from raw events, as for features that never ran. Both give the
    same values from the same events; recomputed ones also where the log is thinned (`log_every`) or there is none.

    Args:
        spine: key columns, a time column, and whatever else (a label), in a pandas or Polars frame (also a lazy one),
            an Arrow table, reader or dataset, a DuckDB relation, a list of dicts, a Parquet file or folder (its path),
            or SQL that DuckDB runs ("SELECT ... FROM 'labels.csv'"). Rows stay in their order, equal ones too. A row
            with a null key is an entity never seen.
        features: a FeatureService; or views and features of views, one or several: `DriverActivity`,
            `[DriverActivity["fare_mean_1h"], CityLoad]`. What a service's features on demand need of the request are
            columns of the spine.
        log: the log of the flow that computed them. An instant beyond what it has settled is answered from its
            provisional rows: exact if no further event comes.
        events: where to read the events instead of the views' source: a file, folder or pattern (its path), a frame,
            a list of dicts, or a FileSource, FrameSource or IterableSource, also of an event with more columns. Of
            several sources, by their names: `{"rides": "rides/*.parquet", "payments": frame}`. The views' source
            judges them all the same: its lateness, max_ahead, dedup and late rule count, in the order of the rows, as
            one partition. Left out: the source itself, or `history` of a KafkaSource, by partition if it says which.
        arrival: the events' column of the instant at which each arrived; where it is null, when it happened. Of several
            sources with columns of other names, by their names: `{"rides": "received_at", "payments": "at"}`.
        as_known: also the values as they were known then, which a live flow would have served having taken just the
            events that had arrived: "beside" the corrected ones, in columns `<feature>__known`, or "only" they.
        repair: late events count at their own time in corrected values, as in a backfill with `repair`.
        time: the spine's column of instants, with a zone.
        keys: for keys that have another name in the spine, key -> column: `keys={"airport": "origin"}`.
        prefix: name the features `<view>__<feature>`, for views whose features share names.
        statuses: add a column `<feature>__status` after each feature; see `headrace.features.reading.Status`.
        zone: IANA zone of times that come without one; without it they are refused (contract C1).
        ambiguous: a time of `zone` that occurs twice, when its clock is turned back: "refuse", or read it as the
            "earlier" or the "later" instant.
        nonexistent: a time that the clock skips when it is turned forward: "refuse", or "shift" it by the gap.
        as_: "arrow" (a pyarrow Table), "pandas" (a pandas spine's index is kept; integers with gaps are Int64) or
            "polars".
        to: a Parquet file to write instead, portion by portion, so that neither spine nor result need fit in memory.
            It appears when it is whole.
        memory: with a log, what DuckDB may hold before it spills, such as "1GB"; by default 80 % of the machine's.
        threads: with events, how many buckets of entities are computed side by side; all cores by default.
        folder: with events, where to put what waits on the disk, about as much as the events of the spine's entities;
            the system's folder for such by default. It is gone at the end, also after an error.
        progress: with events, called after each batch that was read and each bucket that was computed.

    Returns:
        a table in the form asked, or the path written; an entity not seen by then has the values of empty windows.

    Raises:
        DataError: the spine lacks a column, its time has no zone or is null, a key is of another type, or a column of
            the result would stand there twice; the events cannot be read, or lack a column.
        DefinitionError: `features` are none, `zone` or a rule is unknown, or an option is of the other road.
        MissingStoreError: the log has nothing of a view.
        SchemaMismatchError: the log's rows are of another definition of a view.
    """
    shared: dict[str, Any] = {
        "time": time,
        "keys": keys,
        "prefix": prefix,
        "statuses": statuses,
        "zone": zone,
        "ambiguous": ambiguous,
        "nonexistent": nonexistent,
        "as_": as_,
        "to": to,
    }
    if log is not None:
        _refuse(
            "log",
            events=events is not None,
            arrival=arrival is not None,
            as_known=as_known is not None,
            repair=repair,
            threads=threads is not None,
            folder=folder is not None,
            progress=progress is not None,
        )
        return from_log.training_set(spine, features, log=log, memory=memory, **shared)
    _refuse("events", memory=memory is not None)
    from headrace.from_events import Ways, recomputed_training_set

    ways = Ways(events, arrival, as_known, repair, threads, None if folder is None else Path(folder), progress)
    return recomputed_training_set(spine, features, ways, **shared)


def _refuse(road: str, **given: bool) -> None:
    """Raises DefinitionError: an option of the other road was given."""
    for name, there in given.items():
        if there and road == "log":
            raise DefinitionError(
                f"training_set: {name}= is of values that are recomputed from events, and log= was given. Leave one of "
                "the two out."
            )
        if there:
            raise DefinitionError(f"training_set: {name}= is of values from a log. Give log=, or leave it out.")
