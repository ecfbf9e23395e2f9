"""Rows that are pushed are what lookups then give, or nothing of them is written and the error names column and row."""

import asyncio
import base64
import json
import math
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.http.asgi import Answered, ask

from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource, Lifetime, derived
from headrace.features.errors import DataError
from headrace.serving import AsyncClient
from headrace.serving.http import lookup_app
from headrace.serving.http.problems import Problem
from headrace.serving.http.pushed_values import Unfit, Writing, typed_value
from headrace.serving.http.pushing import Publisher, Pushing
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.errors import UnreachableError
from headrace.stores.layout import row_layout
from headrace.stores.memory import MemoryStore
from headrace.stores.online import StoredRow
from headrace.stores.testing import AT, FULL, NULLS, EveryType, Visits, row, rows_of

NOW = AT / 1e6 + 3600
AT_TEXT = "2026-01-01T00:00:00Z"


class Ride(Event):
    driver_id: str
    fare: float
    at: EventTime


class Drivers(FeatureView, source=KafkaSource("rides", Ride), entity=Entity("driver", key="driver_id"), ttl="1h"):
    rides = Ride.count(last="1h")
    fading = Ride.fare.decayed_sum("1h", over=Lifetime())
    double = derived(Ride.fare.decayed_sum("2h", over=Lifetime()) * 2)


VIEWS = [Visits, EveryType, Drivers]


def server(store: Any, publishers: dict[str, Publisher] | None = None, **options: Any) -> Any:
    pushes = Pushing(store, VIEWS, publishers, now=lambda: NOW, **options)
    return lookup_app(AsyncClient(store or MemoryStore(), VIEWS), pushes=pushes)


def push(app: Any, name: str, df: Any, **more: Any) -> Answered:
    return ask(app, "POST", "/push", {"push_source_name": name, "df": df, **more})


def visits(**columns: Any) -> dict[str, Any]:
    return {"user": ["a"], "event_timestamp": [AT_TEXT], "visits": [3], "total": [1.5]} | columns


def read(store: MemoryStore, view: Any, **key: Any) -> StoredRow | None:
    (found,) = store.read(view, [key])
    return found


def test_a_pushed_row_is_what_a_lookup_gives() -> None:
    store = MemoryStore()
    app = server(store)
    answered = push(
        app, "visits", visits(user=["a", "b"], event_timestamp=[AT_TEXT] * 2, visits=[3, 4], total=[1, None])
    )
    assert (answered.status, answered.json) == (200, {"written": 2, "older": 0})
    found = ask(app, "POST", "/get-online-features", {"features": ["visits"], "entities": {"user": ["b", "a"]}}).json
    assert [each["values"] for each in found["results"]] == [["b", "a"], [4, 3], [None, 1.0]]
    assert read(store, Visits, user="a") == StoredRow({"visits": 3, "total": 1.0}, AT, AT)


def test_an_older_row_never_takes_the_place_of_a_newer_one() -> None:
    store = MemoryStore()
    store.write(Visits, rows_of(Visits, [({"user": "a"}, row(1_000_000, visits=9))]))
    app = server(store)
    assert push(app, "visits", visits()).json == {"written": 0, "older": 1}
    assert read(store, Visits, user="a") == row(1_000_000, visits=9)
    same = visits(event_timestamp=["2026-01-01T01:00:01+01:00"])
    assert push(app, "visits", same).json == {"written": 1, "older": 0}
    two = visits(
        user=["a", "a"], event_timestamp=["2026-01-01T00:00:03Z", "2026-01-01T00:00:02Z"], visits=[1, 2], total=[0, 0]
    )
    assert push(app, "visits", two).status == 200
    assert read(store, Visits, user="a") == StoredRow({"visits": 1, "total": 0.0}, AT + 3_000_000, AT + 3_000_000)


