"""Reading: every format gives the same events from any row on, in any batch size; a broken row costs itself alone."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.features.errors import DataError, DefinitionError
from headrace.features.events import Event, EventTime
from headrace.features.kafka_source import KafkaSource
from headrace.features.sources import FileSource, FrameSource, IterableSource, Source
from headrace.flows import lines
from headrace.flows.batch import EventBatch
from headrace.flows.csvrecords import records_of
from headrace.flows.deadletter import DeadLetter
from headrace.flows.read import batches

AT = "2026-05-01T12:00:{:02d}Z"


class Ride(Event):
    driver_id: str
    fare: float | None
    riders: int | None
    at: EventTime


def rides(n: int) -> list[dict[str, Any]]:
    return [
        {
            "driver_id": f"d{i % 3}",
            "fare": None if i % 5 == 4 else i / 4,
            "riders": None if i % 7 == 6 else i,
            "at": AT.format(i % 60),
        }
        for i in range(n)
    ]


def rows_of(batch: EventBatch) -> list[dict[str, Any]]:
    columns = {
        n: [v if ok else None for v, ok in zip(batch.values(n).tolist(), batch.valid(n).tolist(), strict=True)]
        for n in batch
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def read(
    source: Source, size: int = 4, start: int = 0, **options: Any
) -> tuple[list[int], list[Any], list[DeadLetter]]:
    parts = list(batches(source, size, start, **options))
    offsets = [o for p in parts for o in p.batch.offset.tolist()]
    assert all(len(p.batch) + len(p.dead) <= size for p in parts)
    return offsets, [row for p in parts for row in rows_of(p.batch)], [letter for p in parts for letter in p.dead]


def frames(rows: list[dict[str, Any]]) -> dict[str, Any]:
    table = pa.Table.from_pylist(rows)
    aware = table.set_column(3, "at", pa.array(pd.to_datetime([r["at"] for r in rows], utc=True)))
    return {
        "arrow": table,
        "arrow in chunks": pa.concat_tables([table.slice(i, 3) for i in range(0, len(rows), 3)]),
        "pandas": pd.DataFrame(rows),
        "pandas typed": aware.to_pandas(),
        "pandas index": pd.DataFrame(rows).set_index("at"),
        "pandas arrow types": table.to_pandas(types_mapper=pd.ArrowDtype),
        "pandas categories": pd.DataFrame(rows).astype({"driver_id": "category"}),
        "polars": pl.DataFrame(rows),
        "polars categories": pl.DataFrame(rows).with_columns(pl.col("driver_id").cast(pl.Categorical)),
        "rows": rows,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=5)
        return path
    if name.endswith(".duckdb"):
        with duckdb.connect(str(path)) as connection:
            connection.from_arrow(pa.Table.from_pylist(rows)).create("rides")
        return path
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        text = out.getvalue()
    data = text.encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


KINDS = [*frames(rides(1)), "r.parquet", "r.duckdb", "r.csv", "r.jsonl", "r.csv.gz", "r.jsonl.gz", "r.jsonl.zst"]


def source_of(kind: str, rows: list[dict[str, Any]], folder: Path) -> Source:
    if "." in kind:
        return FileSource(write(folder / kind, rows), Ride)
    data = frames(rows)[kind]
    return IterableSource(data, Ride) if kind == "rows" else FrameSource(data, Ride)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_same_events_from_any_row_on(kind: str, tmp_path: Path) -> None:
    rows = rides(23)
    expected = read(IterableSource(rows, Ride), 100)
    assert expected[0] == list(range(23))
    source = source_of(kind, rows, tmp_path)
    for size in (1, 4, 100):
        for start in (0, 1, 7, 22, 23, 40):
            offsets, events, dead = read(source, size, start)
            assert dead == []
            assert (offsets, events) == (expected[0][start:], expected[1][start:])


@pytest.mark.parametrize("kind", KINDS)
def test_progress_tells_where_to_start_again_and_ends_at_its_total(kind: str, tmp_path: Path) -> None:
    parts = list(batches(source_of(kind, rides(10), tmp_path), 4))
    assert [p.progress.offset for p in parts][-1] == 10
    done = [p.progress.done for p in parts]
    assert done == sorted(done)
    assert parts[-1].progress.done == parts[-1].progress.total


def test_the_files_of_a_folder_are_one_partition_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", rides(5)[3:])
    write(tmp_path / "a.jsonl", rides(3))
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".hidden.jsonl").write_text("broken")
    for path in (tmp_path, tmp_path / "*.jsonl"):
        source = FileSource(path, Ride, format="jsonl")
        offsets, events, dead = read(source)
        assert (offsets, dead) == ([0, 1, 2, 3, 4], [])
        assert events == read(IterableSource(rides(5), Ride))[1]
        assert read(source, start=4)[0] == [4]
    known = list(batches(FileSource(tmp_path, Ride, format="jsonl")))[-1].progress.files
    assert known == ("a.jsonl", "b.jsonl")
    write(tmp_path / "c.jsonl", rides(1))
    assert read(FileSource(tmp_path, Ride, format="jsonl"), start=5, files=known)[0] == [5]
    write(tmp_path / "aa.jsonl", rides(1))
    with pytest.raises(
        DataError,
        match=r"row 5 was counted over the files a.jsonl, b.jsonl, but the first files are now a.jsonl, aa.jsonl",
    ):
        read(FileSource(tmp_path, Ride, format="jsonl"), start=5, files=known)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        read(FileSource(tmp_path / "none.csv", Ride))
    with pytest.raises(DataError, match="holds no csv file"):
        read(FileSource(tmp_path, Ride, format="csv"))
    with pytest.raises(DataError, match=r"Source 'rides' is a KafkaSource, which is not read from start to end"):
        read(KafkaSource("rides", Ride))


def test_a_file_that_stops_making_sense_says_so_after_what_could_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "r.parquet"
    broken.write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"r.parquet' cannot be read as Parquet beyond row 0"):
        read(FileSource(broken, Ride))
    cut = write(tmp_path / "r.jsonl.gz", rides(2_000))
    cut.write_bytes(cut.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"cannot be read beyond byte"):
        read(FileSource(cut, Ride), 10_000)


def test_a_source_that_never_fits_its_event_fails_before_any_row(tmp_path: Path) -> None:
    good = {"driver_id": ["7"], "fare": [1.0], "riders": [1], "at": [AT.format(1)]}

    def fails(message: str, **columns: Any) -> None:
        data = {**good, **columns}
        table = pa.table({k: v for k, v in data.items() if v is not None})
        for frame in (table, table.to_pandas()):
            with pytest.raises(DataError, match=message):
                read(FrameSource(frame, Ride))
        pq.write_table(table, tmp_path / "x.parquet")
        with pytest.raises(DataError, match=message.replace("the frame", "x.parquet")):
            read(FileSource(tmp_path / "x.parquet", Ride))

    fails(
        r"the frame has no column 'driver_id'; did you mean 'driver'\? It has: fare, riders, at, driver. Map another",
        driver_id=None,
        driver=["7"],
    )
    fails(r"column 'fare' of the frame is no Ride.fare: type bool: True \(bool\) is no float", fare=[True])
    fails(r"column 'at' of the frame is no Ride.at: .* has no time zone", at=pa.array([0], type=pa.timestamp("us")))
    fails(r"column 'at' of the frame is no Ride.at: .* unit would be a guess", at=[5])
    with pytest.raises(DataError, match=r"has no column 'tariff'"):
        read(FrameSource(pa.table(good), Ride, columns={"fare": "tariff"}))
    (tmp_path / "x.csv").write_text("driver_id,fare,riders\n1,2,3\n")
    with pytest.raises(DataError, match=r"x\.csv has no column 'at'"):
        read(FileSource(tmp_path / "x.csv", Ride))
    del good["fare"]
    assert read(FrameSource(pa.table(good), Ride))[1][0]["fare"] is None


def test_a_later_file_that_does_not_fit_is_dead_letters(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rides(2)), tmp_path / "a.parquet")
    pq.write_table(pa.table({"driver_id": [1, 2]}), tmp_path / "b.parquet")
    offsets, _, dead = read(FileSource(tmp_path, Ride, format="parquet"))
    assert (offsets, [d.offset for d in dead]) == ([0, 1], [2, 3])
    assert dead[0].detail == "field 'driver_id': 1 (int64) is no str"


def test_pandas_objects_are_judged_one_by_one() -> None:
    frame = pd.DataFrame({"driver_id": ["7", 8, None, "9"], "fare": [1, "x", 2, np.nan], "at": [AT.format(1)] * 4})
    offsets, events, dead = read(FrameSource(frame, Ride), 100)
    assert offsets == [0, 3]
    assert events[1]["fare"] is None
    assert [d.offset for d in dead] == [1, 2]
    assert json.loads(dead[0].payload) == {"driver_id": 8, "fare": "x", "at": AT.format(1)}


def test_pandas_gives_missing_numbers_as_nan_and_they_are_missing() -> None:
    frame = pd.DataFrame(
        {"driver_id": ["7"] * 2, "fare": [1.0, np.nan], "riders": [1, np.nan], "at": [AT.format(1)] * 2}
    )
    assert [(r["fare"], r["riders"]) for r in read(FrameSource(frame, Ride))[1]] == [(1.0, 1), (None, None)]


def test_zone_and_unit_of_a_source(tmp_path: Path) -> None:
    text = "driver_id,fare,riders,at\n" + "".join(
        f"7,1,1,{at}\n"
        for at in ("2013-07-01 08:00", "2013-11-03 01:30", "2013-03-10 02:30:00", "2013-07-01T08:00Z", "")
    )
    (tmp_path / "r.csv").write_text(text)
    offsets, events, dead = read(FileSource(tmp_path / "r.csv", Ride, zone="America/New_York"))
    assert offsets == [0, 3]
    assert [e["at"] for e in events] == [1_372_680_000_000_000, 1_372_665_600_000_000]
    assert [d.detail.split(",")[0] for d in dead] == [
        "field 'at': the local time 2013-11-03T01:30:00 occurs twice in America/New_York",
        "field 'at': the local time 2013-03-10T02:30:00 does not occur in America/New_York",
        "field 'at': null",
    ]
    (tmp_path / "e.csv").write_text("driver_id,fare,riders,at\n7,1,1,1700000000\n7,1,1,1.5\n")
    offsets, events, dead = read(FileSource(tmp_path / "e.csv", Ride, unit="s"))
    assert ([e["at"] for e in events], [d.offset for d in dead]) == ([1_700_000_000_000_000], [1])


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("3", 3), ("-3", -3), ("+3", 3), ("003", 3), (" 3 ", 3), ("3.0", 3), ("", None), ("nan", None),
        ("9223372036854775807", 2**63 - 1), ("9223372036854775808", "is beyond int64"), ("9" * 60, "is beyond int64"),
        ("3.5", "3.5 (float) is no int"), ("1e400", "is beyond float64"), ("0x1F", "'0x1F' is no int"),
        ("1_000", "is no int"), ("true", "is no int"), ("NA", "'NA' is no int"),
    ],
)  # fmt: skip
def test_cells_of_text(cell: str, expected: Any, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(f"driver_id,riders,at\n7,{cell},{AT.format(1)}\n7,5,{AT.format(1)}\n")
    offsets, events, dead = read(FileSource(tmp_path / "r.csv", Ride))
    assert offsets[-1] == 1
    if isinstance(expected, str):
        assert expected in dead[0].detail
    else:
        assert events[0]["riders"] == expected


def csv_source(tmp_path: Path, body: bytes) -> FileSource:
    (tmp_path / "r.csv").write_bytes(b"\xef\xbb\xbfdriver_id,fare,riders,at\n" + body)
    return FileSource(tmp_path / "r.csv", Ride)


def test_broken_records_of_a_csv_file_cost_themselves_alone(tmp_path: Path) -> None:
    at = AT.format(1).encode()
    body = b"\r\n".join(
        [
            b"ok0,1,1," + at,
            b"too,few",
            b'"two\nlines",1,1,' + at,
            b"too,many,1,1," + at,
            b"",
            b'"never closed,1,1,' + at,
            b"ok5,1,1," + at,
            b'"ok6 ""quoted""",1,1,' + at,
            b'6" pipe,1,1,' + at,
            b"\xff,1,1," + at,
            b'ok9"x",1,1,' + at,
        ]
    )
    offsets, events, dead = read(csv_source(tmp_path, body))
    assert [(o, e["driver_id"]) for o, e in zip(offsets, events, strict=True)] == [
        (0, "ok0"), (2, "two\nlines"), (5, "ok5"), (6, 'ok6 "quoted"'), (7, '6" pipe'), (9, 'ok9"x"'),
    ]  # fmt: skip
    assert [(d.offset, d.detail) for d in dead] == [
        (1, "the record has 2 fields and the header has 4"),
        (3, "the record has 5 fields and the header has 4"),
        (4, "a quote is never closed"),
        (8, "field 'driver_id': '\\udcff' is no UTF-8 text"),
    ]
    assert json.loads(dead[0].payload) == "too,few"
    assert json.loads(dead[3].payload)["driver_id"] == "\\xff"


