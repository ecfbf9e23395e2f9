"""The driver of a flow on Spark: turn after turn, one Spark job each, until it is told to stop.

    Kafka's ends -> what is read -> its part of the log -> Spark job -> checkpoints of all tasks -> next turn

The checkpoints of the tasks are the truth: from where a source partition's has come to, the next turn reads on. What a
turn reads is written down before, in a part of the log that the driver alone writes, so that a turn that was cut short
is done again in the same way; and a driver that another one has followed learns from that part that it is fenced.
"""

import logging
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import msgspec

from headrace.features.errors import DataError, HeadraceError
from headrace.features.kafka_source import KafkaSource
from headrace.flows.graph.viewing import apart
from headrace.flows.interrupts import Interrupts
from headrace.flows.kafka.errors import UnreachableClusterError
from headrace.flows.kafka.topics import Cluster
from headrace.flows.recording import Summary
from headrace.flows.snapshot import SnapshotError
from headrace.flows.spark.failing import Failure, raised, spark_failed, words_of
from headrace.flows.spark.host import Job, Offsets, Report, Turn
from headrace.flows.spark.levels import first_level, next_level
from headrace.flows.spark.plan import SparkPlan
from headrace.flows.spark.rows import REPORT, SENT_DDL
from headrace.flows.spark.session import session
from headrace.flows.spark.settings import SparkSettings
from headrace.flows.spark.tally import retell
from headrace.flows.spark.written import PART, TURN, Written, read_written, refuse_workers
from headrace.flows.worker.clock import SteadyClock
from headrace.flows.worker.counting import Counting
from headrace.flows.worker.observing import Observer, Silent
from headrace.flows.worker.opening import LOG, ONLINE
from headrace.flows.worker.reading import AHEAD_US
from headrace.flows.worker.running import kafka_sources
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.unfinished import refuse_unfinished
from headrace.stores.checkpoints import SnapshotPart
from headrace.stores.commits import newest_commits, read_manifest
from headrace.stores.errors import UnreachableError
from headrace.stores.offline import OfflineLog
from headrace.stores.opening import open_online
from headrace.stores.places import is_url, open_place

logger = logging.getLogger("headrace.spark")

SLOT = "HEADRACE_SLOT"
"""The variable that tells Python processes of executors apart."""
AGAIN_S = (0.5, 10.0)
"""How long after a turn that failed it is tried again: at first, and at most after failing again and again."""


