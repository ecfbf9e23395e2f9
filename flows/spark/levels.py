"""What a Spark task computes of a turn: the tasks of one level whose rows it has, one after the other."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.features.errors import HeadraceError
from headrace.flows.kafka.errors import UnreachableClusterError
from headrace.flows.kafka.registry import UnreachableRegistryError
from headrace.flows.spark.failing import Failure
from headrace.flows.spark.host import Host, Job, Report, Turn
from headrace.flows.spark.plan import Place
from headrace.flows.spark.rows import REPORT, SENT, Sent, rows
from headrace.stores.errors import CorruptError, SchemaMismatchError, StoreError

Level = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]

_hosts: dict[str, Host] = {}


def host_of(job: Job) -> Host:
    """This process's; that of an earlier run is given up."""
    if job.run not in _hosts:
        for run in list(_hosts):
            _hosts.pop(run).end()
        _hosts[job.run] = Host(job)
    return _hosts[job.run]


def first_level(job: Job, turn: Turn, targets: Sequence[int]) -> Level:
    """Of tasks beside the partitions of sources, which read them: takes anything, gives `SENT`."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        host = host_of(job)
        level = host.plan.levels[0]
        for _ in batches:
            pass
        for target in targets:
            yield from _taken(host, level[target], target, turn, iter(()))

    return run


def next_level(job: Job, turn: Turn, number: int) -> Level:
    """Of tasks that take what others send: takes and gives `SENT`; what is for others passes by.

    Rows of a task are all in one Spark task, ordered by target, sender and number.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        host = host_of(job)
        level = host.plan.levels[number]
        passing: list[pa.RecordBatch] = []

        def mine() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                its = pc.equal(batch.column("level"), number)
                ours, others = batch.filter(its), batch.filter(pc.invert(its))
                if others.num_rows:
                    passing.append(others)
                if ours.num_rows:
                    yield ours

        def targets(batch: pa.RecordBatch) -> list[tuple[int, int]]:
            return [(i, batch.column("target")[i].as_py()) for i in _cuts(batch.column("target"))]

        for target, its in _apart(mine(), targets):
            yield from _taken(host, level[target], target, turn, its)
            yield from passing
            passing.clear()
        yield from passing

    return run


def _taken(
    host: Host, place: Place, at: int, turn: Turn, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    sent: list[Sent] = []
    try:
        sent, said = host.take(place, turn, batches)
        report = msgspec.msgpack.encode(said)
    except HeadraceError as error:
        if not _lasts(error):
            raise
        report = msgspec.msgpack.encode(Failure(place.part, type(error).__name__, str(error)))
    sender = at + sum(len(level) for level in host.plan.levels[: place.level])
    receivers = host.plan.receivers
    made = []
    for i, each in enumerate(sent):
        level, first = receivers[each.topic]
        made.append((level, first + each.target, sender, i, each.value, msgspec.msgpack.encode(each.headers)))
    made.append((REPORT, 0, sender, 0, report, b""))
    yield from rows(made)


def _lasts(error: HeadraceError) -> bool:
    """Whether an error is there the next time too, so that a person has to look at it."""
    if isinstance(error, UnreachableClusterError | UnreachableRegistryError):
        return False
    return not isinstance(error, StoreError) or isinstance(error, SchemaMismatchError | CorruptError)


def _cuts(*columns: pa.Array) -> list[int]:
    """Where one of the columns changes; 0 first."""
    changes = np.zeros(len(columns[0]), dtype=np.bool_)
    changes[:1] = True
    for column in columns:
        if len(column) > 1:
            changes[1:] |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return [int(i) for i in np.flatnonzero(changes)]


def _apart(
    batches: Iterable[pa.RecordBatch], targets: Callable[[pa.RecordBatch], list[tuple[int, int]]]
) -> Iterator[tuple[int, Iterator[pa.RecordBatch]]]:
    """Each target with its batches, which are read while the caller is at it; its rows are beside each other."""

    def pieces() -> Iterator[tuple[int, pa.RecordBatch]]:
        for batch in batches:
            if batch.num_rows:
                found = targets(batch)
                ends = [start for start, _ in found[1:]] + [batch.num_rows]
                for (start, target), end in zip(found, ends, strict=True):
                    yield target, batch.slice(start, end - start)

    left = pieces()
    waiting = next(left, None)

    def of(target: int) -> Iterator[pa.RecordBatch]:
        nonlocal waiting
        while waiting is not None and waiting[0] == target:
            yield waiting[1]
            waiting = next(left, None)

    while waiting is not None:
        target = waiting[0]
        its = of(target)
        yield target, its
        for _ in its:  # what the caller has not looked at
            pass


__all__ = ["SENT", "Report", "first_level", "next_level"]
