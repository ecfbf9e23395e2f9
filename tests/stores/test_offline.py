"""The log: what was committed is there, all of it and nothing else, for DuckDB and for any Parquet reader."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.stores.logs import DAY, instants, private_files, visits

from headrace.features import Entity, FeatureView
from headrace.features.errors import DataError
from headrace.stores.deadletters import dead_letter_table, read_dead_letters
from headrace.stores.errors import LockedError, MissingStoreError, OutOfOrderError, SchemaMismatchError
from headrace.stores.layout import arrow_schema, row_layout
from headrace.stores.offline import OfflineLog
from headrace.stores.online import StoredRow
from headrace.stores.testing import AT, FULL, NULLS, VISITS, EveryType, Visit, Visits, row, rows_of

KEY = {"user": "ü", "shop": 2**53 + 1, "token": b"\x00"}


def test_every_type_comes_back_and_null_columns_keep_their_type(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    nulls = rows_of(EveryType, [(KEY, StoredRow(NULLS, AT, AT))])
    full = rows_of(EveryType, [(KEY, StoredRow(FULL, AT + 1, AT))])
    log.append(EveryType, nulls)
    log.commit()
    log.append(EveryType, full)
    log.tail(EveryType, rows_of(EveryType, [(KEY, StoredRow(FULL, AT + 2, AT))]))
    log.commit()
    schema = arrow_schema(row_layout(EveryType))
    for file in log.files(EveryType):
        assert pq.read_schema(file).remove_metadata().equals(schema)
    got = log.scan(EveryType)
    assert got.schema.names == schema.names
    assert got.schema.types == schema.types
    assert got.slice(0, 1).cast(schema).equals(nulls)
    assert got.slice(1, 1).cast(schema).equals(full)
    assert log.scan(EveryType, [KEY], from_us=AT, tail=False).cast(schema).equals(full)
    assert log.scan(EveryType, [KEY | {"shop": 2**53}]).num_rows == 0


def test_rows_count_from_the_commit_on(tmp_path: Path) -> None:
    log, reader = OfflineLog(tmp_path), OfflineLog(tmp_path)
    with pytest.raises(MissingStoreError, match="has nothing of view 'visits'; it has no view"):
        reader.scan(Visits)
    log.append(Visits, visits(1, 2))
    log.append(Visits, visits(2, 3))
    assert reader.views() == []
    assert log.commit(settled_us={"visits": AT + 4, "other": 0}).sequence == 1
    assert instants(reader) == [1, 2, 2, 3]
    assert reader.views() == ["visits"]
    assert reader.settled_us(Visits) == AT + 4
    log.append(Visits, visits(7))
    assert instants(reader) == [1, 2, 2, 3]
    log.close()
    again = OfflineLog(tmp_path)
    again.append(Visits, visits(8))
    again.commit(settled_us={"visits": AT})
    assert instants(reader) == [1, 2, 2, 3, 8]
    assert reader.settled_us(Visits) == AT + 4


def test_the_tail_lives_for_one_commit(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path, keep_s=0)
    log.append(Visits, visits(1))
    log.tail(Visits, visits(5, 6))
    log.tail(Visits, visits(5, user="b"))
    log.commit()
    assert instants(log) == [1, 5, 5, 6]
    assert instants(log, tail=False) == [1]
    log.append(Visits, visits(4))
    log.tail(Visits, visits(9))
    assert instants(log) == [1, 5, 5, 6]
    log.commit()
    assert instants(log) == [1, 4, 9]
    log.commit()
    assert instants(log) == [1, 4]
    assert list((tmp_path / "_headrace" / "tail").iterdir()) == []


def test_a_tail_alone_makes_a_view_known(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    log.tail(Visits, visits())
    log.commit()
    assert instants(log) == []
    assert log.scan(Visits).schema.types == arrow_schema(row_layout(Visits)).types


def test_a_tail_among_settled_rows_is_refused(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    log.append(Visits, visits(5))
    log.tail(Visits, visits(5))
    with pytest.raises(OutOfOrderError, match=r"a provisional row at \S+000005Z is not after"):
        log.commit()


def test_bounds_are_open_at_the_start_and_closed_at_the_end(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    log.append(Visits, visits(1, 2, 3, 4))
    log.commit()
    assert instants(log, from_us=AT + 1, to_us=AT + 3) == [2, 3]
    assert instants(log, from_us=AT + 4) == []
    assert instants(log, to_us=AT) == []
    assert instants(log, from_us=-(2**63), to_us=2**63 - 1) == [1, 2, 3, 4]


@pytest.mark.parametrize("many", [3, 200])
def test_some_entities(tmp_path: Path, many: int) -> None:
    log = OfflineLog(tmp_path)
    rows = [({"user": f"u{i}"}, row(at, visits=at)) for at in (1, 2) for i in range(300)]
    log.append(Visits, rows_of(Visits, rows))
    log.commit()
    asked = [{"user": f"u{i}"} for i in range(many)] + [{"user": "nobody"}]
    found = log.scan(Visits, asked).to_pydict()
    assert found["user"] == sorted(f"u{i}" for i in range(many)) * 2
    assert log.scan(Visits, []).num_rows == 0
    with pytest.raises(DataError, match="key 'user' is 1"):
        log.scan(Visits, [{"user": 1}])
    with pytest.raises(DataError, match="no column 'visit'; did you mean 'visits'"):
        log.scan(Visits, columns=["visit"])


def test_latest_is_the_newest_row_of_each_entity(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    rows = [({"user": user}, row(at, visits=at)) for at, users in ((1, "ab"), (2, "ab"), (3, "a")) for user in users]
    log.append(Visits, rows_of(Visits, rows))
    log.tail(Visits, visits(9, user="b"))
    log.commit()

    def newest(**options: Any) -> dict[str, int]:
        found = log.latest(Visits, **options).to_pydict()
        return dict(zip(found["user"], found["visits"], strict=True))

    assert newest() == {"a": 3, "b": 9}
    assert newest(to_us=AT + 8) == newest(tail=False)
    assert newest(to_us=AT + 1) == {"a": 1, "b": 1}
    assert newest(to_us=AT) == {}


def test_dates_are_of_utc_and_plain_parquet_readers_see_them(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    log.append(Visits, visits(-AT - 1, -AT, -1, 0, DAY - 1, DAY, 400 * DAY))
    log.tail(Visits, visits(500 * DAY))
    log.commit()
    log.append(Visits, visits(401 * DAY))  # staged, and not to be seen
    found = duckdb.sql(
        f"SELECT date::VARCHAR, count(*), min(event_timestamp = date::TIMESTAMP AT TIME ZONE 'UTC') "
        f"FROM read_parquet('{tmp_path}/**/*.parquet') GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [(date, n) for date, n, _ in found] == [
        ("1969-12-31", 1),
        ("1970-01-01", 1),
        ("2025-12-31", 1),
        ("2026-01-01", 2),
        ("2026-01-02", 1),
        ("2027-02-05", 1),
    ]
    assert [file.name for file in log.files(Visits)][3:5] == [
        "000000.000000-235959.999999-2.parquet",
        "000000.000000-000000.000000-1.parquet",
    ]
    assert instants(log, tail=False) == [-AT - 1, -AT, -1, 0, DAY - 1, DAY, 400 * DAY]


def test_settled_rows_are_final(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    log.append(Visits, visits(3, 1, 2))  # a table is put in order
    log.commit()
    with pytest.raises(OutOfOrderError, match=r"a row at .*000003Z comes after the log has settled .*000003Z"):
        log.append(Visits, visits(3))
    log.close()
    log.append(Visits, visits(9))
    with pytest.raises(OutOfOrderError, match=r"a row at .*000008Z was appended after one at .*000009Z"):
        log.append(Visits, visits(8))


def test_rows_of_another_definition_are_refused(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    log.append(Visits, visits(1))
    log.commit()

    class Other(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits"):
        visits = Visit.count(last="2h")
        total = Visit.amount.sum(last="1h")

    said = "another definition made: 'visits' is computed in another way. "
    for refused in (lambda: log.scan(Other), lambda: log.append(Other, visits(2)), lambda: log.files(Other)):
        with pytest.raises(SchemaMismatchError, match=said):
            refused()
    log.close()

    class Same(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits", ttl="1d", log_every="1m"):
        total = Visit.amount.sum(last="1h")
        visits = Visit.count(last="1h")

    log.append(Same, rows_of(Same, [({"user": "a"}, row(2, visits=2))]))
    log.commit()
    assert instants(log) == [1, 2]
    assert log.scan(Same).column_names[-2:] == ["total", "visits"]


def test_small_files_are_merged_and_rows_stay(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path, keep_s=0)
    for at in range(60):
        log.append(Visits, visits(at))
        log.commit()
        assert len(log.files(Visits)) <= 9
    assert instants(log) == list(range(60))
    on_disk = sorted((tmp_path / "view=visits").glob("*/*"))
    assert on_disk == sorted(log.files(Visits))
    assert private_files(tmp_path) <= log.manifest().parts[""].paths()
    assert len(list((tmp_path / "_headrace" / "commits").iterdir())) == 3


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    one, two = OfflineLog(tmp_path), OfflineLog(tmp_path)
    one.claim()
    with pytest.raises(LockedError, match="Another flow writes the log at"):
        two.append(Visits, visits(2))
    with pytest.raises(LockedError):
        two.claim()
    one.append(Visits, visits(1))
    one.close()
    two.append(Visits, visits(2))
    two.commit()
    assert instants(one) == [2]
    two.close()


def test_readers_see_whole_commits_while_files_are_merged_away(tmp_path: Path) -> None:
    log, wrong = OfflineLog(tmp_path), []
    log.append(Visits, visits(0, 1))
    log.commit()
    done = threading.Event()

    def look() -> None:
        reader = OfflineLog(tmp_path)
        while not done.is_set():
            seen = instants(reader)
            if seen != list(range(len(seen))) or len(seen) % 2:
                wrong.append(seen)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        for at in range(2, 120, 2):
            log.append(Visits, visits(at, at + 1))
            log.commit()
    finally:
        done.set()
        thread.join()
    assert wrong == []


def test_dead_letters_are_committed_with_the_log(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    late = {"reason": "late", "detail": "5 s", "source": "rides", "partition": 1, "offset": 2**40, "payload": "{}"}
    log.dead_letters(dead_letter_table([late | {"event_time_us": AT + 1}, late | {"event_time_us": None}]))
    assert read_dead_letters(log).num_rows == 0
    log.commit()
    log.dead_letters(dead_letter_table([]))
    log.dead_letters(dead_letter_table([late | {"event_time_us": AT, "reason": "ahead", "topic": "rides-eu"}]))
    log.commit()
    found = read_dead_letters(log).to_pylist()
    assert [each["reason"] for each in found] == ["late", "late", "ahead"]
    assert [each["topic"] for each in found] == [None, None, "rides-eu"]
    assert found[0]["event_time"] == datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    assert found[1] == late | {"event_time": None, "topic": None}
    assert pa.types.is_timestamp(read_dead_letters(log).schema.field("event_time").type)
