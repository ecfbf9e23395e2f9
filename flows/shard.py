"""The shard operator: events in, feature rows out, state that can be saved (design section 5).

It knows no Kafka, no Redis and no threads: the embedded runner, a Kafka worker and a distributed engine all drive
this one
object. Callers give it events that admission has let in, a clock and the watermark; it holds two readings of the view
(contract C17 and C18) over one table of keys:

    process(batch, clock) -> online rows       events count at once
    advance(clock)        -> online rows       a value falls as time passes with no new event (C5)
    settle(watermark)     -> log rows          in event-time order, final
    tail()                -> log rows          what would follow if no further event came; changes nothing
    rows(clock) -> online rows                 of every entity, for a store that lost its own
    save() -> SnapshotPart, load(chain)        the settled reading and the events that wait; the online reading is
    their sum
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.time import format_instant
from headrace.features.views import ViewDefinition, definition
from headrace.flows.batch import EventBatch
from headrace.flows.buffer import Prepared, SettlingBuffer
from headrace.flows.chain import Chain
from headrace.flows.changes import Change, OnChange
from headrace.flows.events import prepare
from headrace.flows.grafting import graft_records, graft_waiting
from headrace.flows.keys import KeyTable
from headrace.flows.lanes import NEVER
from headrace.flows.migration import migrate
from headrace.flows.online import OnlineReading
from headrace.flows.ordering import in_order
from headrace.flows.plan import compile_view
from headrace.flows.rows import Columns, table
from headrace.flows.saving import Position, Restored, packer, restored
from headrace.flows.settled import LAST_INSTANT, SettledReading
from headrace.flows.snapshot import SnapshotError
from headrace.stores.checkpoints import SnapshotPart

LOOK_AFTER = 1024  # new keys, beyond twice those of the last time, after which to look which entities are gone
BEGINNING = NEVER // 2  # earlier than any instant, and far enough from the end of int64 to subtract a window from it


@dataclass(frozen=True)
class Saved:
    """Where the shard stood at its last snapshot.

    upto: the last instant that had settled. slots: how many there were. each: bytes of a slot's state, about.
    """

    upto: int
    slots: int
    each: int


class ShardOperator:
    """Computes one view for the entities of one shard.

    Args:
        view: a feature view or its definition.
        plain: compute every feature by the plain Python algebra of `headrace.features` instead of the kernels'
        lanes. Slow;
            it is the reference that the kernels are compared with.
    """

    def __init__(self, view: Any, *, plain: bool = False) -> None:
        self.view: ViewDefinition = definition(view)
        self._plain = plain
        self._plan = compile_view(self.view, plain=plain)
        entity = self.view.entity
        self._keys = KeyTable(entity.keys, [self.view.schema.field(key).dtype for key in entity.keys])
        self._settled = SettledReading(self._plan)
        self._online = OnlineReading.after(self._plan, self._settled)
        self._buffer = SettlingBuffer()
        self._known = 0  # keys when it was last looked which entities are gone
        self._clock = BEGINNING
        self._watermark = BEGINNING
        self._upto = BEGINNING  # the last instant that has settled
        self._others_upto = BEGINNING  # rows as of instants up to this one may have been written by a predecessor
        self._chain = Chain()
        self._saved = Saved(NEVER, 0, 0)

    @property
    def clock_us(self) -> int:
        """The latest instant the operator was told, microseconds."""
        return self._clock

    @property
    def watermark_us(self) -> int:
        """The log has settled every instant before this one."""
        return self._watermark

    @property
    def entities(self) -> int:
        """How many entities have something in a window, or an event on its way into one."""
        return len(self._keys) - int(self._gone().sum()) if len(self._keys) else 0

    @property
    def waiting(self) -> int:
        """How many events wait for the watermark."""
        return len(self._buffer)

    @property
    def nbytes(self) -> int:
        """Bytes of the state columns of both readings."""
        return self._settled.columns.nbytes() + self._online.columns.nbytes()

    def process(self, batch: EventBatch, clock_us: int) -> pa.Table:
        """Fold events in.

        Args:
            batch: events that admission let in, in any order.
            clock_us: the flow's clock; never goes back (an earlier one counts as the latest).

        Returns:
            online rows, at most one per entity: those the events touched, as of the clock or the entity's newest
            event if that is later, and those of which a value fell because the clock moved.
        """
        events = prepare(self._plan, self._keys, batch)
        self._buffer.add(events)
        every = self._follows_others
        touched = self._take(events, clock_us)
        fallen = self._online.advance(self._clock, self._steady, every=every)
        parts = [self._table(rows) for rows in (touched, fallen) if len(rows)]
        return pa.concat_tables(parts) if parts else self._table(touched)

    def advance(self, clock_us: int) -> pa.Table:
        """Let the clock move to `clock_us`. Returns online rows of the entities of which a value changed by that."""
        every = self._follows_others
        self._clock = max(self._clock, clock_us)
        return self._table(self._online.advance(self._clock, self._steady, every=every))

    def follow(self, clock_us: int) -> None:
        """After `load`: somebody has gone on from there before, and has written rows as of instants up to `clock_us`.

        A value may have changed for a while and be again what it was at the checkpoint. So until the clock is there,
        a row is written whenever a change was due, also if nothing seems to have changed.
        """
        self._others_upto = max(self._others_upto, clock_us)

    def settle(self, watermark_us: int) -> pa.Table:
        """The watermark has come to `watermark_us`: no event before it comes any more.

        Returns:
            log rows for every instant before it that has not settled yet, in order of instant (entities of one
            instant in an order that depends on their keys alone). With `log_every` only whole intervals settle.
        """
        self._watermark = max(self._watermark, watermark_us)
        upto = self._watermark - 1
        every = self.view.log_every_us
        if every is not None:
            upto = upto // every * every
        events = self._buffer.take(upto)
        if events is not None and events.effective[0] <= self._saved.upto:
            self._chain.begin()  # it came to an instant that was over: the next delta would miss what it changes
        self._upto = max(self._upto, upto)
        rows = self._settled.settle(len(self._keys), events, upto)
        made = self._log_table(rows)
        known = len(self._keys)
        # The second question finds entities that were never anywhere but empty: their only event came too late.
        if 2 * self._settled.emptied >= known > 0 or known >= 2 * self._known + LOOK_AFTER:
            self._release()
        return made

    def rows(self, clock_us: int) -> pa.Table:
        """The online row of every entity in memory at `clock_us`, to fill a store that lost its rows.

        An entity all of whose windows had emptied for good may have left memory; its row is not among these.
        """
        self._clock = max(self._clock, clock_us)
        return self._table(self._online.all(len(self._keys), self._clock, self._steady))

    def tail(self) -> pa.Table:
        """Log rows that would follow if no further event came: of the events that wait, and of everything that expires.

        The operator stays as it is.
        """
        ahead = self._settled.copy()
        return self._log_table(ahead.settle(len(self._keys), self._buffer.copy().take(LAST_INSTANT), LAST_INSTANT))

    def save(self, full: bool = False) -> SnapshotPart:
        """State for a checkpoint: what changed since the part that was saved last, or everything.

        The state is copied here, and packed when the part is asked for its bytes. A delta has the entities that
        changed; there is none where the deltas would outgrow half of the full part, after entities have left memory,
        and after 63 others.

        Args:
            full: everything, whatever was saved before. Ask for it when the part saved last did not become durable.
        """
        slots = len(self._keys)
        self._settled.columns.reserve(slots, 0)
        if full:
            self._chain.begin()
        saved, chosen, waiting = self._saved, None, self._buffer.all()
        if self._chain.open:
            changed = self._settled.changed_since(saved.upto, saved.slots)
            fresh = self._buffer.unsaved()
            if self._chain.bears(len(changed) * saved.each + _bytes(fresh)):
                chosen, waiting = changed, fresh
        first = 0 if chosen is None else saved.slots
        keys = self._keys.since(first)
        each = saved.each if chosen is not None else self._settled.columns.nbytes() // max(1, slots)
        frozen = self._settled.frozen(np.arange(slots) if chosen is None else chosen)
        size = each * (slots if chosen is None else len(chosen)) + _bytes(waiting)
        position = Position(self._clock, self._watermark, self._upto)
        pack = packer(self._plan, self._settled.names, frozen, chosen, first, keys, waiting, position)
        self._buffer.saved()
        self._saved = Saved(self._upto, slots, each)
        return self._chain.add(size, pack, delta=chosen is not None)

    def load(self, chain: Sequence[bytes], on_change: OnChange = "refuse") -> Change | None:
        """Go on from a full part and the deltas saved after it, oldest first; see `read` and `adopt`."""
        return self.adopt(self.read(chain, on_change))

    def read(self, chain: Sequence[bytes], on_change: OnChange = "refuse") -> Restored:
        """What the parts of a chain hold, for this view as it is defined now. The operator stays as it is.

        Raises:
            SnapshotError: a part is damaged or missing, of another format or view; or the definition has changed so
                that features have no state or state has no feature, and `on_change` is "refuse".
        """
        return restored(chain, self.view, plain=self._plain, on_change=on_change)

    def adopt(self, state: Restored) -> Change | None:
        """Go on from what `read` gave. Returns what has changed in the view's definition, None if nothing."""
        self._plan = state.plan
        self._keys.load(state.keys)
        self._settled = SettledReading(state.plan, state.names)
        self._settled.scatter(state.records)
        self._buffer = SettlingBuffer()
        self._clock, self._watermark, self._upto = (
            state.position.clock, state.position.watermark, state.position.settled,
        )  # fmt: skip
        self._known = 0
        self._revive(state.waiting)
        self._chain = Chain()
        if state.change is None:
            self._buffer.saved()
            self._chain.resume(state.seal, state.sizes)
            slots = len(self._keys)
            self._saved = Saved(self._upto, slots, self._settled.columns.nbytes() // max(1, slots))
        return state.change

    def begin_at(self, clock_us: int, watermark_us: int) -> None:
        """Take up a stream that has come so far: nothing before the watermark will come."""
        self._clock, self._watermark = max(self._clock, clock_us), max(self._watermark, watermark_us)
        self._upto = self._watermark - 1

    def graft(self, other: "ShardOperator") -> None:
        """Take the state of the features that had none when this operator was restored from `other`.

        Args:
            other: an operator of the same view that was fed the events from the beginning of the source, or of what is
                left of it, up to the one to which this one has come. It is settled to where this one is, and must
                not be used afterwards.

        Raises:
            SnapshotError: `other` is of another view, has come further, or lacks history itself.
        """
        since = max(self._plan.since.values(), default=0)
        if other.view != self.view or other._plan.since:
            raise SnapshotError(
                f"View '{self.view.name}': the operator to graft from computes {other!r}. Feed history to a new flow "
                "of the same views."
            )
        other._check_behind(self)
        other._settle_to(self._upto)
        theirs = [self._keys.slot(key) for key in other._keys.keys]
        slots = np.array([self._keys.add(k) if s is None else s for k, s in zip(other._keys.keys, theirs, strict=True)],
                         dtype=np.int64)  # fmt: skip
        rows = np.full(len(self._keys), -1, dtype=np.int64)
        rows[slots] = np.arange(len(slots))
        for one in (self, other):
            one._settled.columns.reserve(len(one._keys), 0)
        names = self._settled.names
        mine = self._settled.gather(np.arange(len(self._keys)))
        history = other._settled.gather(np.arange(len(other._keys)))
        records = graft_records(mine, history, rows, self._plan, names, since, self._upto)
        waiting = graft_waiting(
            self._buffer.joined(), other._buffer.joined(), slots, names, other._settled.names, since
        )
        self._settled = SettledReading(self._plan, names)
        self._settled.scatter(records)
        self._buffer = SettlingBuffer()
        self._chain.begin()
        self._revive(waiting)

    def succeed(self, other: "ShardOperator") -> None:
        """Go on in the place of `other`, an operator of the same view that has seen nothing yet.

        Every entity in memory states its values in the log anew, at the first instant that has not settled there.

        Raises:
            SnapshotError: this operator has come further.
        """
        self._check_behind(other)
        self._settle_to(other._upto)
        self.begin_at(other._clock, other._watermark)
        self._settled.columns.reserve(len(self._keys), 0)
        records = self._settled.gather(np.arange(len(self._keys)))
        self._settled.scatter(migrate(records, self._plan, self._settled.names, self._upto))
        self._chain.begin()

    def _check_behind(self, other: "ShardOperator") -> None:
        if self._upto > other._upto:
            raise SnapshotError(
                f"View '{self.view.name}': history has settled to {format_instant(self._upto)}, beyond "
                f"{format_instant(other._upto)} where the flow stands. Feed it up to the same offsets; where log_every "
                "has changed too, change it in a step of its own."
            )

    def _settle_to(self, upto: int) -> None:
        """Settle to an instant without writing rows."""
        if upto > self._upto:
            self._settled.settle(len(self._keys), self._buffer.take(upto), upto)
            self._upto, self._watermark = upto, max(self._watermark, upto + 1)

    def _revive(self, waiting: Prepared | None) -> None:
        """Make the online reading anew: of what has settled and of the events that wait."""
        self._online = OnlineReading.after(self._plan, self._settled)
        if waiting is not None:
            self._buffer.add(waiting)
            self._take(waiting, self._clock)
        self._online.recall(self._clock, self._steady)

    @property
    def _follows_others(self) -> bool:
        return self._clock < self._others_upto

    @property
    def _steady(self) -> int:
        """No event at or before this instant can come any more."""
        return self._watermark - 1

    def _take(self, events: Prepared, clock_us: int) -> Columns:
        self._clock = max(self._clock, clock_us)
        return self._online.take(len(self._keys), events, self._clock, self._steady)

    def _table(self, rows: Columns) -> pa.Table:
        return table(self.view, self._keys, rows)

    def _log_table(self, rows: Columns) -> pa.Table:
        order = in_order(rows.instant, lambda at: (self._keys.order(rows.slot[at]),))
        return self._table(rows.take(order))

    def _release(self) -> None:
        """Forget the entities that are gone, if that makes the table a quarter smaller at least."""
        gone = self._gone()
        kept = np.flatnonzero(~gone)
        self._settled.emptied = 0
        self._known = len(gone)
        if 4 * (len(gone) - len(kept)) < len(gone):
            return
        self._known = len(kept)
        numbers = np.full(len(gone), -1, dtype=np.int64)
        numbers[kept] = np.arange(len(kept))
        self._keys.keep(kept)
        self._settled.keep(kept)
        self._online.keep(kept)
        self._buffer.renumber(numbers)
        self._chain.begin()

    def _gone(self) -> npt.NDArray[np.bool_]:
        """(slots,) bool: all windows have emptied for good, and every row that says so has been written.

        With nothing in the settled reading and nothing waiting, the online one is empty too from the watermark on; a
        session that has closed there may still lie in it.
        """
        for reading in (self._settled, self._online):
            reading.columns.reserve(len(self._keys), 0)
        online = self._online.columns
        gone = self._settled.columns.empty_slots() & (online.newest() < self._watermark)
        gone &= online.due() > self._steady
        gone[self._buffer.slots()] = False
        return gone

    def __repr__(self) -> str:
        return (
            f"ShardOperator({self.view.name}, {self.entities} entities, {self.waiting} events waiting, "
            f"watermark {format_instant(self._watermark) if self._watermark > BEGINNING else 'not set'})"
        )


def _bytes(chunks: Sequence[Prepared]) -> int:
    return sum(int(array.nbytes) for events in chunks for array in events.arrays().values())
