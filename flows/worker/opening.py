"""Opening a task: take over its part of the log and its rows online, and go on from its checkpoint."""

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.features.views import ViewDefinition
from headrace.flows.pipeline import SourceFlow
from headrace.flows.snapshot import SnapshotError
from headrace.flows.worker.exchange import Sender
from headrace.flows.worker.log import LogThread, PartLog
from headrace.flows.worker.observing import Observer
from headrace.flows.worker.online import OnlineWriter
from headrace.flows.worker.outbox import Outbox
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.stages import Route, Stages
from headrace.flows.worker.task import TASK, RoutedTask, SourceTask, Task, judged_source, state_of
from headrace.stores.checkpoints import Checkpoint, read_checkpoint
from headrace.stores.errors import MissingStoreError, StoreError
from headrace.stores.offline import OfflineLog
from headrace.stores.online import ClockKind

logger = logging.getLogger("headrace.worker")

LOG = "log"
ONLINE = "online"


@dataclass(frozen=True)
class Workplace:
    """What the tasks of a worker share."""

    settings: FlowSettings
    online: OnlineWriter
    logs: LogThread
    observer: Observer
    give_up: threading.Event
    flow_views: frozenset[str]

    @property
    def root(self) -> str:
        """Of the log."""
        return f"{self.settings.data.rstrip('/')}/{LOG}"

    @property
    def kind(self) -> ClockKind:
        return self.settings.clock

    @property
    def live(self) -> bool:
        return self.settings.clock == "wall"


def open_source_task(
    place: Workplace,
    stages: Stages,
    number: int,
    partitions: int,
    first_offset: Callable[[], int],
    route_partitions: Mapping[str, int],
    outbox: Outbox | None,
    history: Callable[[int], SourceFlow],
) -> SourceTask:
    """The task of partition `number` of a source, from its checkpoint; from `first_offset()` where there is none.

    history: makes a flow of the direct views that has taken the partition up to an offset, for features that the
    checkpoint does not know.
    """
    source = stages.source
    topic, partition = source.place(number)
    part = f"{source.name}-{number:04d}"
    flow = SourceFlow(source, stages.direct, live=place.live, partitions=[number])

    def made(offset: int, log: PartLog) -> SourceTask:
        senders = [
            _sender(part, route, route_partitions[route.topic], number, offset, outbox) for route in stages.routes
        ]
        return SourceTask(
            number=number,
            senders=senders,
            **_common(place, part, topic, partition, partitions, offset, flow, log, outbox),
        )

    task: SourceTask = _opened(
        place, part, flow, source.name, partition, first_offset, made, lambda task: history(task.offset)
    )
    if source.start == "latest" and task.log.committed < 0:
        task.fix_start()
    return task


def open_routed_task(
    place: Workplace,
    stages: Stages,
    route: Route,
    partition: int,
    partitions: int,
    numbers: Sequence[int],
    outbox: Outbox | None,
    let_go: Callable[[str, int, int], None],
    history: Callable[[Mapping[int, int]], SourceFlow],
) -> RoutedTask:
    """The task of a partition of a repartition topic.

    numbers: of all partitions of the source. let_go: called with topic, partition and offset before which nothing is
    read any more. history: makes a flow of the route's views that has taken this partition's events of each source
    partition up to an offset.
    """
    part = f"{route.name}-{partition:04d}"
    flow = SourceFlow(judged_source(stages.source), route.views, live=place.live, partitions=numbers)

    def made(offset: int, log: PartLog) -> RoutedTask:
        return RoutedTask(
            name=route.name,
            let_go=let_go,
            **_common(place, part, route.topic, partition, partitions, offset, flow, log, outbox),
        )

    return _opened(place, part, flow, route.name, partition, lambda: 0, made, lambda task: history(task.inbox.next))


