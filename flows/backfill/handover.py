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
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from headrace.features.errors import DataError
from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition, definition
from headrace.flows.backfill.committing import Commit, HandedSite, Handing, Joints, Known, handed
from headrace.flows.backfill.computing import Progress, Step, compute, silent
from headrace.flows.backfill.crew import Brief, Crew, Here, Threads
from headrace.flows.backfill.judging import Judges, parts_of
from headrace.flows.backfill.reading import read_in_order
from headrace.flows.backfill.running import BATCH, STAGE
from headrace.flows.backfill.seams import by_offset, by_time
from headrace.flows.backfill.sharing import sharing_of
from headrace.flows.backfill.sizing import buckets_of, looks_of
from headrace.flows.backfill.stage import Read, Stage
from headrace.flows.backfill.stretches import read_by_stretches
from headrace.flows.backfill.topics import KafkaNow, TopicNow
from headrace.flows.recording import LOG, Summary
from headrace.flows.runner import by_source
from headrace.flows.warm import warm
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.stages import stages_of
from headrace.flows.worker.unfinished import begin, begun, finish
from headrace.stores.commits import parts as parts_in
from headrace.stores.durable import write_durably
from headrace.stores.places import open_place

logger = logging.getLogger("headrace.backfill")


@dataclass(frozen=True)
class _Asked:
    """The options of `hand_over`."""

    from_us: int | None
    to_us: int | None
    repair: bool
    allow_gap: bool
    batch_size: int


@dataclass(frozen=True)
class _Looked:
    """One source of the flow, and its topic as it is now. plan: of a `Stage`."""

    source: KafkaSource
    views: tuple[ViewDefinition, ...]
    now: TopicNow
    known: Known
    plan: Mapping[str, Any]


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
    crew: Crew | None = None,
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
        crew: other machines that do the work (`headrace.flows.spark.crew`), which find data and files at the same
            places; in place of `threads`.
        look: gives what the topics of a source hold now.

    Raises:
        DataError: a source is no topic, has no history, or the seam is not sure: which partition an event belongs to,
            or whether events are in neither; or the flow has run already.
        ClusterError: Kafka does not answer. StoreError: the log cannot be written.
    """
    began = time.perf_counter()
    asked = _Asked(from_us, to_us, repair, allow_gap, batch_size)
    tell, crew = progress or silent, crew or Threads(threads)
    folder = _folder(settings)
    place = open_place(folder / LOG)
    warm()
    shared = crew.load is not None
    settings = replace(settings, data=str(folder)) if shared else settings
    looked = [_looked(source, its, settings, asked, shared, look) for source, its in _sources(views, asked)]
    plans = msgspec.json.encode([each.plan for each in looked], order="sorted")
    said = hashlib.blake2b(plans, digest_size=16).hexdigest().encode()
    before = begun(place)
    _check_unwritten(folder, before, said)
    summary = Summary()
    sites: list[tuple[HandedSite, Brief]] = []
    for each in looked:
        working = folder / STAGE / each.source.name
        root = Stage(working, each.plan, each.known.buckets, shared=shared)
        read = root.read
        if read is None:
            if before is not None:
                raise DataError(
                    f"{folder}: the working folder of an unfinished backfill is gone. Start afresh (--fresh)."
                )
            if not shared:
                root.begin_reading()
        site = handed(each.source, each.views, each.known, root)
        brief: Brief = Here(site) if crew.load is None else Handing(crew.load, each.source.name, each.known, working)
        sites.append((site, brief))
        _count(summary, each.source.name, read or _read(each, site, brief, crew, asked, tell))
    for site, brief in sites:
        compute(site, brief, crew, tell)
    begin(place, said)
    for site, brief in sites:
        _commit(site, brief, crew, tell, summary)
    finish(place)
    for site, _ in sites:
        site.stage.remove()
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
    return Path(os.path.abspath(settings.data))


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
    shared: bool,
    look: Callable[[KafkaSource, FlowSettings], TopicNow],
) -> _Looked:
    now = look(source, settings)
    sharing = sharing_of(source, now)
    stages = stages_of(settings.name, source, views, len(now.numbers))
    logger.info(
        "source '%s': its history is shared out among %d partitions %s", source.name, len(now.numbers), sharing.how
    )
    routes = {route.topic: now.repartitioned(route.topic) for route in stages.routes}
    assert source.history is not None
    known = Known(
        settings,
        now.numbers,
        {topic: count for topic, (count, _) in routes.items()},
        {topic: ends for topic, (_, ends) in routes.items()},
        sharing,
        buckets_of(source.history),
        asked.from_us,
        asked.to_us,
        asked.repair,
    )
    plan = {
        "source": repr(source),
        "seen": looks_of(source.history),
        "views": {view.name: view.fingerprint() for view in views},
        "parts": [part.name for part in parts_of(stages, known.numbers, known.routes)],
        "sharing": sharing.how,
        "asked": [asked.from_us, asked.to_us, asked.repair, settings.clock],
        "buckets": known.buckets,
        "read": "by stretches" if shared else "in order",
    }
    return _Looked(source, tuple(views), now, known, plan)


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


def _read(each: _Looked, site: HandedSite, brief: Brief, crew: Crew, asked: _Asked, tell: Progress) -> Read:
    """Every event of the history is judged and put into the buckets of its part; the seams are what follows."""
    judge, reached = (
        read_in_order(site, asked.batch_size, tell)
        if crew.load is None
        else read_by_stretches(site, brief, crew, asked.batch_size, tell)
    )
    assert isinstance(judge, Judges)
    admissions, came = judge.end_all()
    joints = (
        by_offset(each.source, each.now, came, asked.allow_gap)
        if each.known.sharing.exact
        else by_time(each.source, each.now, came, asked.to_us, asked.allow_gap)
    )
    for name, part in site.parts.items():
        its = admissions[name]
        part.stage.finish_reading(Read(0, (), its.newest, its.watermark(), 0, 0, {}, {}), its.save(full=True).data)
    write_durably(site.joints, msgspec.json.encode(Joints(joints, dict(each.known.route_ends))))
    counts = judge.counts
    read = Read(
        reached.offset, (), None, None, counts.taken, counts.duplicates, dict(counts.missing), dict(counts.dead)
    )
    site.stage.finish_reading(read, b"")
    return read


def _count(summary: Summary, source: str, read: Read) -> None:
    summary.read[source] += read.offset
    summary.taken += read.taken
    summary.duplicates += read.duplicates
    summary.dead.update(read.dead)
    summary.missing.update({f"{source}.{column}": n for column, n in read.missing.items()})


def _commit(site: HandedSite, brief: Brief, crew: Crew, tell: Progress, summary: Summary) -> None:
    """Every part that is not there yet."""
    jobs = [Commit(name) for name in site.parts]
    for written in crew.do(brief, jobs, lambda done: tell(Step("commit", site.name, done, len(jobs)))):
        summary.log_rows.update(written.rows)
        for name, entities in written.entities.items():
            summary.entities[name] = summary.entities.get(name, 0) + entities
