"""The lookup client: values, statuses and freshness of what a store holds, at the instants it can tell about."""

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from headrace.features import Entity, FeatureView, Lifetime, derived
from headrace.features.errors import DataError, DefinitionError
from headrace.serving.client import Client, OutOfReachError
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.errors import SchemaMismatchError
from headrace.stores.memory import MemoryStore
from headrace.stores.online import StoredRow
from headrace.stores.testing import AT, FULL, HIDDEN, NULLS, VISITS, EveryType, Visit, Visits, instant, row, rows_of

SRC = Path(__file__).parents[2] / "src"
HOUR = 3_600_000_000
KEY = {"user": "a", "shop": 1, "token": b"t"}


class Fading(FeatureView, source=VISITS, entity=Entity("user", key="user"), ttl="2h"):
    visits = Visit.count(last="1h")
    mean = Visit.amount.mean(last="1h", default=-1.0)
    fade = Visit.amount.decayed_sum("1h", over=Lifetime())
    double = derived(fade * 2)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    rows = [({"user": "a"}, row(0, visits=3, total=1.5)), ({"user": "b"}, row(5, visits=0, total=0.0))]
    store.write(Visits, rows_of(Visits, rows))
    faded = {"visits": 1, "mean": None, "fade": 8.0, "double": 16.0}
    store.write(Fading, rows_of(Fading, [({"user": "a"}, StoredRow(faded, AT, AT - HOUR))]))
    store.set_clock(AT + 10, "stream")
    return store


def test_one_entity(store: MemoryStore) -> None:
    vector = Client(store).get(Visits, user="a")
    assert dict(vector) == vector.to_dict() == {"visits": 3, "total": 1.5}
    assert list(vector) == ["visits", "total"]
    assert vector.status == {"visits": "PRESENT", "total": "PRESENT"}
    assert vector.key == {"user": "a"}
    assert vector.event_timestamp == vector.newest_event == instant(0)
    assert vector.at == instant(10)
    with pytest.raises(KeyError, match="no feature 'visit'; did you mean 'visits'"):
        vector["visit"]


def test_views_by_name_and_keys_by_mapping(store: MemoryStore) -> None:
    client = Client(store, [Visits, Fading])
    assert client.get("visits", {"user": "b"}) == client.get(Visits, user="b")
    assert Client(store, Visits).get("visits", user="b")["visits"] == 0
    with pytest.raises(DefinitionError, match="No view is named 'visit'; did you mean 'visits'"):
        client.get("visit", user="b")
    with pytest.raises(DataError, match="given twice"):
        client.get(Visits, {"user": "b"}, user="b")
    with pytest.raises(DataError, match=r"expected exactly user \(string\)"):
        client.get(Visits)


def test_an_entity_never_seen_has_the_values_of_empty_windows(store: MemoryStore) -> None:
    vector = Client(store).get(Fading, user="new")
    assert vector.to_dict() == {"visits": 0, "mean": -1.0, "fade": None, "double": None}
    assert set(vector.status.values()) == {"NOT_FOUND"}
    assert vector.event_timestamp is vector.newest_event is None


def test_decay_derived_features_and_max_age_are_as_of_the_instant_asked(store: MemoryStore) -> None:
    client = Client(store)
    store.set_clock(AT + HOUR, "stream")
    hour_later = client.get(Fading, user="a", at=instant(HOUR - 1))
    assert hour_later["fade"] == pytest.approx(4.0)
    assert hour_later["double"] == pytest.approx(8.0)
    assert hour_later.status["mean"] == "NULL"
    old = client.get(Fading, user="a")
    assert old.to_dict() == {"visits": 0, "mean": -1.0, "fade": None, "double": None}
    assert set(old.status.values()) == {"OUTSIDE_MAX_AGE"}
    assert old.newest_event == instant(-HOUR)


def test_many_entities_in_one_read(store: MemoryStore) -> None:
    vectors = Client(store).get_many(Visits, [{"user": user} for user in ("b", "new", "a", "b")])
    assert [vector["visits"] for vector in vectors] == [0, 0, 3, 0]
    assert vectors.to_dicts()[2] == {"visits": 3, "total": 1.5}
    matrix = vectors.to_numpy()
    assert matrix.dtype == np.float64
    assert matrix.tolist() == [[0.0, 0.0], [0.0, 0.0], [3.0, 1.5], [0.0, 0.0]]
    assert vectors.to_numpy(["total"]).tolist() == [[0.0], [0.0], [1.5], [0.0]]
    assert vectors[1:].to_numpy().shape == (3, 2)
    assert Client(store).get_many(Visits, []).to_numpy().shape == (0, 2)


def test_a_matrix_holds_numbers_with_nan_for_null(store: MemoryStore) -> None:
    store.write(EveryType, rows_of(EveryType, [(KEY, StoredRow(NULLS, AT, AT))]))
    vector = Client(store).get(EveryType, KEY)
    assert np.isnan(vector.to_numpy(["total", "paid"])).all()
    with pytest.raises(DataError, match=r"Feature 'city' .* is string.*to_numpy\(\['visits', 'total', 'most', 'paid'"):
        vector.to_numpy()
    with pytest.raises(DataError, match="no feature 'totals'; did you mean 'total'"):
        vector.to_numpy(["totals"])
    store.write(EveryType, rows_of(EveryType, [(KEY, StoredRow(FULL, AT, AT))]))
    assert Client(store).get(EveryType, KEY).to_numpy(["total", "paid", "most"]).tolist() == [np.inf, 0.0, -(2.0**63)]


