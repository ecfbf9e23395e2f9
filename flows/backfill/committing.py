"""The parts of a live flow's log, each from its stage: its rows, its state, and the offset from which its task reads.

A part concerns no other, so whoever has a hand free commits it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition, definition
from headrace.flows.backfill.buckets import joined_state
from headrace.flows.backfill.judging import Judges, Part, parts_of
from headrace.flows.backfill.merging import merged
from headrace.flows.backfill.seams import Joint
from headrace.flows.backfill.sharing import Sharing, with_position
from headrace.flows.backfill.site import PartOfLog, Site
from headrace.flows.backfill.stage import Stage
from headrace.flows.pipeline import SourceFlow
from headrace.flows.recording import LOG
from headrace.flows.runner import by_source
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.stages import stages_of
from headrace.flows.worker.task import TASK, TaskState, judged_source
from headrace.stores.checkpoints import SnapshotPart, read_checkpoint
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock


class Joints(msgspec.Struct, frozen=True):
    """What is kept of the topic as it was when the history was read.

    joints: by number. route_ends: by repartition topic and its partition, the offset before which all is of others.
    """

    joints: dict[int, Joint]
    route_ends: dict[str, dict[int, int]]


@dataclass(frozen=True)
class Known:
    """What is known of a source and its topic before its history is read; goes to other machines as it is.

    numbers: of all partitions. routes, route_ends: of its repartition topics, how many partitions each has, and where
    each of them ends.
    """

    settings: FlowSettings
    numbers: tuple[int, ...]
    routes: Mapping[str, int]
    route_ends: Mapping[str, dict[int, int]]
    sharing: Sharing
    buckets: int
    from_us: int | None
    to_us: int | None
    repair: bool

    @property
    def live(self) -> bool:
        return self.settings.clock == "wall"


@dataclass(frozen=True)
class HandedSite(Site):
    """A site whose parts are those of a live flow."""

    source: KafkaSource
    known: Known
    by_name: Mapping[str, Part]

    @property
    def joints(self) -> Path:
        """Where `Joints` lie."""
        return self.stage.folder / "joints.json"


def handed(
    source: KafkaSource, views: Sequence[ViewDefinition], known: Known, root: Stage, *, attach: bool = False
) -> HandedSite:
    """The site of a source's history. root: of the whole. attach: another process has made the stages."""
    stages = stages_of(known.settings.name, source, views, len(known.numbers))
    parts = tuple(parts_of(stages, known.numbers, known.routes))
    made = {}
    for part in parts:
        of_kind = sum(other.route == part.route for other in parts)
        stage = Stage(root.folder / part.name, None if attach else {}, -(-root.buckets // of_kind), shared=root.shared)
        made[part.name] = PartOfLog(stage, part.views)
    judge = partial(_judge, stages, known, parts)
    by_name = {part.name: part for part in parts}
    return HandedSite(
        source.name, with_position(source), source.schema, root, made, judge, known.from_us, source, known, by_name
    )


def _judge(stages: Any, known: Known, parts: Sequence[Part], now_us: int) -> Judges:
    return Judges(
        stages,
        known.numbers,
        parts,
        known.sharing,
        live=known.live,
        now_us=now_us,
        repair=known.repair,
        to_us=known.to_us,
    )


@dataclass(frozen=True)
class Handing:
    """What tells another process of a handover. load: gives the views. source: its name. folder: of its stage."""

    load: Callable[[], Iterable[Any]]
    source: str
    known: Known
    folder: Path

    def __call__(self) -> HandedSite:
        views = [definition(view) for view in self.load()]
        source, its = next((source, its) for source, its in by_source(views) if source.name == self.source)
        assert isinstance(source, KafkaSource)
        root = Stage(self.folder, None, self.known.buckets, shared=True)
        return handed(source, its, self.known, root, attach=True)


@dataclass(frozen=True)
class Written:
    """By view: rows of the log, and entities."""

    rows: dict[str, int]
    entities: dict[str, int]


@dataclass(frozen=True)
class Commit:
    """The job of one part."""

    part: str

    def __call__(self, site: Site) -> Written:
        assert isinstance(site, HandedSite)
        part, known, settings = site.by_name[self.part], site.known, site.known.settings
        root = Path(settings.data) / LOG
        stage = site.parts[self.part].stage
        direct = part.route is None
        source = site.source if direct else judged_source(site.source)
        flow = SourceFlow(source, part.views, live=known.live, partitions=[part.number] if direct else known.numbers)
        flow.take_judgement(stage.admission())
        begun = flow.newest_us is not None
        for view in part.views if begun else ():
            flow.take_up(view.name, joined_state(view, stage.states(view.name)))
        if read_checkpoint(root, part.name) is not None:  # before all was killed
            return Written({}, dict(flow.entities))
        joints = msgspec.json.decode(site.joints.read_bytes(), type=Joints)
        written = dict.fromkeys((view.name for view in part.views), 0)
        with OfflineLog(root, part=part.name) as log:
            log.claim()
            dead = stage.dead()
            if dead.num_rows:
                log.dead_letters(dead)
            for view in part.views if begun else ():
                for rows in merged(stage.rows(view.name)) if view.log else ():
                    log.append(view, rows)
                    written[view.name] += rows.num_rows
            clock = Clock(max(flow.clock_us, flow.newest_us or 0, 0), settings.clock) if begun and part.views else None
            log.commit(
                settled_us=flow.settled_us() if begun else {},
                snapshots={**flow.save(full=True), TASK: SnapshotPart(msgspec.msgpack.encode(_state(part, joints)))},
                offsets={part.offsets: {_kafka_partition(site, part): _first(part, joints)}},
                clock=clock,
            )
        return Written(written, dict(flow.entities))


def _state(part: Part, joints: Joints) -> TaskState:
    if part.route is None:
        return TaskState(part.partitions, seam=joints.joints[part.number].seam, handed_over=True)
    inbox = {number: joint.first for number, joint in joints.joints.items()}
    return TaskState(part.partitions, inbox, handed_over=True)


def _first(part: Part, joints: Joints) -> int:
    if part.route is None:
        return joints.joints[part.number].first
    return joints.route_ends[part.route.topic].get(part.number, 0)


def _kafka_partition(site: HandedSite, part: Part) -> int:
    return part.number if part.route is not None else site.source.place(part.number)[1]
