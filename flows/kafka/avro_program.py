"""An Avro schema as a small program that is run over many messages at once: a datum to lanes of numbers.

A step reads one thing and may keep it in a lane; unions, arrays and maps jump. So nothing of a message becomes a Python
object, and what the event does not have is passed over.

    {"driver": string, "fare": ["null", double]}      0  BYTES  -> lane 0
                                                      1  UNION  null: 2, double: 4
                                                      2  JUMP 5            (nothing to read)
                                                      3  ...
                                                      4  DOUBLE -> lane 1

A message that the machine (avro_kernel.py) cannot read to its very end is left to fastavro, which says what is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.flows.kafka.avro_kernel import (
    BLOCKS,
    BOOL,
    BYTES,
    DEPTH,
    DOUBLE,
    ENUM,
    FIXED,
    FLOAT,
    JUMP,
    LONG,
    NEXT,
    UNION,
    run,
)
from headrace.flows.spans import spans

_SIMPLE = {
    "boolean": BOOL,
    "int": LONG,
    "long": LONG,
    "float": FLOAT,
    "double": DOUBLE,
    "bytes": BYTES,
    "string": BYTES,
}

Ints = npt.NDArray[np.int64]


class UnsupportedError(Exception):
    """A schema that this machine has no steps for."""


@dataclass
class Lane:
    """Where the values of one field of the record go.

    kind: of step. text: bytes that are UTF-8. symbols: of an enum.
    """

    kind: int
    text: bool = False
    symbols: Sequence[str] = ()


@dataclass
class Program:
    """Steps of a schema, and the lanes that the wanted fields are kept in."""

    lanes: dict[str, Lane] = field(default_factory=dict)
    _named: Mapping[str, Any] = field(default_factory=dict)
    _steps: list[tuple[int, int, int, int]] = field(default_factory=list)
    _table: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, schema: Mapping[str, Any], named: Mapping[str, Any], wanted: Sequence[str]) -> "Program | None":
        """A program for a record in fastavro's parsed form; None if the schema has something that it has no steps for.

        named: types by their full names. wanted: names of fields to keep, which hold one plain value or null.
        """
        made = cls(_named=named)
        try:
            made._record(schema, frozenset(), wanted)
        except UnsupportedError:
            return None
        made.columns([], 0)  # compiled now, not while the first messages wait
        return made

    def columns(self, payloads: Sequence[bytes], start: int) -> tuple[dict[str, pa.Array], npt.NDArray[np.bool_]]:
        """The wanted fields of n messages that begin at byte `start`, and which messages could not be read: (n,) bool.

        A message that could not be read has a null in every column.
        """
        block = b"".join((*payloads, b"\0" * 8))
        lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
        ends = np.cumsum(lengths)
        n, lanes = len(payloads), len(self.lanes)
        steps = np.array(self._steps, dtype=np.int64).reshape(-1, 4)
        table = np.array(self._table or [0], dtype=np.int64)
        values = np.zeros((lanes, n), dtype=np.int64)
        sizes = np.zeros((lanes, n), dtype=np.int32)
        given = np.zeros((lanes, n), dtype=np.bool_)
        bad = np.zeros(n, dtype=np.bool_)
        bytes_of = np.frombuffer(block, dtype=np.uint8)
        back = np.empty(DEPTH, dtype=np.int64)
        run(bytes_of, ends - lengths + start, ends, steps, table, values, sizes, given, bad, back)
        found = {}
        for number, (name, lane) in enumerate(self.lanes.items()):
            missing = ~given[number] | bad
            if lane.kind in (BYTES, FIXED):
                found[name] = _spans(bytes_of, values[number], sizes[number], missing, lane.text, bad)
            else:
                found[name] = _numbers(lane, values[number], missing)
        return found, bad

    def _record(self, schema: Any, open: frozenset[str], wanted: Sequence[str]) -> None:
        for column in schema["fields"]:
            keep = column["name"] if column["name"] in wanted else None
            self._type(column["type"], open | {schema["name"]}, keep)

    def _type(self, kind: Any, open: frozenset[str], keep: str | None) -> None:
        """Steps that read a value of a type; `open`: names of the records that it lies in."""
        if isinstance(kind, str) and kind in self._named:
            kind = self._named[kind]
        if isinstance(kind, list):
            return self._union(kind, open, keep)
        name = kind["type"] if isinstance(kind, Mapping) else kind
        if isinstance(kind, Mapping) and "logicalType" in kind and keep is not None:
            raise UnsupportedError  # fastavro makes a value of its own of it
        if name == "null":
            return None
        if name in _SIMPLE:
            return self._keep(Lane(_SIMPLE[name], text=name == "string"), 0, keep)
        if name == "fixed":
            return self._keep(Lane(FIXED), kind["size"], keep)
        if name == "enum":
            return self._keep(Lane(ENUM, symbols=kind["symbols"]), len(kind["symbols"]), keep)
        if keep is not None:
            raise UnsupportedError  # a list, a map or a record is no column
        if name == "record" and kind["name"] not in open:  # one inside itself has no end
            return self._record(kind, open, ())
        if name in ("array", "map"):
            return self._blocks(name, kind, open)
        raise UnsupportedError

    def _union(self, branches: Sequence[Any], open: frozenset[str], keep: str | None) -> None:
        if keep is not None and sum(each != "null" for each in branches) > 1:
            raise UnsupportedError
        first = len(self._table)
        self._table += [0] * len(branches)
        self._step(UNION, first, len(branches))
        ends = []
        for number, branch in enumerate(branches):
            self._table[first + number] = len(self._steps)
            self._type(branch, open, keep)
            ends.append(len(self._steps))
            self._step(JUMP)
        for at in ends:
            self._steps[at] = (JUMP, len(self._steps), 0, -1)

    def _blocks(self, name: str, kind: Any, open: frozenset[str]) -> None:
        at = len(self._steps)
        self._step(BLOCKS)
        if name == "map":
            self._step(BYTES)
        self._type(kind["items"] if name == "array" else kind["values"], open, None)
        if len(self._steps) == at + 1:
            raise UnsupportedError  # items of no bytes: any number of them fits into a message
        self._step(NEXT, at)
        self._steps[at] = (BLOCKS, len(self._steps), 0, -1)

    def _step(self, op: int, first: int = 0, second: int = 0) -> None:
        self._steps.append((op, first, second, -1))

    def _keep(self, lane: Lane, first: int, keep: str | None) -> None:
        """A step that reads a value, into a lane of its own if the value is wanted."""
        number = -1
        if keep is not None:
            number = len(self.lanes)
            self.lanes[keep] = lane
        self._steps.append((lane.kind, first, 0, number))


def _numbers(lane: Lane, values: Ints, missing: npt.NDArray[np.bool_]) -> pa.Array:
    mask = missing if missing.any() else None
    if lane.kind == DOUBLE:
        return pa.array(values.view(np.float64), mask=mask)
    if lane.kind == FLOAT:
        return pa.array(values.astype(np.uint32).view(np.float32).astype(np.float64), mask=mask)
    if lane.kind == BOOL:
        return pa.array(values != 0, mask=mask)
    if lane.kind == ENUM:
        return pa.DictionaryArray.from_arrays(pa.array(values.astype(np.int32), mask=mask), list(lane.symbols))
    return pa.array(values, mask=mask)


def _spans(
    block: npt.NDArray[np.uint8],
    begins: Ints,
    sizes: npt.NDArray[np.int32],
    missing: npt.NDArray[np.bool_],
    text: bool,
    bad: npt.NDArray[np.bool_],
) -> pa.Array:
    """Values that are pieces of the block; messages with text that is no UTF-8 are marked in `bad`."""
    made = spans(block, begins, sizes, missing if missing.any() else None)
    if not text:
        return made
    try:
        return made.cast(pa.string())
    except pa.ArrowInvalid:
        plain = made.to_pylist()
    for row, value in enumerate(plain):
        try:
            plain[row] = None if value is None else value.decode()
        except UnicodeDecodeError:
            plain[row] = None
            bad[row] = True
    return pa.array(plain, type=pa.string())
