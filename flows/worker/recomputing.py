"""Computing a sample of entities anew from a live flow's topics: what its log must say, for `headrace verify`.

Every partition is read once, from its oldest message to where the newest checkpoints stand, and judged event by event
as the flow did. What goes to a part, of the entities of the sample, goes through a flow of its own, whose rows become a
log beside. Two verdicts do not follow from the topic alone, because they were given by a clock: "ahead" and "behind
settled log". They are taken from the flow's dead letters.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.features import AggregateFeature
from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition
from headrace.features.windows import Hopping, Sliding, Tumbling
from headrace.flows.admission import WALL_AHEAD_US
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import AHEAD, BEHIND
from headrace.flows.kafka.settings import consumer_config
from headrace.flows.kafka.topics import Cluster
from headrace.flows.pipeline import SourceFlow
from headrace.flows.worker.exchange import numbered
from headrace.flows.worker.history import Topic
from headrace.flows.worker.opening import LOG
from headrace.flows.worker.preparing import kafka_sources
from headrace.flows.worker.seam import Seam
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.stages import stages_of
from headrace.flows.worker.task import TASK, TaskState, state_of
from headrace.stores.commits import read_manifest
from headrace.stores.deadletters import conform_letters
from headrace.stores.keys import KEY_NUMBERS
from headrace.stores.layout import EVENT_TIMESTAMP
from headrace.stores.manifest import Commit, Manifest
from headrace.stores.offline import OfflineLog
from headrace.stores.parquet import read_parquet
from headrace.stores.places import Place, open_place

Offsets = npt.NDArray[np.int64]
Progress = Callable[[str, int, int], None]
"""Called with the source, messages read so far, and how many there are at most."""


@dataclass
class Recomputed:
    """What came of it.

    Attributes:
        begins: by view that was computed, the instant up to which the topic lacks events of its windows,
            microseconds; None: it has all.
        left: by view that was not, why.
    """

    begins: dict[str, int | None] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


@dataclass
class _Part:
    """A part of the flow's log, computed anew.

    upto: by source partition, the offset behind the events that it knows. settled: by view, the instant before which
    its rows are final. mine: key columns, number of targets and which one, behind a repartition topic. refused: by
    source partition, offsets of events that it alone did not take. flows: with the key columns by which they sample.
    """

    log: OfflineLog
    upto: Mapping[int, int]
    settled: Mapping[str, int]
    mine: tuple[tuple[str, ...], int, int] | None
    refused: Mapping[int, Offsets]
    flows: list[tuple[tuple[str, ...], SourceFlow]]

    def take(self, batch: EventBatch, number: int, newest: int, limit: float) -> None:
        """Judged events of a source partition, whose newest is at `newest`."""
        keep = batch.offset < self.upto[number]
        if number in self.refused:
            keep &= ~np.isin(batch.offset, self.refused[number])
        for keys, flow in self.flows:
            numbers, present = numbered(batch, keys)
            its = keep & present & (numbers < limit)
            if self.mine is not None:
                its &= numbers % np.uint64(self.mine[1]) == self.mine[2]
            chosen = batch.take(np.flatnonzero(its)) if its.any() else None
            self._write(flow, flow.push_judged(chosen, {number: newest}).log)

    def finish(self) -> None:
        """What else the flow had settled, because a partition was silent; then all of it counts."""
        for _, flow in self.flows:
            self._write(flow, flow.tail())
        self.log.commit(settled_us=self.settled)
        self.log.close()

    def _write(self, flow: SourceFlow, rows: Mapping[str, pa.Table]) -> None:
        for view in flow.views:
            table = rows.get(view.name)
            if table is not None and table.num_rows:
                at = pc.cast(table.column(EVENT_TIMESTAMP), pa.int64())
                self.log.append(view, table.filter(pc.less(at, self.settled[view.name])))


def recompute(
    views: Iterable[Any], settings: FlowSettings, folder: str, *, share: float = 1.0, progress: Progress | None = None
) -> Recomputed:
    """Compute the entities of a sample anew up to the newest checkpoints of a flow, which may run meanwhile.

    Args:
        views: feature views or definitions over Kafka sources, as the flow has them.
        settings: of the flow; nothing of it is written to.
        folder: gets a log with the parts of the flow's.
        share: of the entities, by `key_number`.

    Raises:
        DataError, ClusterError: a topic cannot be read. StoreError: the flow's log cannot be read.
    """
    place = open_place(f"{settings.data.rstrip('/')}/{LOG}")
    manifest = read_manifest(f"{settings.data.rstrip('/')}/{LOG}")
    made = Recomputed()
    for source, its in kafka_sources(views):
        why = _impossible(source)
        if why is not None:
            made.left.update({view.name: why for view in its})
            continue
        _recompute(source, its, settings, place, manifest, folder, share * KEY_NUMBERS, made, progress)
    return made


def _recompute(
    source: KafkaSource, views: Sequence[ViewDefinition], settings: FlowSettings, place: Place, manifest: Manifest,
    folder: str, limit: float, made: Recomputed, progress: Progress | None,
) -> None:  # fmt: skip
    config = consumer_config(source, f"{settings.consumer_group}.{source.name}", settings.kafka)
    topic = Topic(source, config, settings.kafka)
    cluster = Cluster.of(source, settings.kafka)
    counts = cluster.partitions(source.topics)
    oldest = {source.number(*at): offset for at, offset in cluster.offsets(counts, "earliest").items()}
    began = source.start if isinstance(source.start, int) else None
    first = oldest
    if began is not None:
        first = {source.number(*at): offset for at, offset in cluster.offsets(counts, began).items()}
    refused = _refused(place, manifest, source)
    parts = _parts(source, views, settings, place, manifest, sorted(first), refused, folder)
    for view in views:
        if not any(view.name in part.settled for part in parts):
            made.left[view.name] = "no checkpoint has settled rows of it"
    upto: dict[int, int] = {}
    for part in parts:
        for number, end in part.upto.items():
            upto[number] = max(end, upto.get(number, 0))
    total = sum(max(0, end - first[number]) for number, end in upto.items())
    read = 0

    def count(messages: int) -> None:
        nonlocal read
        read += messages
        if progress is not None:
            progress(source.name, read, total)

    unbounded = _never_ahead(source)
    judges = {number: SourceFlow(unbounded, [], partitions=[number]) for number in upto}
    seams = {number: seam for number in upto if (seam := _seam(place, manifest, source, number)) is not None}
    covered = {number: _offset(manifest, source, number) for number in upto}
    reading = {number: topic.batches(number, first[number], end, count) for number, end in upto.items()}
    now_us, begun = time.time_ns() // 1000, {}
    while reading:
        number = min(reading, key=lambda each: judges[each].newest_us or 0)
        batch = next(reading[number], None)
        if batch is None:
            del reading[number]
            continue
        if number in seams:
            batch = seams[number].unseen(batch, source.dedup)
        ahead = np.isin(batch.offset, refused.get("", {}).get(number, ()))
        allowed = now_us + (WALL_AHEAD_US if source.max_ahead_us is None else source.max_ahead_us)
        ahead |= (batch.offset >= covered[number]) & (batch.time > allowed)
        judge = judges[number]
        taken = judge.push(batch.take(~ahead) if ahead.any() else batch).batch
        newest = judge.newest_us
        if taken is None or newest is None:
            continue
        if number not in begun and len(taken):
            begun[number] = int(taken.time[0])
        for part in parts:
            if number in part.upto:
                part.take(taken, number, newest, limit)
    for part in parts:
        part.finish()
    # What was deleted, or never read, is older than the first that was taken, but for the lateness.
    cut = {n for n in upto if oldest[n] > 0 and first[n] <= oldest[n]} | (set(upto) if began is not None else set())
    untold = [seam.until for seam in seams.values() if seam.until is not None]  # what files told is not read here
    forgotten = max([*(begun[n] for n in cut if n in begun), *untold], default=None)
    for view in views:
        if view.name in made.left:
            continue
        reach = _reach(view)
        if forgotten is None:
            made.begins[view.name] = None
        elif reach is None:
            made.left[view.name] = "the topic does not have its beginning, and a feature knows all of an entity's past"
        else:
            made.begins[view.name] = forgotten + source.lateness_us + reach


def _parts(
    source: KafkaSource, views: Sequence[ViewDefinition], settings: FlowSettings, place: Place, manifest: Manifest,
    numbers: Sequence[int], refused: Mapping[str, Mapping[int, Offsets]], folder: str,
) -> list[_Part]:  # fmt: skip
    """The parts of a source's views that have settled anything."""
    stages = stages_of(settings.name, source, views, len(numbers))
    found = []

    def add(name: str, its: Sequence[ViewDefinition], mine: tuple[tuple[str, ...], int, int] | None,
            upto: Mapping[int, int]) -> None:  # fmt: skip
        logs = manifest.parts[name].views
        settled = {view.name: logs[view.name].settled_us for view in its if view.log and view.name in logs}
        known = {view: us for view, us in settled.items() if us is not None}
        by_keys: dict[tuple[str, ...], list[ViewDefinition]] = {}
        for view in its:
            if view.name in known:
                by_keys.setdefault(tuple(view.entity.keys), []).append(view)
        judged = _never_ahead(source)
        flows = [(keys, SourceFlow(judged, of, partitions=list(upto))) for keys, of in by_keys.items()]
        log = OfflineLog(f"{folder}/{LOG}", part=name)
        found.append(_Part(log, upto, known, mine, refused.get(name, {}), flows))

    for number in numbers if stages.direct else ():
        name = f"{source.name}-{number:04d}"
        if name in manifest.parts:
            add(name, stages.direct, None, {number: _offset(manifest, source, number)})
    for route in stages.routes:
        for name, commit in manifest.parts.items():
            target = name.removeprefix(f"{route.name}-")
            state = _state(place, commit) if target != name and target.isdigit() else None
            if state is not None:
                add(name, route.views, (route.keys, state.partitions, int(target)), dict(state.inbox))
    return [part for part in found if part.flows]