cells = st.text(st.sampled_from('a",\n\r x'), max_size=4)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(cells, cells), max_size=8))
def test_whatever_a_csv_writer_wrote_is_read_back(rows: list[tuple[str, str]]) -> None:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
    records = records_of(out.getvalue().encode(), ["x", "y"], ["y", "x"])
    assert records.broken == []
    got = [(r["x"].decode(), r["y"].decode()) for r in records.table.to_pylist()]
    assert got == rows


@given(st.binary(max_size=40) | st.text(st.sampled_from('a",\n'), max_size=30).map(str.encode))
def test_no_bytes_break_the_csv_reader_and_every_record_is_counted_once(block: bytes) -> None:
    records = records_of(block, ["x", "y"], ["x"])
    assert sorted([*records.place.tolist(), *(at for at, _, _ in records.broken)]) == list(range(records.count))


@given(st.lists(st.text(st.sampled_from('a",\n'), max_size=12), max_size=6), st.integers(1, 20))
def test_blocks_of_records_are_cut_outside_quotes(parts: list[str], size: int) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([[part, "x"] for part in parts])
    data = out.getvalue().encode()

    class Pieces:
        def __init__(self) -> None:
            self.left = io.BytesIO(data)

        def read(self) -> bytes:
            return self.left.read(size)

    blocks = list(lines.record_blocks(Pieces()))  # type: ignore[arg-type]
    assert b"".join(blocks) == data
    assert all(block.count(b'"') % 2 == 0 for block in blocks)
    text = [line for block in lines.line_blocks(Pieces()) for line in block]  # type: ignore[arg-type]
    assert text == [stripped for line in data.split(b"\n") if (stripped := line.strip())]


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 1_000)
    monkeypatch.setattr(lines, "_HEAD_KEPT", 50)
    monkeypatch.setattr(lines.TextFile.read, "__defaults__", (64,))
    good = json.dumps(rides(1)[0])
    (tmp_path / "r.jsonl").write_text(f"{good}\n{{{'x' * 5_000}}}\n{good}\n\n{good}")
    offsets, _, dead = read(FileSource(tmp_path / "r.jsonl", Ride))
    assert (offsets, [d.offset for d in dead]) == ([0, 2, 3], [1])
    assert dead[0].payload.endswith('(cut off: a line of more than 16 MiB)"')
    (tmp_path / "q.csv").write_text(
        f'driver_id,fare,riders,at\n"open,1,1,{AT.format(1)}\n' + f"7,1,1,{AT.format(1)}\n" * 500
    )
    offsets, _, dead = read(FileSource(tmp_path / "q.csv", Ride))
    assert (offsets, [d.offset for d in dead]) == (list(range(1, 501)), [0])


