"""Preparing a change of views beside the flow that still runs with them as they were.

The history of what is new is read up to the newest checkpoint of each part, and its state is left beside the part's
checkpoints. The flow, restarted with the new definitions, reads only what came since, and shows the change at once.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from headrace.features.errors import DefinitionError
from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition, definition
from headrace.flows.backfill.handover import hand_over
from headrace.flows.kafka.settings import consumer_config
from headrace.flows.kafka.topics import Cluster
from headrace.flows.pipeline import ADMISSION, SourceFlow
from headrace.flows.runner import by_source
from headrace.flows.worker.history import JUDGE, DeletedError, History, PartitionHistory, TargetHistory, Topic
from headrace.flows.worker.opening import LOG
from headrace.flows.worker.prepared import Prepared, find_prepared, keep_prepared, mark_of
from headrace.flows.worker.seam import Seam
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.stages import stages_of
from headrace.flows.worker.task import TASK, judged_source, state_of
from headrace.stores.checkpoints import Checkpoint, read_checkpoint
from headrace.stores.places import open_place

LONG_S = 5.0
"""Where reading all parts took longer, what came meanwhile is read too."""


@dataclass(frozen=True)
class PreparedPart:
    """What was prepared for a part.

    part: its name. views: those that are to be given state. read: messages, in this preparation. nbytes: of the state.
    """

    part: str
    views: tuple[str, ...]
    read: int
    nbytes: int


Progress = Callable[[str, int, int], None]
"""Called with part, messages read of it so far, and how many there are at most."""


@dataclass(frozen=True)
class _Part:
    """A part of the flow as its views will be.

    number: of its partition, and partition: as Kafka has it. views: all that it computes. partitions: of its
    repartition topic; None: it is beside the source's. missed: makes an empty history of some of its views.
    """

    name: str
    offsets: str
    number: int
    partition: int
    source: KafkaSource
    views: tuple[ViewDefinition, ...]
    partitions: int | None
    missed: Callable[[Sequence[ViewDefinition]], History]

    def flow(self, live: bool) -> SourceFlow:
        source = self.source if self.partitions is None else judged_source(self.source)
        return SourceFlow(source, self.views, live=live)


def prepare(
    views: Iterable[Any],
    settings: FlowSettings,
    *,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> list[PreparedPart]:
    """Prepare a change to `views` for the flow of these settings, which may run meanwhile with what they were.

    What an earlier preparation of the same views has come to is gone on from.

    Args:
        views: feature views or definitions over Kafka sources, as they are to be.
        settings: those of the flow; only its log is written to.
        progress: is told how far it is.
        stop: set it from another thread to end after the part at hand.

    Returns:
        What was prepared, by part; parts that need nothing, or have no checkpoint yet, are left out.

    Raises:
        DefinitionError: a view reads no Kafka topic. SnapshotError: a change that cannot be made, or a checkpoint that
        is damaged. DataError: the topic cannot be read. StoreError: the log cannot be read or written.
    """
    parts = [part for source, its in kafka_sources(views) for part in _parts(source, its, settings)]
    found: dict[str, PreparedPart] = {}
    began = time.monotonic()
    with Files(settings) as files:
        for turn in range(2):
            if turn and time.monotonic() - began < LONG_S:
                break
            for part in parts:
                if stop is not None and stop.is_set():
                    return list(found.values())
                made = _prepared(part, settings, files, progress)
                if made is not None:
                    before = found.get(part.name)
                    found[part.name] = made if before is None else replace(made, read=before.read + made.read)
    return list(found.values())


def _prepared(part: _Part, settings: FlowSettings, files: Files, progress: Progress | None) -> PreparedPart | None:
    """What a part needs; None where nothing."""
    root = f"{settings.data.rstrip('/')}/{LOG}"
    place = open_place(root)
    found = read_checkpoint(root, part.name)
    upto = None if found is None else _reached(part, found.offsets, found.snapshots)
    if found is None or upto is None:
        return None
    live = settings.clock == "wall"
    flow = part.flow(live)
    flow.load({name: chain for name, chain in found.snapshots.items() if name != TASK}, on_change="backfill")
    views = [view for view in part.views if view.name in flow.backfills]
    if not views:
        return None
    mark = mark_of(part.source, views, part.partitions)
    history = part.missed(views)
    before = find_prepared(place, part.name, mark)
    if before is not None and all(upto.get(number, -1) >= at for number, at in before.following.items()):
        history.load(before.parts, before.following, before.seams)
    else:
        _begin_with_files(part, views, found, history, settings, files)
    read = 0
    total = sum(max(0, end - history.next.get(number, 0)) for number, end in upto.items())

    def count(messages: int) -> None:
        nonlocal read
        read += messages
        if progress is not None:
            progress(part.name, read, total)

    now_us = time.time_ns() // 1000
    try:
        history.read(upto, now_us, count)
    except DeletedError:  # the topic has forgotten what follows the earlier preparation
        history = part.missed(views)
        _begin_with_files(part, views, found, history, settings, files)
        history.read(upto, now_us, count)
    nbytes = keep_prepared(place, part.name, mark, Prepared(history.save(), history.next, history.seams))
    return PreparedPart(part.name, tuple(view.name for view in views), read, nbytes)


def _begin_with_files(
    part: _Part, views: Sequence[ViewDefinition], found: Checkpoint, history: History, settings: FlowSettings,
    files: Files,
) -> None:  # fmt: skip
    """Where the flow began with history from files, the new features begin with it too, and join the topic where the
    flow did."""
    state = state_of(found.snapshots, part.name)
    if state is None or not state.handed_over:
        return
    numbers = [part.number] if part.partitions is None else sorted(state.inbox)
    names = {number: f"{part.source.name}-{number:04d}" for number in numbers}
    root = f"{settings.data.rstrip('/')}/{LOG}"
    seams = {number: _seam(root, name) for number, name in names.items()}
    until = {seam.until for seam in seams.values() if seam is not None and seam.until is not None}
    log = files.log(part.source, views, max(until, default=None))
    mine = read_checkpoint(log, part.name)
    assert mine is not None, "a backfill commits every part"
    parts = {name: chain[-1] for name, chain in mine.snapshots.items() if name != TASK}
    following = _reached(part, mine.offsets, mine.snapshots)
    assert following is not None, "a backfill says where each part goes on"
    if part.partitions is not None:
        for number, name in names.items():
            judged = read_checkpoint(log, name)
            assert judged is not None, "a backfill commits every part"
            parts[f"{JUDGE}{number}"] = judged.snapshots[f"{part.source.name}.{ADMISSION}"][-1]
    joined = {number: seam for number, seam in seams.items() if seam is not None}
    # What stands behind the end that the flow saw then, and is older than the files' newest, is not in the files.
    first = {number: min(at, joined[number].end) if number in joined else at for number, at in following.items()}
    history.load(parts, first, joined)


def _seam(root: str, name: str) -> Seam | None:
    """Where a source partition of the flow joins its history."""
    found = read_checkpoint(root, name)
    state = None if found is None else state_of(found.snapshots, name)
    return None if state is None else state.seam


class Files:
    """What a backfill of a source's history gives, made when it is first asked for; a context that removes it."""

    def __init__(self, settings: FlowSettings) -> None:
        self._settings = settings
        self._made: dict[tuple[str, ...], str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def log(self, source: KafkaSource, views: Sequence[ViewDefinition], until: int | None) -> str:
        """The log of some views over the history of their source, up to an instant.

        Raises:
            DataError: the source names no history any more, or history and topic do not join.
        """
        asked = (source.name, *(view.name for view in views))
        if asked not in self._made:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-prepare-"))
            to_us = until if source.history_position is None else None
            hand_over(views, replace(self._settings, data=folder), to_us=to_us)
            self._made[asked] = f"{folder}/{LOG}"
        return self._made[asked]


def _reached(part: _Part, offsets: Any, snapshots: Any) -> dict[int, int] | None:
    """By source partition, up to where a checkpoint's state knows the events."""
    known = offsets.get(part.offsets, {}).get(part.partition)
    state = state_of(snapshots, part.name)
    if known is None or state is None:
        return None
    return {part.number: known} if part.partitions is None else dict(state.inbox)


def _parts(source: KafkaSource, views: Sequence[ViewDefinition], settings: FlowSettings) -> Iterator[_Part]:
    """The parts of a source's views, as workers divide them."""
    live = settings.clock == "wall"
    config = consumer_config(source, f"{settings.consumer_group}.{source.name}", settings.kafka)
    topic = Topic(source, config, settings.kafka)
    cluster = Cluster.of(source, settings.kafka)
    numbers = [source.number(name, p) for name, n in cluster.partitions(source.topics).items() for p in range(n)]
    stages = stages_of(settings.name, source, views, len(numbers))
    for number in numbers if stages.direct else ():
        yield _Part(
            f"{source.name}-{number:04d}",
            source.name,
            number,
            source.place(number)[1],
            source,
            stages.direct,
            None,
            partial(_of_partition, topic, number, live),
        )
    there = cluster.topics()
    for route in stages.routes:
        partitions = there.get(route.topic, 0)  # 0: no worker has made it yet
        for target in range(partitions):
            mine = (route.keys, partitions, target)
            yield _Part(
                f"{route.name}-{target:04d}",
                route.name,
                target,
                target,
                source,
                route.views,
                partitions,
                partial(_of_target, topic, numbers, mine, live),
            )


def _of_partition(topic: Topic, number: int, live: bool, views: Sequence[ViewDefinition]) -> History:
    return PartitionHistory(topic, views, number, live=live)


def _of_target(
    topic: Topic, numbers: Sequence[int], mine: tuple[Sequence[str], int, int], live: bool,
    views: Sequence[ViewDefinition],
) -> History:  # fmt: skip
    return TargetHistory(topic, views, numbers, mine, live=live)


def kafka_sources(views: Iterable[Any]) -> Iterator[tuple[KafkaSource, list[ViewDefinition]]]:
    """The Kafka sources of views, each with its own. Raises DefinitionError where another source is among them."""
    for source, its in by_source([definition(view) for view in views]):
        if not isinstance(source, KafkaSource):
            raise DefinitionError(
                f"Source '{source.name}' of view '{its[0].name}' is a {type(source).__name__}: only flows over Kafka "
                "are prepared beside their running. Over files, run with --on-change backfill."
            )
        yield source, its
