"""Reading a source from any row on: decoded batches in source order and bounded memory, with dead letters.

A file, frame or iterable source is one partition, 0; the offset of an event is its row, counted from 0 over all files
in the order of their names. A broken row has an offset too, a blank line of a text file has none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from headrace.features.errors import DataError, did_you_mean
from headrace.features.python_source import PythonSource
from headrace.features.sources import FileSource, FrameSource, IterableSource, Source
from headrace.flows.batch import EventBatch
from headrace.flows.casting import never_fits
from headrace.flows.deadletter import DeadLetter, payload_text
from headrace.flows.decode import decode_columns, decode_rows, decode_table, reading_of
from headrace.flows.files import paths_of, pieces_of
from headrace.flows.frames import Column, is_pandas, pandas_names, pandas_row, pandas_slices, slices
from headrace.flows.values import Reading

BATCH_SIZE = 10_000


class Progress(NamedTuple):
    """How far a source has been read.

    offset: rows read, broken ones included: where to start again. done of total: rows or bytes, for a progress bar;
    total is None where nobody knows. files: names of the files begun so far, in order; empty for other sources.
    position: of a PythonSource, where its reader reads on, as MessagePack; empty for other sources.
    """

    offset: int
    done: int
    total: int | None
    unit: str
    files: tuple[str, ...] = ()
    position: bytes = b""


class Part(NamedTuple):
    """One batch of a source: the events that could be decoded, dead letters for the others, and how far this is."""

    batch: EventBatch
    dead: list[DeadLetter]
    progress: Progress


def batches(
    source: Source,
    batch_size: int = BATCH_SIZE,
    start: int = 0,
    *,
    files: Sequence[str] = (),
    position: bytes = b"",
) -> Iterator[Part]:
    """The events of a source from row `start` on, at most `batch_size` rows at a time.

    Args:
        source: a FileSource, FrameSource, IterableSource or PythonSource. A generator is read on from where it stands.
        batch_size: rows per batch; memory is proportional to it (and to some MiB of text for CSV and JSON lines).
        start: `Progress.offset` of an earlier reading.
        files: `Progress.files` of the reading that `start` comes from; checked, as `start` counts rows over all
            files.
        position: `Progress.position` of that reading.

    Raises:
        DataError: there is no such file, it cannot be unpacked or is no Parquet, a file has come in between those
            already
            read, or the first file (or the frame) as a whole does not fit the event: it lacks a column, or has one
            whose type never fits. Single rows never raise: they become dead letters.
    """
    how = reading_of(source)
    if isinstance(source, FileSource):
        return _files(source, how, batch_size, start, tuple(files))
    if isinstance(source, FrameSource):
        return (
            _pandas(source, how, batch_size, start)
            if is_pandas(source.data)
            else _arrow(source, how, batch_size, start)
        )
    if isinstance(source, IterableSource):
        return _iterable(source, how, batch_size, start)
    if isinstance(source, PythonSource):
        return _python(source, how, batch_size, start, position)
    raise DataError(
        f"Source '{source.name}' is a {type(source).__name__}, which is not read from start to end. Read a FileSource, "
        "a FrameSource, an IterableSource or a PythonSource."
    )


def batches_of_files(source: FileSource, paths: Sequence[Path], batch_size: int, *, first: bool) -> Iterator[Part]:
    """The events of some of a source's files, as `batches` gives them; rows are counted from the first of these.

    first: these are the source's first files, the first of which must fit the event.
    """
    named = [(str(path), path) for path in paths]
    return _read_files(source, reading_of(source), batch_size, 0, named, check=first)


def _files(source: FileSource, how: Reading, size: int, start: int, known: tuple[str, ...]) -> Iterator[Part]:
    paths = paths_of(source)
    names = tuple(name for name, _ in paths)
    if names[: len(known)] != known:
        raise DataError(
            f"Source '{source.name}': row {start} was counted over the files {', '.join(known)}, but the first files "
            f"are now {', '.join(names[: len(known)])}. Files are read in the order of their names: give a new file a "
            "name after those already read, or start again from the beginning."
        )
    return _read_files(source, how, size, start, paths)


def _read_files(
    source: FileSource, how: Reading, size: int, start: int, paths: Sequence[tuple[str, Path]], check: bool = True
) -> Iterator[Part]:
    names = tuple(name for name, _ in paths)
    sizes = [path.stat().st_size for _, path in paths]
    skip, offset = start, 0
    for i, (_, path) in enumerate(paths):
        fits = _checked(source, how) if i == 0 and check else _unchecked
        for piece in pieces_of(source, path, how, size, skip, fits):
            if skip >= piece.rows:
                skip -= piece.rows
                offset += piece.rows
                continue
            batch, dead = piece.decode(skip, offset + skip)
            skip = 0
            offset += piece.rows
            done = sum(sizes[:i]) + piece.position
            yield Part(batch, dead, Progress(offset, done, sum(sizes), "bytes", names[: i + 1]))


def _arrow(source: FrameSource, how: Reading, size: int, start: int) -> Iterator[Part]:
    stream = pa.RecordBatchReader.from_stream(_streaming(source))
    _checked(source, how)(stream.schema, "the frame")
    offset, total = start, getattr(source.data, "num_rows", None)
    if total is None and hasattr(source.data, "height"):
        total = source.data.height
    for table in slices(iter(stream), size, start):
        batch, dead = decode_table(source.schema, table, 0, offset, how)
        offset += table.num_rows
        yield Part(batch, dead, Progress(offset, offset, total, "rows"))


def _streaming(source: FrameSource) -> Any:
    if hasattr(source.data, "__arrow_c_stream__"):
        return source.data
    raise DataError(
        f"Source '{source.name}': a {type(source.data).__name__} does not speak the Arrow C stream interface. Give a "
        "pandas or Polars frame or a pyarrow Table."
    )


def _pandas(source: FrameSource, how: Reading, size: int, start: int) -> Iterator[Part]:
    frame = source.data
    names = [how.column(f.name) for f in source.schema.fields]
    absent = pa.schema([(name, pa.null()) for name in pandas_names(frame)])
    _checked(source, how)(absent, "the frame")
    offset = start
    for columns, rows in pandas_slices(frame, names, size, start):
        if offset == start:
            _checked(source, how)(pa.schema([(name, _kind(c)) for name, c in columns.items()]), "the frame")
        shown = _shown_from(frame, offset)
        batch, dead = decode_columns(source.schema, columns, rows, 0, offset, how, shown)
        offset += rows
        yield Part(batch, dead, Progress(offset, offset, len(frame), "rows"))


def _shown_from(frame: Any, first: int) -> Callable[[int], str]:
    return lambda row: payload_text(pandas_row(frame, first + row))


def _kind(column: Column) -> pa.DataType:
    return pa.null() if isinstance(column, list) else column.type


def _iterable(source: IterableSource, how: Reading, size: int, start: int) -> Iterator[Part]:
    rows = source.iterable
    total = len(rows) if isinstance(rows, Sized) else None
    offset, left = start, islice(iter(rows), start, None)
    while given := list(islice(left, size)):
        batch, dead = decode_rows(source.schema, given, 0, offset, how)
        offset += len(given)
        yield Part(batch, dead, Progress(offset, offset, total, "rows"))


def _python(source: PythonSource, how: Reading, size: int, start: int, position: bytes) -> Iterator[Part]:
    offset = start
    given: list[Any] = []
    at = position
    for rows, at in chunks(source, position):
        given += rows
        if len(given) >= size:
            yield (part := _rows(source, how, given, offset, at))
            offset, given = part.progress.offset, []
    if given or at != position:
        yield _rows(source, how, given, offset, at)


def _rows(source: PythonSource, how: Reading, given: list[Any], offset: int, at: bytes) -> Part:
    batch, dead = decode_rows(source.schema, given, 0, offset, how)
    return Part(batch, dead, Progress(offset + len(given), offset + len(given), None, "rows", position=at))


def chunks(source: PythonSource, position: bytes) -> Iterator[tuple[list[Any], bytes]]:
    """What the reader of a source gives from a position on: rows, and the position after them as MessagePack.

    Raises:
        DataError: it yields something else. Whatever the reader itself raises.
    """
    given = source.reader.read(msgspec.msgpack.decode(position) if position else None)
    for each in given:
        if not isinstance(each, tuple) or len(each) != 2 or isinstance(each[0], (str, bytes, Mapping)):
            shown = f"a tuple of {len(each)}" if isinstance(each, tuple) else f"a {type(each).__name__}"
            raise DataError(
                f"Source '{source.name}': its reader yielded {shown}, expected (rows, position): a list of rows, and "
                "where to read on after them."
            )
        rows, at = each
        try:
            made = msgspec.msgpack.encode(at)
        except (TypeError, OverflowError) as error:
            raise DataError(
                f"Source '{source.name}': its reader yielded a position that cannot rest in a checkpoint: {error}. "
                "Make it of None, bool, int, float, str, bytes, list and dict."
            ) from error
        yield list(rows), made


def _unchecked(columns: pa.Schema, where: str) -> None:
    """A later file that does not fit is data: each of its rows becomes a dead letter."""


def _checked(source: Source, how: Reading) -> Callable[[pa.Schema, str], None]:
    """Whether a table with these columns can hold the event at all; a definition that does not fit fails before any
    row.
    """

    def check(columns: pa.Schema, where: str) -> None:
        for field in source.schema.fields:
            name = how.column(field.name)
            found = columns.names.count(name)
            if found == 1:
                why = None if how.text else never_fits(field, columns.field(name).type, how)
                if why is not None:
                    meant = f"{source.schema.name}.{field.name}"
                    raise DataError(f"Source '{source.name}': column '{name}' of {where} is no {meant}: {why}.")
            elif found:
                raise DataError(f"Source '{source.name}': {where} has {found} columns '{name}'. Rename all but one.")
            elif not field.nullable or name != field.name:
                raise DataError(
                    f"Source '{source.name}': {where} has no column '{name}'{did_you_mean(name, columns.names)} "
                    f"It has: {', '.join(columns.names)}. Map another name with columns={{'{field.name}': '...'}}, or "
                    "declare the field `| None`."
                )

    return check
