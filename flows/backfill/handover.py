"""From history to a live flow: the views of Kafka sources over the files that came before, handed over to the topic.

    history -> judged per partition -> buckets of each part of the log     judging.py, sharing.py
                                            |
    topic's offsets -> seams                | settled, many side by side   computing.py
              |                             |
              '--> rows, state, where to go on: one commit for each part

What is left is what the flow's own workers would have left, had the history come to them by the topic: `headrace run`
takes up each part's checkpoint, fills the online store from it, and reads the topic from the exact event after.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from headrace.features.errors import DataError
from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition, definition
from headrace.flows.backfill.buckets import joined_state
from headrace.flows.backfill.computing import Progress, Spills, Staged, Step, compute, each_view, silent, spills_of
from headrace.flows.backfill.judging import Judges, Part, parts_of
from headrace.flows.backfill.merging import merged
from headrace.flows.backfill.running import BATCH, STAGE
from headrace.flows.backfill.seams import Joint, by_offset, by_time
from headrace.flows.backfill.sharing import Sharing, sharing_of, with_position
from headrace.flows.backfill.sizing import buckets_of, looks_of
from headrace.flows.backfill.stage import Read, Stage
from headrace.flows.backfill.topics import KafkaNow, TopicNow
from headrace.flows.pipeline import SourceFlow
from headrace.flows.read import batches
from headrace.flows.recording import LOG, Summary
from headrace.flows.runner import by_source
from headrace.flows.warm import warm
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.stages import Stages, stages_of
from headrace.flows.worker.task import TASK, TaskState, judged_source
from headrace.flows.worker.unfinished import begin, begun, finish
from headrace.stores.checkpoints import SnapshotPart, read_checkpoint
from headrace.stores.commits import parts as parts_in
from headrace.stores.deadletters import dead_letter_table
from headrace.stores.durable import write_durably
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock
from headrace.stores.places import open_place

logger = logging.getLogger("headrace.backfill")


@dataclass(frozen=True)
class _Asked:
    """The options of `hand_over`."""

    from_us: int | None
    to_us: int | None
    repair: bool
    allow_gap: bool
    threads: int | None
    batch_size: int
    progress: Progress


class _Joints(msgspec.Struct, frozen=True):
    """What is kept of the topic as it was when the history was read.

    joints: by number. route_ends: by repartition topic and its partition, the offset before which all is of others.
    """

    joints: dict[int, Joint]
    route_ends: dict[str, dict[int, int]]


@dataclass(frozen=True)
class _Handover:
    """One source of the flow. folder: where it works; those of the parts are in it. plan: of a `Stage`."""

    source: KafkaSource
    now: TopicNow
    stages: Stages
    sharing: Sharing
    parts: tuple[Part, ...]
    route_ends: Mapping[str, dict[int, int]]
    folder: Path
    plan: Mapping[str, Any]

    @cached_property
    def root(self) -> Stage:
        """What is kept of the whole source; made, or emptied if it is of another plan, when first asked for."""
        assert self.source.history is not None
        return Stage(self.folder, self.plan, buckets_of(self.source.history))

    def stage(self, part: Part) -> Stage:
        of_kind = sum(other.route == part.route for other in self.parts)
        return Stage(self.root.folder / part.name, {}, -(-self.root.buckets // of_kind))


def hand_over(
    views: Iterable[Any],
    settings: FlowSettings,
    *,
    from_us: int | None = None,
    to_us: int | None = None,
    repair: bool = False,
    allow_gap: bool = False,
    threads: int | None = None,
    batch_size: int = BATCH,
    progress: Progress | None = None,
    look: Callable[[KafkaSource, FlowSettings], TopicNow] = KafkaNow,
) -> Summary:
    """Compute views over the `history` of their Kafka sources into the log of a flow, which then goes on by the topics.

    A killed one goes on where it was; until it is through, the flow does not start.

    Args:
        views: feature views or definitions over Kafka sources with a history.
        settings: those of the flow; `data` is a folder in which it has not run.
        from_us: the log has only rows as of later instants, microseconds; earlier events count in their windows.
        to_us: the history is whole up to here, microseconds: later events of it are left for the topic. None: it is
            whole up to its newest event. Not where history and topic are joined by offsets.
        repair: late events of the history count at their own time.
        allow_gap: go on although events between history and topic may have been deleted.
        threads: side by side; all cores by default.
        batch_size: events that are decoded and judged at a time; values do not depend on it.
        progress: called after each batch and bucket.
        look: gives what the topics of a source hold now.

    Raises:
        DataError: a source is no topic, has no history, or the seam is not sure: which partition an event belongs to,
            or whether events are in neither; or the flow has run already.
        ClusterError: Kafka does not answer. StoreError: the log cannot be written.
    """
    began = time.perf_counter()
    asked = _Asked(from_us, to_us, repair, allow_gap, threads, batch_size, progress or silent)
    folder = _folder(settings)
    place = open_place(folder / LOG)
    warm()
    handovers = [_looked(source, its, settings, asked, look) for source, its in _sources(views, asked)]
    plans = msgspec.json.encode([each.plan for each in handovers], order="sorted")
    said = hashlib.blake2b(plans, digest_size=16).hexdigest().encode()
    before = begun(place)
    _check_unwritten(folder, before, said)
    summary = Summary()
    for each in handovers:
        read = each.root.read
        if read is None:
            if before is not None:
                raise DataError(
                    f"{folder}: the working folder of an unfinished backfill is gone. Start afresh (--fresh)."
                )
            each.root.begin_reading()
            read = _read(each, settings, asked)
        _count(summary, each.source.name, read)
    compute((staged for each in handovers for staged in _staged(each)), from_us, threads, asked.progress)
    begin(place, said)
    for each in handovers:
        joints = msgspec.json.decode((each.root.folder / "joints.json").read_bytes(), type=_Joints)
        for part in each.parts:
            _commit(each, part, joints, settings, asked, summary)
    finish(place)
    for each in handovers:
        each.root.remove()
    if not any((folder / STAGE).iterdir()):
        (folder / STAGE).rmdir()
    summary.seconds = time.perf_counter() - began
    return summary


def _folder(settings: FlowSettings) -> Path:
    if "://" in settings.data:
        raise DataError(
            f"A backfill works in a folder, and the flow's data are at {settings.data}. Backfill into a folder "
            "(--data) and copy it there before the flow starts."
        )
    return Path(settings.data)


def _sources(views: Iterable[Any], asked: _Asked) -> Iterator[tuple[KafkaSource, list[ViewDefinition]]]:
    for source, its in by_source([definition(view) for view in views]):
        if not isinstance(source, KafkaSource):
            raise DataError(
                f"Source '{source.name}' is a {type(source).__name__}; only a topic is gone on from. Backfill views "
                "over files and frames by themselves."
            )
        if source.history is None:
            raise DataError(
                f"Source '{source.name}' is the topic '{source.topic}', which has no end, and names no history. Say "
                f"where its earlier events are: history=FileSource('rides/*.parquet', {source.schema.name})."
            )
        if source.history_position is not None and asked.to_us is not None:
            raise DataError(
                f"Source '{source.name}': its history says at which offset the topic goes on; leave out --to."
            )
        yield source, its


def _looked(
    source: KafkaSource,
    views: Sequence[ViewDefinition],
    settings: FlowSettings,
    asked: _Asked,
    look: Callable[[KafkaSource, FlowSettings], TopicNow],
) -> _Handover:
    now = look(source, settings)
    sharing = sharing_of(source, now)
    stages = stages_of(settings.name, source, views, len(now.numbers))
    logger.info(
        "source '%s': its history is shared out among %d partitions %s", source.name, len(now.numbers), sharing.how
    )
    routes = {route.topic: now.repartitioned(route.topic) for route in stages.routes}
    parts = tuple(parts_of(stages, now.numbers, {topic: count for topic, (count, _) in routes.items()}))
    assert source.history is not None
    plan = {
        "source": repr(source),
        "seen": looks_of(source.history),
        "views": {view.name: view.fingerprint() for view in views},
        "parts": [part.name for part in parts],
        "sharing": sharing.how,
        "asked": [asked.from_us, asked.to_us, asked.repair, settings.clock],
        "buckets": buckets_of(source.history),
    }
    ends = {topic: ends for topic, (_, ends) in routes.items()}
    return _Handover(source, now, stages, sharing, parts, ends, _folder(settings) / STAGE / source.name, plan)


def _check_unwritten(folder: Path, before: bytes | None, said: bytes) -> None:
    if before is None and parts_in(folder / LOG):
        raise DataError(
            f"{folder} holds what a flow wrote, and a backfill begins at the beginning. Go on with `headrace run`, "
            "name another folder with --data, or drop what is there with --fresh."
        )
    if before is not None and before != said:
        raise DataError(
            f"{folder} holds an unfinished backfill of other views, files or options. Start that one again, or drop "
            "what is there with --fresh."
        )


def _read(each: _Handover, settings: FlowSettings, asked: _Asked) -> Read:
    """Every event of the history is judged and put into the buckets of its part; the seams are what follows."""
    judges = Judges(
        each.stages,
        each.now.numbers,
        each.parts,
        each.sharing,
        live=settings.clock == "wall",
        now_us=time.time_ns() // 1000,
        repair=asked.repair,
        to_us=asked.to_us,
    )
    stages = {part.name: each.stage(part) for part in each.parts}
    spills: dict[str, Spills] = {
        part.name: spills_of(stages[part.name], each.source.schema, part.views) for part in each.parts
    }
    rows = 0
    counts = judges.counts
    with ExitStack() as stack:
        refuse = {name: stack.enter_context(stage.refusing()) for name, stage in stages.items()}
        for piece in batches(with_position(each.source), asked.batch_size):
            if piece.dead:
                refuse[each.parts[0].name](dead_letter_table([letter.record() for letter in piece.dead]))
                counts.dead.update(letter.reason for letter in piece.dead)
            for name, events, letters in judges.take(piece.batch):
                if letters:
                    refuse[name](dead_letter_table([letter.record() for letter in letters]))
                if events is not None:
                    for spill in spills[name].values():
                        spill.add(events)
            rows = piece.progress.offset
            asked.progress(Step("read", each.source.name, piece.progress.done, piece.progress.total))
    admissions, reached = judges.end()
    joints = (
        by_offset(each.source, each.now, reached, asked.allow_gap)
        if each.sharing.exact
        else by_time(each.source, each.now, reached, asked.to_us, asked.allow_gap)
    )
    for part in each.parts:
        for spill in spills[part.name].values():
            spill.close()
        judge = admissions[part.name]
        read = Read(0, (), judge.newest, judge.watermark(), 0, 0, {}, {})
        stages[part.name].finish_reading(read, judge.save(full=True).data)
    kept = _Joints(joints, dict(each.route_ends))
    write_durably(each.root.folder / "joints.json", msgspec.json.encode(kept))
    read = Read(rows, (), None, None, counts.taken, counts.duplicates, dict(counts.missing), dict(counts.dead))
    each.root.finish_reading(read, b"")
    return read


def _count(summary: Summary, source: str, read: Read) -> None:
    summary.read[source] += read.offset
    summary.taken += read.taken
    summary.duplicates += read.duplicates
    summary.dead.update(read.dead)
    summary.missing.update({f"{source}.{column}": n for column, n in read.missing.items()})


def _staged(each: _Handover) -> Iterator[Staged]:
    for part in each.parts:
        stage = each.stage(part)
        read = stage.read
        if read is not None and read.newest is not None:
            spills = spills_of(stage, each.source.schema, part.views)
            yield from each_view(part.views, stage, spills, read.newest, read.watermark)


def _commit(
    each: _Handover, part: Part, joints: _Joints, settings: FlowSettings, asked: _Asked, summary: Summary
) -> None:
    """One part: its rows, its state, and the offset from which its task reads."""
    root = Path(settings.data) / LOG
    if read_checkpoint(root, part.name) is not None:
        return  # before it was killed
    stage = each.stage(part)
    direct = part.route is None
    source = each.source if direct else judged_source(each.source)
    own = [part.number] if direct else each.now.numbers
    flow = SourceFlow(source, part.views, live=settings.clock == "wall", partitions=own)
    flow.take_judgement(stage.admission())
    with OfflineLog(root, part=part.name) as log:
        log.claim()
        begun = flow.newest_us is not None
        dead = stage.dead()
        if dead.num_rows:
            log.dead_letters(dead)
        for view in part.views if begun else ():
            flow.take_up(view.name, joined_state(view, stage.states(view.name)))
            done = 0
            for rows in merged(stage.rows(view.name)) if view.log else ():
                log.append(view, rows)
                done += rows.num_rows
                asked.progress(Step("write", view.name, summary.log_rows[view.name] + done, None))
            summary.log_rows[view.name] += done
        clock = Clock(max(flow.clock_us, flow.newest_us or 0, 0), settings.clock) if begun and part.views else None
        log.commit(
            settled_us=flow.settled_us() if begun else {},
            snapshots={**flow.save(full=True), TASK: SnapshotPart(msgspec.msgpack.encode(_state(part, joints)))},
            offsets={part.offsets: {_kafka_partition(each, part): _first(part, joints)}},
            clock=clock,
        )
    for name, entities in flow.entities.items():
        summary.entities[name] = summary.entities.get(name, 0) + entities


def _state(part: Part, joints: _Joints) -> TaskState:
    if part.route is None:
        return TaskState(part.partitions, seam=joints.joints[part.number].seam, handed_over=True)
    inbox = {number: joint.first for number, joint in joints.joints.items()}
    return TaskState(part.partitions, inbox, handed_over=True)


def _first(part: Part, joints: _Joints) -> int:
    if part.route is None:
        return joints.joints[part.number].first
    return joints.route_ends[part.route.topic].get(part.number, 0)


def _kafka_partition(each: _Handover, part: Part) -> int:
    return part.number if part.route is not None else each.source.place(part.number)[1]
