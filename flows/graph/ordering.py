"""Steps over settled events: rows wait until the watermark has passed them, and are taken in event-time order.

    take(batch)        kept as it came
    advance(upto)      rows that count from before `upto`, by (effective instant, time, input, position); before each,
                       what is due by time alone (a window that closes); what the step gives, in that order

So it depends on the events alone, not on batches, arrival within the lateness or restarts (contract C3). Of two inputs
the second one's events come first among those of one instant: a table has its row when it is asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from headrace.features.errors import DataError
from headrace.features.object_state import Known, ObjectStateError, decode, encode
from headrace.features.steps import Step
from headrace.features.time import as_datetime, format_instant, instant_us
from headrace.flows.batch import BatchColumn, EventBatch
from headrace.flows.deadletter import BEHIND, FAILED, LATE, DeadLetter, payload_text
from headrace.flows.decode import decode_rows
from headrace.flows.graph.rows import Made, StepError, none_of, raised, row_fields
from headrace.flows.graph.taken import Event, objects_of, remaking, values_of
from headrace.flows.snapshot import SnapshotError, pack, unpack

NEVER = 2**63 - 1
_OFFSET = (1 << 48) - 1


class Output(NamedTuple):
    """One row that a step made.

    row: mapping or object with the output's columns. at: its instant where it sets none, and the earliest that it may
    set. effective, position: see `EventBatch`. fill: columns that it need not set.
    """

    row: Any
    at: int
    effective: int
    position: int
    fill: Mapping[str, Any]


class TooLateError(Exception):
    """An event let in late whose windows have all closed."""


class Logic(Protocol):
    """What such a step does. Instants never go back."""

    due: int
    """The instant at which time alone makes the next output; NEVER for none."""

    def take(self, event: Event, side: int) -> Iterable[Output]:
        """An event, in order. May raise whatever the user's function raises; its state is then as before the call."""

    def until(self, upto: int) -> Iterable[Output]:
        """No event at or before `upto` comes any more."""

    def save(self) -> Any:
        """State as plain values, and objects of classes that the step's `Known` names."""

    def load(self, saved: Any) -> None:
        """Take over what `save` gave."""


