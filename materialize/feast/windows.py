"""Feast views with `aggregations`: windows over the events of their source, at the end of the range, without Spark.

    StreamFeatureView(..., aggregations=[Aggregation(column="amount", function="sum", time_window=timedelta(hours=1))])

One row per entity, as of the end of the range: event_timestamp is that instant. Each value is the contract's sliding
window, asked then; also entities have a row whose windows emptied since the start of the range. An aggregation without
`time_window` is over the range itself. instant.py computes; this file translates and finds the events.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
from feast.aggregation import Aggregation as FeastAggregation
from feast.value_type import ValueType

from headrace.features.errors import DefinitionError, did_you_mean
from headrace.features.windows import default_hop_us
from headrace.materialize.feast.events import with_events
from headrace.materialize.feast.instants import US, us_of
from headrace.materialize.feast.newest import open_duckdb
from headrace.materialize.feast.reading import LOGGER, MaterializeError, Reading, Work
from headrace.materialize.instant import Aggregation, Question, answer, canonical

AGGREGATIONS = "headrace.aggregations"
"""The tag in which a view of any kind carries its aggregations."""

_TILE = timedelta(minutes=5)
"""Feast's `tiling_hop_size` where a view has `enable_tiling` and names none."""

_NUMBERS = {
    ValueType.INT32: pa.int32(),
    ValueType.INT64: pa.int64(),
    ValueType.FLOAT: pa.float32(),
    ValueType.DOUBLE: pa.float64(),
}


def aggregations_tag(aggregations: Iterable[FeastAggregation]) -> dict[str, str]:
    """Aggregations as a tag, for views that Feast's registry loses them of: `BatchFeatureView`, `FeatureView`.

        FeatureView(..., tags={"team": "fraud", **aggregations_tag([Aggregation(column="amount", function="sum")])})

    Raises:
        DefinitionError: an unknown function, or a window that is not longer than nothing.
    """
    listed = []
    for each in aggregations:
        translated("aggregations_tag", each)
        said = {"column": each.column, "function": each.function, "name": each.name}
        said |= {"window_us": _us_or_none(each.time_window), "slide_us": _us_or_none(each.slide_interval)}
        listed.append({key: value for key, value in said.items() if value not in (None, "")})
    return {AGGREGATIONS: json.dumps(listed)}


