"""What a client answered is what its feature log says, for every type; what the log cannot take spoils no answer."""

import logging
import math
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.features import FeatureService, Request, derived
from headrace.features.errors import DataError
from headrace.serving import Answer, Client, FeatureLog, FeatureTable, read_feature_log
from headrace.serving.sampling import sampled
from headrace.stores.errors import MissingStoreError, SchemaMismatchError, StoreError
from headrace.stores.memory import MemoryStore
from headrace.stores.online import StoredRow
from headrace.stores.rows import plain_value
from headrace.stores.testing import AT, FULL, NULLS, EveryType, Visits, row, rows_of

KEYS = [{"user": "a", "shop": 1, "token": b"t"}, {"user": "b", "shop": -(2**63), "token": b""}]
NOBODY = {"user": "☃", "shop": 0, "token": b"\xff"}

EVERY = FeatureService(
    "every",
    [EveryType, Visits["total"]],
    derived={
        "scaled": derived(EveryType["total"] * Request("factor", float), default=-1.0),
        "named": derived(Request("name", str), default="nobody"),
        "when": derived(Request("moment", datetime)),
    },
    version=2,
)
TOTALS = FeatureService("totals", [Visits])

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False)
TEXT = st.text(max_size=5)
INSTANTS = st.integers(AT - 10**15, AT + 10**15)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


VALUES = st.fixed_dictionaries(
    {
        "visits": INT64,
        "total": FLOATS,
        "most": maybe(INT64),
        "city": maybe(TEXT),
        "cities": maybe(st.lists(maybe(TEXT), max_size=3)),
        "paid": maybe(st.booleans()),
        "raw": maybe(st.binary(max_size=4)),
        "raws": maybe(st.lists(maybe(st.binary(max_size=4)), max_size=2)),
        "seen": maybe(INSTANTS),
        "seens": maybe(st.lists(maybe(INSTANTS), max_size=2)),
        "by_city": maybe(st.dictionaries(TEXT, INT64, max_size=3)),
        "by_shop": maybe(st.dictionaries(INT64, maybe(FLOATS), max_size=3)),
        "by_paid": maybe(st.dictionaries(st.booleans(), maybe(st.lists(maybe(INSTANTS), max_size=2)), max_size=2)),
        "fading": maybe(FLOATS),
    }
)
REQUESTS = st.fixed_dictionaries(
    {
        "factor": maybe(st.floats(allow_nan=False)),
        "name": maybe(TEXT),
        "moment": maybe(st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))),
    }
)


def store_of(*rows: dict[str, Any]) -> MemoryStore:
    store = MemoryStore()
    pairs = [(KEYS[at], StoredRow(NULLS | each, AT + at, AT)) for at, each in enumerate(rows)]
    store.write(EveryType, rows_of(EveryType, pairs))
    store.write(Visits, rows_of(Visits, [({"user": "a"}, row(7, visits=3, total=1.5))]))
    store.set_clock(AT + 10, "stream")
    return store


def columns(keys: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [key[name] for key in keys] for name in keys[0]}


def told(log: Any, name: str, at: int, dtypes: dict[str, str]) -> Any:
    """A logged value as the client gave it."""
    column = log.column("features").combine_chunks().field(name)
    return plain_value(column[at].as_py(), dtypes[name])


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(*each) for each in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def check(log: Any, tables: list[FeatureTable]) -> None:
    """Every row of the tables is in the log, in order, with values, statuses and event times."""
    at = 0
    for table in tables:
        for place in range(len(table)):
            assert log.column("at")[at].as_py() == table.at
            assert log.column("keys")[at].as_py() == {name: its[place] for name, its in table.entities.items()}
            statuses, times = log.column("statuses")[at].as_py(), log.column("event_times")[at].as_py()
            for column, name in zip(table.columns, table.names, strict=True):
                got = told(log, name, at, {each.name: each.dtype for each in table.columns})
                assert same(got, table[name][place]), (name, got, table[name][place])
                assert statuses[name] == table.status(name)[place].value
                view = table.origins[column.origin].view or "on demand"
                us = table.event_times_us(name)[place]
                expected = None if us is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
                assert times[view] == expected
            at += 1
    assert at == log.num_rows


