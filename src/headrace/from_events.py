"""Training sets recomputed from raw events: the questions of the spine to `headrace.flows.recomputing`, its rows to the
reading that a training set from a log has."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.columns import Column
from headrace.features.errors import DataError, DefinitionError, did_you_mean
from headrace.features.kafka_source import KafkaSource
from headrace.features.sources import FileSource, FrameSource, IterableSource, Source
from headrace.features.views import ViewDefinition
from headrace.flows.backfill import Step
from headrace.flows.backfill.sharing import with_position
from headrace.flows.backfill.sizing import buckets_of
from headrace.flows.recomputing import Questions, Recomputation, recompute
from headrace.flows.recomputing.running import Recomputed
from headrace.flows.runner import by_source
from headrace.materialize.asked_features import AskedFeatures, asked_features
from headrace.materialize.skew import KNOWN
from headrace.materialize.spine import Spine, check_column, key_columns, read_spine, times_of
from headrace.materialize.spine_times import SpineClock
from headrace.materialize.training import with_features
from headrace.materialize.training_output import check_form, in_form, write_portions
from headrace.stores.layout import row_layout

if TYPE_CHECKING:
    from headrace.materialize.training import Rows

logger = logging.getLogger("headrace.training")

READABLE = (FileSource, FrameSource, IterableSource)
AS_KNOWN: dict[str | None, dict[str, bool]] = {
    None: {"": False},
    "beside": {"": False, KNOWN: True},
    "only": {"": True},
}
"""By `as_known`: endings of columns, and whether their values are those known then."""


@dataclass(frozen=True)
class Ways:
    """How to recompute; see `headrace.training.training_set`."""

    events: Any = None
    arrival: Any = None
    as_known: str | None = None
    repair: bool = False
    threads: int | None = None
    folder: Path | None = None
    progress: Callable[[Step], None] | None = None


def recomputed_training_set(
    spine: Any,
    features: Any,
    ways: Ways,
    *,
    time: str,
    keys: Mapping[str, str] | None,
    prefix: bool,
    statuses: bool,
    zone: str | None,
    ambiguous: str,
    nonexistent: str,
    as_: str,
    to: str | Path | None,
) -> Any:
    """See `headrace.training.training_set`, without a log."""
    check_form(as_)
    clock = SpineClock(zone, ambiguous, nonexistent)
    endings = _endings(ways)
    asked = asked_features(features, prefix)
    source = read_spine(spine, time)
    check_column(source.schema, time, "time=")
    asked.check(source.schema, statuses, tuple(endings))
    sources = by_source(list(asked.views)) if asked.views else []
    events = _events_of([each for each, _ in sources], ways.events)
    with tempfile.TemporaryDirectory(prefix="headrace-training-", dir=ways.folder) as name:
        folder = Path(name)
        kept = source if source.steady else _kept(source, folder / "spine")
        recomputed: dict[str, Recomputed] = {}
        groups = [
            (each, events[each.name], views, _questions(folder / f"questions-{number}", events[each.name], views))
            for number, (each, views) in enumerate(sources)
        ]
        first = 0
        for portion in kept.portions():
            times = times_of(portion, time, clock, first)
            for _, _, views, questions in groups:
                for view in views:
                    layout = row_layout(view)
                    columns = key_columns(portion, layout, keys or {})
                    if view is _first_of(views, view.entity.keys):
                        questions[view.entity.keys].add(columns, times)
            first += portion.num_rows
        for number, (each, its, views, questions) in enumerate(groups):
            arrival = _arrival(each, its, ways.arrival) if ways.as_known else None
            made = recompute(
                Recomputation(each, its, views, questions, arrival, ways.repair, _partition(each, its)),
                folder / f"source-{number}",
                ways.threads,
                ways.progress or _silent,
            )
            _tell(each, made)
            recomputed |= {view.name: made for view in views}
        answered = _answered(kept, asked, recomputed, endings, clock, time, statuses)
        if to is not None:
            return write_portions(Path(to), answered)
        return in_form(pa.concat_tables(list(answered)), as_, spine)


def _answered(
    spine: Spine,
    asked: AskedFeatures,
    recomputed: Mapping[str, Recomputed],
    endings: Mapping[str, bool],
    clock: SpineClock,
    time: str,
    statuses: bool,
) -> Iterator[pa.Table]:
    """The portions of the result."""
    first = 0
    for number, portion in enumerate(spine.portions()):
        times = times_of(portion, time, clock, first)
        readings = {ending: _rows_of(recomputed, number, known) for ending, known in endings.items()}
        yield with_features(portion, times, first, asked, readings, statuses)
        first += portion.num_rows


def _rows_of(recomputed: Mapping[str, Recomputed], number: int, known: bool) -> Rows:
    def found(
        view: ViewDefinition, columns: Sequence[str], portion: pa.Table, times: npt.NDArray[np.int64]
    ) -> pa.Table:
        made = recomputed[view.name]
        rows = made.corrected[view.name].rows(number, columns, len(times))
        return made.known[view.name].instead(number, rows) if known else rows

    return found


def _endings(ways: Ways) -> dict[str, bool]:
    if ways.as_known not in AS_KNOWN:
        raise DefinitionError(f"training_set: as_known={ways.as_known!r} is unknown. Choose 'beside' or 'only'.")
    if ways.as_known is not None and ways.arrival is None:
        raise DefinitionError(
            "training_set: as_known= needs to know when events arrived. Name their column of it, arrival='received_at'."
        )
    if ways.as_known is None and ways.arrival is not None:
        raise DefinitionError(
            "training_set: arrival= is for values as known then. Add as_known='beside' or 'only', or leave it out."
        )
    return AS_KNOWN[ways.as_known]


def _events_of(sources: Sequence[Source], given: Any) -> dict[str, Source]:
    """Where the events of each source are read from, by its name."""
    names = [source.name for source in sources]
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise DataError(
                    f"training_set: events= names '{name}', which is no source of these features"
                    f"{did_you_mean(str(name), names)} Their sources are: {', '.join(names)}."
                )
        return {source.name: _read_from(source, given.get(source.name)) for source in sources}
    if given is not None and len(sources) > 1:
        raise DataError(
            f"training_set: the features are of the sources {', '.join(names)}. Say whose events= are: "
            f"events={{'{names[0]}': ...}}."
        )
    return {source.name: _read_from(source, given) for source in sources}


def _read_from(source: Source, given: Any) -> Source:
    """A source that can be read to its end, with the columns of `source`.

    Raises:
        DataError: it has no end, or lacks a column.
    """
    if given is None:
        given = source
        if isinstance(source, KafkaSource):
            given = source.history and with_position(source)
        if not isinstance(given, READABLE):
            raise DataError(
                f"training_set: source '{source.name}' is a {type(source).__name__}, which is not read from start to "
                f"end. Give its events, events='{source.name}/*.parquet' or history= of a KafkaSource, or the log of a "
                "flow, log=OfflineLog(...)."
            )
    elif isinstance(given, (str, PathLike)):
        given = FileSource(fspath(given), source.event, name=source.name)
    elif isinstance(given, list):
        given = IterableSource(given, source.event, name=source.name)
    elif not isinstance(given, Source):
        given = FrameSource(given, source.event, name=source.name)
    if not isinstance(given, READABLE):
        raise DataError(
            f"training_set: the events of source '{source.name}' are a {type(given).__name__}, which is not read from "
            "start to end. Give a FileSource, a FrameSource or an IterableSource."
        )
    for field in source.schema.fields:
        there = given.schema.field(field.name).dtype if field.name in given.schema else None
        if there != field.dtype:
            raise DataError(
                f"training_set: the events of source '{source.name}' are {given.schema.name}, where column "
                f"'{field.name}' is {there or 'missing'}, and {source.schema.name} has it as {field.dtype}."
            )
    return given


def _partition(source: Source, events: Source) -> str | None:
    """The column of the partition by which each event came, where the source's history has one."""
    told = source.history_position if isinstance(source, KafkaSource) else None
    return told[0] if told is not None and told[0] in events.schema else None


