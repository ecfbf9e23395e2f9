"""Opening a task: take over its part of the log and its rows online, and go on from its checkpoint."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition
from headrace.flows.graph.cutting import Stage
from headrace.flows.graph.viewing import resume, streams_of
from headrace.flows.pipeline import SourceFlow
from headrace.flows.snapshot import SnapshotError
from headrace.flows.worker.edges import StageInbox
from headrace.flows.worker.exchange import Sender
from headrace.flows.worker.flow_plan import FlowPlan
from headrace.flows.worker.graphs import Produce, TaskGraph
from headrace.flows.worker.history import History, PartitionHistory, TargetHistory, Topic
from headrace.flows.worker.log import LogThread, PartLog
from headrace.flows.worker.observing import Observer
from headrace.flows.worker.online import OnlineWriter
from headrace.flows.worker.outbox import Outbox
from headrace.flows.worker.prepared import find_prepared, forget_prepared, history_in_files, mark_of
from headrace.flows.worker.routed_task import RoutedTask
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.source_task import SourceTask
from headrace.flows.worker.stage_task import INBOX, StageTask
from headrace.flows.worker.stages import Route, Stages
from headrace.flows.worker.task import KEPT, TASK, Task, judged_source, state_of
from headrace.stores.checkpoints import Checkpoint, read_checkpoint
from headrace.stores.errors import MissingStoreError, StoreError
from headrace.stores.offline import OfflineLog
from headrace.stores.online import ClockKind
from headrace.stores.places import open_place

logger = logging.getLogger("headrace.worker")

Snapshots = Mapping[str, Sequence[bytes]]

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
    topic_of: Topic,
    plans: Sequence[FlowPlan] = (),
) -> SourceTask:
    """The task of partition `number` of a source, from its checkpoint; from `first_offset()` where there is none.

    topic_of: the source, to be read again for features that the checkpoint does not know. plans: of flows of steps that
    read the source.
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
            flows=[plan.cut.flow.name for plan in plans],
            **_common(place, part, topic, partition, partitions, offset, flow, log, outbox),
        )

    def graphs(task: Task, found: Snapshots | None) -> list[TaskGraph]:
        return [_graph(place, plan, plan.cut.beside[source.name], task, number, found, outbox) for plan in plans]

    def missed(views: Sequence[ViewDefinition]) -> History:
        return PartitionHistory(topic_of, views, number, live=place.live)

    task: SourceTask = _opened(
        place, part, flow, source.name, partition, first_offset, made, missed, lambda task: {number: task.offset},
        graphs=graphs,
    )  # fmt: skip
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
    topic_of: Topic,
) -> RoutedTask:
    """The task of a partition of a repartition topic.

    numbers: of all partitions of the source. let_go: called with topic, partition and offset before which nothing is
    read any more. topic_of: as of `open_source_task`.
    """
    part = f"{route.name}-{partition:04d}"
    flow = SourceFlow(judged_source(stages.source), route.views, live=place.live, partitions=numbers)

    def made(offset: int, log: PartLog) -> RoutedTask:
        return RoutedTask(
            name=route.name,
            let_go=let_go,
            **_common(place, part, route.topic, partition, partitions, offset, flow, log, outbox),
        )

    def missed(views: Sequence[ViewDefinition]) -> History:
        return TargetHistory(topic_of, views, numbers, (route.keys, partitions, partition), live=place.live)

    task: RoutedTask = _opened(
        place,
        part,
        flow,
        route.name,
        partition,
        lambda: 0,
        made,
        missed,
        lambda task: dict(task.inbox.next),
        partitions,
    )
    return task


def open_stage_task(
    place: Workplace,
    plan: FlowPlan,
    stage: Stage,
    partition: int,
    outbox: Outbox,
    let_go: Callable[[str, int, int], None],
) -> StageTask:
    """The task of a partition of the repartition topic of a stage of a flow."""
    part = f"{stage.name}-{partition:04d}"
    source = plan.cut.flow.sources[0]
    assert isinstance(source, KafkaSource)
    topic, partitions = plan.topic(stage.name), plan.partitions[stage.name]
    steps = {step.name: step for step in plan.cut.flow.steps}
    flow = SourceFlow(judged_source(source), [], live=place.live)

    def made(offset: int, log: PartLog) -> StageTask:
        return StageTask(
            stage=stage,
            inbox=StageInbox({edge: steps[edge.step] for edge in stage.after}, plan.senders(stage)),
            let_go=let_go,
            flows=[plan.cut.flow.name],
            **_common(place, part, topic, partition, partitions, offset, flow, log, outbox),
        )

    def graphs(task: Task, found: Snapshots | None) -> list[TaskGraph]:
        assert isinstance(task, StageTask)
        if found is not None and INBOX in found:
            task.inbox.load(msgspec.msgpack.decode(found[INBOX][-1]))
        return [_graph(place, plan, stage, task, partition, found, outbox)]

    def missed(views: Sequence[ViewDefinition]) -> History:
        raise AssertionError("a stage has no views")

    task: StageTask = _opened(
        place, part, flow, stage.name, partition, lambda: 0, made, missed, lambda task: {}, graphs=graphs
    )
    return task