def run_on_spark(
    views: Iterable[Any],
    settings: FlowSettings,
    spark: SparkSettings,
    *,
    load: Callable[[], Sequence[Any]],
    observer: Observer | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Run views and flows of steps over their Kafka sources on Spark.

    As `headrace.flows.worker.run_worker` with the same settings: what is written is the same, by the same tasks. Ends
    on SIGTERM or Ctrl-C (in the main thread), when `stop` is set, or with `until_end` at the ends of the topics.

    Args:
        views: feature views or definitions over Kafka sources, and flows of steps that read such.
        settings: where to write, and how. Folders must be the same for the driver and all executors.
        spark: how Spark is reached, and how often there is a turn.
        load: gives the same views and flows in an executor; it is pickled.
        observer: is told what happens.
        stop: set it from another thread to end the run.

    Raises:
        DefinitionError, SnapshotError, DataError, ClusterError: as `run_worker`.
        FencedError: another driver runs the same flow.
    """
    began = time.perf_counter()
    if not is_url(settings.data):  # executors may have another working directory
        settings = replace(settings, data=os.path.abspath(settings.data))
    given = list(views)
    flows, every, _ = apart(given)
    sources = kafka_sources(every, flows)
    refuse_unfinished(open_place(f"{settings.data.rstrip('/')}/{LOG}"))
    stopping = stop or threading.Event()
    counting = Counting(observer or Silent())
    with Interrupts() as interrupts:
        query = _Query(given, [source for source, _ in sources], settings, spark, load, counting)
        try:
            query.run(lambda: interrupts.asked or stopping.is_set())
        finally:
            query.close()
    summary = counting.summary(sources, flows)
    summary.entities = dict(query.entities)
    summary.seconds = time.perf_counter() - began
    summary.stopped = interrupts.asked or stopping.is_set()
    return summary


class _Query:
    def __init__(
        self,
        given: Sequence[Any],
        sources: Sequence[KafkaSource],
        settings: FlowSettings,
        spark: SparkSettings,
        load: Callable[[], Sequence[Any]],
        observer: Observer,
    ) -> None:
        self._settings, self._spark_settings, self._observer = settings, spark, observer
        self._sources = {source.name: source for source in sources}
        self._live = settings.clock == "wall"
        self._clock = SteadyClock()
        self.entities: Counter[str] = Counter()
        self._root = f"{settings.data.rstrip('/')}/{LOG}"
        self._log = OfflineLog(self._root, part=PART)
        self._log.claim(steal=True)
        try:
            self._clusters = {name: Cluster.of(source, settings.kafka) for name, source in self._sources.items()}
            counts = {name: self._clusters[name].partitions(source.topics) for name, source in self._sources.items()}
            self._plan = SparkPlan(given, settings, counts, spark.shards)
            self._before = read_written(self._root)
            if self._before is None:
                refuse_workers(open_place(self._root), self._root, self._plan.shards)
            self._check(counts)
            self._next: dict[str, dict[int, int]] = {}
            self._first: dict[str, dict[int, int]] = {}
            self._go_on(counts)
            self._upto = {} if self._before is None else self._before.upto
            self._counts = counts
            self._ends = self._highest() if settings.until_end else {}
            online = settings.online or f"{settings.data.rstrip('/')}/{ONLINE}"
            self._store = open_online(online, project=settings.project, layout=settings.layout, expire=self._live)  # type: ignore[arg-type]
            self._spark, self._owned = session(spark)
        except BaseException:
            self._log.close()
            raise
        self._job = Job(load, settings, counts, spark.shards, self._first, secrets.token_hex(8))
        self._turns = 0
        self._newest: dict[str, int] = {}

    # What was before

    def _check(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """What tasks there are must be as it was: entities are where they were then.

        Raises:
            SnapshotError: there are more or fewer partitions or shards.
        """
        if self._before is None:
            return
        for name, its in self._before.counts.items():
            if name in counts and dict(counts[name]) != its:
                raise SnapshotError(
                    f"Source '{name}' had partitions {its} when the flow began, and now it has {dict(counts[name])}: "
                    "entities may have moved, away from their state. Start afresh (--fresh), which reads the topics "
                    "again."
                )
        for name, shards in self._before.shards.items():
            now = self._plan.shards.get(name, shards)
            if now != shards:
                raise SnapshotError(
                    f"'{name}' has state in {shards} shards, and now it would have {now}. Say shards={shards}, or "
                    "start afresh (--fresh). Cores and executors may change at any time."
                )

    def _go_on(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Where each partition is read on: at its task's checkpoint, or where the source says that a flow begins."""
        commits = newest_commits(open_place(self._root))
        for name, source in self._sources.items():
            known = {} if self._before is None else self._before.first.get(name, {})
            missing = any(number not in known for number in self._plan.numbers[name])
            start = self._clusters[name].start_offsets(source) if missing else {}
            self._first[name], self._next[name] = {}, {}
            for number in self._plan.numbers[name]:
                place = source.place(number)
                first = known[number] if number in known else start[place]
                commit = commits.get(f"{name}-{number:04d}")
                at = None if commit is None else commit.offsets.get(name, {}).get(place[1])
                self._first[name][number] = first
                self._next[name][number] = first if at is None else at

    # Turns

    def run(self, asked: Callable[[], bool]) -> None:
        tries = 0
        while not asked():
            began = time.monotonic()
            try:
                turn = self._turn()
            except UnreachableClusterError as error:
                self._observer.trouble("kafka", str(error))
                _wait(asked, AGAIN_S[0] * 2**tries)
                tries = min(tries + 1, 5)
                continue
            if tries:
                tries = 0
                self._observer.recovered("kafka")
            if self._live or turn.upto or self._turns == 0:
                self._do(turn, asked)
            self._observer.alive()
            if self._settings.until_end and self._at_end():
                self._finish(asked)
                return
            if not turn.upto:
                _wait(asked, began + self._spark_settings.every_s - time.monotonic())
        self._do(self._empty("leave"), lambda: True)

    def _finish(self, asked: Callable[[], bool]) -> None:
        self._do(self._empty("end"), asked)
        self._do(self._empty("leave"), asked)
        if not self._live:
            clock = read_manifest(self._root).clock
            if clock is not None:
                self._store.set_clock(clock.us, "stream")

    def _empty(self, phase: Any) -> Turn:
        newest = None if self._live else max(self._newest.values(), default=None)
        now = self._clock.now_us()
        return Turn(
            self._turns, now if self._live else None, now, {}, phase, self._ends, newest if phase == "leave" else None
        )

    def _turn(self) -> Turn:
        """What is read next: no more than fits into a turn, and nothing far ahead of what is behind."""
        highest = self._highest()
        upto: dict[str, dict[int, int]] = {}
        if self._upto:  # the turn that was cut short, again
            upto, self._upto = self._upto, {}
        else:
            upto = self._fitting(highest)
        upto = {
            name: {number: end for number, end in its.items() if end > self._next[name][number]}
            for name, its in upto.items()
        }
        upto = {name: its for name, its in upto.items() if its}
        now = self._clock.now_us()
        return Turn(self._turns, now if self._live else None, now, upto)

    def _highest(self) -> dict[str, dict[int, int]]:
        found: dict[str, dict[int, int]] = {}
        for name, source in self._sources.items():
            counts = self._counts_of(name)
            lows, highs = (self._clusters[name].offsets(counts, at) for at in ("earliest", "latest"))
            found[name] = {}
            for place, high in highs.items():
                number = source.number(*place)
                self._check_gap(source, number, lows[place], high)
                found[name][number] = high
        return found

    def _counts_of(self, name: str) -> Mapping[str, int]:
        counts = Counter(self._sources[name].place(number)[0] for number in self._plan.numbers[name])
        return dict(counts)

    def _check_gap(self, source: KafkaSource, number: int, low: int, high: int) -> None:
        at = self._next[source.name][number]
        if low <= at <= high:
            return
        topic, partition = source.place(number)
        if at < low and source.on_gap == "skip":
            self._observer.counted(f"{source.name}-{number:04d}", "skipped", low - at)
            self._next[source.name][number] = low
            return
        raise DataError(
            f"Topic '{topic}', partition {partition}: the checkpoint goes on at offset {at:,}, and the broker has "
            f"offsets {low:,} to {high:,}. "
            + (
                "The messages between were deleted before they were read. To go on without them, set on_gap='skip' in "
                "the source; keep messages for longer than a flow may stand still."
                if at < low
                else "Was the topic made anew? Start afresh (--fresh)."
            )
        )

    def _fitting(self, highest: Offsets) -> dict[str, dict[int, int]]:
        """Up to which offsets a turn reads."""
        limit = self._ends or highest
        left = {
            (name, number): end - self._next[name][number]
            for name, its in limit.items()
            for number, end in its.items()
            if end > self._next[name][number]
        }
        newest = {at: self._newest.get(f"{at[0]}-{at[1]:04d}") for at in left}
        slowest = {
            name: min((us for (of, _), us in newest.items() if of == name and us is not None), default=None)
            for name in self._sources
        }
        for (name, number), us in newest.items():
            least = slowest[name]
            ahead = max(AHEAD_US, 2 * self._sources[name].lateness_us)
            if us is not None and least is not None and us > least + ahead:
                del left[name, number]
        share = min(1.0, self._spark_settings.max_events / max(1, sum(left.values())))
        upto: dict[str, dict[int, int]] = {}
        for (name, number), count in left.items():
            upto.setdefault(name, {})[number] = self._next[name][number] + max(1, int(count * share))
        return upto

    def _at_end(self) -> bool:
        return all(self._next[name][number] >= end for name, its in self._ends.items() for number, end in its.items())

    # One turn

    def _do(self, turn: Turn, asked: Callable[[], bool]) -> None:
        """Do a turn, again and again while stores or executors fail."""
        self._write(turn)
        tries = 0
        while True:
            try:
                reports = self._job_of(turn)
                break
            except Exception as error:
                if isinstance(error, HeadraceError) or not spark_failed(error):
                    raise
                words = words_of(error)
                self._observer.trouble("spark", words)
                logger.warning("turn %d failed and is tried again: %s", turn.number, words)
                if asked() and tries:
                    raise
                time.sleep(min(AGAIN_S[0] * 2**tries, AGAIN_S[1]))
                tries += 1
        if tries:
            self._observer.recovered("spark")
        self._turns += 1
        self._heard(turn, reports)
        if self._live:
            assert turn.clock_us is not None
            try:
                self._store.set_clock(turn.clock_us, "wall")
            except UnreachableError as error:  # the next turn tells it
                self._observer.trouble("online store", str(error))

    def _write(self, turn: Turn) -> None:
        if not turn.upto and self._turns:
            return
        upto = {name: dict(its) for name, its in turn.upto.items()}
        counts = {name: dict(self._counts_of(name)) for name in self._sources}
        written = Written(counts, dict(self._plan.shards), self._first, upto)
        self._log.commit(snapshots={TURN: SnapshotPart(msgspec.json.encode(written))})

    def _job_of(self, turn: Turn) -> list[Report]:
        spark, job = self._spark, self._job
        frame = self._read(turn)
        for number in range(1, len(self._plan.levels)):
            tasks = len(self._plan.levels[number])
            ticks = spark.range(0, tasks, 1, 1).selectExpr(
                f"cast({number} as int) AS level", "cast(id as int) AS target", "cast(-1 as int) AS sender",
                "cast(0 as long) AS number", "cast(NULL as binary) AS value", "cast(NULL as binary) AS headers",
            )  # fmt: skip
            frame = _by_target(frame.unionAll(ticks), number, tasks)
            frame = frame.mapInArrow(next_level(job, turn, number), SENT_DDL)
        found = frame.where(f"level = {REPORT}").select("value").collect()
        return self._reports([bytes(row["value"]) for row in found])

    def _read(self, turn: Turn) -> Any:
        """What the tasks of the sources send, as a data frame; one Spark task for each core.

        Spark has Python processes of their own for each environment. So every Spark task has one of its own: its tasks
        find themselves in memory from turn to turn, as long as Spark places it on the same executor.
        """
        spark, tasks = self._spark, len(self._plan.levels[0])
        context = spark.sparkContext
        slots = max(1, min(tasks, context.defaultParallelism))
        frames = []
        for slot in range(slots):
            level = first_level(self._job, turn, range(slot, tasks, slots))
            context.environment[SLOT] = str(slot)
            try:
                frames.append(spark.range(0, 1, 1, 1).mapInArrow(level, SENT_DDL))
            finally:
                del context.environment[SLOT]
        return reduce(lambda one, other: one.unionAll(other), frames)

    def _reports(self, found: Sequence[bytes]) -> list[Report]:
        reports = []
        for said in found:
            known = msgspec.msgpack.decode(said)
            if "words" in known:
                failure = msgspec.convert(known, Failure)
                raise raised(failure)
            reports.append(msgspec.convert(known, Report))
        return reports

    def _heard(self, turn: Turn, reports: Sequence[Report]) -> None:
        by_part = {report.part: report for report in reports}
        for name in self._sources:
            for number in self._plan.numbers[name]:
                report = by_part[f"{name}-{number:04d}"]
                if report.offset >= 0:
                    self._next[name][number] = report.offset
        self.entities = Counter()
        for report in reports:
            retell(report.told, self._observer)
            if report.newest is not None:
                self._newest[report.part] = report.newest
            self.entities += Counter(report.entities)
            lag = None
            self._observer.position(report.part, offset=report.offset, lag=lag, watermark_us=report.watermark)

    def close(self) -> None:
        """Give up the driver's part; executors give up their tasks when they are used again, or end."""
        self._log.close()
        self._store.close()
        if self._owned:
            self._spark.stop()


def _by_target(frame: Any, level: int, tasks: int) -> Any:
    """The rows for a task of the level in one Spark task, in their order; the others anywhere."""
    from pyspark.sql import functions as F

    target = F.when(F.col("level") == level, F.col("target")).otherwise(F.pmod(F.col("sender"), F.lit(tasks)))
    parted = frame.repartitionById(tasks, target.cast("int"))
    return parted.sortWithinPartitions("target", "sender", "number")


def _wait(asked: Callable[[], bool], seconds: float) -> None:
    """Wait so long, or until asked to stop."""
    until = time.monotonic() + seconds
    while not asked() and (left := until - time.monotonic()) > 0:
        time.sleep(min(0.05, left))


__all__ = ["run_on_spark"]