def test_instants_are_datetimes_and_hidden_features_hidden(store: MemoryStore) -> None:
    store.write(EveryType, rows_of(EveryType, [(KEY, StoredRow(FULL, AT, AT))]))
    vector = Client(store).get(EveryType, KEY)
    assert vector["seen"] == instant(1)
    assert vector["seens"] == [datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), instant(0)]
    assert vector["by_paid"] == {True: [instant(0), None], False: []}
    assert vector["by_city"] == {"b": 2**62, "a": 1}
    assert HIDDEN not in vector


def test_a_fresh_event_shows_at_once(store: MemoryStore) -> None:
    """A row as of its newest event, ahead of the flow's clock (contract C17)."""
    store.write(Visits, rows_of(Visits, [({"user": "a"}, row(50, visits=4))]))
    vector = Client(store).get(Visits, user="a")
    assert (vector["visits"], vector.at) == (4, instant(50))


def test_instants_that_the_store_cannot_tell_about_are_refused(store: MemoryStore) -> None:
    client = Client(store)
    assert client.get(Visits, user="b", at="2026-01-01T00:00:00.000005Z")["visits"] == 0
    with pytest.raises(OutOfReachError, match=r"was asked as of \S+000004Z, .* as of \S+000005Z and .*training_set"):
        client.get(Visits, user="b", at=instant(4))
    with pytest.raises(OutOfReachError, match=r"the replay that wrote it stands at \S+00001Z"):
        client.get(Visits, user="b", at=instant(11))
    with pytest.raises(ValueError, match="has no time zone"):
        client.get(Visits, user="b", at="2026-01-01T00:00:00")


def test_live_the_clock_is_the_wall(store: MemoryStore) -> None:
    live = MemoryStore()
    live.write(Visits, rows_of(Visits, [({"user": "a"}, row(0))]))
    before = datetime.now(UTC)
    assert before <= Client(live).get(Visits, user="a").at <= datetime.now(UTC)
    live.set_clock(AT, "wall")
    assert Client(live).get(Visits, user="a").at >= before
    assert Client(live).get(Visits, user="a", at=before)["visits"] == 1
    with pytest.raises(OutOfReachError, match="in the future"):
        Client(live).get(Visits, user="a", at=before + timedelta(hours=1))


def test_another_definition_is_refused(store: MemoryStore) -> None:
    class Other(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits"):
        visits = Visit.count(last="2h")

    with pytest.raises(SchemaMismatchError, match="'visits' is computed in another way"):
        Client(store).get(Other, user="a")


def test_many_threads_share_a_client(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        store.write(Visits, rows_of(Visits, [({"user": f"u{i}"}, row(0, visits=i)) for i in range(100)]))
        client, wrong = Client(store), []

        def look(seed: int) -> None:
            for i in range(seed, seed + 200):
                if client.get(Visits, user=f"u{i % 100}")["visits"] != i % 100:
                    wrong.append(i)

        threads = [threading.Thread(target=look, args=(seed,), daemon=True) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_a_lookup_loads_no_heavy_package(tmp_path: Path) -> None:
    """A model server imports the client, opens the store and reads, with neither pyarrow nor pandas nor DuckDB nor
    numba."""
    with EmbeddedStore(tmp_path) as store:
        store.write(Visits, rows_of(Visits, [({"user": "a"}, row(0, visits=3))]))
        store.set_clock(AT, "stream")
    code = """
import sys
import headrace.serving
assert "numpy" not in sys.modules
heavy = ("pandas", "pyarrow", "duckdb", "numba", "river", "feast", "confluent_kafka", "polars")
from datetime import datetime
from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource
class Visit(Event):
    user: str
    shop: int
    token: bytes
    amount: float | None
    times: int | None
    city: str | None
    paid: bool | None
    raw: bytes | None
    seen: datetime | None
    at: EventTime
class Visits(FeatureView, source=IterableSource([], Visit), entity=Entity("user", key="user")):
    visits = Visit.count(last="1h")
    total = Visit.amount.sum(last="1h")
from headrace.serving.client import Client
from headrace.stores.embedded import EmbeddedStore
client = Client(EmbeddedStore(sys.argv[1], read_only=True), [Visits])
assert client.get_many("visits", [{"user": "a"}]).to_numpy().tolist() == [[3.0, 1.0]]
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("form", "package"), [("to_arrow", "pyarrow"), ("to_pandas", "pandas")])
def test_a_form_says_which_package_it_needs(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, form: str, package: str
) -> None:
    table = Client(store).features([Visits], {"user": ["a"]})
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{form}\(\) needs the package {package}, .*pip install .*to_dicts"):
        getattr(table, form)()
