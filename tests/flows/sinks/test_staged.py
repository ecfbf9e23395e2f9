"""Parquet and DuckDB have every row once, and only those of checkpoints that count, wherever a flow is killed."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.flows.sinks.simulated import Flow, alert, place, rows

from headrace.features.errors import DefinitionError
from headrace.features.sinks import DuckDBSink, ParquetSink, Sink
from headrace.flows.sinks import delivery, writer_of
from headrace.flows.snapshot import SnapshotError, pack
from headrace.stores.errors import SchemaMismatchError, StoreError

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 9)),
        st.tuples(st.just("checkpoint"), st.sampled_from(["", "", "flushed", "counted", "shown"])),
        st.tuples(st.just("kill"), st.none()),
    ),
    max_size=14,
)


def parquet_rows(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.rglob("*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


def table_rows(path: Path) -> list[dict[str, Any]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        names = ["number", "driver_id", "fare", "raw", "at"]
        found = connection.execute('SELECT number, driver_id, fare, raw, epoch_us("at") FROM alerts').fetchall()
        return [dict(zip(names, row, strict=True)) for row in found]


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return sorted(row["number"] for row in found)


@given(steps=STEPS)
def test_parquet_killed_anywhere(steps: list[tuple[str, Any]]) -> None:
    killed_anywhere("parquet", steps)


EVERY_KIND: list[tuple[str, Any]] = [
    *[("send", 3), ("kill", None), ("send", 2), ("checkpoint", "flushed"), ("send", 4), ("checkpoint", "counted")],
    *[("send", 1), ("checkpoint", ""), ("checkpoint", ""), ("send", 2), ("checkpoint", "shown"), ("send", 2)],
]


@settings(max_examples=max(2, settings().max_examples // 10))
@given(steps=STEPS)
@example(steps=EVERY_KIND)
def test_duckdb_killed_anywhere(steps: list[tuple[str, Any]]) -> None:
    killed_anywhere("duckdb", steps)


def killed_anywhere(kind: str, steps: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        sink: Sink = ParquetSink(folder / "rows") if kind == "parquet" else DuckDBSink(folder / "rows.duckdb", "alerts")

        def seen() -> list[int]:
            return numbers(parquet_rows(folder / "rows") if kind == "parquet" else table_rows(folder / "rows.duckdb"))

        flow = Flow(sink, folder / "data")
        for step, argument in steps:
            if step == "send":
                flow.send(argument)
            elif step == "checkpoint":
                flow.checkpoint(argument)
            else:
                flow.restart()
            if step != "send":
                assert seen() == list(range(flow.counted)), step
        flow.end()
        assert seen() == list(range(flow.sent))


def test_parquet_by_date_and_whole(tmp_path: Path) -> None:
    flow = Flow(ParquetSink(tmp_path / "rows"), tmp_path)
    flow.send(20)
    flow.end()
    files = sorted((tmp_path / "rows").rglob("*.parquet"))
    assert [file.parent.name for file in files] == ["date=2025-12-31", "date=2026-01-01"]
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT date::VARCHAR, count(*) FROM read_parquet('{tmp_path}/rows/*/*.parquet') GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert found == [("2025-12-31", 6), ("2026-01-01", 14)]  # a row each half second, from three seconds before
    got = {row["number"]: row for row in parquet_rows(tmp_path / "rows")}
    for number in range(20):
        sent = alert(number)
        assert {**got[number], "at": round(got[number]["at"].timestamp() * 1e6)} == sent


def test_the_table_has_what_was_sent(tmp_path: Path) -> None:
    flow = Flow(DuckDBSink(tmp_path / "a.duckdb", "alerts"), tmp_path)
    flow.send(20)
    flow.end()
    assert sorted(table_rows(tmp_path / "a.duckdb"), key=lambda row: int(row["number"])) == [
        alert(i) for i in range(20)
    ]


@pytest.mark.parametrize("kind", ["parquet", "duckdb"])
def test_a_new_data_folder_adds_to_what_is_there(kind: str, tmp_path: Path) -> None:
    sink: Sink = ParquetSink(tmp_path / "rows") if kind == "parquet" else DuckDBSink(tmp_path / "a.duckdb", "alerts")
    for again in range(2):
        flow = Flow(sink, tmp_path / f"data-{again}")
        flow.send(5)
        flow.end()
    found = parquet_rows(tmp_path / "rows") if kind == "parquet" else table_rows(tmp_path / "a.duckdb")
    assert numbers(found) == sorted([*range(5), *range(5)])


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
        connection.execute('CREATE TABLE alerts (number INTEGER, driver_id VARCHAR, fare DOUBLE, "at" TIMESTAMPTZ)')
    with pytest.raises(SchemaMismatchError, match=r"number \(BIGINT, there INTEGER\), raw \(BLOB, there missing\)"):
        Flow(DuckDBSink(tmp_path / "a.duckdb", "alerts"), tmp_path)


def test_a_table_may_have_more_columns(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
        connection.execute(
            'CREATE TABLE alerts (seen BOOLEAN, "at" TIMESTAMPTZ, raw BLOB, fare DOUBLE, driver_id VARCHAR, '
            "number BIGINT)"
        )
    flow = Flow(DuckDBSink(tmp_path / "a.duckdb", "alerts"), tmp_path)
    flow.send(3)
    flow.end()
    assert table_rows(tmp_path / "a.duckdb") == [alert(i) for i in range(3)]


def test_a_file_that_somebody_reads_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.001)
    flow = Flow(DuckDBSink(tmp_path / "a.duckdb", "alerts"), tmp_path)
    flow.send(3)
    reader = duckdb.connect(str(tmp_path / "a.duckdb"), read_only=True)
    thread = threading.Thread(target=flow.end)
    with caplog.at_level(logging.WARNING, "headrace.sinks"):
        thread.start()
        while not caplog.records:
            time.sleep(0.001)
        reader.close()
        thread.join()
    assert numbers(table_rows(tmp_path / "a.duckdb")) == [0, 1, 2]
    assert "takes rows again" in caplog.records[-1].getMessage()


def test_no_database(tmp_path: Path) -> None:
    (tmp_path / "a.duckdb").write_text("a shopping list, which is long enough to be read as a header " * 100)
    with pytest.raises(StoreError, match=r"'pickups\.alerts': rows cannot be written to the table 'alerts'"):
        Flow(DuckDBSink(tmp_path / "a.duckdb", "alerts"), tmp_path)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("")
    with pytest.raises(StoreError, match=r"'pickups\.alerts': the folder .*rows cannot be written"):
        Flow(ParquetSink(tmp_path / "rows"), tmp_path)


def test_parts_do_not_touch_each_others_staged_rows(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "rows", by=None)
    first, second = (writer_of(sink, place(tmp_path, part=part)) for part in ("rides-0000", "rides-0001"))
    first.open(None)
    first.write(rows(0, 3))
    state = first.flush()
    second.open(None)  # clears what it finds of its own
    second.write(rows(3, 5))
    second.flush()
    second.committed()
    first.committed()
    assert state
    assert numbers(parquet_rows(tmp_path / "rows")) == [0, 1, 2, 3, 4]


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    writer = writer_of(ParquetSink(tmp_path / "rows"), place(tmp_path))
    with pytest.raises(SnapshotError, match=r"'pickups\.alerts' was not made by its sink"):
        writer.open(pack({"node": "join"}, {}))
    with pytest.raises(SnapshotError):
        writer.open(b"torn" + b"\0" * 60)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ParquetSink("s3://bucket/rows"), "only places of the local disk"),
        (lambda: ParquetSink("rows", by="hour"), "Choose by='date' or by=None"),
        (lambda: DuckDBSink("a.duckdb", "drop table"), "is no table name"),
        (lambda: DuckDBSink("a.duckdb", "_headrace_sinks"), "which is ours"),
        (lambda: ParquetSink("rows", name="a/b"), "expected letters, digits"),
    ],
)
def test_definitions_that_are_wrong(make: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        make()


def test_parquet_rows_that_another_machine_has_are_missed_aloud(tmp_path: Path) -> None:
    """A checkpoint counts rows staged on a machine that is gone: silence would lose them."""
    folder, elsewhere = tmp_path / "rows", tmp_path / "lost"
    flow = Flow(ParquetSink(folder), tmp_path / "data")
    flow.send(3)
    state = flow.writer.flush()
    folder.rename(elsewhere)
    another = writer_of(ParquetSink(folder), place(tmp_path / "data"))
    with pytest.raises(StoreError, match=r"counts 1 file\(s\) that are staged nowhere .* of this machine"):
        another.open(state)
    elsewhere.rename(folder)
    another.open(state)
    assert numbers(parquet_rows(folder)) == [0, 1, 2]


def test_parquet_files_may_be_taken_away_once_they_are_shown(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    flow = Flow(ParquetSink(folder), tmp_path / "data")
    flow.send(3)
    flow.checkpoint()
    for file in folder.rglob("*.parquet"):
        file.unlink()
    flow.restart()
    flow.send(2)
    flow.end()
    assert numbers(parquet_rows(folder)) == [3, 4]
