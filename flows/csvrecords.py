"""CSV (RFC 4180: commas, double quotes, a header line) to columns of text, and the records that are broken.

A block in which every line has an even number of quotes goes through Arrow's parser at once. In any other a field may
hold a line
end, or a quote may never close: that block goes record by record. A broken record costs its first line only, so an
unclosed quote does not swallow the good lines below it.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.csv

from headrace.flows.batch import Ints

_LONGEST_RECORD = 1_000  # lines


@dataclass(frozen=True)
class Records:
    """The n records of a block: whole ones in columns, and broken ones.

    table: columns of bytes or text, one row per whole record; place: (rows,) which record of the block each row is.
    broken: (which record, its text, what is wrong).
    """

    table: pa.Table
    place: Ints
    broken: list[tuple[int, str, str]]

    @property
    def count(self) -> int:
        return self.table.num_rows + len(self.broken)


def header_of(block: bytes) -> tuple[list[str], bytes]:
    """The column names in a file's first record, and the rest of its first block."""
    text = io.TextIOWrapper(io.BytesIO(block), encoding="utf-8", errors="surrogateescape", newline="")
    lines: list[str] = []

    def counted() -> Iterator[str]:
        for line in text:
            lines.append(line)
            yield line

    for record in csv.reader(counted()):
        if record:
            used = len("".join(lines).encode("utf-8", "surrogateescape"))
            return [name.strip() for name in record], block[used:]
    return [], b""


def records_of(block: bytes, names: Sequence[str], wanted: Sequence[str]) -> Records:
    """The records of a block: of columns `names` those `wanted`."""
    table = _at_once(block, names, wanted) if _plain(block) else None
    if table is not None:
        return Records(table, np.arange(table.num_rows), [])
    return _one_by_one(block, names, wanted)


def _plain(block: bytes) -> bool:
    """Whether every record is one line: no lone carriage return, and an even number of quotes up to each line's
    end.
    """
    if block.count(b"\r") != block.count(b"\r\n"):
        return False
    if b'"' not in block:
        return True
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    quotes = np.flatnonzero(data == ord('"'))
    return len(quotes) % 2 == 0 and not (np.searchsorted(quotes, ends) % 2).any()


def _at_once(block: bytes, names: Sequence[str], wanted: Sequence[str]) -> pa.Table | None:
    numbered = [str(i) for i in range(len(names))]  # names may repeat
    chosen = numbered if wanted is names else [str(names.index(name)) for name in wanted]
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(block),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=numbered),
            pyarrow.csv.ParseOptions(newlines_in_values=False),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(chosen, pa.binary()), include_columns=chosen, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None  # a record with too few or too many fields
    return table.rename_columns(list(wanted))


def _one_by_one(block: bytes, names: Sequence[str], wanted: Sequence[str]) -> Records:
    lines = [line.decode("utf-8", "surrogateescape") for line in block.splitlines(keepends=True)]
    chosen = [names.index(name) for name in wanted]
    rows: list[list[bytes]] = []
    place: list[int] = []
    broken: list[tuple[int, str, str]] = []
    at = count = 0
    while at < len(lines):
        record, used, problem = _record(lines, at, names)
        if record is None:
            shown = _encoded(lines[at]).rstrip(b"\r\n").decode("utf-8", "backslashreplace")
            broken.append((count, shown, problem))
            count += 1
        elif record:
            rows.append([record[i] for i in chosen])
            place.append(count)
            count += 1
        at += used
    columns = [pa.array([row[i] for row in rows], type=pa.binary()) for i in range(len(chosen))]
    return Records(pa.table(columns, names=list(wanted)), np.array(place, dtype=np.int64), broken)


def _record(lines: list[str], at: int, names: Sequence[str]) -> tuple[list[bytes] | None, int, str]:
    """The record that begins at line `at`: its fields (none: a blank line; None: broken), lines used, what is
    wrong.
    """
    reader = csv.reader(islice(lines, at, at + _LONGEST_RECORD), strict=True)
    try:
        record = next(reader)
        if not record or len(record) == len(names):
            return [_encoded(cell) for cell in record], reader.line_num, ""
        problem = f"the record has {len(record)} fields and the header has {len(names)}"
    except csv.Error as error:
        problem = "a quote is never closed" if lines[at].count('"') % 2 else f"broken CSV: {error}"
    line = _encoded(lines[at])
    alone = _at_once(line, names, names) if _plain(line) else None  # what Arrow's parser lets pass passes here too
    if alone is None or alone.num_rows != 1:
        return None, 1, problem
    return [alone.column(i)[0].as_py() for i in range(len(names))], 1, ""


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
