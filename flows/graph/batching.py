"""Step "stateful_batches": the settled rows of a span of event time as one frame, beside the state of their keys.

A span (b - every, b] goes to the function when the watermark has passed b, so what is in a frame depends on the events
alone. What comes out has the instants of those rows and counts from b (`EventBatch.effective`): the steps after it have
been told by then that the watermark has passed those instants.

State rests by column, with a place for each key: what a frame needs of it is fetched and put back with one look into a
dict for each key, and no other Python step.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from headrace.features.settling_steps import Batching
from headrace.features.steps import Step
from headrace.flows.batch import EventBatch, Ints
from headrace.flows.decode import decode_table
from headrace.flows.graph.ordering import NEVER, Settling
from headrace.flows.graph.rows import Made, StepError, failed, none_of, placed, raised, table_of
from headrace.flows.ordering import in_order

_DTYPES: dict[type, Any] = {bool: np.bool_, int: np.int64, float: np.float64, str: object}


class KeyedColumns:
    """Columns with a value for each key that was ever asked for.

    initial: by column, what a new key has; its type is the column's.
    """

    due = NEVER

    def __init__(self, initial: Mapping[str, Any]) -> None:
        self._initial = dict(initial)
        self._slots: dict[Any, int] = {}
        self._columns = {name: self._filled(name, 0) for name in initial}

    def slots(self, keys: list[Any]) -> Ints:
        """(n,) where each key's values are; new keys get a place, with the initial values."""
        known = self._slots
        places = list(map(known.get, keys))
        if None in places:
            places = [known.setdefault(key, len(known)) for key in keys]
        found = np.array(places, dtype=np.int64)
        for name, column in self._columns.items():
            if len(column) < len(known):
                self._columns[name] = np.concatenate([column, self._filled(name, len(known))])
        return found

    def get(self, slots: Ints) -> dict[str, npt.NDArray[Any]]:
        """Copies of the values at these places, by column."""
        return {name: column[slots] for name, column in self._columns.items()}

    def put(self, slots: Ints, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """New values at these places."""
        for name, column in self._columns.items():
            column[slots] = values[name]

    def _filled(self, name: str, n: int) -> npt.NDArray[Any]:
        value = self._initial[name]
        return np.full(n, value, dtype=_DTYPES[type(value)])

    def take(self, event: Any, side: int) -> Any:
        raise NotImplementedError("rows come to this step by spans")

    def until(self, upto: int) -> Any:
        return ()

    def save(self) -> Any:
        n = len(self._slots)
        return [list(self._slots), {name: column[:n].tolist() for name, column in self._columns.items()}]

    def load(self, saved: Any) -> None:
        keys, columns = saved
        self._slots = {key: slot for slot, key in enumerate(keys)}
        self._columns = {
            name: np.array(columns[name], dtype=_DTYPES[type(value)]) for name, value in self._initial.items()
        }


class SpanBatches(Settling):
    """The step as it runs."""

    def __init__(self, step: Step) -> None:
        assert step.parent is not None
        assert isinstance(step.rule, Batching)
        self._rule = step.rule
        self._state = KeyedColumns(step.rule.initial)
        super().__init__(step, [step.parent], [step.key], self._state)

    def advance(self, upto_us: int, ended: bool = False) -> Made:
        every = self._rule.every_us
        upto = upto_us if ended else (upto_us - 1) // every * every
        if upto <= self._upto:
            return Made(none_of(self.step))
        self._upto = upto
        chunks = self._waiting[0]
        if not chunks:
            return Made(none_of(self.step))
        waiting = EventBatch.concat(chunks)
        due = waiting.effective <= upto
        self._waiting[0] = [] if due.all() else [waiting.take(~due)]
        rows = waiting.take(due)
        rows = rows.take(in_order(rows.effective, lambda at: (rows.time[at], rows.position[at])))
        span_end = np.minimum(-(-rows.effective // every) * every, upto)
        ends = np.flatnonzero(np.diff(span_end)) + 1
        rows = rows.counting_from(span_end)
        made = [
            each
            for first, last in zip([0, *ends.tolist()], [*ends.tolist(), len(rows)], strict=True)
            if first < last
            for each in self._given(rows.take(slice(first, last)))
        ]
        kept = [each.batch for each in made if len(each.batch)]
        dead = [letter for each in made for letter in each.dead]
        return Made(EventBatch.concat(kept) if kept else none_of(self.step), dead)

    def _given(self, rows: EventBatch) -> list[Made]:
        """What the function makes of a span's rows. Where it raises it is given halves, down to a row that it cannot
        take."""
        try:
            return [self._called(rows)]
        except StepError:
            raise
        except Exception as error:  # whatever the user's function raises
            if len(rows) == 1:
                return [Made(none_of(self.step), [failed(self.step, rows, 0, raised(error))])]
            half = len(rows) // 2
            return [*self._given(rows.take(slice(0, half))), *self._given(rows.take(slice(half, None)))]

    def _called(self, rows: EventBatch) -> Made:
        step, key = self.step, self.step.key
        assert step.parent is not None
        frame, codes, keys, index = _frame(table_of(rows, step.parent), rows, key)
        slots = self._state.slots(keys)
        given = step.function(pd.DataFrame(self._state.get(slots), index=index), frame)
        if not isinstance(given, tuple) or len(given) != 2:
            raise TypeError(f"gave {type(given).__name__}, expected a pair (state, frame)")
        state = self._checked(given[0], index)
        made = Made(none_of(step)) if given[1] is None else self._framed(given[1], rows, codes, index)
        self._state.put(slots, state)
        return made

    def _checked(self, given: Any, index: "pd.Index[Any]") -> dict[str, npt.NDArray[Any]]:
        """The state that the function gave, by column in the order of `index`.

        Raises:
            TypeError, ValueError: it lacks a key or a column, or a value does not fit.
        """
        if not isinstance(given, pd.DataFrame):
            raise TypeError(f"gave a {type(given).__name__} as state, expected the frame that it was given, changed")
        missing = [name for name in self._rule.initial if name not in given.columns]
        whole = given.index is index or (given.index.is_unique and index.isin(given.index).all())
        if missing or not whole:
            wrong = f"without column {missing[0]!r}" if missing else "that lacks keys or has them twice"
            raise ValueError(
                f"gave a state {wrong}; it has one row for each key of the rows, and the columns "
                f"{', '.join(self._rule.initial)}"
            )
        ordered = given if given.index is index or given.index.equals(index) else given.loc[index]
        columns = {}
        for name, initial in self._rule.initial.items():
            values = ordered[name]
            if values.isna().any() and not isinstance(initial, float):
                raise ValueError(f"gave a state with a missing value in column {name!r}")
            columns[name] = values.to_numpy(dtype=_DTYPES[type(initial)])
            if isinstance(initial, str) and not all(type(each) is str for each in columns[name]):
                raise ValueError(f"gave a state whose column {name!r} is no text")
        return columns

    def _framed(self, given: Any, rows: EventBatch, codes: Ints, index: "pd.Index[Any]") -> Made:
        """The rows that the function gave, each at the instant and place of the row that it is of.

        Raises:
            TypeError, ValueError: they are no frame, or their index says neither rows nor keys.
        """
        step = self.step
        assert step.parent is not None
        if not isinstance(given, pd.DataFrame):
            raise TypeError(f"gave a {type(given).__name__}, expected a frame or None")
        labels = given.index
        if labels.name == step.key:
            which = index.get_indexer(labels)
            last = np.zeros(len(index), dtype=np.int64)
            last[codes] = np.arange(len(codes))
            of = last[which]
            given = given.reset_index()
        elif labels.name is None and pd.api.types.is_integer_dtype(labels.dtype):
            which = of = labels.to_numpy(dtype=np.int64)
        else:
            raise ValueError(
                f"gave a frame whose index is {labels.name!r}, expected labels of the rows or of the state"
            )
        if len(of) and (int(which.min()) < 0 or int(of.max()) >= len(rows)):
            raise ValueError("gave a frame with labels in its index that none of its rows has")
        # By itself Arrow starts threads anew for each frame, which takes longer than the columns.
        table = pa.Table.from_pandas(given, preserve_index=False, nthreads=1)
        at = step.schema.time_field
        if at not in table.column_names:
            table = table.append_column(at, table_of(rows, step.parent).column(step.parent.schema.time_field).take(of))
        where = np.arange(len(of), dtype=np.int64)
        return placed(step, rows, of, decode_table(step.schema, table, 0, where))


def _frame(table: pa.Table, rows: EventBatch, key: str) -> tuple[pd.DataFrame, Ints, list[Any], "pd.Index[Any]"]:
    """The rows as pandas has them, the number of each row's key, the keys as they are remembered, and as an index.

    Texts are looked at once, by Arrow, and are one Python object for each key.
    """
    column = rows.arrow(key)
    if not pa.types.is_string(column.type):
        frame = table.to_pandas(use_threads=False)
        codes, keys = pd.factorize(rows.values(key))
        return frame, codes, keys.tolist(), pd.Index(frame[key].iloc[_firsts(codes, len(keys))], name=key)
    encoded = column.dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    texts = encoded.dictionary.to_numpy(zero_copy_only=False)
    frame = table.drop_columns([key]).to_pandas(use_threads=False)
    frame.insert(table.column_names.index(key), key, texts[codes])
    return frame, codes, texts.tolist(), pd.Index(texts, name=key)


def _firsts(codes: Ints, n: int) -> Ints:
    """(n,) where each code comes first."""
    firsts = np.full(n, len(codes), dtype=np.int64)
    np.minimum.at(firsts, codes, np.arange(len(codes)))
    return firsts