def test_newest_event_decides_about_the_ttl() -> None:
    store = MemoryStore()
    app = server(store)
    hidden = [name for name in row_layout(Drivers).feature_names if name.startswith("_")]
    df = {"driver_id": ["7"], "rides": [1], "fading": [2.0], "double": [8.0], **{name: [4.0] for name in hidden}}
    df |= {"event_timestamp": ["2026-01-01T00:30:00Z"], "newest_event": [AT_TEXT]}
    assert push(app, "drivers", df).status == 200
    assert read(store, Drivers, driver_id="7") is not None
    store.set_clock(AT + 1_800_000_000 + 3_600_000_000 // 2, "stream")
    found = ask(
        app, "POST", "/get-online-features", {"features": ["drivers:rides"], "entities": {"driver_id": ["7"]}}
    ).json
    assert found["results"][1]["statuses"] == ["OUTSIDE_MAX_AGE"]  # half an hour after the row, an hour after the event
    df["newest_event"] = ["2026-01-01T00:30:00.000001Z"]
    refused = push(app, "drivers", df)
    assert (refused.status, refused.json["field"]) == (422, "df.newest_event[0]")
    assert "later than the row itself" in refused.json["detail"]


def test_pushed_decayed_features_fade_on_and_hidden_ones_are_asked_for() -> None:
    store = MemoryStore()
    app = server(store)
    (hidden,) = [name for name in row_layout(Drivers).feature_names if name.startswith("_")]
    df = {"driver_id": ["7"], "event_timestamp": [AT_TEXT], "rides": [1], "fading": [2.0], "double": [8.0]}
    refused = push(app, "drivers", df)
    assert (refused.status, refused.json["field"]) == (422, f"df.{hidden}")
    assert "hidden features from which readers compute others" in refused.json["detail"]
    assert push(app, "drivers", df | {hidden: [4.0]}).status == 200
    store.set_clock(AT + 3_600_000_000 - 1, "stream")
    found = ask(app, "POST", "/get-online-features", {"features": ["drivers"], "entities": {"driver_id": ["7"]}}).json
    values = dict(
        zip(found["metadata"]["feature_names"], [each["values"][0] for each in found["results"]], strict=True)
    )
    assert values["fading"] == pytest.approx(1.0)
    assert values["double"] == pytest.approx(8.0 / math.sqrt(2))


FULL_JSON = {
    "visits": 2**53 + 1,
    "total": "Infinity",
    "most": -(2**63),
    "city": "Zürich \x00 ☃",
    "cities": ["", None, "ab"],
    "paid": False,
    "raw": base64.b64encode(b"\x00\xff").decode(),
    "raws": ["", base64.b64encode(b"\x80").decode()],
    "seen": "2026-01-01T00:00:00.000001+00:00",
    "seens": ["2025-12-31T23:59:59Z", AT_TEXT],
    "by_city": {"b": 2**62, "a": 1},
    "by_shop": {"7": 0.1, "-7": None, str(2**53 + 1): "-Infinity"},
    "by_paid": [[True, [AT_TEXT, None]], [False, []]],
    "fading": 5e-324,
}


def test_every_type() -> None:
    store = MemoryStore()
    (hidden,) = [name for name in row_layout(EveryType).feature_names if name.startswith("_")]
    df = {name: [value, None] for name, value in {**FULL_JSON, hidden: 1e300}.items()}
    keys = {"user": ["a", "b"], "shop": [1, 2], "token": ["dA==", ""]}
    answered = push(server(store), "every_type", df | keys | {"event_timestamp": [AT_TEXT] * 2})
    assert answered.status == 200, answered.json
    expected = FULL | {"seens": [AT - 1_000_000, AT]}
    assert read(store, EveryType, user="a", shop=1, token=b"t") == StoredRow(expected, AT, AT)
    assert read(store, EveryType, user="b", shop=2, token=b"") == StoredRow(NULLS, AT, AT)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("visits", 1.5, "got 1.5, expected int64"),
        ("visits", "3", 'got "3", expected int64'),
        ("visits", True, "got true, expected int64"),
        ("visits", 2**63, "expected int64"),
        ("visits", 2.0**60, "expected int64"),
        ("visits", [1], "got [1], expected int64"),
        ("total", "1.5", 'got "1.5", expected float64'),
        ("total", False, "expected float64"),
        ("total", 10**400, "expected float64"),
        ("user", 7, "key 'user' is 7 (int), expected string. Give user='7'."),
        ("user", None, "got null, expected string. A key or time is never null."),
        ("event_timestamp", None, "got null, expected timestamp"),
        ("event_timestamp", "2026-01-01 00:00:00", "has no time zone: add one, such as Z"),
        ("event_timestamp", "yesterday", 'got "yesterday", expected an instant'),
        ("event_timestamp", 1767225600, "is a number, whose unit would be a guess"),
        ("event_timestamp", "0001-01-01T00:00:00+14:00", "is no instant of the years 1 to 9999 in UTC"),
        ("event_timestamp", "9999-12-31T23:59:59-00:01", "is no instant of the years 1 to 9999 in UTC"),
        ("event_timestamp", "2026-01-01T01:05:01Z", "1h5m1s ahead of the server's clock"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(column: str, value: Any, said: str) -> None:
    store = MemoryStore()
    if column == "event_timestamp" and isinstance(value, str) and "01:05:01" in value:
        said = "5m1s ahead of the server's clock; at most 5m may be"
    df = {name: its * 3 for name, its in visits().items()}
    df[column] = [df[column][0], value, value]
    refused = push(server(store), "visits", df)
    assert refused.status == 422
    assert refused.json["field"] == f"df.{column}[1]"
    assert refused.json["detail"].startswith(f"df.{column}[1]: ")
    assert said in refused.json["detail"]
    assert "Nothing of the request was written." in refused.json["detail"]
    assert read(store, Visits, user="a") is None


@pytest.mark.parametrize(
    ("body", "status", "field", "said"),
    [
        ({"df": visits()}, 422, "push_source_name", "Name a view for rows"),
        ({"push_source_name": "visits"}, 422, "df", 'either "df"'),
        ({"push_source_name": "visits", "df": visits(), "events": []}, 422, "df", 'either "df"'),
        ({"push_source_name": "visitss", "df": visits()}, 404, "push_source_name", "did you mean 'visits'?"),
        ({"push_source_name": "rides", "df": {}}, 422, "push_source_name", "is a source, which takes"),
        ({"push_source_name": "visits", "df": [visits()]}, 422, "df", "expected an object, column -> values"),
        ({"push_source_name": "visits", "df": visits(user="a")}, 422, "df.user", "expected an array"),
        (
            {"push_source_name": "visits", "df": visits(user=["a", "b"])},
            422,
            "df.event_timestamp",
            "1 values, but df.user has 2",
        ),
        (
            {"push_source_name": "visits", "df": visits(visit=[1])},
            422,
            "df.visit",
            "no column 'visit'; did you mean 'visits'?",
        ),
        (
            {"push_source_name": "visits", "df": {"user": ["a"], "visits": [1]}},
            422,
            "df.event_timestamp",
            "without event_timestamp, total",
        ),
        ({"push_source_name": "visits", "df": visits(), "to": "offline"}, 422, "to", "go into the online store only"),
        ({"push_source_name": "visits", "df": visits(), "to": "nowhere"}, 422, "to", "nowhere"),
        ({"push_source_name": "visits", "df": visits(), "unit": "ns"}, 422, "unit", "ns"),
        (
            {"push_source_name": "visits", "df": {name: its * 6 for name, its in visits().items()}},
            422,
            "df",
            "6 rows; one request may push 5",
        ),
        ({"push_source_name": "visits", "events": [{}]}, 422, "push_source_name", "takes no events"),
        ({"push_source_name": "rides", "events": [{}]}, 422, "push_source_name", "pip install 'headrace[kafka]'"),
        ([], 422, None, "Expected"),
        (b"{", 400, None, "no JSON"),
    ],
)
def test_a_request_that_is_none(body: Any, status: int, field: str | None, said: str) -> None:
    store = MemoryStore()
    refused = ask(server(store, most=5), "POST", "/push", body)
    assert (refused.status, refused.json.get("field")) == (status, field), refused.json
    assert said in refused.json["detail"]
    assert read(store, Visits, user="a") is None


def test_missing_features_are_null_when_that_is_meant() -> None:
    store = MemoryStore()
    df = {"user": ["a"], "event_timestamp": [AT_TEXT], "visits": [3]}
    assert push(server(store), "visits", df, missing="null").json == {"written": 1, "older": 0}
    assert read(store, Visits, user="a") == StoredRow({"visits": 3, "total": None}, AT, AT)


def test_instants_as_numbers_and_without_a_zone_where_the_request_says_so() -> None:
    store = MemoryStore()
    app = server(store)
    seconds = AT // 1_000_000
    for number, (stamp, how) in enumerate(
        [(seconds, {"unit": "s"}), (seconds * 1000 + 1, {"unit": "ms"}), ("2026-01-01 00:00:01", {"zone": "UTC"})]
    ):
        assert push(app, "visits", visits(event_timestamp=[stamp], visits=[number]), **how).json["written"] == 1
    assert read(store, Visits, user="a") == StoredRow({"visits": 2, "total": 1.5}, AT + 1_000_000, AT + 1_000_000)
    assert push(app, "visits", visits(event_timestamp=[10**18]), unit="s").json["field"] == "df.event_timestamp[0]"


def test_what_a_feast_client_writes() -> None:
    store = MemoryStore()
    app = server(store)
    (hidden,) = [name for name in row_layout(EveryType).feature_names if name.startswith("_")]
    df = {name: [None] for name in row_layout(EveryType).feature_names}
    df |= {"user": ["a"], "shop": [1], "token": ["dA=="], "event_timestamp": ["2026-01-01T00:00:00"], "created": [None]}
    df |= {"seen": [AT // 1_000_000], "by_city": [json.dumps({"b": 2, "a": 1})], hidden: [None]}
    body = {"feature_view_name": "every_type", "df": df, "allow_registry_cache": False, "transform_on_write": True}
    answered = ask(app, "POST", "/write-to-online-store", body)
    assert (answered.status, answered.json) == (200, {"written": 1, "older": 0})
    expected = NULLS | {"seen": AT, "by_city": {"b": 2, "a": 1}}
    assert read(store, EveryType, user="a", shop=1, token=b"t") == StoredRow(expected, AT, AT)
    assert ask(app, "POST", "/write-to-online-store", {"df": df}).json["field"] == "feature_view_name"
    assert ask(app, "POST", "/write-to-online-store", body | {"feature_view_name": "rides"}).status == 404
    assert ask(app, "POST", "/write-to-online-store", body | {"df": None}).json["field"] == "df"


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("map<int64,int64>", {"01": 1}),
        ("map<int64,int64>", {"": 1}),
        ("map<int64,int64>", {"9223372036854775808": 1}),
        ("map<float64,int64>", {"nan": 1}),
        ("map<float64,int64>", [["NaN", 1]]),
        ("map<bool,int64>", {"True": 1}),
        ("map<string,int64>", [[None, 1]]),
        ("map<string,int64>", [["a"]]),
        ("map<string,int64>", '{"a": 1}'),
        ("list<int64>", {"0": 1}),
        ("timestamp", True),
    ],
)
def test_keys_of_maps_and_forms_that_are_none(dtype: str, value: Any) -> None:
    with pytest.raises(Unfit):
        typed_value(value, dtype, Writing())


def test_keys_of_maps_are_written_as_text() -> None:
    written = {"0": 1, "-7": 2, "9223372036854775807": 3}
    assert typed_value(written, "map<int64,int64>", Writing()) == {0: 1, -7: 2, 2**63 - 1: 3}
    assert typed_value({"1.5": 1}, "map<float64,int64>", Writing()) == {1.5: 1}
    assert typed_value({AT_TEXT: 1}, "map<timestamp,int64>", Writing()) == {AT: 1}
    assert typed_value('{"a": 1}', "map<string,int64>", Writing(maps_as_text=True)) == {"a": 1}


def test_no_rows_are_fine() -> None:
    empty = {name: [] for name in visits()}
    assert push(server(MemoryStore()), "visits", empty).json == {"written": 0, "older": 0}


def test_a_server_that_only_reads(tmp_path: Any) -> None:
    refused = push(server(None), "visits", visits())
    assert refused.status == 409
    assert "serve from Redis" in refused.json["detail"]


def test_a_store_that_is_gone() -> None:
    class Gone(MemoryStore):
        def write(self, view: Any, rows: Any) -> int:
            raise UnreachableError("redis://secret does not answer")

    refused = push(server(Gone()), "visits", visits())
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "secret" not in refused.json["detail"]


def test_a_server_without_what_pushes_need() -> None:
    class Bare(MemoryStore):
        def write(self, view: Any, rows: Any) -> int:
            raise ModuleNotFoundError("No module named 'pyarrow'")

    refused = push(server(Bare()), "visits", visits())
    assert refused.status == 409
    assert "pip install 'headrace[live]'" in refused.json["detail"]


def test_pushes_beyond_those_that_may_wait_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.serving.http.pushing.WAITING", 2)
    topic = Topic()
    topic.go = threading.Event()
    pushes = Pushing(None, VIEWS, {"rides": topic})
    body = json.dumps({"push_source_name": "rides", "events": [1]}).encode()

    async def talk() -> list[Any]:
        waiting = [asyncio.ensure_future(pushes.push(body, "t")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Problem) as refused:
            await pushes.push(body, "t")
        assert topic.go is not None
        topic.go.set()
        return [refused.value.status, *await asyncio.gather(*waiting), await pushes.push(body, "t")]

    assert asyncio.run(talk()) == [503, *[{"events": 1}] * 3]
    pushes.close()


def test_a_caller_that_leaves_holds_its_place_until_its_push_is_done_and_nothing_waits_for_it_at_the_end() -> None:
    topic = Topic()
    topic.go = threading.Event()
    pushes = Pushing(None, VIEWS, {"rides": topic})
    body = json.dumps({"push_source_name": "rides", "events": [1]}).encode()

    async def leave() -> int:
        caller = asyncio.ensure_future(pushes.push(body, "t"))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        waiting = pushes._waiting
        pushes.close()  # returns with the push still under way
        assert topic.go is not None
        topic.go.set()
        while pushes._waiting:
            await asyncio.sleep(0.01)
        return waiting

    assert asyncio.run(asyncio.wait_for(leave(), 60)) == 1
    assert topic.taken == [1]


def test_rows_of_an_embedded_store(tmp_path: Any) -> None:
    with EmbeddedStore(tmp_path) as store:
        assert push(server(store), "visits", visits()).json == {"written": 1, "older": 0}
        assert store.read(Visits, [{"user": "a"}]) == [StoredRow({"visits": 3, "total": 1.5}, AT, AT)]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([name for name, _ in row_layout(EveryType).columns]), JSON)
@settings(max_examples=200, deadline=None)
def test_any_json_is_written_or_refused_by_name(column: str, value: Any) -> None:
    store = MemoryStore()
    df = {name: [None] for name in row_layout(EveryType).feature_names}
    df |= {"user": ["a"], "shop": [1], "token": [""], "event_timestamp": [AT_TEXT]}
    answered = push(server(store), "every_type", df | {column: [value]})
    if answered.status == 200:
        assert sum(1 for _ in store.scan(EveryType)) == 1
    else:
        assert answered.status == 422
        assert answered.json["field"] == f"df.{column}[0]", answered.json
        assert "every_type" not in store.views()


class Topic:
    """Takes events that are numbers below 100; `stuck`: for ever."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.error: Exception | None = None
        self.go: threading.Event | None = None
        self.closed = False

    def prepared(self, events: Sequence[Any]) -> tuple[Sequence[Any], dict[int, str]]:
        return events, {at: f"{each} is too much" for at, each in enumerate(events) if each >= 100}

    def publish(self, messages: Sequence[Any]) -> None:
        if self.go is not None:
            self.go.wait(60)
        if self.error is not None:
            raise self.error
        self.taken += messages

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("name", ["rides", "drivers"])
def test_events_of_a_source_or_of_a_views_source(name: str) -> None:
    topic = Topic()
    app = server(MemoryStore(), {"rides": topic}, most=3)
    answered = ask(app, "POST", "/push", {"push_source_name": name, "events": [1, 2], "to": "online_and_offline"})
    assert (answered.status, answered.json) == (200, {"events": 2})
    assert topic.taken == [1, 2]
    refused = ask(app, "POST", "/push", {"push_source_name": name, "events": [1, 100, 200]})
    assert (refused.status, refused.json["field"]) == (422, "events[1]")
    assert "100 is too much. So are 1 more. Nothing of the request was sent." in refused.json["detail"]
    assert topic.taken == [1, 2]
    assert ask(app, "POST", "/push", {"push_source_name": name, "events": [1] * 4}).json["field"] == "events"
    assert ask(app, "POST", "/push", {"push_source_name": name, "events": 7}).json["field"] == "events"


def test_a_topic_that_is_gone() -> None:
    topic = Topic()
    topic.error = UnreachableError("kafka:9092 does not answer, user secret")
    app = server(MemoryStore(), {"rides": topic})
    refused = ask(app, "POST", "/push", {"push_source_name": "rides", "events": [1]})
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "did not acknowledge" in refused.json["detail"]
    assert "secret" not in refused.json["detail"]
    topic.error = DataError("events[0]: too large")
    assert ask(app, "POST", "/push", {"push_source_name": "rides", "events": [1]}).status == 422


def test_what_is_open_is_closed() -> None:
    topic = Topic()
    Pushing(None, VIEWS, {"rides": topic}).close()
    assert topic.closed


def test_pushes_are_described() -> None:
    app = server(MemoryStore(), {"rides": Topic()})
    document = ask(app, "GET", "/openapi.json").json
    body = document["paths"]["/push"]["post"]["requestBody"]["content"]["application/json"]
    example = body["examples"]["rows"]["value"]
    example["df"]["event_timestamp"] = [AT_TEXT]
    assert ask(app, "POST", "/push", example).status == 200
    (event,) = body["schema"]["properties"]["events"]["items"]["anyOf"]
    assert list(event["properties"]) == ["driver_id", "fare", "at"]
    assert "/write-to-online-store" in document["paths"]