@given(st.lists(VALUES, min_size=1, max_size=2), st.lists(REQUESTS, min_size=1, max_size=3), st.integers(1, 3))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_back_is_what_was_answered(
    tmp_path: Path, rows: list[dict[str, Any]], requests: list[dict[str, Any]], entities: int
) -> None:
    place = tmp_path / uuid.uuid4().hex
    asked = columns([*KEYS, NOBODY][:entities])
    with FeatureLog(place) as log, Client(store_of(*rows), watchers=[log]) as client:
        tables = [
            client.features(EVERY, asked, request={name: [each[name]] * entities for name in each}, trace=f"t{number}")
            for number, each in enumerate(requests)
        ]
    back = read_feature_log(place, EVERY)
    check(back, tables)
    assert log.kept == back.num_rows
    assert log.dropped == 0
    assert back.column("trace").to_pylist() == [
        f"t{number}" for number in range(len(requests)) for _ in range(entities)
    ]
    given = [each for each in requests for _ in range(entities)]
    logged = back.column("request").to_pylist()
    assert all(same(a[name], b[name]) for a, b in zip(logged, given, strict=True) for name in b)
    assert set(back.column("service").to_pylist()) == {"every"}
    assert set(back.column("version").to_pylist()) == {2}
    assert set(back.column("fingerprint").to_pylist()) == {EVERY.fingerprint()}


def test_nan_is_kept_apart_from_null(tmp_path: Path) -> None:
    store = store_of({"total": math.nan})
    with FeatureLog(tmp_path) as log, Client(store, watchers=[log]) as client:
        client.features([EveryType["total"], EveryType["fading"]], [KEYS[0]])
    (found,) = read_feature_log(tmp_path).column("features").to_pylist()
    assert math.isnan(found["total"])
    assert found["fading"] is None


class Gone(MemoryStore):
    """`Visits` has rows of another definition."""

    def look_up(self, asks: Any) -> Any:
        if any(ask.layout.view == "visits" for ask in asks):
            raise SchemaMismatchError("Another definition.")
        return super().look_up(asks)


def test_a_partial_answer_is_kept_with_what_failed(tmp_path: Path) -> None:
    store = Gone()
    store.write(EveryType, rows_of(EveryType, [(KEYS[0], StoredRow(FULL, AT, AT))]))
    store.set_clock(AT, "stream")
    with FeatureLog(tmp_path) as log, Client(store, on_failure="partial", watchers=[log]) as client:
        table = client.features([EveryType["city"], Visits], [KEYS[0]])
    back = read_feature_log(tmp_path)
    check(back, [table])
    assert back.column("statuses")[0].as_py() == {"city": "PRESENT", "visits": "FAILED", "total": "FAILED"}


def served(place: Any, answers: int, **options: Any) -> tuple[FeatureLog, Client]:
    log = FeatureLog(place, **options)
    client = Client(store_of({}), [TOTALS], watchers=[log])
    for _ in range(answers):
        client.features("totals", {"user": ["a", "b"]})
    return log, client


def files_of(place: Path) -> list[Path]:
    return sorted(place.rglob("*.parquet"))


def test_a_file_is_closed_when_it_is_full(tmp_path: Path) -> None:
    log, _ = served(tmp_path, 2_000, rotate="1h", rotate_rows=1_000)
    log.stop()
    files = files_of(tmp_path)
    assert 3 <= len(files) <= 5
    assert sum(pq.read_metadata(each).num_rows for each in files) == log.kept == 4_000
    assert all(each.parent == tmp_path / "totals" / f"v1-{TOTALS.fingerprint()[:12]}" for each in files)


def test_a_file_is_closed_when_it_is_old(tmp_path: Path) -> None:
    log, _ = served(tmp_path, 1, rotate="10ms")
    waited = threading.Event()
    for _ in range(600):
        if log.kept == 2:
            break
        waited.wait(0.05)
    assert read_feature_log(tmp_path, "totals").num_rows == 2
    log.stop()


def test_flush_writes_what_was_answered_before(tmp_path: Path) -> None:
    log, client = served(tmp_path, 3, rotate="1h")
    assert log.flush()
    assert read_feature_log(tmp_path, TOTALS).num_rows == 6
    client.features(TOTALS, {"user": ["c"]})
    log.stop()
    assert read_feature_log(tmp_path, TOTALS).num_rows == 7
    log.stop()
    client.features(TOTALS, {"user": ["d"]})  # an answer all the same
    assert log.dropped == 1


def test_answers_are_read_by_time_and_in_order(tmp_path: Path) -> None:
    logs = [FeatureLog(tmp_path) for _ in range(3)]  # as three server processes
    clients = [Client(store_of({}), watchers=[log]) for log in logs]
    for number in range(9):
        clients[number % 3].features(TOTALS, {"user": ["a"]}, trace=str(number))
        if number == 4:
            for log in logs:
                assert log.flush()
    for log in logs:
        log.stop()
    assert len(files_of(tmp_path)) == 6
    back = read_feature_log(tmp_path, "totals")
    assert back.column("trace").to_pylist() == [str(number) for number in range(9)]
    times = back.column("served_at").to_pylist()
    part = read_feature_log(tmp_path, "totals", since=times[2], until=times[6])
    expected = [str(at) for at, time in enumerate(times) if times[2] < time <= times[6]]
    assert part.column("trace").to_pylist() == expected
    assert read_feature_log(tmp_path, TOTALS, until=times[0] - timedelta(days=1)).schema == back.schema


