"""An online store filled from the log: after it was lost, moved or left behind, or because no flow writes to it.

`sync` writes everything at once; `fill` goes on where the last run of it ended, says how far it is, and holds bounded
memory. A row is absolute and a store never puts an older one over a newer, so a fill may be killed at any moment and
begun again, and a flow may write meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.features.errors import DataError
from headrace.features.time import format_instant
from headrace.features.views import ViewDefinition
from headrace.materialize.marks import LostError, Mark, mark_name
from headrace.materialize.newest import BATCH, MEMORY, Asked, count_newest, stream_newest
from headrace.stores.columns import pair_of
from headrace.stores.errors import UnreachableError
from headrace.stores.filling import Filling, filling
from headrace.stores.layout import EVENT_TIMESTAMP, LoggedView, stored_view
from headrace.stores.manifest import Manifest
from headrace.stores.offline import OfflineLog
from headrace.stores.online import OnlineStore, PositionedStore

if TYPE_CHECKING:
    import pyarrow as pa

MARK_EVERY = 4
"""Batches after which the mark moves: a store that has several portions under way is emptied of them first."""

TRIES = 3
"""How often a view is begun again in one run because the store lost what had been written."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What a fill did with one view, or would do.

    Attributes:
        view: its name.
        after_us, to_us: only entities whose newest row up to `to_us` is after `after_us`, microseconds; None: all.
        went_on: `after_us` is where an earlier run had come, not what was asked for.
        settled_us: rows of this instant and later are provisional; None when the log never said.
        entities: how many rows there were to write.
        written: how many of them the store had not newer.
        seconds: how long it took.
    """

    view: str
    after_us: int | None
    to_us: int
    went_on: bool
    settled_us: int | None
    entities: int
    written: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """How far a fill is in one view: rows of `total` done, up to which instant; None before the first."""

    view: str
    done: int
    total: int
    reached_us: int | None


def fill(
    store: PositionedStore,
    views: Any | Iterable[Any],
    *,
    log: OfflineLog,
    from_us: int | None = None,
    to_us: int | None = None,
    everything: bool = False,
    memory: str = MEMORY,
    batch_rows: int = BATCH,
    progress: Callable[[Step], None] | None = None,
) -> list[Filled]:
    """Write to an online store the newest row of every entity as of `to_us` that changed since the last fill.

    How far the store has been filled is kept in the store, as a mark per view; a run that was killed goes on a few
    batches before where it was. The mark never passes what the log has settled: rows after that can still change, and
    are written again by the next run. It counts for the definition and the parts of the log it was made with; with
    another definition, a log made anew, a dropped view or an emptied store everything is written again.

    Args:
        store: the online store.
        views: one view or several.
        log: the log of the flow that computed them.
        from_us: only entities with a row after this instant, microseconds; the mark stays where it is if that leaves a
            gap after it. By default what the mark says.
        to_us: as of which instant; by default where the flow stood at its newest commit, see `sync`.
        everything: pay no heed to the mark, such as after a server of a cluster lost its rows.
        memory: of DuckDB, such as "512MB", before it goes on on the disk; batches come on top.
        batch_rows: rows per write. After a kill at most five times as many are written again.
        progress: called after every batch.

    Returns:
        what was done, in the order of `views`.

    Raises:
        MissingStoreError: the log has nothing of a view.
        SchemaMismatchError: the log or the store holds rows of another definition of a view.
        DataError: the log does not say where its flow stood, so `to_us` is needed; or `from_us` is after `to_us`.
        FencedError: another run fills the same view of the store.
        UnreachableError: the store does not answer, or loses again and again what is written.
    """
    found = _several(views)
    manifest = log.manifest()
    upto = _upto(log, manifest, to_us, "fill(..., to_us=...)")
    _check_range(from_us, upto)
    how = _How(log, manifest, from_us, upto, everything, memory, batch_rows, progress)
    filled = [_fill_view(store, view, how) for view in found]
    _set_clock(store, manifest, upto)
    return filled


def plan_fill(
    store: PositionedStore,
    views: Any | Iterable[Any],
    *,
    log: OfflineLog,
    from_us: int | None = None,
    to_us: int | None = None,
    everything: bool = False,
    memory: str = MEMORY,
) -> list[Filled]:
    """What `fill` would do; nothing is written, `store` may be read only. Arguments and errors as there."""
    manifest = log.manifest()
    upto = _upto(log, manifest, to_us, "plan_fill(..., to_us=...)")
    _check_range(from_us, upto)
    planned = []
    for view in _several(views):
        reached = store.reached(mark_name(view, manifest))
        after, went_on = _after(from_us, None if reached is None else reached.position, everything)
        count = count_newest(log, Asked(view, after, upto), memory=memory)
        planned.append(Filled(view.name, after, upto, went_on, log.settled_us(view), count))
    return planned


def sync(
    store: OnlineStore, views: Any | Iterable[Any], *, log: OfflineLog, at_us: int | None = None
) -> dict[str, int]:
    """Write the newest row of every entity as of an instant to an online store, and set its clock there.

    Rows that the store has newer stay, so a flow may write meanwhile. To get rid of entities that the log does not
    have, drop the view there first.

    Args:
        store: the online store.
        views: one view or several.
        log: the log of the flow that computed them.
        at_us: the instant, microseconds; by default where the flow stood at its newest commit. Later is fine:
            provisional rows tell what will have expired by then if no further event comes.

    Returns:
        rows written, by view name.

    Raises:
        MissingStoreError: the log has nothing of a view.
        SchemaMismatchError: the log or the store holds rows of another definition of a view.
        DataError: the log does not say where its flow stood, so `at_us` is needed.
    """
    manifest = log.manifest()
    upto = _upto(log, manifest, at_us, "sync(..., at_us=...)")
    written = {}
    for view in _several(views):
        with filling(store, view) as rows:
            writing = _Writing(rows, view)
            stream_newest(log, Asked(view, None, upto), begin=writing.begin, take=writing.take)
            writing.settle(upto)
        written[view.name] = writing.written
    _set_clock(store, manifest, upto)
    return written


@dataclass
class _Writing:
    """Rows of a view on their way to a store, from a stream that may begin again.

    Attributes:
        rows: takes them.
        mark: moved behind what was written; None: the store has none.
        final_us: the last instant that the mark may say; None: it stays where it is.
        total, done, written: rows of the stream, given to the store, and not older than what was there.
        batches: how many were taken.
    """

    rows: Filling
    view: ViewDefinition | LoggedView
    mark: Mark | None = None
    final_us: int | None = None
    progress: Callable[[Step], None] | None = None
    total: int = 0
    done: int = 0
    written: int = 0
    batches: int = 0

    def begin(self, total: int) -> None:
        self.rows.flush()
        self.total, self.done, self.written, self.batches = total, 0, 0, 0
        self._tell(None)

    def take(self, rows: pa.Table) -> None:
        self.rows.write(rows)
        self.done += rows.num_rows
        self.batches += 1
        last = _last_us(rows)
        if self.batches % MARK_EVERY == 0:
            self.settle(last - 1)  # the next batch may begin with rows of the same instant
        self._tell(last)

    def settle(self, us: int) -> None:
        """Wait until every row up to `us` is in the store, and say so there."""
        self.written += self.rows.flush()
        if self.mark is not None:
            self.mark.move(None if self.final_us is None else min(us, self.final_us))

    def _tell(self, reached_us: int | None) -> None:
        if self.progress is not None:
            self.progress(Step(self.view.name, self.done, self.total, reached_us))


@dataclass(frozen=True)
class _How:
    """What a fill was asked: from where and as of when, and how."""

    log: OfflineLog
    manifest: Manifest
    from_us: int | None
    to_us: int
    everything: bool
    memory: str
    batch_rows: int
    progress: Callable[[Step], None] | None


def _fill_view(store: PositionedStore, view: ViewDefinition | LoggedView, how: _How) -> Filled:
    began = time.monotonic()
    settled = how.log.settled_us(view)
    for _ in range(TRIES):
        mark = Mark(store, view, how.manifest, anew=how.everything and how.from_us is None)
        after, went_on = _after(how.from_us, mark.at_us, how.everything)
        gap = after is not None and (mark.at_us is None or after > mark.at_us)
        final = None if gap or settled is None else settled - 1
        try:
            with filling(store, view) as rows:
                writing = _Writing(rows, view, mark, final, how.progress)
                stream_newest(
                    how.log,
                    Asked(view, after, how.to_us),
                    begin=writing.begin,
                    take=writing.take,
                    batch_rows=how.batch_rows,
                    memory=how.memory,
                )
                writing.settle(how.to_us)
        except LostError:
            continue
        seconds = time.monotonic() - began
        return Filled(view.name, after, how.to_us, went_on, settled, writing.total, writing.written, seconds)
    raise UnreachableError(
        f"{store!r} lost rows of view '{view.name}' while it was filled, {TRIES} times in a row. See why it restarts "
        "or fails over, then run the fill again: it goes on from what is there."
    )


def _after(from_us: int | None, mark_us: int | None, everything: bool) -> tuple[int | None, bool]:
    """After which instant to write, and whether that is where an earlier run had come."""
    if from_us is not None or everything:
        return from_us, False
    return mark_us, mark_us is not None


def _upto(log: OfflineLog, manifest: Manifest, to_us: int | None, call: str) -> int:
    if to_us is not None:
        return to_us
    if manifest.clock is None:
        raise DataError(f"{log!r} was committed without a clock. Say as of when to fill the store: {call}.")
    return manifest.clock.us


def _check_range(from_us: int | None, to_us: int) -> None:
    if from_us is not None and from_us > to_us:
        raise DataError(
            f"Rows were asked for from {format_instant(from_us)} to {format_instant(to_us)}, which is before. "
            "Without an end the fill goes to where the flow stood at its newest commit."
        )


def _set_clock(store: OnlineStore, manifest: Manifest, us: int) -> None:
    store.set_clock(us, "stream" if manifest.clock is None else manifest.clock.kind)


def _several(views: Any) -> Sequence[ViewDefinition | LoggedView]:
    several = views if isinstance(views, Iterable) and not hasattr(views, "__view__") else [views]
    return [stored_view(view) for view in several]


def _last_us(rows: pa.Table) -> int:
    instants, _ = pair_of(rows.column(EVENT_TIMESTAMP).slice(rows.num_rows - 1), "timestamp")
    return int(instants[0])
