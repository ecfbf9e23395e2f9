"""JSON messages or lines to events: a block at once in Arrow's parser, and where that stumbles, line by line.

The fast way is taken only for a block in which every line is one object whose values have the JSON type that their
field expects; then it gives what the slow way would. Anything else (a wrong type, broken JSON, a whole float for an
integer, NaN as Python writes it) sends that block the slow way, where each line is judged alone.
"""

import io
import json
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.json

from headrace.features.events import EventSchema, Field
from headrace.flows.batch import Ints
from headrace.flows.deadletter import payload_text
from headrace.flows.decode import Decoded, Partitions, assemble, cast_columns, cast_rows
from headrace.flows.fit import Cast, Unreadable
from headrace.flows.values import Reading

_JSON_TYPES = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "bytes": pa.string(),
}
_READ = pyarrow.json.ReadOptions(use_threads=False, block_size=1 << 30)


def decode_json(
    schema: EventSchema,
    lines: Sequence[bytes],
    partition: int | Partitions = 0,
    first_offset: int | Ints = 0,
    how: Reading | None = None,
) -> Decoded:
    """The events of n JSON texts, one object each, without line ends inside. See `decode_table` for the places."""
    how = how or Reading(base64=True)
    casts, whole = cast_json(schema.fields, lines, how)
    return assemble(schema, casts, whole, lambda row: _payload(lines[row]), partition, first_offset, how)


def cast_json(fields: Sequence[Field], lines: Sequence[bytes], how: Reading) -> tuple[dict[str, Cast], dict[int, str]]:
    """The fields of n JSON texts, by their names, and what is wrong with the texts that are no object at all."""
    table = _table(fields, lines, how)
    if table is None:
        return cast_rows(fields, [_object(line) for line in lines], how)
    columns = {name: table.column(name).combine_chunks() for name in table.schema.names}
    return cast_columns(fields, columns, table.num_rows, how), {}


def _table(fields: Sequence[Field], lines: Sequence[bytes], how: Reading) -> pa.Table | None:
    """The lines as a table of the fields, or None where they are not all plain objects of the expected types."""
    n = len(lines)
    block = b"\n".join(lines)
    # One object per line: an object that began on one line and ended on another would have to break between } and {.
    if not n or block.count(b"\n") != n - 1 or block.count(b"}\n{") != n - 1 or block[:1] != b"{" or block[-1:] != b"}":
        return None
    stamp = pa.string() if how.time.unit is None else pa.int64()
    expected = pa.schema([(how.column(f.name), _JSON_TYPES.get(f.dtype, stamp)) for f in fields])
    parse = pyarrow.json.ParseOptions(explicit_schema=expected, unexpected_field_behavior="ignore")
    try:
        table = pyarrow.json.read_json(io.BytesIO(block), _READ, parse)
        table.validate(full=True)  # Arrow's JSON parser takes text for UTF-8 without looking
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    if table.num_rows != n or _lacks_a_field(fields, table, how):
        return None
    return table


def _lacks_a_field(fields: Sequence[Field], table: pa.Table, how: Reading) -> bool:
    """Whether a null may be a field that a line does not have: the slow way tells the two apart."""
    return any(table.column(how.column(f.name)).null_count for f in fields if not f.nullable)


def _object(line: bytes) -> Any:
    """One line as Python."""
    try:
        return msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        problem = f"the line is no JSON: {error}"
    try:  # Python's own writer puts NaN and Infinity, which strict JSON has no word for
        return json.loads(line, parse_float=_finite)
    except (ValueError, RecursionError):
        return Unreadable(problem)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is beyond float64")
    return value


def _payload(line: bytes) -> str:
    text = line.decode("utf-8", "backslashreplace")
    try:
        msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return payload_text(text)
    return text