def test_definitions_never_mix(tmp_path: Path) -> None:
    second = FeatureService("totals", [Visits["total"]], version=2)
    with FeatureLog(tmp_path) as log, Client(store_of({}), watchers=[log]) as client:
        client.features(TOTALS, {"user": ["a"]})
        client.features(second, {"user": ["a", "b"]})
        client.features([Visits["total"]], {"user": ["c"]})
        client.features([Visits], {"user": ["c"]})
    assert read_feature_log(tmp_path, TOTALS).column("features").type.num_fields == 2
    assert read_feature_log(tmp_path, second).num_rows == read_feature_log(tmp_path, "totals", version=2).num_rows == 2
    mark = second.fingerprint()
    assert read_feature_log(tmp_path, "totals", fingerprint=mark).num_rows == 2
    with pytest.raises(
        DataError, match=r"service 'totals' by several definitions.*version 1, fingerprint \w{12} \(20.*version 2"
    ):
        read_feature_log(tmp_path, "totals")
    with pytest.raises(DataError, match="lists of features by several definitions"):
        read_feature_log(tmp_path)
    with pytest.raises(
        MissingStoreError, match=r"no answers of service 'total'; did you mean 'totals'\? .* services: totals\."
    ):
        read_feature_log(tmp_path, "total")
    with pytest.raises(MissingStoreError, match="with the version and fingerprint asked for"):
        read_feature_log(tmp_path, "totals", version=3)
    with pytest.raises(DataError, match="says its version"):
        read_feature_log(tmp_path, second, version=1)


def test_duckdb_reads_the_log_by_a_pattern(tmp_path: Path) -> None:
    log, _ = served(tmp_path, 5)
    log.stop()
    found = duckdb.sql(
        "SELECT keys.user, features.total, statuses.total, event_times.visits FROM "
        f"read_parquet('{tmp_path}/totals/*/*.parquet') ORDER BY served_at, keys.user LIMIT 2"
    ).fetchall()
    assert [each[:3] for each in found] == [("a", 1.5, "PRESENT"), ("b", 0.0, "NOT_FOUND")]
    assert [each[3] is None for each in found] == [False, True]
    assert found[0][3].timestamp() * 1e6 == AT + 7


@pytest.fixture
def bucket() -> Iterator[str]:
    name = f"memory://served-{uuid.uuid4().hex}"
    yield name
    fs = fsspec.filesystem("memory")
    if fs.exists(name):
        fs.rm(name, recursive=True)


def test_the_log_on_an_object_store(bucket: str) -> None:
    log, _ = served(f"{bucket}/log", 5)
    log.stop()
    assert read_feature_log(f"{bucket}/log", "totals").num_rows == 10
    with pytest.raises(MissingStoreError):
        read_feature_log(f"{bucket}/log", "other")
    with pytest.raises(MissingStoreError):
        read_feature_log(f"{bucket}/nothing")


def test_a_sample_has_whole_entities_and_the_same_ones_everywhere(tmp_path: Path) -> None:
    users = [f"u{number}" for number in range(400)]
    expected = [user for user in users if sampled({"user": user}, 0.25)]
    assert 60 < len(expected) < 140
    logs = [FeatureLog(tmp_path, sample=0.25) for _ in range(2)]
    for log in logs:
        with log, Client(store_of({}), watchers=[log]) as client:
            client.features(TOTALS, {"user": users})
            for user in users[:50]:
                client.features(TOTALS, {"user": [user]})
    found = [each["user"] for each in read_feature_log(tmp_path, TOTALS).column("keys").to_pylist()]
    assert sorted(found) == sorted(2 * [*expected, *(user for user in expected if user in users[:50])])
    assert sum(log.dropped for log in logs) == 0


def test_the_sample_is_as_documented() -> None:
    # Of coreutils: printf 'shop=7\x1ftoken=00ff\x1fuser=a' | b2sum -l 64
    entity = {"user": "a", "token": b"\x00\xff", "shop": 7}
    share = 0x187D89D1C68619EE / 2**64
    assert (sampled(entity, share - 1e-6), sampled(entity, share + 1e-6)) == (False, True)


def test_a_share_of_requests(tmp_path: Path) -> None:
    log, _ = served(tmp_path, 400, sample=0.5, by="request")
    log.stop()
    assert 2 * 120 < log.kept < 2 * 280
    assert read_feature_log(tmp_path, TOTALS).num_rows == log.kept


class Stuck(FeatureLog):
    """A log whose thread does not get to work until `go`."""

    go: threading.Event

    def _take(self) -> None:
        self.go.wait(60)
        super()._take()