def _arrival(source: Source, events: Source, arrival: Any) -> str:
    """The name of the column of arrivals."""
    if isinstance(arrival, Mapping):
        if source.name not in arrival:
            raise DataError(
                f"training_set: arrival= says nothing of source '{source.name}'. Name its column of arrivals as well, "
                f"arrival={{'{source.name}': ...}}; its event time for events that are there at once."
            )
        arrival = arrival[source.name]
    name = arrival.name if isinstance(arrival, Column) else str(arrival)
    names = [field.name for field in events.schema.fields]
    if name not in names:
        raise DataError(
            f"training_set: arrival='{name}' is no column of {events.schema.name}, the events of '{events.name}'"
            f"{did_you_mean(name, names)} Declare it, `{name}: datetime`, there or in a class derived from it, "
            "and give events=FileSource(..., ThatClass)."
        )
    if events.schema.field(name).dtype != "timestamp":
        raise DataError(
            f"training_set: arrival='{name}' of {events.schema.name} is {events.schema.field(name).dtype}, expected an "
            f"instant. Declare it `{name}: datetime`."
        )
    return name


def _questions(folder: Path, events: Source, views: Sequence[ViewDefinition]) -> dict[tuple[str, ...], Questions]:
    """By the key columns of the views' entities."""
    count = buckets_of(events)
    return {
        view.entity.keys: Questions(folder / "-".join(view.entity.keys), row_layout(view).keys, count)
        for view in views
        if view is _first_of(views, view.entity.keys)
    }


def _first_of(views: Sequence[ViewDefinition], keys: tuple[str, ...]) -> ViewDefinition:
    return next(view for view in views if view.entity.keys == keys)


def _kept(spine: Spine, folder: Path) -> Spine:
    """The spine as files: it is gone through twice, and must have its rows in one order."""
    folder.mkdir()
    paths = []
    for number, portion in enumerate(spine.portions()):
        paths.append(folder / f"{number:04d}.arrow")
        with pa.OSFile(str(paths[-1]), "wb") as file, pa.ipc.new_file(file, portion.schema) as writer:
            writer.write_table(portion)

    def batches() -> Iterator[pa.RecordBatch]:
        for path in paths:
            with pa.OSFile(str(path), "rb") as file:
                yield from pa.ipc.open_file(file).read_all().to_batches()

    return Spine(spine.schema, batches)


def _tell(source: Source, made: Recomputed) -> None:
    """Events that did not count are never dropped in silence."""
    if made.dead:
        reasons = ", ".join(f"{count} {reason}" for reason, count in made.dead.most_common())
        logger.warning(
            "Of %d events of source '%s' %d did not count: %s. A flow would have them as dead letters; `headrace "
            "backfill` keeps them, `headrace advise` says which lateness would do.",
            made.read,
            source.name,
            sum(made.dead.values()),
            reasons,
        )


def _silent(step: Step) -> None:
    """Nobody looks."""