class Settling:
    """A step that gives a `Logic` its events in order.

    inputs: the steps whose rows it takes, one or two. keys: the key column of each.
    """

    def __init__(
        self, step: Step, inputs: Sequence[Step], keys: Sequence[str], logic: Logic, known: Known | None = None
    ) -> None:
        self.step = step
        self._inputs, self._keys, self._logic = tuple(inputs), tuple(keys), logic
        self._known = known or Known()
        self._remake = [remaking(each.event, each.schema) for each in inputs]
        self._waiting: list[list[EventBatch]] = [[] for _ in inputs]
        self._upto = -NEVER  # what counts from this instant or before has gone on

    def take(self, batch: EventBatch, side: int = 0) -> list[DeadLetter]:
        """Rows to wait. Those without a key, and those behind what has gone on already, are told."""
        keyed = batch.valid(self._keys[side])
        behind = batch.effective <= self._upto
        dead = []
        for i in np.flatnonzero(~keyed | behind).tolist():
            why = "it is earlier than rows that this step took at the source's end"
            if not keyed[i]:
                why = f"its key {self._keys[side]} is null"
            values = values_of(self._inputs[side].schema, batch.take(slice(i, i + 1)))[0]
            letter = self._failed(why, int(batch.position[i]), int(batch.time[i]), self._remake[side](values))
            dead.append(letter if not keyed[i] else replace(letter, reason=BEHIND))
        chosen = keyed & ~behind
        if chosen.any():
            self._waiting[side].append(batch.take(chosen))
        return dead

    def advance(self, upto_us: int, ended: bool = False) -> Made:
        """What comes of the rows before an instant, or, where the source has ended, at or before it.

        Raises:
            StepError: a function failed, and the step stops the flow then.
        """
        upto = upto_us if ended else upto_us - 1
        if upto <= self._upto:
            return Made(none_of(self.step))
        outputs: list[Output] = []
        dead: list[DeadLetter] = []
        for event, side in self._settled(upto):
            if self._logic.due < event.effective:
                self._timed(event.effective - 1, outputs)
            try:
                outputs.extend(self._logic.take(event, side))
            except TooLateError as late:
                dead.append(replace(self._letter(str(late), event.position, event.time, event.row), reason=LATE))
            except Exception as error:  # whatever the user's function raises
                dead.append(self._failed(raised(error), event.position, event.time, event.row))
        self._timed(upto, outputs)
        self._upto = upto
        return Made(self._batch(outputs, dead), dead)

    def _timed(self, upto: int, outputs: list[Output]) -> None:
        try:
            outputs.extend(self._logic.until(upto))
        except Exception as error:
            raise StepError(
                f"The flow stops: {self.step.shown} failed as time passed {format_instant(upto)}: {raised(error)}. No "
                "single event is to blame, so none can be set aside. Mend the function; the next run goes on from the "
                "last checkpoint."
            ) from error

    def _settled(self, upto: int) -> list[tuple[Event, int]]:
        """Events that wait no longer, in order."""
        found: list[tuple[tuple[int, int, int, int], Event, int]] = []
        for side, chunks in enumerate(self._waiting):
            if not chunks:
                continue
            batch = EventBatch.concat(chunks)
            due = batch.effective <= upto
            self._waiting[side] = [] if due.all() else [batch.take(~due)]
            if due.any():
                found.extend(self._events(batch.take(due), side))
        found.sort(key=lambda each: each[0])
        return [(event, side) for _, event, side in found]

    def _events(self, batch: EventBatch, side: int) -> Iterable[tuple[tuple[int, int, int, int], Event, int]]:
        schema = self._inputs[side].schema
        key = schema.names.index(self._keys[side])
        places = zip(batch.time.tolist(), batch.effective.tolist(), batch.position.tolist(), strict=True)
        rows = objects_of(self._inputs[side].event, schema, batch)
        for row, values, (time, effective, position) in zip(rows, values_of(schema, batch), places, strict=True):
            event = Event(row, values, values[key], time, effective, position)
            yield (effective, time, -side, position), event, side

    def _batch(self, outputs: list[Output], dead: list[DeadLetter]) -> EventBatch:
        """Outputs as rows of the step; those that are none become letters."""
        rows: list[dict[str, Any]] = []
        kept: list[Output] = []
        effective: list[int] = []
        for each in outputs:
            try:
                row, told = self._placed(each)
            except Exception as error:  # also of objects of the user's own
                dead.append(self._failed(raised(error), each.position, each.at, each.row))
                continue
            rows.append(row)
            kept.append(each)
            effective.append(max(told, each.effective))
        if not rows:
            return none_of(self.step)
        batch, unfit = decode_rows(self.step.schema, rows, 0, np.arange(len(rows), dtype=np.int64))
        for letter in unfit:
            each = kept[letter.offset]
            why = f"what it gave does not fit {self.step.event.__name__}: {letter.detail}"
            dead.append(self._failed(why, each.position, each.at, each.row))
        position = np.array([each.position for each in kept], dtype=np.int64)[batch.offset]
        partition = (position >> 48).astype(np.int32)
        at = np.array(effective, dtype=np.int64)[batch.offset]
        return EventBatch(batch.columns, batch.time, partition, position & _OFFSET, at)

    def _placed(self, each: Output) -> tuple[dict[str, Any], int]:
        """A row with its instant.

        Raises:
            TypeError: it is no row. DataError: it goes back in time.
        """
        row = row_fields(each.row, self.step)
        for name, value in each.fill.items():
            row.setdefault(name, value)
        field = self.step.schema.time_field
        if row.get(field) is None:
            row[field] = as_datetime(each.at)
            return row, each.at
        told = instant_us(row[field], field)
        if told < each.at:
            raise DataError(
                f"it gave a row of {format_instant(told)}, before {format_instant(each.at)}: a step may only move an "
                "event on in time. Leave the instant out, and the row gets the right one."
            )
        return row, told

    def _failed(self, why: str, position: int, time: int, row: Any) -> DeadLetter:
        letter = self._letter(why, position, time, row)
        if self.step.on_error == "stop":
            raise StepError(
                f"The flow stops: {self.step.shown} could not take an event: {why}. The event: {letter.payload}. The "
                "next run goes on from the last checkpoint and tries it again. Mend the function, or say "
                "on_error='dead_letter' to set such events aside."
            )
        return letter

    def _letter(self, why: str, position: int, time: int, row: Any) -> DeadLetter:
        payload = payload_text(row if isinstance(row, Mapping) or not hasattr(row, "__dict__") else vars(row))
        detail = f"{self.step.shown}: {why}"
        return DeadLetter(FAILED, detail, self.step.root.name, position >> 48, position & _OFFSET, time, payload)

    def save(self) -> bytes:
        """State for a checkpoint.

        Raises:
            ObjectStateError: something remembered cannot rest in one.
        """
        try:
            state = encode(self._logic.save(), self._known)
        except ObjectStateError as error:
            raise ObjectStateError(f"{self.step.shown}: what it remembers cannot be saved: {error}") from error
        arrays: dict[str, Any] = {}
        columns: list[dict[str, list[Any]] | None] = []
        for side, chunks in enumerate(self._waiting):
            if not chunks:
                columns.append(None)
                continue
            batch = EventBatch.concat(chunks)
            self._waiting[side] = [batch]
            arrays |= {f"{side}/{name}": getattr(batch, name) for name in ("time", "position", "effective")}
            columns.append({each.name: _plain(batch, each.name) for each in self._inputs[side].schema.fields})
        meta = {"step": self.step.fingerprint, "upto": self._upto, "state": state, "waiting": columns}
        return pack(meta, arrays)

    def load(self, data: bytes, start: bool = False) -> None:
        """Go on from there. start: where the step is another one now, begin with nothing instead of refusing.

        Raises:
            SnapshotError: damaged, or of another step.
        """
        meta, arrays = unpack(data)
        if meta.get("step") != self.step.fingerprint:
            if start:
                return
            raise SnapshotError(
                f"{self.step.shown} is not the one whose state the checkpoint holds: its function, key or columns have "
                "changed. Say on_change='start' to begin it with nothing, or run into another data folder."
            )
        try:
            state = decode(meta["state"], self._known)
        except ObjectStateError as error:
            raise SnapshotError(f"{self.step.shown}: {error}") from error
        self._logic.load(state)
        self._upto = meta["upto"]
        for side, (each, saved) in enumerate(zip(self._inputs, meta["waiting"], strict=True)):
            if saved is None:
                self._waiting[side] = []
                continue
            columns = {field.name: _column(field.dtype, saved[field.name]) for field in each.schema.fields}
            time, position, effective = (arrays[f"{side}/{name}"] for name in ("time", "position", "effective"))
            partition = (position >> 48).astype(np.int32)
            self._waiting[side] = [EventBatch(columns, time, partition, position & _OFFSET, effective)]


def _plain(batch: EventBatch, name: str) -> list[Any]:
    """A column as MessagePack types; instants as microseconds."""
    values, valid = batch.values(name).tolist(), batch.valid(name).tolist()
    return [value if there else None for value, there in zip(values, valid, strict=True)]


def _column(dtype: str, values: list[Any]) -> BatchColumn:
    valid = np.array([value is not None for value in values], dtype=np.bool_)
    if dtype in ("string", "bytes"):
        made = np.empty(len(values), dtype=object)
        made[:] = values
        return BatchColumn(dtype, values=made, valid=valid)
    kind: Any = {"int64": np.int64, "timestamp": np.int64, "float64": np.float64, "bool": np.bool_}[dtype]
    filled = [0 if value is None else value for value in values]
    return BatchColumn(dtype, values=np.array(filled, dtype=kind), valid=valid)