def test_a_full_queue_drops_and_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Stuck.go = threading.Event()
    log = Stuck(tmp_path, queue=40)
    with Client(store_of({}), watchers=[log]) as client:
        tables = [client.features(TOTALS, {"user": ["a"]}) for _ in range(50)]
    assert [table["total"] for table in tables] == [(1.5,)] * 50
    assert log.dropped == 30
    Stuck.go.set()
    with caplog.at_level(logging.WARNING, "headrace.serving"):
        log.stop()
    assert read_feature_log(tmp_path, TOTALS).num_rows == log.kept == 20
    assert "has dropped 30 rows, 30 more than when this was told last" in caplog.text
    assert client.watcher_failures == 0


def test_a_place_that_cannot_be_written_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "log"
    place.write_text("in the way")
    with caplog.at_level(logging.WARNING, "headrace.serving"):
        log, client = served(place, 1)
        assert log.flush()
        assert (log.kept, log.dropped) == (0, 0)
        assert "cannot be written" in caplog.text
        assert "2 rows wait" in caplog.text
        place.unlink()
        client.features(TOTALS, {"user": ["c"]})
        assert log.flush()
        assert (log.kept, log.dropped) == (3, 0)
        log.stop()
    assert read_feature_log(place, TOTALS).num_rows == 3


def test_what_waits_for_a_place_is_bounded_and_given_up_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "log"
    place.write_text("in the way")
    log, client = served(place, 0, rotate_rows=10)
    for _ in range(30):
        client.features(TOTALS, {"user": ["a", "b", "c"]})
        assert log.flush()
    assert log.dropped == 51  # of files of three rows, 39 rows are what fits into four times ten
    log.stop()
    assert (log.kept, log.dropped) == (0, 90)
    assert "has dropped 90 rows" in caplog.text


class Kept:
    """Keeps an answer."""

    answer: Answer

    def answered(self, answer: Answer) -> None:
        self.answer = answer

    def failed(self, shown: str, error: Exception, seconds: float, trace: str | None) -> None:
        raise error

    def retried(self) -> None:
        raise AssertionError


def test_an_answer_that_cannot_be_kept_takes_no_other_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, client = served(tmp_path, 2)
    noted = Kept()
    with Client(store_of({}), watchers=[noted]) as other:
        table = other.features(TOTALS, {"user": ["d"]})
    table.entities = {"user": ["half of a pair: \ud800"]}
    log.answered(noted.answer)
    client.features(TOTALS, {"user": ["c"]})
    log.stop()
    assert (log.kept, log.dropped) == (5, 1)
    assert "cannot keep an answer of Service 'totals' version 1" in caplog.text


def test_lists_of_features_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.serving.log_writing._MOST_LISTS", 2)
    log, client = served(tmp_path, 1)
    for asked in ([Visits["total"]], [Visits["visits"]], [Visits["visits", "total"]], [Visits["total"]]):
        client.features(asked, {"user": ["a"]})
        assert log.flush()
    client.features(TOTALS, {"user": ["a"]})
    log.stop()
    assert (log.kept, log.dropped) == (2 + 3 + 1, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sample": 0.0}, "sample is 0.0, expected a share above 0"),
        ({"sample": 1.5}, "sample is 1.5"),
        ({"by": "user"}, "by is 'user', expected 'entity' or 'request'"),
        ({"rotate_rows": 0}, "rotate_rows is 0"),
        ({"queue": 0}, "queue is 0"),
        ({"rotate": 60}, "whose unit would be a guess"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FeatureLog(tmp_path, **options)


def test_a_url_that_nothing_reads() -> None:
    with pytest.raises(StoreError, match="Cannot reach nowhere://bucket"):
        FeatureLog("nowhere://bucket")


SERVER = """
import sys
from tests.serving.test_feature_log import served, TOTALS
log, client = served(sys.argv[1], 1, rotate="5ms", rotate_rows=50)
print("up", flush=True)
while True:
    client.features(TOTALS, {"user": ["a", "b", "c"]})
"""


def test_a_killed_process_leaves_whole_files_only(tmp_path: Path) -> None:
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            before = len(files_of(tmp_path))
            waited = threading.Event()
            for _ in range(1_000):
                if len(files_of(tmp_path)) > before + 3:
                    break
                waited.wait(0.02)
            os.kill(process.pid, signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        rows = read_feature_log(tmp_path, TOTALS)
        assert rows.num_rows == sum(pq.read_table(each).num_rows for each in files_of(tmp_path)) > 0
        times = rows.column("served_at").to_pylist()
        assert times == sorted(times)


def test_a_process_that_ends_forgets_nothing(tmp_path: Path) -> None:
    ending = SERVER.partition("while")[0]
    subprocess.run(
        [sys.executable, "-c", ending, str(tmp_path)], check=True, cwd=Path(__file__).parents[2], capture_output=True
    )
    assert read_feature_log(tmp_path, TOTALS).num_rows == 2