def _offset(manifest: Manifest, source: KafkaSource, number: int) -> int:
    """Where the task of a source partition stands."""
    commit = manifest.parts.get(f"{source.name}-{number:04d}")
    return 0 if commit is None else commit.offsets.get(source.name, {}).get(source.place(number)[1], 0)


def _seam(place: Place, manifest: Manifest, source: KafkaSource, number: int) -> Seam | None:
    """Where a source partition joins a history from files; None: there is none."""
    commit = manifest.parts.get(f"{source.name}-{number:04d}")
    state = None if commit is None else _state(place, commit)
    return None if state is None else state.seam


def _state(place: Place, commit: Commit) -> TaskState | None:
    files = commit.snapshots.get(TASK, ())
    read = place.read_many([file.path for file in files])
    return state_of({TASK: [read[file.path] for file in files if file.path in read]}, commit.part)


def _refused(place: Place, manifest: Manifest, source: KafkaSource) -> dict[str, dict[int, Offsets]]:
    """By part, and "" for all, the offsets of events that a clock kept out, by source partition."""
    found: dict[str, dict[int, list[int]]] = {}
    for name, commit in manifest.parts.items():
        part = "" if name.removeprefix(f"{source.name}-").isdigit() else name
        for file in commit.dead_letters:
            letters = conform_letters(read_parquet(place, file.place)).to_pylist()
            for each in letters:
                if each["source"] == source.name and each["reason"] in (AHEAD, BEHIND):
                    number = source.number(each["topic"] or source.topics[0], each["partition"])
                    found.setdefault(part, {}).setdefault(number, []).append(each["offset"])
    return {part: {n: np.array(offsets) for n, offsets in its.items()} for part, its in found.items()}


def _never_ahead(source: KafkaSource) -> KafkaSource:
    """The source without the rules that ask a clock."""
    made = copy(source)
    object.__setattr__(made, "max_ahead_us", None)
    object.__setattr__(made, "idle_after_us", None)
    return made


def _impossible(source: KafkaSource) -> str | None:
    """Why views of a source cannot be computed anew as the flow did; None: they can."""
    if source.start == "latest":
        return 'its flow began at "latest", and nobody knows any more where that was'
    if source.late == "count" and source.idle_after_us is not None:
        return 'with late="count" and idle_after, the instant from which a late event counts was told by a clock'
    return None


def _reach(view: ViewDefinition) -> int | None:
    """How old an event may be that a row of the view knows of, microseconds; None: of any age."""
    longest = 0
    for each in view.features:
        if isinstance(each.feature, AggregateFeature):
            window = each.feature.window
            if not isinstance(window, Sliding | Hopping | Tumbling):
                return None
            longest = max(longest, window.width_us + window.hop_us + window.ending_us)
    return longest
