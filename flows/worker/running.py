"""A worker of a live flow: from Kafka to the online store and the offline log, until it is told to stop.

    poll -> decode -> admission -> operators -+-> online writer     a thread
     ^                                        +-> log writer        a thread
     '--- Kafka's consumer group: partitions come with their state and go with it

Any number of workers with the same settings share the partitions of the source's topics. Each partition is a task with
a checkpoint of its own, so what the flow computes does not depend on how many there are, nor on which of them die.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Producer

from headrace.features.errors import DefinitionError
from headrace.features.kafka_source import KafkaSource
from headrace.features.streams import Flow
from headrace.features.views import ViewDefinition, definition
from headrace.flows.graph.cutting import cut
from headrace.flows.graph.viewing import apart, view_step, with_views
from headrace.flows.interrupts import Interrupts
from headrace.flows.kafka.logs import logger_of
from headrace.flows.kafka.settings import consumer_config, producer_config
from headrace.flows.kafka.topics import Cluster
from headrace.flows.recording import Summary
from headrace.flows.runner import by_source
from headrace.flows.snapshot import SnapshotError
from headrace.flows.spark.written import refuse_other_engine
from headrace.flows.warm import warm
from headrace.flows.worker.clock import SteadyClock
from headrace.flows.worker.counting import Counting
from headrace.flows.worker.flow_plan import FlowPlan
from headrace.flows.worker.interpreter import tuned_interpreter
from headrace.flows.worker.log import LogThread
from headrace.flows.worker.observing import Observer, Silent
from headrace.flows.worker.online import OnlineWriter, StoppedError
from headrace.flows.worker.opening import LOG, ONLINE, Workplace
from headrace.flows.worker.outbox import Outbox
from headrace.flows.worker.reader import Reader
from headrace.flows.worker.reading import RoutedReader, SourceReader
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.stage_reader import StageReader
from headrace.flows.worker.stages import Stages, stages_of
from headrace.flows.worker.task import Task
from headrace.flows.worker.unfinished import refuse_unfinished
from headrace.stores.commits import parts, read_manifest
from headrace.stores.opening import open_online
from headrace.stores.places import open_place

logger = logging.getLogger("headrace.worker")

TICK_S = 0.05
"""How often time is let pass where no events come (contract C5)."""
TELL_S = 1.0
"""How often the online store is told the clock."""
DEAD_LETTER_PARTITIONS = 4
"""Of the dead letter topic, where it has to be made."""
BACKFILL_POLL_MS = 86_400_000
"""How long a worker may be away from its group while it reads the history of a new feature."""
REST_S = 0.003
"""How long a turn waits for rows of the one before to be written: a small write takes less, and no longer beside it."""
STOP_S = 30.0
"""How long a stop waits for stores that do not answer; then it leaves without a last checkpoint, and loses nothing."""


def run_worker(
    views: Iterable[Any],
    settings: FlowSettings,
    *,
    observer: Observer | None = None,
    stop: threading.Event | None = None,
    clock: SteadyClock | None = None,
) -> Summary:
    """Run views over their Kafka sources as one worker of the flow.

    Goes on from the checkpoints in `settings.data`. Ends on SIGTERM or Ctrl-C (in the main thread), when `stop` is set,
    or with `until_end` at the ends of the topics: takes what was polled, commits a checkpoint of every task and leaves
    the group. A second signal ends it at once, which loses nothing either.

    Args:
        views: feature views or definitions over Kafka sources, and flows of steps that read such.
        settings: where to write, and how.
        observer: is told what happens.
        stop: set it from another thread to end the run.
        clock: the flow's clock; the wall's by default.

    Raises:
        DefinitionError: no views and no flows, a source that is not Kafka's, a flow that cannot be computed over
            topics, or settings that name no broker.
        SnapshotError: a checkpoint is of other definitions and `on_change` is "refuse".
        DataError: messages were deleted before they were read, a repartition topic lacks some, or a backfill of the
            flow's history has not come to its end.
        FencedError: another consumer group writes the same parts.
        ClusterError: Kafka cannot be reached at the start, lacks a topic, or refuses this client.
    """
    began = time.perf_counter()
    given = list(views)
    flows, every, over = apart(given)
    sources = kafka_sources(every, flows)
    root = f"{settings.data.rstrip('/')}/{LOG}"
    refuse_unfinished(open_place(root))
    refuse_other_engine(open_place(root), root)
    if every or over:  # flows of steps alone need no compiled kernels
        warm()
    stopping = stop or threading.Event()
    counting = Counting(observer or Silent())
    with Interrupts() as interrupts, tuned_interpreter():
        worker = _Worker(sources, flows, over, settings, counting, clock or SteadyClock())
        try:
            worker.run(lambda: interrupts.asked or stopping.is_set())
        finally:
            worker.end()
    summary = counting.summary(sources, flows)
    summary.entities = dict(worker.entities)
    summary.seconds = time.perf_counter() - began
    summary.stopped = interrupts.asked or stopping.is_set()
    return summary


def kafka_sources(views: Iterable[Any], flows: Sequence[Flow]) -> list[tuple[KafkaSource, list[ViewDefinition]]]:
    """The sources of views and flows, with the views of each.

    Raises:
        DefinitionError: as `headrace.flows.runner.by_source`; or a source is not Kafka's, or a flow is named like one.
    """
    found: list[tuple[KafkaSource, list[ViewDefinition]]] = []
    for source, its in by_source([definition(view) for view in views], flows):
        if not isinstance(source, KafkaSource):
            reads = f"of view '{its[0].name}'" if its else "of a flow of steps"
            raise DefinitionError(
                f"Source '{source.name}' {reads} is a {type(source).__name__}; a worker reads Kafka. Run what reads "
                "files by itself: headrace run FILE --view NAME."
            )
        found.append((source, its))
    for flow in flows:
        if flow.name in {source.name for source, _ in found}:
            raise DefinitionError(f"A flow and a source are both named '{flow.name}'. Give one of them another name.")
    return found


class _Worker:
    """The readers of one worker, and the threads that write for them."""

    def __init__(
        self,
        sources: list[tuple[KafkaSource, list[ViewDefinition]]],
        flows: Sequence[Flow],
        over: Sequence[ViewDefinition],
        settings: FlowSettings,
        observer: Observer,
        clock: SteadyClock,
    ) -> None:
        self._settings, self._observer, self._clock = settings, observer, clock
        self._live = settings.clock == "wall"
        self._give_up = threading.Event()
        views = {view.name: view for view in (*(each for _, its in sources for each in its), *over)}
        self._over = over
        online = settings.online or f"{settings.data.rstrip('/')}/{ONLINE}"
        store = open_online(online, project=settings.project, layout=settings.layout, expire=self._live)  # type: ignore[arg-type]
        self._store = store
        self._online = OnlineWriter(store, views, settings.clock, settings.name, observer, self._give_up)
        self._logs = LogThread(self._online, observer, self._give_up)
        self._place = Workplace(settings, self._online, self._logs, observer, self._give_up, frozenset(views))
        self.entities: Counter[str] = Counter()
        self._outboxes: dict[str, Outbox] = {}
        self._readers: list[Reader] = []
        try:
            self._open(sources, flows)
        except BaseException:
            self.end()
            raise

    def _open(self, sources: list[tuple[KafkaSource, list[ViewDefinition]]], flows: Sequence[Flow]) -> None:
        read = [_ReadSource.of(source, its, self._settings) for source, its in sources]
        by_name = {each.source.name: each for each in read}
        plans = [self._plan(flow, by_name) for flow in flows]
        for each in read:
            its_plans = [plan for plan in plans if each.source.name in plan.cut.beside]
            self._open_source(each, its_plans)
        for plan in plans:
            its = [by_name[name] for name in plan.cut.beside]
            for stage in plan.cut.stages:
                behind = [by_name[name] for name in plan.cut.behind(stage)]
                ends = {
                    plan.sender(each.source.name, n): end for each in behind for n, end in (each.ends or {}).items()
                }
                group = f"{self._settings.consumer_group}.{stage.name}"
                config = consumer_config(its[0].source, group, {**self._own(), **self._settings.kafka})
                outbox = self._outbox(its[0].source)
                upto = ends if self._settings.until_end else None
                self._readers.append(StageReader(self._place, config, plan, stage, outbox, its[0].cluster, upto))

    def _own(self) -> dict[str, Any]:
        """What every client of the worker is told."""
        own: dict[str, Any] = {"client.id": f"headrace.{self._settings.name}.{self._settings.worker}"}
        if self._settings.on_change == "backfill":  # the group waits while history is read
            own["max.poll.interval.ms"] = BACKFILL_POLL_MS
        return own

    def _outbox(self, source: KafkaSource) -> Outbox:
        """What sends to the cluster of a source."""
        config = producer_config(source, {**self._own(), **self._settings.kafka})
        at = str(config["bootstrap.servers"])
        if at not in self._outboxes:
            self._outboxes[at] = Outbox(Producer({**config, "logger": logger_of(config)}))
        return self._outboxes[at]

    def _plan(self, flow: Flow, read: Mapping[str, "_ReadSource"]) -> FlowPlan:
        """A flow in stages, whose topics are there.

        Raises:
            DefinitionError: it cannot be cut, or its sources are on several clusters.
        """
        its = [read[source.name] for source in flow.sources]
        made = cut(with_views(flow, self._over), {each.source.name: len(each.numbers) for each in its})
        partitions = {each.source.name: len(each.numbers) for each in its}
        views = {view_step(view): view for view in self._over}
        plan = FlowPlan(self._settings.name, made, partitions, views)
        clusters = {str(producer_config(each.source, self._settings.kafka)["bootstrap.servers"]) for each in its}
        if len(clusters) > 1:
            raise DefinitionError(
                f"Flow '{flow.name}' reads topics of several Kafka clusters: {', '.join(sorted(clusters))}. Mirror the "
                "topics into one."
            )
        for stage in made.stages:
            topic = plan.topic(stage.name)
            partitions[stage.name] = its[0].cluster.ensure_repartition_topic(
                topic, max(len(each.numbers) for each in its)
            )
            keys = ", ".join(dict.fromkeys(edge.key for edge in stage.after))
            logger.info("flow '%s': rows go by %s through the topic '%s'", flow.name, keys, topic)
        return plan

    def _open_source(self, read: "_ReadSource", plans: Sequence[FlowPlan]) -> None:
        settings, source, cluster, numbers = self._settings, read.source, read.cluster, read.numbers
        own = self._own()
        config = consumer_config(source, f"{settings.consumer_group}.{source.name}", {**own, **settings.kafka})
        stages = stages_of(settings.name, source, read.views, len(numbers))
        for words in stages.advice():
            logger.info(words)
        outbox = None
        reported = [each for each in (settings.dead_letter_topic, settings.drift_topic) if each]
        if stages.routes or reported or any(plan.cut.beside[source.name].sends for plan in plans):
            outbox = self._outbox(source)
        self._check_routes(stages, cluster)
        for topic in reported:
            if topic not in cluster.topics():
                cluster.ensure_topic(topic, DEAD_LETTER_PARTITIONS)
        route_partitions = {
            route.topic: cluster.ensure_repartition_topic(route.topic, len(numbers)) for route in stages.routes
        }
        places = None if read.ends is None else {source.place(number): end for number, end in read.ends.items()}
        self._readers.append(
            SourceReader(self._place, config, stages, numbers, route_partitions, outbox, places, plans)
        )
        for route in stages.routes:
            routed = consumer_config(source, f"{settings.consumer_group}.{route.name}", {**own, **settings.kafka})
            self._readers.append(
                RoutedReader(
                    self._place,
                    routed,
                    stages,
                    route,
                    route_partitions[route.topic],
                    numbers,
                    outbox,
                    cluster,
                    read.ends,
                )
            )

    def _check_routes(self, stages: Stages, cluster: Cluster) -> None:
        """A view that needs a repartition topic of its own gets only what is sent there from now on."""
        if self._settings.on_change == "start" or not stages.routes:
            return
        there = cluster.topics()
        fresh = [route for route in stages.routes if route.topic not in there]
        first = f"{stages.source.name}-"
        if fresh and any(name.startswith(first) and name[len(first) :].isdigit() for name in parts(self._place.root)):
            names = ", ".join(f"'{view.name}'" for route in fresh for view in route.views)
            raise SnapshotError(
                f"{names}: new in a flow that has read source '{stages.source.name}' already, and keyed by other "
                "columns than its messages, so it would miss all events until now. Run it as a flow of its own "
                'first (another name and data folder), or begin it empty: on_change="start" (--on-change start).'
            )

    def run(self, asked: Any) -> None:
        """Turn after turn, until asked to stop or everything is read."""
        told = ticked = 0.0
        wait = TICK_S / len(self._readers) if len(self._readers) == 1 else 0.005
        try:
            while not asked():
                for reader in self._readers:
                    self._online.rest(REST_S)
                    messages = reader.poll(wait)
                    now = self._clock.now_us()
                    if messages:
                        with self._online.together():
                            reader.handle(messages, now if self._live else None, now)
                    reader.turn(now if self._live else None)
                at = time.monotonic()
                now = self._clock.now_us()
                if self._live and at - ticked >= TICK_S:
                    ticked = at
                    with self._online.together():
                        for reader in self._readers:
                            reader.advance(now)
                if self._live and at - told >= TELL_S:
                    told = at
                    self._online.tell(now)
                self._observer.alive()
                self._observer.ready(all(reader.ready for reader in self._readers))
                if self._settings.until_end and all(reader.done for reader in self._readers):
                    self._catch_up()
                    break
            self.entities = self._entities()
            self._stop()
            if not self._live:
                self._tell_replayed()
        except StoppedError as error:
            logger.warning("stopped without a last checkpoint: %s", error)

    def _tasks(self) -> list[Task]:
        return [task for reader in self._readers for task in reader.tasks.values()]

    def _catch_up(self) -> None:
        """At the end of a replay all tasks stand at one clock: that of the newest event."""
        newest = max((task.newest_us for task in self._tasks() if task.newest_us is not None), default=None)
        if not self._live and newest is not None:
            for task in self._tasks():
                task.advance(newest)

    def _entities(self) -> Counter[str]:
        """Entities in memory, by view."""
        return sum((Counter(each.entities) for task in self._tasks() for each in task.view_flows), Counter())

    def _stop(self) -> None:
        """Hand over every task; give up on stores that do not answer."""
        timer = threading.Timer(STOP_S, self._give_up.set)
        timer.daemon = True
        timer.start()
        for reader in self._readers:
            reader.close()
        timer.cancel()

    def _tell_replayed(self) -> None:
        """A replay's clock is that of the part of the log that is furthest behind, whoever worked on it."""
        clock = read_manifest(self._place.root).clock
        if clock is not None:
            self._online.tell_now(clock.us)

    def end(self) -> None:
        """Leave the group if the run has not come to that, end the threads and close the store."""
        self._give_up.set()
        for reader in self._readers:
            reader.group.close()
        self._logs.end()
        self._online.end()
        for outbox in self._outboxes.values():
            outbox.flush(1.0)
        self._store.close()


@dataclass(frozen=True)
class _ReadSource:
    """A source as it is found on its cluster.

    numbers: of all its partitions. ends: where they end for this run, by number; None: nowhere.
    """

    source: KafkaSource
    views: tuple[ViewDefinition, ...]
    cluster: Cluster
    numbers: tuple[int, ...]
    ends: dict[int, int] | None

    @classmethod
    def of(cls, source: KafkaSource, views: Sequence[ViewDefinition], settings: FlowSettings) -> "_ReadSource":
        cluster = Cluster.of(source, settings.kafka)
        counts = cluster.partitions(source.topics)
        numbers = tuple(source.number(topic, p) for topic, count in counts.items() for p in range(count))
        found = cluster.offsets(counts, "latest") if settings.until_end else None
        ends = None if found is None else {source.number(*at): end for at, end in found.items()}
        return cls(source, tuple(views), cluster, numbers, ends)
