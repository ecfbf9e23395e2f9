"""What a reader gets from a stored row: max age, decay, derivation and status, the same for one row and for columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import (
    DataError,
    Entity,
    Event,
    EventTime,
    FeatureView,
    KafkaSource,
    Tumbling,
    definition,
    derived,
)
from headrace.features.functions import coalesce
from headrace.features.reading import STATUSES, Status, derive, empty_row, read_at, read_columns

HOUR = 3_600_000_000
DAY = 24 * HOUR


class Ride(Event):
    driver_id: str
    fare: float
    city: str
    at: EventTime


def double(x: Any) -> Any:
    return 2 * x


RIDES = KafkaSource("rides", Ride)
DRIVER = Entity("driver", key="driver_id")


class Plain(FeatureView, source=RIDES, entity=DRIVER, ttl="1d"):
    rides = Ride.count(last="1h")
    mean = Ride.fare.mean(last="1h")
    mean_or = Ride.fare.mean(last="1h", default=-1)
    cities = Ride.city.top_k(3, over=Tumbling("1d"))
    places = Ride.city.distinct(last="1h")
    share = derived(rides / Ride.count(last="1d"), default=0.5)
    twice = derived(double, inputs=[mean])


class Decaying(FeatureView, source=RIDES, entity=DRIVER):
    heat = Ride.fare.decayed_sum("1h")
    heat_or = Ride.fare.decayed_sum("1h", default=-5)
    per_ride = derived(heat / Ride.count(last="1d"))
    level = derived(coalesce(per_ride, 0.0) + Ride.fare.decayed_sum("2h", last="1d"), default=9)
    cool = Ride.fare.decayed_mean("1h")


PLAIN, DECAYING = definition(Plain), definition(Decaying)
EMPTY = {"rides": 0, "mean": None, "mean_or": -1.0, "cities": None, "places": 0, "share": 0.5, "twice": None}
ROW = {"rides": 2, "mean": 3.0, "mean_or": 3.0, "cities": {"NYC": 2}, "places": 1, "share": 1.0, "twice": 6.0}


def test_a_row_is_read_as_it_was_written() -> None:
    values, statuses = read_at(PLAIN, ROW, 5 * HOUR, 5 * HOUR, 6 * HOUR)
    assert values == ROW
    assert set(statuses.values()) == {Status.PRESENT}


def test_null_and_default_are_told_apart_from_values() -> None:
    row = {**ROW, "mean": None, "mean_or": -1.0, "share": 0.5, "twice": None}
    values, statuses = read_at(PLAIN, row, 5 * HOUR, 5 * HOUR, 6 * HOUR)
    assert values == row
    assert [name for name, status in statuses.items() if status is Status.NULL] == ["mean", "twice"]
    assert [name for name, status in statuses.items() if status is Status.DEFAULT] == ["mean_or", "share"]


@pytest.mark.parametrize(("age_us", "status"), [(DAY - 1, Status.PRESENT), (DAY, Status.OUTSIDE_MAX_AGE)])
def test_ttl_counts_from_the_newest_event_and_is_open_at_its_end(age_us: int, status: Status) -> None:
    # newest_event > t - ttl is valid; the row's own instant, an expiry later than the event, does not matter.
    values, statuses = read_at(PLAIN, ROW, 5 * HOUR + age_us, 5 * HOUR, 5 * HOUR + age_us)
    assert set(statuses.values()) == {status}
    assert values == (ROW if status is Status.PRESENT else EMPTY)


def test_unknown_entities_get_the_values_of_an_empty_window() -> None:
    values, statuses = read_at(PLAIN, None, None, None, 0)
    assert values == EMPTY == empty_row(PLAIN)
    assert set(statuses.values()) == {Status.NOT_FOUND}
    values["rides"] = 7
    assert empty_row(PLAIN)["rides"] == 0


def test_an_empty_row_can_show_what_is_hidden() -> None:
    assert empty_row(PLAIN, hidden=True) == {**EMPTY, "_share_1": 0}


def test_hidden_features_are_stored_only_where_a_reader_needs_them() -> None:
    assert PLAIN.stored_names == ("rides", "mean", "mean_or", "cities", "places", "share", "twice")
    assert DECAYING.stored_names == ("heat", "heat_or", "_per_ride_1", "per_ride", "_level_1", "level", "cool")


def test_a_decayed_sum_falls_until_it_is_read_and_takes_what_is_derived_along() -> None:
    row = {"heat": 8.0, "heat_or": 4.0, "_per_ride_1": 2, "per_ride": 4.0, "_level_1": 4.0, "level": 8.0, "cool": 3.0}
    values, statuses = read_at(DECAYING, row, 0, 0, 2 * HOUR)
    assert values == {"heat": 2.0, "heat_or": 1.0, "per_ride": 1.0, "level": 3.0, "cool": 3.0}
    assert set(statuses.values()) == {Status.PRESENT}
    assert read_at(DECAYING, row, 5 * HOUR, 0, 5 * HOUR)[0]["heat"] == 8.0
    # A row from after the instant asked is not grown back.
    assert read_at(DECAYING, row, 5 * HOUR, 0, 4 * HOUR)[0]["heat"] == 8.0


def test_a_default_does_not_decay() -> None:
    row = {**dict.fromkeys(DECAYING.stored_names), "heat_or": -5.0, "_per_ride_1": 0, "level": 9.0}
    values, statuses = read_at(DECAYING, row, 0, 0, 2 * HOUR)
    assert values == {"heat": None, "heat_or": -5.0, "per_ride": None, "level": 9.0, "cool": None}
    assert [s.value for s in statuses.values()] == ["NULL", "DEFAULT", "NULL", "DEFAULT", "NULL"]


def test_a_row_of_another_definition_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"the stored row lacks feature 'mean'\. " "It was written under another definition"
    ):
        read_at(PLAIN, {"rides": 1}, 0, 0, 0)
    with pytest.raises(DataError, match="View 'decaying': the stored row lacks feature '_per_ride_1'"):
        read_at(DECAYING, {"heat": 1.0, "heat_or": 1.0, "per_ride": 1.0, "level": 1.0, "cool": 1.0}, 0, 0, HOUR)
    with pytest.raises(DataError, match="lacks feature 'rides'"):
        read_columns(PLAIN, {}, *(np.zeros(1, dtype=np.int64),) * 3)


INSTANTS = st.integers(-3 * DAY, 3 * DAY)
NUMBERS = st.none() | st.floats(-1e6, 1e6) | st.sampled_from([-1.0, -5.0, 0.5, 9.0, 0.0])


def stored(view: Any) -> st.SearchStrategy[dict[str, Any]]:
    kinds = {
        "int64": st.integers(0, 5),
        "float64": NUMBERS,
        "map<string,int64>": st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(1, 3), min_size=1),
    }
    return st.fixed_dictionaries({name: kinds[view.dtypes[name]] for name in view.stored_names})


def as_columns(view: Any, rows: list[dict[str, Any] | None]) -> dict[str, tuple[Any, Any]]:
    kinds = {"int64": np.int64, "float64": np.float64}
    out = {}
    for name in view.stored_names:
        values = [None if row is None else row[name] for row in rows]
        valid = np.array([v is not None for v in values], dtype=bool)
        kind = kinds.get(view.dtypes[name])
        plain = np.empty(len(rows), dtype=kind or object)
        plain[:] = values if kind is None else [0 if v is None else v for v in values]
        out[name] = plain, valid
    return out


@pytest.mark.parametrize("view", [PLAIN, DECAYING], ids=["plain", "decaying"])
@given(data=st.data())
def test_columns_are_read_as_rows_are(view: Any, data: st.DataObject) -> None:
    questions = data.draw(st.lists(st.tuples(st.none() | stored(view), INSTANTS, INSTANTS, INSTANTS), max_size=6))
    rows, as_of, newest, t = ([q[i] for q in questions] for i in range(4))
    instants = (np.array(each, dtype=np.int64) for each in (as_of, newest, t))
    found = np.array([row is not None for row in rows], dtype=bool)
    given_columns = as_columns(view, rows)
    columns, codes = read_columns(view, given_columns, *instants, found=found)
    assert list(columns) == list(codes) == list(view.feature_names())
    for i, (row, a, n, at) in enumerate(questions):
        values, statuses = read_at(view, row, a, n, at)
        for name, value in values.items():
            got = columns[name][0][i] if columns[name][1][i] else None
            assert got == value, name
            assert STATUSES[codes[name][i]] is statuses[name], name
    for name, (values_after, valid_after) in as_columns(view, rows).items():
        np.testing.assert_array_equal(values_after, given_columns[name][0])
        np.testing.assert_array_equal(valid_after, given_columns[name][1])


def column(*values: Any, kind: Any = np.float64) -> tuple[Any, Any]:
    return np.array([0 if v is None else v for v in values], dtype=kind), np.array([v is not None for v in values])


def test_derive_computes_every_derived_feature_with_its_default() -> None:
    given_columns = {
        "rides": column(1, 3, kind=np.int64),
        "_share_1": column(2, 0, kind=np.int64),
        "mean": column(1.5, None),
    }
    out = derive(PLAIN, given_columns, 2)
    assert list(out) == ["share", "twice"]
    assert out["share"][0].tolist() == [0.5, 0.5]
    assert out["share"][1].tolist() == [True, True]
    assert out["twice"][0][0] == 3.0
    assert out["twice"][1].tolist() == [True, False]
    assert given_columns["mean"][1].tolist() == [True, False]


def words(n: Any, city: Any) -> Any:
    return [f"{'none' if np.isnan(a) else int(a)}:{b}" for a, b in zip(n, city, strict=True)]


def test_functions_see_missing_values_as_their_types_show_them() -> None:
    class Words(FeatureView, source=RIDES, entity=DRIVER):
        n = Ride.count(last="1h")
        city = Ride.city.last(last="1h")
        when = Ride.at.last(last="1h")
        text = derived(words, inputs=[n, "city"], dtype=str)
        hours = derived(lambda t: np.where(np.isnat(t), np.nan, t.astype("datetime64[h]").astype(float)), inputs=[when])
        known = derived(lambda c: np.array([x is not None for x in c]), inputs=[city], dtype=bool)
        whole = derived(lambda n: n + 1, inputs=[n], dtype="int64")
        later = derived(lambda t: t + np.timedelta64(1, "h"), inputs=[when], dtype="timestamp")

    city = np.array(["NYC", None], dtype=object), np.array([True, False])
    out = derive(
        definition(Words),
        {"n": column(2, None, kind=np.int64), "city": city, "when": column(5 * HOUR, None, kind=np.int64)},
        2,
    )
    plain = {
        name: [v if ok else None for v, ok in zip(*map(np.ndarray.tolist, pair), strict=True)]
        for name, pair in out.items()
    }
    assert plain == {
        "text": ["2:NYC", "none:None"],
        "hours": [5.0, None],
        "known": [True, False],
        "whole": [3, None],
        "later": [6 * HOUR, None],
    }


@pytest.mark.parametrize(
    ("function", "dtype", "message"),
    [
        (lambda x: 1 / 0, float, "Feature 'y': its function <lambda> failed with ZeroDivisionError: division by zero"),
        (lambda x: 1.0, float, "returned shape () for 1 rows. It must return one value per row."),
        (lambda x: x + 0.5, int, "that are no int64: some are not whole numbers. Set dtype= of derived(...)"),
        (lambda x: ["a"], float, "that are no float64"),
    ],
)
def test_faults_of_functions_name_the_feature(function: Any, dtype: Any, message: str) -> None:
    class Faulty(FeatureView, source=RIDES, entity=DRIVER):
        n = Ride.count(last="1h")
        y = derived(function, inputs=[n], dtype=dtype)

    with pytest.raises(DataError) as raised:
        derive(definition(Faulty), {"n": column(1, kind=np.int64)}, 1)
    assert message in str(raised.value)


def test_columns_decay_to_the_same_bit() -> None:
    """C11: NumPy's own powers differ from those of one row in about one of twenty."""
    view, n = definition(Decaying), 2000
    row = dict.fromkeys(view.stored_names, 1 / 3)
    t = np.arange(n, dtype=np.int64) * 7_654_321
    columns = {name: (np.full(n, value), np.ones(n, dtype=np.bool_)) for name, value in row.items()}
    values, _ = read_columns(view, columns, np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), t)
    for name in ("heat", "heat_or", "level"):
        assert values[name][0].tolist() == [read_at(view, row, 0, 0, at)[0][name] for at in t.tolist()]