def test_a_generator_is_read_on_and_an_error_of_its_own_is_not_swallowed() -> None:
    def rows() -> Any:
        yield from rides(5)
        raise OSError("the line went dead")

    parts = batches(IterableSource(rows(), Ride), 5)
    assert len(next(parts).batch) == 5
    with pytest.raises(OSError, match="the line went dead"):
        next(parts)


def test_no_rows_at_all(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("")
    (tmp_path / "h.csv").write_text("driver_id,fare,riders,at")
    (tmp_path / "e.jsonl").write_text("\n\n")
    pq.write_table(pa.Table.from_pylist(rides(1)).slice(0, 0), tmp_path / "e.parquet")
    for name in ("e.csv", "h.csv", "e.jsonl", "e.parquet"):
        assert read(FileSource(tmp_path / name, Ride)) == ([], [], [])
    assert read(FrameSource(pd.DataFrame(rides(1)).head(0), Ride)) == ([], [], [])
    assert read(IterableSource([], Ride)) == ([], [], [])


def test_a_table_of_duckdb_is_read_in_the_order_of_its_rows(tmp_path: Path) -> None:
    """Many row groups, by several threads, some rows deleted; and on from where it was after more have come."""
    file = tmp_path / "shop.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE SCHEMA live")
        connection.execute(
            "CREATE TABLE live.rides AS SELECT 'd' || (i * 7919 % 1000)::text AS driver_id, i::double AS fare, 1 AS "
            "riders, TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_seconds(i * 7919 % 400000) AS at FROM range(400000) t(i)"
        )
        connection.execute("DELETE FROM live.rides WHERE fare % 3 = 0")
        connection.execute("CREATE VIEW recent AS SELECT * FROM live.rides")
    source = FileSource(file, Ride, table="live.rides")
    fares = np.concatenate([part.batch.values("fare") for part in batches(source, 50_000)])
    expected = [fare for fare in range(400_000) if fare % 3]
    assert fares.tolist() == expected
    (last,) = list(batches(source, 10, len(expected) - 4))
    assert last.batch.values("fare").tolist() == expected[-4:]
    with duckdb.connect(str(file)) as connection:
        connection.execute("INSERT INTO live.rides SELECT 'e', -1, 1, TIMESTAMPTZ '2027-01-01 00:00:00+00'")
    (more,) = list(batches(source, 10, len(expected)))
    assert more.batch.values("fare").tolist() == [-1.0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, r"has 2 tables: more, rides. Say which: table='...'."),
        ("ride", r"has no table 'ride'; did you mean 'rides'\? It has: more, rides."),
        ("seen", r"'seen' is a view, whose rows have no order of their own"),
        ("more", r"r.duckdb has no column 'driver_id'"),
    ],
)
def test_a_table_that_cannot_be_read_is_told(table: str | None, message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "r.duckdb", rides(3))
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE more AS SELECT 1 AS one")
        connection.execute("CREATE VIEW seen AS SELECT * FROM rides")
    with pytest.raises(DataError, match=message):
        read(FileSource(file, Ride, table=table))
    writing = duckdb.connect(str(file))
    with writing, pytest.raises(DataError, match=r"cannot be opened as a DuckDB file to read"):
        read(FileSource(file, Ride, table="rides"))
    (tmp_path / "no.duckdb").write_text("nothing")
    with pytest.raises(DataError, match=r"no.duckdb' cannot be opened as a DuckDB file to read"):
        read(FileSource(tmp_path / "no.duckdb", Ride, table="rides"))


def test_a_table_is_of_a_duckdb_file(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"table='rides' names a table of a DuckDB file, and this is csv"):
        FileSource(tmp_path / "r.csv", Ride, table="rides")
