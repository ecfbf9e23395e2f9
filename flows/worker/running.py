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
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Producer

from headrace.features.errors import DefinitionError
from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition, definition
from headrace.flows.interrupts import Interrupts
from headrace.flows.kafka.logs import logger_of
from headrace.flows.kafka.settings import consumer_config, producer_config
from headrace.flows.kafka.topics import Cluster
from headrace.flows.recording import Summary
from headrace.flows.runner import by_source
from headrace.flows.warm import warm
from headrace.flows.worker.clock import SteadyClock
from headrace.flows.worker.counting import Counting
from headrace.flows.worker.interpreter import tuned_interpreter
from headrace.flows.worker.log import LogThread
from headrace.flows.worker.observing import Observer, Silent
from headrace.flows.worker.online import OnlineWriter, StoppedError
from headrace.flows.worker.opening import ONLINE, Workplace
from headrace.flows.worker.outbox import Outbox
from headrace.flows.worker.reader import Reader
from headrace.flows.worker.reading import RoutedReader, SourceReader
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.stages import stages_of
from headrace.flows.worker.task import Task
from headrace.stores.commits import read_manifest
from headrace.stores.opening import open_online

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
        views: feature views or definitions over Kafka sources.
        settings: where to write, and how.
        observer: is told what happens.
        stop: set it from another thread to end the run.
        clock: the flow's clock; the wall's by default.

    Raises:
        DefinitionError: no views, a source that is not Kafka's, or settings that name no broker.
        SnapshotError: a checkpoint is of other definitions and `on_change` is "refuse".
        DataError: messages were deleted before they were read, or a repartition topic lacks some.
        FencedError: another consumer group writes the same parts.
        ClusterError: Kafka cannot be reached at the start, lacks a topic, or refuses this client.
    """
    began = time.perf_counter()
    sources = _kafka_sources(views)
    warm()
    stopping = stop or threading.Event()
    counting = Counting(observer or Silent())
    with Interrupts() as interrupts, tuned_interpreter():
        worker = _Worker(sources, settings, counting, clock or SteadyClock())
        try:
            worker.run(lambda: interrupts.asked or stopping.is_set())
        finally:
            worker.end()
    summary = counting.summary(sources)
    summary.entities = dict(worker.entities)
    summary.seconds = time.perf_counter() - began
    summary.stopped = interrupts.asked or stopping.is_set()
    return summary


def _kafka_sources(views: Iterable[Any]) -> list[tuple[KafkaSource, list[ViewDefinition]]]:
    found: list[tuple[KafkaSource, list[ViewDefinition]]] = []
    for source, its in by_source([definition(view) for view in views]):
        if not isinstance(source, KafkaSource):
            raise DefinitionError(
                f"Source '{source.name}' of view '{its[0].name}' is a {type(source).__name__}; a worker reads Kafka. "
                "Run views over files by themselves: headrace run FILE --view NAME."
            )
        found.append((source, its))
    return found


def _route(cluster: Cluster, topic: str, partitions: int) -> int:
    """How many partitions a repartition topic has; it is made if it is not there.

    Nothing in it expires: its readers let go what their checkpoints have passed.
    """
    there = cluster.topics().get(topic)
    if there:
        return there
    cluster.ensure_topic(topic, partitions, settings={"retention.ms": "-1", "retention.bytes": "-1"})
    return partitions


class _Worker:
    """The readers of one worker, and the threads that write for them."""

    def __init__(
        self,
        sources: list[tuple[KafkaSource, list[ViewDefinition]]],
        settings: FlowSettings,
        observer: Observer,
        clock: SteadyClock,
    ) -> None:
        self._settings, self._observer, self._clock = settings, observer, clock
        self._live = settings.clock == "wall"
        self._give_up = threading.Event()
        views = {view.name: view for _, its in sources for view in its}
        online = settings.online or f"{settings.data.rstrip('/')}/{ONLINE}"
        store = open_online(online, project=settings.project, layout=settings.layout, expire=self._live)  # type: ignore[arg-type]
        self._store = store
        self._online = OnlineWriter(store, views, settings.clock, settings.name, observer, self._give_up)
        self._logs = LogThread(self._online, observer, self._give_up)
        self._place = Workplace(settings, self._online, self._logs, observer, self._give_up, frozenset(views))
        self.entities: Counter[str] = Counter()
        self._outboxes: list[Outbox] = []
        self._readers: list[Reader] = []
        try:
            for source, its in sources:
                self._open(source, its)
        except BaseException:
            self.end()
            raise

    def _open(self, source: KafkaSource, views: list[ViewDefinition]) -> None:
        settings = self._settings
        own: dict[str, Any] = {"client.id": f"headrace.{settings.name}.{settings.worker}"}
        if settings.on_change == "backfill":  # the group waits while history is read
            own["max.poll.interval.ms"] = BACKFILL_POLL_MS
        config = consumer_config(source, f"{settings.consumer_group}.{source.name}", {**own, **settings.kafka})
        cluster = Cluster.of(source, settings.kafka)
        counts = cluster.partitions(source.topics)
        numbers = [source.number(topic, p) for topic, count in counts.items() for p in range(count)]
        stages = stages_of(settings.name, source, views, len(numbers))
        for words in stages.advice():
            logger.info(words)
        ends = cluster.offsets(counts, "latest") if settings.until_end else None
        outbox = None
        if stages.routes or settings.dead_letter_topic:
            sending = producer_config(source, {**own, **settings.kafka})
            outbox = Outbox(Producer({**sending, "logger": logger_of(sending)}))
            self._outboxes.append(outbox)
        if settings.dead_letter_topic and settings.dead_letter_topic not in cluster.topics():
            cluster.ensure_topic(settings.dead_letter_topic, DEAD_LETTER_PARTITIONS)
        route_partitions = {route.topic: _route(cluster, route.topic, len(numbers)) for route in stages.routes}
        self._readers.append(SourceReader(self._place, config, stages, numbers, route_partitions, outbox, ends))
        by_number = None if ends is None else {source.number(*at): end for at, end in ends.items()}
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
                    by_number,
                )
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
        newest = max((task.flow.newest_us for task in self._tasks() if task.flow.newest_us is not None), default=None)
        if not self._live and newest is not None:
            for task in self._tasks():
                task.advance(newest)

    def _entities(self) -> Counter[str]:
        """Entities in memory, by view."""
        return sum((Counter(task.flow.entities) for task in self._tasks()), Counter())

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
            reader.group.abandon()
        self._logs.end()
        self._online.end()
        for outbox in self._outboxes:
            outbox.flush(1.0)
        self._store.close()