def _common(
    place: Workplace,
    part: str,
    topic: str,
    partition: int,
    partitions: int,
    offset: int,
    flow: SourceFlow,
    log: PartLog,
    outbox: Outbox | None,
) -> dict[str, Any]:
    return {
        "part": part,
        "topic": topic,
        "partition": partition,
        "partitions": partitions,
        "offset": offset,
        "flow": flow,
        "log": log,
        "threads": (place.online, place.logs),
        "observer": place.observer,
        "kind": place.kind,
        "tails": place.settings.until_end,
        "outbox": outbox,
        "dead_letter_topic": place.settings.dead_letter_topic,
        "give_up": place.give_up,
    }


def _sender(part: str, route: Route, partitions: int, number: int, offset: int, outbox: Outbox | None) -> Sender:
    assert outbox is not None, "a source with routes has an outbox"
    box = outbox

    def produce(target: int, value: bytes, headers: dict[str, bytes]) -> None:
        box.send(part, route.topic, target, value, headers)

    return Sender(route.keys, partitions, number, offset, produce)


def _opened(
    place: Workplace,
    part: str,
    flow: SourceFlow,
    offsets_name: str,
    partition: int,
    first_offset: Callable[[], int],
    make: Callable[[int, PartLog], Any],
    history: Callable[[Any], SourceFlow],
) -> Any:
    place.logs.wait_closed(part)
    log = OfflineLog(place.root, part=part)
    try:
        epoch = log.claim(steal=True)
        found = read_checkpoint(place.root, part=part)
        known = None if found is None else found.offsets.get(offsets_name, {}).get(partition)
        offset = first_offset() if known is None else known
        task: Task = make(offset, PartLog(part, log, -1 if known is None else known))
        if found is not None and known is not None:
            _restore(place, task, found)
            _change(place, task, history)
        reached = place.online.open(part, epoch)
        task.epoch = epoch
        task.go_on_from(None if reached is None else reached.position, 0 if reached is None else reached.clock_us)
        if known is not None and (reached is None or reached.position < offset):
            task.refill(settled_rows(place, flow.views))
        elif flow.changed:
            task.show_all()
    except BaseException:
        with contextlib.suppress(StoreError):  # the failure that brought us here says more
            log.close()
        raise
    return task


def _restore(place: Workplace, task: Task, found: Checkpoint) -> None:
    state = state_of(found.snapshots, task.part)
    if state is None:
        raise SnapshotError(
            f"Part '{task.part}': its checkpoint says an offset and nothing of a task. Start afresh (--fresh)."
        )
    task.restore(state)
    _check_views(place, task, found)
    task.flow.load(
        {name: chain for name, chain in found.snapshots.items() if name != TASK}, on_change=place.settings.on_change
    )


def _change(place: Workplace, task: Task, history: Callable[[Any], SourceFlow]) -> None:
    """Views that have changed since the checkpoint: the stores take the new definition, new features their history."""
    for view in task.flow.views:
        if view.name in task.flow.changed:
            if view.log:
                task.log.log.migrate_view(view)
            place.online.migrate(view)
    if task.flow.backfills:
        logger.info("part '%s': reading the history of %s", task.part, ", ".join(task.flow.backfills))
        task.flow.graft(history(task))


def _check_views(place: Workplace, task: Task, found: Checkpoint) -> None:
    """A view that has state here and is computed elsewhere now would start from nothing there."""
    prefix = f"{task.flow.source.name}."
    here = {view.name for view in task.flow.views}
    for name in found.snapshots:
        view = name.removeprefix(prefix)
        if name.startswith(prefix) and view in place.flow_views and view not in here:
            raise SnapshotError(
                f"Part '{task.part}' has state of view '{view}', which is now computed "
                "elsewhere: keyed_by or the number of partitions has changed. Start afresh (--fresh), which reads the "
                "topic again, or undo the change."
            )


def settled_rows(place: Workplace, views: Sequence[ViewDefinition]) -> dict[str, pa.Table]:
    """By view, the newest row of each entity that the log has, to fill a store that has lost its own."""
    log = OfflineLog(place.root)
    rows: dict[str, pa.Table] = {}
    for view in views:
        if view.log:
            with contextlib.suppress(MissingStoreError):  # nothing has settled yet
                rows[view.name] = log.latest(view)
    return rows
