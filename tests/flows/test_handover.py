"""History from files, then the topic, with the seam anywhere: what is written is the oracle's, as if all had come live.

The tasks of the flow are the real ones, with a log and an online store; Kafka is lists in memory.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flows.apart import Apart, Given
from tests.oracle.definitions import Happening, definition_of, judging
from tests.oracle.described import COLUMNS, Sent, Stream, View
from tests.oracle.judging import check_log, wrong_features
from tests.oracle.naive import FAR, Judged, Oracle, Taken, judge
from tests.oracle.operator import batch_of, rows_of
from tests.oracle.strategies import DAY, UNITS, scripts, views

from headrace.features import FileSource, FrameSource, KafkaSource
from headrace.features.reading import read_at
from headrace.flows.backfill.handover import hand_over
from headrace.flows.backfill.topics import Keyed
from headrace.flows.kafka.partitioners import KNOWN
from headrace.flows.worker.log import LogThread
from headrace.flows.worker.observing import Silent
from headrace.flows.worker.online import OnlineWriter
from headrace.flows.worker.opening import Workplace, open_routed_task, open_source_task
from headrace.flows.worker.routed_task import RoutedTask
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.source_task import SourceTask
from headrace.flows.worker.stages import stages_of
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.offline import OfflineLog
from headrace.stores.opening import open_online

ARROW = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}


@dataclass(frozen=True)
class Message:
    """A message of a repartition topic."""

    taken: tuple[bytes, dict[str, bytes]]
    place: int

    def value(self) -> bytes:
        return self.taken[0]

    def headers(self) -> list[tuple[str, bytes]]:
        return list(self.taken[1].items())

    def offset(self) -> int:
        return self.place


@dataclass
class Topic:
    """A topic in memory, as `TopicNow` tells of it.

    events: by partition, in the order of their offsets; those of the first `begins` are deleted. ends: what the
    backfill is told. routes: of repartition topics, the messages by topic and partition.
    """

    events: list[list[Sent]]
    begins: Mapping[int, int]
    ends: Mapping[int, int]
    routes: dict[tuple[str, int], list[tuple[bytes, dict[str, bytes]]]] = field(default_factory=dict)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(range(len(self.events)))

    def sample(self) -> Iterator[tuple[int, Keyed]]:
        for number, events in enumerate(self.events):
            some = events[self.begins[number] : self.ends[number]]
            if some:
                batch = batch_of([Taken(event, event.time) for event in some])
                yield number, Keyed(batch, [event.columns["who"].encode() for event in some])

    def oldest_us(self, number: int) -> int | None:
        left = self.events[number][self.begins[number] : self.ends[number]]
        return left[0].time if left else None

    def stamped_after(self, us: int) -> dict[int, int]:
        raise AssertionError("event time is a field of the payload")

    def repartitioned(self, topic: str) -> tuple[int, dict[int, int]]:
        return len(self.events), dict.fromkeys(self.numbers, 0)

    # What senders need

    def send(self, _: str, topic: str, target: int, value: bytes, headers: dict[str, bytes]) -> None:
        self.routes.setdefault((topic, target), []).append((value, headers))

    def forget(self, _: str) -> None:
        """Nothing is under way."""

    def waiter(self, _: str, __: threading.Event) -> Callable[[], None]:
        return lambda: None


@dataclass(frozen=True)
class Case:
    """One history, one topic and the seam between them.

    way: how an event's partition is known. keyed: whether it is that of its key. events: by partition, as they came.
    history: events in the order of the files. begins, ends: of the topic, by partition. to_us: as the backfill is told.
    """

    way: str
    keyed: bool
    view: View
    events: list[list[Sent]]
    history: list[Sent]
    begins: dict[int, int]
    ends: dict[int, int]
    to_us: int | None

    def source(self, files: Path | None = None) -> KafkaSource:
        """files: where to put the history; None: it is a frame."""
        said: dict[str, Any] = {"keyed_by": "who", "partitioner": "murmur2"} if self.keyed else {}
        if self.way == "offsets":
            said["history_position"] = ("kafka_partition", "kafka_offset")
        return KafkaSource("happenings", Happening, history=self.past(files), **said, **judging(self.view.stream))

    def past(self, files: Path | None) -> FrameSource | FileSource:
        if files is None:
            return FrameSource(self.table(), Happening, name="past")
        table, each = self.table(), 1 + len(self.history) // 4
        files.mkdir()
        for first in range(0, max(1, table.num_rows), each):
            pq.write_table(table.slice(first, each), files / f"{first:04d}.parquet")
        return FileSource(files, Happening, name="past", format="parquet")

    def table(self) -> pa.Table:
        columns = {
            name: pa.array([event.columns[name] for event in self.history], type=ARROW[dtype])
            for name, dtype in COLUMNS.items()
        }
        columns["at"] = pa.array([event.time for event in self.history], type=pa.timestamp("us", tz="UTC"))
        if self.way == "offsets":
            columns["kafka_partition"] = pa.array([event.partition for event in self.history], type=pa.int64())
            columns["kafka_offset"] = pa.array([event.offset for event in self.history], type=pa.int64())
        return pa.table(columns)

    def topic(self) -> Topic:
        return Topic(self.events, self.begins, self.ends)


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    unit = draw(st.sampled_from(UNITS))
    view = draw(views(unit, most=3))
    script = [step for step in draw(scripts(unit, view.stream, most=30, clocks=False)) if isinstance(step, Sent)]
    partitions = draw(st.integers(1, 4))
    way = draw(st.sampled_from(("keyed", "stream", "offsets"))) if partitions > 1 else "alone"
    keyed = way == "keyed" or (way == "offsets" and draw(st.booleans()))
    events: list[list[Sent]] = [[] for _ in range(partitions)]
    arrived: list[Sent] = []
    shift = 3 * DAY if any(step.time < 0 for step in script) else 0  # a live flow's clock does not stand before 1970
    for step in script:
        number = draw(st.integers(0, partitions - 1))
        if keyed:
            number = KNOWN["murmur2"](step.columns["who"].encode(), partitions)
        name = step.columns["id"]  # one id twice comes by one partition
        columns = {**step.columns, "id": None if name is None else f"{number}{name}"}
        sent = Sent(step.time + shift, columns, number, len(events[number]))
        events[number].append(sent)
        arrived.append(sent)
    cut = draw(st.integers(0, len(arrived)))
    before = arrived[:cut]
    ends = {n: sum(event.partition == n for event in before) for n in range(partitions)}
    begins = dict.fromkeys(range(partitions), 0)
    to_us = None
    if way == "offsets":
        last = {n: draw(st.integers(0, ends[n])) for n in ends}
        history = [event for event in before if event.offset < last[event.partition]]
        begins = {n: draw(st.integers(0, last[n])) for n in ends}
    else:
        until = draw(st.sampled_from(sorted({event.time for event in before}))) if before else None
        history = [event for event in before if until is not None and event.time <= until]
        if draw(st.booleans()):
            to_us = until
            more = draw(st.sets(st.integers(0, max(len(before) - 1, 0))))
            history = [e for i, e in enumerate(before) if until is not None and (e.time <= until or i in more)]
        if view.stream.dedup is not None:  # the files were written while late events still came
            left_out = draw(st.sets(st.integers(0, max(len(history) - 1, 0)), max_size=3))
            history = [event for i, event in enumerate(history) if i not in left_out]
    return Case(way, keyed, view, events, history, begins, ends, to_us)


def expected(case: Case) -> tuple[Judged, dict[int, int]]:
    """What the seam's rules let in, by the naive judge: each partition's history, then what of its topic is left.

    Also how many events of each partition's topic are left.
    """
    stream = case.view.stream
    history = [event for event in case.history if case.to_us is None or event.time <= case.to_us]
    numbers = range(len(case.events))
    taken: list[Taken] = []
    dead: list[tuple[Sent, str]] = []
    left: dict[int, int] = {}
    marks: list[int] = []
    duplicates = 0
    for number in numbers:
        if case.way == "stream":
            mine = [replace(event, partition=number, offset=i - FAR) for i, event in enumerate(history)]
        else:
            mine = [event for event in history if event.partition == number]
            if case.way != "offsets":
                mine = [replace(event, offset=i - FAR) for i, event in enumerate(history) if event.partition == number]
        first = judge(stream, mine)
        after = case.events[number][case.begins[number] :]
        if case.way == "offsets":
            after = [event for event in after if event.offset >= len(mine)]
        elif first.taken:
            until = max(one.event.time for one in first.taken if one.since == one.event.time)
            after = [event for event in after if not _in_history(event, case.ends[number], until, stream)]
        whole = judge(stream, [*mine, *after])
        shared = case.way == "stream" and number > 0  # its verdicts have been counted with the first
        taken += whole.taken[len(first.taken) * shared :]
        dead += whole.dead[len(first.dead) * shared :]
        duplicates += whole.duplicates - first.duplicates * shared
        left[number] = len(after)
        marks.append(whole.watermark)
    judged = Judged(tuple(taken), tuple(dead), duplicates, min(marks), max((t.event.time for t in taken), default=-FAR))
    return judged, left


def _in_history(event: Sent, end: int, until: int, stream: Stream) -> bool:
    if event.offset >= end or event.time > until:
        return False
    told_by_id = stream.dedup is not None and event.columns["id"] is not None
    return not told_by_id or event.time < until - stream.lateness


class Flow:
    """A worker's tasks over a topic in memory."""

    def __init__(self, case: Case, topic: Topic, folder: Path, files: Path | None = None) -> None:
        self.case, self.topic = case, topic
        self.definition = definition_of(case.view, source=case.source(files))
        self.settings = FlowSettings(name="flow", data=str(folder), clock="stream", until_end=True)

    def hand_over(self, **options: Any) -> None:
        hand_over(
            [self.definition],
            self.settings,
            to_us=self.case.to_us,
            allow_gap=False,
            look=lambda source, settings: self.topic,
            **options,
        )

    @contextmanager
    def tasks(self) -> Iterator[tuple[list[SourceTask], list[RoutedTask]]]:
        """All tasks of the flow, from their checkpoints."""
        source, topic = self.definition.source, self.topic
        assert isinstance(source, KafkaSource)
        data = self.settings.data
        views = {self.definition.name: self.definition}
        store = open_online(f"{data}/online", project="headrace", layout="feast", expire=False)
        give_up = threading.Event()
        online = OnlineWriter(store, views, "stream", "flow", Silent(), give_up)
        logs = LogThread(online, Silent(), give_up)
        place = Workplace(self.settings, online, logs, Silent(), give_up, frozenset(views))
        stages = stages_of("flow", source, [self.definition], len(topic.events))
        counts = {route.topic: len(topic.events) for route in stages.routes}
        box: Any = topic
        nothing: Any = None
        try:
            tasks = [
                open_source_task(place, stages, n, len(topic.events), lambda: 0, counts, box, nothing)
                for n in topic.numbers
            ]
            routed = [
                open_routed_task(place, stages, r, n, counts[r.topic], topic.numbers, box, lambda *_: None, nothing)
                for r in stages.routes
                for n in range(counts[r.topic])
            ]
            for task in [*tasks, *routed]:
                task.begin()
            yield tasks, routed
            for task in [*tasks, *routed]:
                logs.drained(task.log, 60.0)
                assert task.log.failure is None, task.log.failure
        finally:
            logs.end()
            for task in [*tasks, *routed]:
                logs.close(task.log)
            online.end()
            store.close()
            for task in [*tasks, *routed]:
                task.log.log.close()

    def run(self, size: int, upto: float, *, killed: bool) -> None:
        """Take a share of each partition in batches of `size`, and commit; `killed`: without committing all of it."""
        with self.tasks() as (tasks, routed):
            for task in tasks:
                events = self.topic.events[task.number]
                end = task.offset + round((len(events) - task.offset) * upto)
                at = task.offset
                while at < end:
                    some = events[at : min(end, at + size)]
                    at += len(some)
                    task.take(batch_of([Taken(e, e.time) for e in some]), (), at, None, 4 * 10**15, np.empty(0))
                    if killed and at * 2 > end:
                        task.checkpoint()
                task.say()
            for each in routed:
                sent = self.topic.routes.get((each.topic, each.partition), [])[each.offset :]
                for i in range(0, len(sent), size):
                    its = [Message(m, each.offset + k) for k, m in enumerate(sent[i : i + size])]
                    each.take(its, its[-1].offset() + 1, None, np.empty(0))
            if not killed:
                newest = max(
                    (t.flow.newest_us for t in [*tasks, *routed] if t.flow.newest_us is not None), default=None
                )
                for any_task in [*tasks, *routed]:
                    if newest is not None and upto == 1.0:
                        any_task.advance(newest)
                    any_task.checkpoint(final=True)

    def check(self) -> None:
        """Log and online rows are the oracle's."""
        judged, _ = expected(self.case)
        log = OfflineLog(f"{self.settings.data}/log")
        letters = read_dead_letters(log).to_pylist()
        assert Counter(each["reason"] for each in letters) == Counter(reason for _, reason in judged.dead)
        oracle = Oracle(self.case.view, [one.event for one in judged.taken], judged)
        if not judged.taken or self.definition.name not in log.views():
            assert not judged.taken
            return
        rows = rows_of(log.scan(self.definition))
        check_log(oracle, sorted(rows, key=lambda row: row["event_timestamp"]), None)
        store = open_online(f"{self.settings.data}/online", read_only=True)
        try:
            found = {tuple(key.values()): row for key, row in store.scan(self.definition)}
            for key in oracle.entities:
                assert key in found, f"{key} is not online"
                row = found[key]
                got, statuses = read_at(
                    self.definition, row.values, row.event_timestamp_us, row.newest_event_us, judged.clock
                )
                told = oracle.read(key, judged.clock)
                assert dict(statuses) == told.statuses
                seen = not {"NOT_FOUND", "OUTSIDE_MAX_AGE"} & set(told.statuses.values())
                assert not wrong_features(oracle, key, judged.clock, dict(got), seen=seen)
        finally:
            store.close()


@settings(max_examples=settings().max_examples // 3)  # each is a flow or two with threads and files
@given(drawn(), st.integers(1, 9), st.sampled_from((0.0, 0.5)), st.booleans(), st.none() | st.integers(0, 99))
def test_history_and_topic_are_as_one(case: Case, size: int, share: float, killed: bool, apart: int | None) -> None:
    """apart: the history is read from files by processes of their own, in an order of this seed."""
    with TemporaryDirectory() as folder:
        flow = Flow(case, case.topic(), Path(folder) / "data", None if apart is None else Path(folder) / "past")
        crew = None if apart is None else Apart(Given(flow.definition), apart)
        flow.hand_over(batch_size=size, crew=crew)
        if share:
            flow.run(size, share, killed=killed)
        flow.run(size, 1.0, killed=False)
        flow.check()
