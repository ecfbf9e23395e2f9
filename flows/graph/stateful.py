"""Steps that remember: a key's rows come to a function or object in event-time order, as the watermark passes.

Rows wait in a buffer until no earlier one can be let in any more; both the buffer and what is remembered are in the
checkpoint, without pickle (contract C16).
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.features.object_state import Known, ObjectStateError
from headrace.features.settling_steps import Forgetting, Learning
from headrace.features.steps import Step
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.chain import follow
from headrace.flows.deadletter import BEHIND, DeadLetter
from headrace.flows.graph.learning import Learner
from headrace.flows.graph.remembered import Part, Remembered
from headrace.flows.graph.rows import (
    Made,
    batch_given,
    failed,
    none_of,
    raised,
    row_fields,
    rows_of,
    table_of,
    times_of,
)
from headrace.flows.graph.taken import column_of
from headrace.flows.ordering import in_order
from headrace.flows.shard import BEGINNING
from headrace.flows.snapshot import SnapshotError
from headrace.stores.checkpoints import SnapshotPart


class Ordered:
    """A step "stateful": `take` rows as they come, `advance` to let those go on that have settled."""

    def __init__(self, step: Step) -> None:
        assert step.parent is not None
        self.step = step
        self._parent = step.parent
        self._object = isinstance(step.function, type)
        rows = [step.event, step.parent.event]  # what is remembered may be a row
        self._learner = Learner(step, step.rule) if isinstance(step.rule, Learning) else None
        self._known = Known.of(classes=[step.function, *rows] if self._object else rows)
        if self._learner is not None:
            self._known = self._learner.rule.object.known
        self._remembered = Remembered()
        self._forget_after = step.rule.after_us if isinstance(step.rule, Forgetting) else None
        self._waiting: list[EventBatch] = []
        self._passed = BEGINNING

    def take(self, batch: EventBatch) -> list[DeadLetter]:
        """Rows to wait. Those behind what has gone on already cannot be taken any more, and are told."""
        keyed = batch.valid(self.step.key)
        behind = batch.effective < self._passed
        absent = np.flatnonzero(~keyed).tolist()
        dead = [failed(self.step, batch, i, f"its key {self.step.key} is null") for i in absent]
        for i in np.flatnonzero(keyed & behind).tolist():
            letter = failed(self.step, batch, i, "it is earlier than rows that this step took at the source's end")
            dead.append(replace(letter, reason=BEHIND))
        chosen = keyed & ~behind
        if chosen.any():
            self._waiting.append(batch.take(chosen))
        return dead

    def advance(self, upto_us: int) -> Made:
        """What comes of the rows at or before an instant, in order; none at an earlier one is let in any more."""
        self._passed = max(self._passed, upto_us)
        if not self._waiting:
            self._forget()
            return Made(none_of(self.step))
        waiting = EventBatch.concat(self._waiting)
        ready = waiting.effective <= upto_us
        self._waiting = [] if ready.all() else [waiting.take(~ready)]
        rows = waiting.take(ready)
        made = self._fold(rows.take(in_order(rows.effective, lambda at: (rows.position[at],))))
        self._forget()
        return made

    def _fold(self, batch: EventBatch) -> Made:
        keys = column_of(self._parent.schema.field(self.step.key), batch)
        self._remembered.touch(keys)
        if self._learner is not None:
            return self._learner.fold(batch, self._remembered.values)
        return self._called(batch, keys)

    def _called(self, batch: EventBatch, keys: list[Any]) -> Made:
        """What comes of rows in their order. All in one loop: a call for each row would be a tenth of its time."""
        given: list[dict[str, Any]] = []
        origin: list[int] = []
        dead: list[DeadLetter] = []
        step, function, memory, asked = self.step, self.step.function, self._remembered.values, self._object
        remembered, add, place = memory.get, given.append, origin.append
        rows = rows_of(batch, self._parent)
        times = times_of(rows, step)
        effective = batch.effective.tolist()
        for i, (key, row) in enumerate(zip(keys, rows, strict=True)):
            if self._forget_after is not None:
                self._heard(key, effective[i], self._forget_after)
            try:
                if asked:
                    found = remembered(key)
                    if found is None:
                        found = memory[key] = function()
                    output = found.on_event(row)
                else:
                    pair = function(remembered(key), row)
                    if not isinstance(pair, tuple) or len(pair) != 2:
                        raise TypeError(f"gave {pair!r}, expected a pair (state, output)")
                    state, output = pair
                    if state is None:
                        memory.pop(key, None)
                    else:
                        memory[key] = state
                if type(output) is dict:
                    add(output.copy())
                    place(i)
                    continue
                if output is None:
                    continue
                made = [row_fields(each, step) for each in (output if isinstance(output, list) else [output])]
            except Exception as error:  # whatever the user's function raises
                dead.append(failed(step, batch, i, raised(error)))
                continue
            given += made
            origin += [i] * len(made)
        result = batch_given(step, batch, times, given, origin)
        return Made(result.batch, dead + result.dead)

    def _heard(self, key: Any, at: int, forget_after: int) -> None:
        """A row of a key has come: what it was before a long silence is forgotten."""
        last = self._remembered.last.pop(key, at)
        if at - last >= forget_after:
            self._remembered.values.pop(key, None)
        self._remembered.last[key] = at

    def _forget(self) -> None:
        """Keys of which no row can come any more before they are forgotten go at once."""
        last = self._remembered.last
        while self._forget_after is not None and last:
            key, at = next(iter(last.items()))
            if self._passed - at < self._forget_after:
                break
            del last[key]
            self._remembered.values.pop(key, None)
            self._remembered.touch([key])

    def save(self, full: bool = False) -> SnapshotPart:
        """State for a checkpoint. full: all of it, not what has changed since the last one.

        Raises:
            ObjectStateError: something remembered cannot rest in one.
        """
        waiting = EventBatch.concat(self._waiting) if self._waiting else none_of(self._parent)
        table = table_of(waiting, self._parent)
        written = io.BytesIO()
        with pa.ipc.new_stream(written, table.schema) as stream:
            stream.write_table(table)
        places = {"time": waiting.time, "effective": waiting.effective, "offset": waiting.offset}
        arrays = {**places, "partition": waiting.partition.astype(np.int64)}
        step, rows = self.step.fingerprint, written.getvalue()
        try:
            return self._remembered.part(step, self._passed, rows, arrays, self._known, full)
        except ObjectStateError as error:
            raise ObjectStateError(f"{self.step.shown}: what it remembers cannot be saved: {error}") from error

    def load(self, chain: Sequence[bytes], start: bool) -> None:
        """Go on from the parts that `save` made. start: where the step is another one now, begin with nothing instead
        of refusing.

        Raises:
            SnapshotError: damaged, or of another step.
        """
        parts = follow(chain, Part, self.step.shown)
        newest, arrays = parts[-1]
        if newest.step != self.step.fingerprint:
            if start:
                return
            raise SnapshotError(
                f"{self.step.shown} is not the one whose state the checkpoint holds: its function, key or columns have "
                "changed. Say on_change='start' to begin it with nothing, or run into another data folder."
            )
        with pa.ipc.open_stream(newest.waiting) as stream:
            table = stream.read_all().combine_chunks()
        columns = {
            each.name: BatchColumn(each.dtype, arrow=_array(table.column(each.name)))
            for each in self._parent.schema.fields
        }
        waiting = EventBatch.of(columns, arrays["time"], arrays["partition"], arrays["offset"], arrays["effective"])
        self._waiting = [waiting] if len(waiting) else []
        self._remembered.resume([part for part, _ in parts], chain, self._known)
        self._passed = newest.passed


def _array(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
