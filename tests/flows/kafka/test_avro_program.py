"""The machine that reads Avro in columns, against fastavro: any schema, any data, any damage."""

import io
import math
from collections.abc import Iterator
from itertools import count
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.flows.kafka.avro_program import Program

PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32),
    "double": st.floats(),
    "bytes": st.binary(max_size=5),
    "string": st.text(max_size=5),
}


@st.composite
def types(draw: Any, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """A type and its values."""
    name = "?"  # named in the end, each differently
    kind = draw(
        st.sampled_from([*PLAIN, "fixed", "enum", "nullable", *(["array", "map", "record", "union"] if depth else [])])
    )
    if kind in PLAIN:
        return kind, PLAIN[kind]
    if kind == "fixed":
        size = draw(st.integers(1, 4))
        return {"type": "fixed", "name": name, "size": size}, st.binary(min_size=size, max_size=size)
    if kind == "enum":
        return {"type": "enum", "name": name, "symbols": ["A", "B", "C"]}, st.sampled_from("ABC")
    if kind == "nullable":
        inner = draw(st.sampled_from([each for each in PLAIN if each != "null"]))
        return draw(st.permutations(["null", inner])), st.none() | PLAIN[inner]
    if kind == "union":
        return ["string", "null", "boolean"], st.text(max_size=3) | st.none() | st.booleans()
    inner, values = draw(types(depth - 1))
    if kind == "array":
        return {"type": "array", "items": inner}, st.lists(values, max_size=3)
    if kind == "map":
        return {"type": "map", "values": inner}, st.dictionaries(st.text(max_size=2), values, max_size=3)
    return (
        {"type": "record", "name": name, "fields": [{"name": "a", "type": inner}, {"name": "b", "type": "int"}]},
        st.fixed_dictionaries({"a": values, "b": PLAIN["int"]}),
    )


def named(kind: Any, numbers: Iterator[int]) -> Any:
    """The type with a name for each "?" in it."""
    if isinstance(kind, list):
        return [named(each, numbers) for each in kind]
    if not isinstance(kind, dict):
        return kind
    made = {key: named(value, numbers) for key, value in kind.items()}
    return {**made, "name": f"T{next(numbers)}"} if made.get("name") == "?" else made


def is_plain(kind: Any) -> bool:
    if isinstance(kind, list):
        return sum(each != "null" for each in kind) < 2
    return kind["type"] in ("fixed", "enum") if isinstance(kind, dict) else kind in PLAIN


@st.composite
def cases(draw: Any) -> tuple[Any, list[str], list[bytes]]:
    """A parsed schema, the plain ones of its fields, and some messages of it."""
    made = draw(st.lists(types(), min_size=1, max_size=5))
    numbers = count()
    fields = [{"name": f"f{i}", "type": named(kind, numbers)} for i, (kind, _) in enumerate(made)]
    schema = fastavro.parse_schema({"type": "record", "name": "Row", "fields": fields})
    rows = draw(
        st.lists(st.fixed_dictionaries({f"f{i}": values for i, (_, values) in enumerate(made)}), min_size=1, max_size=4)
    )
    return schema, [f["name"] for f in fields if is_plain(f["type"])], [datum(schema, row) for row in rows]


def datum(schema: Any, row: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, row)
    return out.getvalue()


def read(schema: Any, payload: bytes) -> Any:
    """What fastavro reads, None where it cannot read to the very end."""
    stream = io.BytesIO(payload)
    try:
        row = fastavro.schemaless_reader(stream, schema, None)
    except Exception:
        return None
    return row if stream.tell() == len(payload) else None


def shown(value: Any) -> Any:
    return "nan" if isinstance(value, float) and math.isnan(value) else value


@given(cases(), st.integers(0, 5))
def test_what_was_written_is_read(case: tuple[Any, list[str], list[bytes]], start: int) -> None:
    schema, wanted, payloads = case
    program = Program.of(schema, {}, wanted)
    if program is None:  # an array of nulls
        return
    columns, bad = program.columns([b"\xff" * start + payload for payload in payloads], start)
    assert not bad.any()
    rows = [read(schema, payload) for payload in payloads]
    for name in wanted:
        got = columns[name].to_pylist() if name in columns else [None] * len(rows)
        assert list(map(shown, got)) == [shown(row[name]) for row in rows]


@given(cases(), st.data())
def test_what_the_machine_reads_of_damaged_messages_fastavro_reads_too(
    case: tuple[Any, list[str], list[bytes]], data: st.DataObject
) -> None:
    schema, wanted, payloads = case
    program = Program.of(schema, {}, wanted)
    if program is None:
        return
    damaged = []
    for payload in payloads:
        changed = bytearray(payload)
        for _ in range(data.draw(st.integers(0, 2))):
            if changed:
                changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        damaged.append(bytes(changed)[: data.draw(st.integers(0, len(changed)))] + data.draw(st.binary(max_size=2)))
    columns, bad = program.columns(damaged, 0)
    for i in np.flatnonzero(~bad).tolist():
        row = read(schema, damaged[i])
        if row is None:  # only text of which nobody wants to know may be no UTF-8
            assert max(damaged[i][k : k + 1] for k in range(len(damaged[i]))) >= b"\x80"
            continue
        for name in wanted:
            assert name not in columns or shown(columns[name][i].as_py()) == shown(row[name])


def record(**fields: Any) -> Any:
    named: dict[str, Any] = {}
    parsed = fastavro.parse_schema(
        {"type": "record", "name": "Row", "fields": [{"name": n, "type": t} for n, t in fields.items()]},
        named_schemas=named,
    )
    return parsed, named


CITY = {"type": "record", "name": "City", "fields": [{"name": "name", "type": "string"}]}
TREE = {"type": "record", "name": "Tree", "fields": [{"name": "of", "type": {"type": "array", "items": "Tree"}}]}


@pytest.mark.parametrize(
    ("fields", "wanted", "runs"),
    [
        ({"a": CITY, "b": "City", "c": "int"}, ["c"], True),
        ({"a": TREE, "c": "int"}, ["c"], False),
        ({"a": ["null", "string", "long"], "c": "int"}, ["c"], True),
        ({"a": ["null", "string", "long"]}, ["a"], False),
        ({"a": {"type": "array", "items": "int"}}, ["a"], False),
        ({"a": {"type": "array", "items": "null"}, "c": "int"}, ["c"], False),
        ({"a": {"type": "int", "logicalType": "date"}}, ["a"], False),
        ({"a": {"type": "int", "logicalType": "date"}, "c": "int"}, ["c"], True),
    ],
)
def test_what_there_are_steps_for(fields: Any, wanted: list[str], runs: bool) -> None:
    parsed, named = record(**fields)
    assert (Program.of(parsed, named, wanted) is not None) == runs


def test_blocks_that_also_tell_their_size() -> None:
    parsed, named = record(a={"type": "array", "items": "int"}, c="int")
    program = Program.of(parsed, named, ["c"])
    assert program is not None
    # Two items in a block of three bytes, one in a plain one, then the end; and c = 5.
    payload = b"\x03\x06\x02\x80\x01" + b"\x02\x04" + b"\x00" + b"\x0a"
    columns, bad = program.columns([payload, b"", payload[:-1]], 0)
    assert columns["c"].to_pylist() == [5, None, None]
    assert bad.tolist() == [False, True, True]
    assert program.columns([b""], 0)[1].tolist() == [True]