def _graph(
    place: Workplace,
    plan: FlowPlan,
    stage: Stage,
    task: Task,
    number: int,
    found: Snapshots | None,
    outbox: Outbox | None,
) -> TaskGraph:
    """The steps of a stage in the task `number` of it, and the views over its streams."""
    settings = place.settings
    streams = streams_of(plan.views_of(stage), live=place.live)
    for stream in streams if found is not None else ():
        assert found is not None
        resume(stream, found, settings.on_change, task.watermark_us, task.newest_us)
    made = TaskGraph(
        plan.cut,
        stage,
        number,
        plan.sender(stage.name, number),
        one_partition=not stage.after,
        routes={to: (plan.partitions[to], _produce(task.part, plan.topic(to), outbox)) for to, _ in stage.sends},
        snapshots=found,
        start=settings.on_change == "start",
        streams=streams,
    )
    made.open_sinks(made.sinks(settings.data, task.part, place.give_up, settings.kafka), found)
    return made


def _produce(part: str, topic: str, outbox: Outbox | None) -> Produce:
    assert outbox is not None, "a flow whose rows go on has an outbox"
    box = outbox

    def produce(target: int, value: bytes, headers: dict[str, bytes]) -> None:
        box.send(part, topic, target, value, headers)

    return produce


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
        "drift_topic": place.settings.drift_topic,
        "give_up": place.give_up,
    }


def _sender(part: str, route: Route, partitions: int, number: int, offset: int, outbox: Outbox | None) -> Sender:
    return Sender(route.keys, partitions, number, offset, _produce(part, route.topic, outbox))


def _opened(
    place: Workplace,
    part: str,
    flow: SourceFlow,
    offsets_name: str,
    partition: int,
    first_offset: Callable[[], int],
    make: Callable[[int, PartLog], Any],
    missed: Callable[[Sequence[ViewDefinition]], History],
    upto: Callable[[Any], dict[int, int]],
    route_partitions: int | None = None,
    *,
    graphs: Callable[[Task, Snapshots | None], list[TaskGraph]] = lambda task, found: [],
) -> Any:
    place.logs.wait_closed(part)
    log = OfflineLog(place.root, part=part)
    try:
        epoch = log.claim(steal=True)
        found = read_checkpoint(place.root, part=part)
        known = None if found is None else found.offsets.get(offsets_name, {}).get(partition)
        offset = first_offset() if known is None else known
        task: Task = make(offset, PartLog(part, log, -1 if known is None else known))
        task.epoch = epoch
        if found is not None and known is not None:
            _restore(place, task, found)
            if task.flow.backfills:
                _fill(place, task, missed, upto(task), route_partitions)
        task.take_steps(graphs(task, None if found is None or known is None else found.snapshots))
    except BaseException:
        _give_up(log)
        raise
    task.begin = lambda: _begin(place, task, known)
    return task


def _begin(place: Workplace, task: Task, known: int | None) -> None:
    """Write from here on: until now, all that was written before stays as it was.

    known: offset of the checkpoint that the task goes on from; None: of none.
    """
    log = task.log.log
    try:
        changed = {name for each in task.view_flows for name in each.changed}  # since the checkpoint
        for view in task.views:
            if view.name in changed:
                if view.log:
                    log.migrate_view(view)
                place.online.migrate(view)
        reached = place.online.open(task.part, task.epoch)
        task.go_on_from(None if reached is None else reached.position, 0 if reached is None else reached.clock_us)
        if known is not None and (reached is None or reached.position < task.offset):
            task.refill(settled_rows(place, task.views))
        elif changed:
            task.show_all()
    except BaseException:
        _give_up(log)
        raise


def _give_up(log: OfflineLog) -> None:
    with contextlib.suppress(StoreError):  # the failure that brought us here says more
        log.close()


def _restore(place: Workplace, task: Task, found: Checkpoint) -> None:
    state = state_of(found.snapshots, task.part)
    if state is None:
        raise SnapshotError(
            f"Part '{task.part}': its checkpoint says an offset and nothing of a task. Start afresh (--fresh)."
        )
    task.restore(state)
    task.kept = found.snapshots[KEPT][-1] if KEPT in found.snapshots else None
    _check_views(place, task, found)
    task.flow.load(
        {name: chain for name, chain in found.snapshots.items() if name != TASK}, on_change=place.settings.on_change
    )


def _fill(
    place: Workplace,
    task: Task,
    missed: Callable[[Sequence[ViewDefinition]], History],
    upto: Mapping[int, int],
    route_partitions: int | None,
) -> None:
    """Give new features the state that history gives them: what was prepared of it, then the rest from the topic."""
    views = [view for view in task.flow.views if view.name in task.flow.backfills]
    history, files = missed(views), open_place(place.root)
    mark = mark_of(history.topic.source, views, route_partitions)
    prepared = find_prepared(files, task.part, mark)
    if prepared is not None and all(upto.get(number, -1) >= at for number, at in prepared.following.items()):
        history.load(prepared.parts, prepared.following, prepared.seams)
        task.settled_change = lambda: forget_prepared(files, task.part, mark)
    elif task.handed_over:
        raise history_in_files(task.part, task.flow.backfills)
    names = ", ".join(view.name for view in views)
    left = sum(max(0, end - history.next.get(number, 0)) for number, end in upto.items())
    logger.info("part '%s': reading the history of %s, at most %d messages", task.part, names, left)
    history.read(upto, time.time_ns() // 1000)
    task.flow.graft(history.flow)


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
                rows[view.name] = log.latest(view, tail=False)  # the tail tells of instants that may not come so
    return rows
