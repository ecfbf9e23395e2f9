"""A table of a DuckDB file, exactly once: rows are staged beside it, and taken in with the checkpoint's number.

    events.duckdb                                       the table, and _headrace_sinks: how far each writer is
    events.duckdb.headrace/pickups.alerts/...12.arrow   staged: comes in when its checkpoint counts
    events.duckdb.headrace/turn                         locked by the writer whose turn it is

One transaction inserts the staged rows and raises the number, so that rows come in once however often it is tried.
The file is open only for that: DuckDB lets nobody else look while a writer has it. Several writers, the tasks of a
flow and its processes, take turns at it; each has a number of its own.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from headrace.features.sinks import DuckDBSink
from headrace.flows.batch import ARROW_TYPES
from headrace.flows.deadletter import DeadLetter
from headrace.flows.sinks.delivery import Retrying
from headrace.flows.sinks.protocol import SinkPlace, SinkRows
from headrace.flows.sinks.staging import Staged, restored, saved
from headrace.flows.sinks.turns import turn
from headrace.stores.durable import make_folder, sync_file, sync_folder
from headrace.stores.errors import SchemaMismatchError, StoreError, UnreachableError
from headrace.stores.sql import name

NUMBERS = "_headrace_sinks"
TYPES = {
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
    "string": "VARCHAR",
    "bytes": "BLOB",
}

_TAKEN = ("lock", "different configuration")
"""What DuckDB says of a file that another process has open, or this one for reading only."""


class TableWriter:
    """A SinkWriter of a DuckDBSink."""

    def __init__(self, sink: DuckDBSink, at: SinkPlace) -> None:
        self._sink, self._at = sink, at
        self._path = Path(sink.path)
        self._staging = Path(f"{sink.path}.headrace") / at.slug
        self._schema = pa.schema([pa.field(each.name, ARROW_TYPES[each.dtype]) for each in at.schema.fields])
        self._retrying = Retrying(at.name, f"table {sink.table} of {sink.path}", at.give_up)
        self._state = Staged.new()
        self._rows: pa.ipc.RecordBatchFileWriter | None = None
        self._promised = False

    def open(self, state: bytes | None) -> None:
        found = restored(state, self._at)
        try:
            make_folder(self._path.absolute().parent)
            make_folder(self._staging.parent)
            self._patiently(self._make_table)
            if found is not None:
                self._state = found
                self._patiently(self._take_in)
            shutil.rmtree(self._staging, ignore_errors=True)
            make_folder(self._staging)
        except UnreachableError:
            raise  # it is an OSError too
        except OSError as error:
            raise self._failed(error) from error

    def write(self, rows: SinkRows) -> None:
        if not len(rows):
            return
        try:
            if self._rows is None:
                self._rows = pa.ipc.new_file(str(self._staged(self._state.number + 1)), self._schema)
            self._rows.write_table(rows.table)
        except OSError as error:
            raise self._failed(error) from error

    def flush(self) -> bytes:
        number = self._state.number + 1
        files = []
        try:
            if self._rows is not None:
                self._end()
                staged = self._staged(number)
                sync_file(staged)
                sync_folder(self._staging)
                files = [(staged.name, self._sink.table)]
        except OSError as error:
            raise self._failed(error) from error
        self._state = self._state.next(files)
        self._promised = True
        return saved(self._state)

    def committed(self) -> None:
        if self._promised:
            self._promised = False
            self._patiently(self._take_in)

    def dead(self) -> Sequence[DeadLetter]:
        return []

    def close(self) -> None:
        self._end()

    def _end(self) -> None:
        writer, self._rows = self._rows, None
        if writer is not None:
            writer.close()

    def _staged(self, number: int) -> Path:
        return self._staging / f"{self._state.token}-{number:012d}.arrow"

    def _take_in(self) -> None:
        """The rows of the newest flush, unless they are in already."""
        if not self._state.files:
            return
        staged = self._staging / self._state.files[0][0]
        with duckdb.connect(str(self._path)) as connection:
            connection.execute("BEGIN")
            found = connection.execute(f"SELECT number FROM {NUMBERS} WHERE token = ?", [self._state.token]).fetchall()
            if found and found[0][0] >= self._state.number:
                return
            with pa.memory_map(str(staged)) as file:
                # A reader, not a table: its batches come in one by one.
                coming = pa.ipc.open_file(file)
                batches = (coming.get_batch(i) for i in range(coming.num_record_batches))
                connection.register("coming", pa.RecordBatchReader.from_batches(self._schema, batches))
                connection.execute(f"INSERT INTO {name(self._sink.table)} BY NAME SELECT * FROM coming")
                connection.unregister("coming")
            connection.execute(
                f"INSERT OR REPLACE INTO {NUMBERS} VALUES (?, ?, ?)",
                [self._state.token, self._at.slug, self._state.number],
            )
            connection.execute("COMMIT")
        staged.unlink(missing_ok=True)

    def _make_table(self) -> None:
        columns = ", ".join(f"{name(each.name)} {TYPES[each.dtype]}" for each in self._at.schema.fields)
        with duckdb.connect(str(self._path)) as connection:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name(self._sink.table)} ({columns})")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {NUMBERS} (token VARCHAR PRIMARY KEY, writer VARCHAR, number BIGINT)"
            )
            there = {
                str(row[0]): str(row[1]).upper().replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")
                for row in connection.execute(
                    "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = ?",
                    [self._sink.table],
                ).fetchall()
            }
        wrong = [
            f"{each.name} ({TYPES[each.dtype]}, there {there.get(each.name, 'missing')})"
            for each in self._at.schema.fields
            if there.get(each.name) != TYPES[each.dtype]
        ]
        if wrong:
            raise SchemaMismatchError(
                f"Step '{self._at.name}': the table '{self._sink.table}' of {self._sink.path} has other columns than "
                f"the rows: {', '.join(wrong)}. Alter the table, or write into another."
            )

    def _patiently(self, work: Callable[[], None]) -> None:
        """`work`, again and again while somebody else has the file."""
        while True:
            try:
                with turn(self._staging.parent / "turn", self._at.give_up, self._no_turn):
                    work()
            except (duckdb.IOException, duckdb.ConnectionException) as error:
                if not any(each in str(error).lower() for each in _TAKEN):
                    raise self._failed(error) from error
                self._retrying.failed(str(error).partition("\n")[0])
            except UnreachableError:
                raise  # it is an OSError too
            except (duckdb.Error, OSError) as error:
                raise self._failed(error) from error
            else:
                self._retrying.worked()
                return

    def _no_turn(self) -> None:
        self._retrying.failed("another writer of this machine has it")

    def _failed(self, error: Exception) -> StoreError:
        return StoreError(
            f"Step '{self._at.name}': rows cannot be written to the table '{self._sink.table}' of {self._sink.path}: "
            f"{error}. The last checkpoint stands; mend it, and the next run goes on from there."
        )
