"""Files of events as pieces that can be decoded or skipped: Parquet by row group, DuckDB by batch, text by block."""

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from headrace.features.errors import DataError
from headrace.features.events import EventSchema
from headrace.features.sources import FORMATS, FileSource
from headrace.flows.csvrecords import Records, header_of, records_of
from headrace.flows.deadletter import MALFORMED, DeadLetter, payload_text
from headrace.flows.decode import Decoded, decode_table
from headrace.flows.duckdb_table import rows_of_table
from headrace.flows.frames import slices
from headrace.flows.jsonlines import decode_json
from headrace.flows.lines import TextFile, line_blocks, record_blocks
from headrace.flows.values import Reading

_MAGIC = "*?["


@dataclass(frozen=True)
class Piece:
    """Some rows of a file, in file order.

    rows: how many, broken ones included. decode(first, offset): the events of rows `first`.. of the piece, the first
    of them at `offset`. position: bytes of the file read when this piece ends.
    """

    rows: int
    decode: Callable[[int, int], Decoded]
    position: int


Check = Callable[[pa.Schema, str], None]
"""Called with a file's columns and name before its first piece; raises where the event cannot be read from them."""


def paths_of(source: FileSource) -> list[tuple[str, Path]]:
    """The files of a source in the order they are read, by name relative to a folder: (name, path).

    A folder gives every file below it whose suffix tells the source's format, a pattern (`*`, `?`, `**`) every match;
    names that begin with "." or "_" are left out.

    Raises:
        DataError: there is no such file.
    """
    root = Path(source.path)
    if root.is_file():
        return [(root.name, root)]
    if root.is_dir():
        found = [(str(p.relative_to(root)), p) for p in root.rglob("*") if p.is_file() and _suits(p, source.format)]
    elif any(sign in source.path for sign in _MAGIC):
        found = [(str(p), p) for p in map(Path, glob.glob(source.path, recursive=True)) if p.is_file()]
    else:
        raise DataError(f"Source '{source.name}': there is no file or folder '{source.path}' (in {Path.cwd()}).")
    shown = [
        (name, path) for name, path in found if not any(part[0] in "._" for part in Path(name).parts if part != "..")
    ]
    if not shown:
        raise DataError(f"Source '{source.name}': '{source.path}' holds no {source.format} file.")
    return sorted(shown)


def _suits(path: Path, format: str) -> bool:
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    return FORMATS.get(Path(name).suffix) == format


def pieces_of(source: FileSource, path: Path, how: Reading, size: int, skip: int, check: Check) -> Iterator[Piece]:
    """The pieces of one file, at most `size` rows each; `skip`: rows at its head that need not be read if
    avoidable.
    """
    schema = source.schema
    if source.format == "parquet":
        yield from _parquet(schema, path, how, size, skip, check)
    elif source.format == "duckdb":
        wanted = [how.column(f.name) for f in schema.fields]
        for table, read, whole in rows_of_table(path, source.table, wanted, size, skip, check):
            decode = _undecoded if table is None else partial(_table_part, schema, table, how)
            rows = skip if table is None else table.num_rows
            yield Piece(rows, decode, path.stat().st_size * read // max(whole, 1))
    elif source.format == "csv":
        yield from _csv(schema, path, how, size, check)
    else:
        yield from _jsonl(schema, path, how, size)


def _parquet(schema: EventSchema, path: Path, how: Reading, size: int, skip: int, check: Check) -> Iterator[Piece]:
    read = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check(file.schema_arrow, path.name)
            total, bytes_of = max(file.metadata.num_rows, 1), path.stat().st_size
            group = 0
            while group < file.num_row_groups and read + file.metadata.row_group(group).num_rows <= skip:
                read += file.metadata.row_group(group).num_rows
                group += 1
            if read:
                yield Piece(read, _undecoded, bytes_of * read // total)
            present = set(file.schema_arrow.names)
            columns = [how.column(f.name) for f in schema.fields if how.column(f.name) in present]
            groups = list(range(group, file.num_row_groups))
            if not groups:
                return
            for table in slices(file.iter_batches(batch_size=size, row_groups=groups, columns=columns), size, 0):
                read += table.num_rows
                yield Piece(table.num_rows, partial(_table_part, schema, table, how), bytes_of * read // total)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"File '{path}' cannot be read as Parquet beyond row {read}: {error}. What came before it has been read; "
            "mend the file and run again."
        ) from error


def _undecoded(first: int, offset: int) -> Decoded:
    raise AssertionError("rows that were asked to be skipped have not been read")


def _table_part(schema: EventSchema, table: pa.Table, how: Reading, first: int, offset: int) -> Decoded:
    return decode_table(schema, table.slice(first), 0, offset, how)


def _csv(schema: EventSchema, path: Path, how: Reading, size: int, check: Check) -> Iterator[Piece]:
    with TextFile(path) as file:
        names: list[str] = []
        for block in record_blocks(file):
            if not names:
                names, block = header_of(block)
                check(pa.schema([(name, pa.string()) for name in names]), path.name)
            wanted = [c for c in dict.fromkeys(how.column(f.name) for f in schema.fields) if c in names]
            records = records_of(block, names, wanted)
            for first in range(0, records.count, size):
                part = _records_between(records, first, min(first + size, records.count))
                yield Piece(part.count, partial(_csv_part, schema, part, how), file.position)


def _records_between(records: Records, first: int, last: int) -> Records:
    rows = slice(*np.searchsorted(records.place, [first, last]).tolist())
    table = records.table.slice(rows.start, rows.stop - rows.start)
    broken = [(at - first, text, why) for at, text, why in records.broken if first <= at < last]
    return Records(table, records.place[rows] - first, broken)


def _csv_part(schema: EventSchema, records: Records, how: Reading, first: int, offset: int) -> Decoded:
    part = _records_between(records, first, records.count) if first else records
    batch, dead = decode_table(schema, part.table, 0, offset + part.place, how)
    broken = [
        DeadLetter(MALFORMED, why, how.source, 0, offset + at, None, payload_text(text))
        for at, text, why in part.broken
    ]
    return batch, sorted([*dead, *broken], key=lambda letter: letter.offset)


def _jsonl(schema: EventSchema, path: Path, how: Reading, size: int) -> Iterator[Piece]:
    with TextFile(path) as file:
        for lines in line_blocks(file):
            for first in range(0, len(lines), size):
                part = lines[first : first + size]
                yield Piece(len(part), partial(_json_part, schema, part, how), file.position)


def _json_part(schema: EventSchema, lines: list[bytes], how: Reading, first: int, offset: int) -> Decoded:
    return decode_json(schema, lines[first:], 0, offset, how)