def aggregations_of(view: Any) -> list[FeastAggregation]:
    """The aggregations of a view: its own, or those of its tag.

    Raises:
        DefinitionError: the tag is not what `aggregations_tag` makes.
    """
    own = list(getattr(view, "aggregations", None) or [])
    tag = (view.tags or {}).get(AGGREGATIONS)
    if own or tag is None:
        return own
    try:
        return [
            FeastAggregation(
                column=each.get("column"),
                function=each["function"],
                name=each.get("name"),
                time_window=_delta(each.get("window_us")),
                slide_interval=_delta(each.get("slide_us")),
            )
            for each in json.loads(tag)
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DefinitionError(
            f"its tag '{AGGREGATIONS}' is {tag!r}, which lists no aggregations ({error!r}). Make it with "
            "`headrace.materialize.feast.aggregations_tag(...)` and run `feast apply`."
        ) from error


def translated(of: str, asked: FeastAggregation, tile: timedelta | None = None) -> Aggregation:
    """An aggregation of Feast's as one of instant.py's, named as Feast names it: `sum_amount_3600s`, or its `name`.

    Feast sets a `slide_interval` that was left out to the window's width; a window that slides by its own width reaches
    up to twice as far back as it says, so this is taken as left out: the hop is then `tile` (of a view with
    `enable_tiling`), or the contract's default.

    Raises:
        DefinitionError: no function, or no such window.
    """
    shown = asked.resolved_name(asked.time_window)
    width, slide = _us_or_none(asked.time_window), _us_or_none(asked.slide_interval)
    if not asked.function:
        raise DefinitionError(f"{of}: aggregation '{shown}' has no function. Say one, such as 'sum'.")
    if width is not None and (width <= 0 or (slide is not None and not 0 < slide <= width)):
        raise DefinitionError(
            f"{of}: aggregation '{shown}' has time_window {asked.time_window} and slide_interval "
            f"{asked.slide_interval}; expected a window longer than nothing that slides by at most its own width."
        )
    hop = 1
    if width is not None and slide is not None:
        hop = slide if slide < width else default_hop_us(width) if tile is None else min(tile // US, width)
    column = None if asked.column in ("", "*") else asked.column
    return Aggregation(shown, canonical(asked.function), column, width, hop)


def windows_reading(
    work: Work, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AbstractContextManager[Reading] | None:
    """Reads a view with aggregations; others are left to the next reader."""
    return _reading(work, now()) if aggregations_of(work.view) else None


@contextmanager
def _reading(work: Work, now: datetime) -> Iterator[Reading]:
    at_us, now_us = us_of(work.task.end_time), us_of(now)
    if at_us > now_us:
        LOGGER.info("Feature view '%s': windows are asked now, not at %s", work.view.name, work.task.end_time)
        at_us = now_us
    question = _question(work, at_us, us_of(work.task.start_time))
    with open_duckdb(work) as connection:
        try:
            question = with_events(connection, work, question)
            answers = answer(connection, question)
            yield Reading((_typed(work, batch) for batch in answers.batches), answers.rows)
        except duckdb.Error as error:
            raise MaterializeError(
                f"its windows over source '{work.view.batch_source.name}' cannot be computed: {error}"
            ) from error


def _question(work: Work, at_us: int, start_us: int) -> Question:
    """What is asked of a view; `rows` and what depends on them are still open.

    Raises:
        DefinitionError: the view's schema and its aggregations do not fit.
    """
    view = work.view
    of = f"Source '{view.batch_source.name}'" if view.batch_source else "What its source views give"
    if view.offline and not getattr(view, "source_views", None):
        raise DefinitionError(
            "it has aggregations and offline=True, which would append windows to its source of events. Set "
            "offline=False."
        )
    tile = (view.tiling_hop_size or _TILE) if getattr(view, "enable_tiling", False) else None
    named: dict[str, Aggregation] = {}
    for each in aggregations_of(view):
        found = translated(f"Feature view '{view.name}'", each, tile)
        short = each.resolved_name()
        if found.name not in work.features and short in work.features and short not in named:
            found = replace(found, name=short)
        if found.name not in work.features:
            raise DefinitionError(
                f"its aggregation '{found.name}' is no field of its schema{did_you_mean(found.name, work.features)} "
                f"Its fields are: {', '.join(work.features)}. Add Field('{found.name}', ...), or give the aggregation "
                "the name of a field."
            )
        if found.name in named:
            raise DefinitionError(f"two of its aggregations are called '{found.name}'. Give one of them a name.")
        named[found.name] = found
    # A stream view comes back from Feast's registry with its join keys among the features.
    missing = [field for field in work.features if field not in named and field not in work.keys]
    if missing:
        raise DefinitionError(
            f"its fields {', '.join(missing)} are no aggregations of it; these are: {', '.join(named)}. Take the "
            "fields out of its schema, or into a view of their own."
        )
    keys = () if work.entityless else tuple(work.keys)
    return Question(of, "", keys, work.time, tuple(named.values()), at_us, start_us)


def _typed(work: Work, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with numbers of the types that the view's schema says.

    Raises:
        MaterializeError: a number is none of its field's type.
    """
    arrays = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        wanted = _NUMBERS.get(work.features.get(field.name))
        if wanted is None or not _is_number(field.type) or field.type == wanted:
            arrays.append(column)
            continue
        whole = pa.types.is_integer(wanted)
        try:
            arrays.append(column.cast(wanted, safe=whole))
        except pa.ArrowInvalid as error:
            raise MaterializeError(
                f"its field '{field.name}' is {work.features[field.name].name} and the aggregation gives {field.type}: "
                f"{error}. Give the field the type {'Int64' if pa.types.is_integer(field.type) else 'Float64'} in the "
                "schema and run `feast apply`."
            ) from error
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _us_or_none(delta: timedelta | None) -> int | None:
    return None if delta is None else delta // US


def _delta(us: int | None) -> timedelta | None:
    return None if us is None else timedelta(microseconds=us)
