"""Training sets: what serving would have given, row by row, from spines in any form."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.features import Entity, FeatureView, Lifetime, derived
from headrace.features.errors import DataError
from headrace.features.reading import STATUSES, read_at
from headrace.features.views import definition
from headrace.materialize.training import training_set
from headrace.stores.errors import MissingStoreError
from headrace.stores.offline import OfflineLog
from headrace.stores.online import StoredRow
from headrace.stores.testing import (
    AT,
    FULL,
    HIDDEN,
    NULLS,
    VISITS,
    ByShop,
    EveryType,
    Visit,
    Visits,
    instant,
    row,
    rows_of,
)

HOUR = 3_600_000_000


class Fading(FeatureView, source=VISITS, entity=Entity("visitor", keys=["user", "shop"]), ttl="2h"):
    visits = Visit.count(last="1h")
    mean = Visit.amount.mean(last="1h", default=-1.0)
    cities = Visit.city.last_n(2, over=Lifetime())
    fade = Visit.amount.decayed_sum("1h", over=Lifetime())
    double = derived(fade * 2, default=0.5)
    hidden = derived(Visit.amount.decayed_sum("30m", over=Lifetime()) + 1)


def at(us: int) -> datetime:
    return instant(us)


@pytest.fixture
def log(tmp_path: Path) -> OfflineLog:
    """Rows of `Visits` at 10 and 20 for "a", 15 for "b", and provisional ones at 30 for both."""
    log = OfflineLog(tmp_path)
    times = ((10, "a"), (15, "b"), (20, "a"))
    rows = [({"user": user}, row(when, visits=when, total=when / 2)) for when, user in times]
    log.append(Visits, rows_of(Visits, rows))
    log.tail(Visits, rows_of(Visits, [({"user": user}, row(30, visits=0, total=0.0)) for user in "ab"]))
    log.append(ByShop, rows_of(ByShop, [({"shop": 7}, StoredRow({"visits": 70}, AT + 12, AT + 12))]))
    log.commit()
    return log


SPINE = {
    "user": ["a", "b", "a", "a", "new", "a", "b", None, "a"],
    "event_timestamp": [at(us) for us in (20, 14, 9, 19, 20, 20, 99, 20, 30)],
    "label": [1, 2, 3, 4, 5, 6, 7, 8, 9],
}
EXPECTED = [20, 0, 0, 10, 0, 20, 0, 0, 0]


def test_each_row_has_the_newest_values_at_its_instant_in_the_spines_order(log: OfflineLog) -> None:
    found = training_set(pa.table(SPINE), Visits, log=log, statuses=True)
    assert found.column_names == [
        "user",
        "event_timestamp",
        "label",
        "visits",
        "visits__status",
        "total",
        "total__status",
    ]
    assert found.select(list(SPINE)).equals(pa.table(SPINE))
    assert found.column("visits").to_pylist() == EXPECTED
    assert found.column("visits").type == pa.int64()
    assert found.column("total").to_pylist() == [10.0, 0.0, 0.0, 5.0, 0.0, 10.0, 0.0, 0.0, 0.0]
    missing = "NOT_FOUND"
    statuses = ["PRESENT", missing, missing, "PRESENT", missing, "PRESENT", "PRESENT", missing, "PRESENT"]
    assert found.column("visits__status").to_pylist() == statuses


@pytest.mark.parametrize(
    "make",
    [
        pa.table,
        lambda data: pa.table(data).to_batches()[0],
        lambda data: pa.table(data).to_pylist(),
        lambda data: [
            each | {"event_timestamp": each["event_timestamp"].isoformat()} for each in pa.table(data).to_pylist()
        ],
        pd.DataFrame,
        lambda data: pd.DataFrame(data).set_index(pd.Index([5] * 9)),
        lambda data: pd.DataFrame(data).astype({"user": "category"}),
        lambda data: pd.DataFrame(data).astype({"event_timestamp": "datetime64[ns, America/New_York]"}),
        pl.DataFrame,
        lambda data: pl.LazyFrame(data),
        lambda data: pl.DataFrame(data).with_columns(pl.col("user").cast(pl.Categorical)),
    ],
)
def test_a_spine_is_any_table(log: OfflineLog, make: Any) -> None:
    found = training_set(make(SPINE), Visits, log=log)
    assert found.column("visits").to_pylist() == EXPECTED
    assert found.column("label").to_pylist() == SPINE["label"]


def test_no_rows_and_no_views(log: OfflineLog) -> None:
    spine = pa.table(SPINE)
    assert training_set(spine, [], log=log).equals(spine)
    none = training_set(spine.slice(0, 0), Visits, log=log)
    assert none.num_rows == 0
    assert none.schema.field("total").type == pa.float64()
    empty = training_set(pd.DataFrame({"user": [], "event_timestamp": []}), Visits, log=log)
    assert empty.num_rows == 0


def test_several_views_and_columns_of_other_names(log: OfflineLog) -> None:
    spine = pa.table({"who": ["a"], "where": [7], "when": [at(25)]})
    found = training_set(
        spine, [Visits, ByShop], log=log, time="when", keys={"user": "who", "shop": "where"}, prefix=True
    )
    assert found.to_pylist() == [
        {"who": "a", "where": 7, "when": at(25), "visits__visits": 20, "visits__total": 10.0, "by_shop__visits": 70}
    ]
    said = "Column 'visits' would come from view 'visits' and from view 'by_shop'. Give prefix=True"
    with pytest.raises(DataError, match=said):
        training_set(spine, [Visits, ByShop], log=log, time="when", keys={"user": "who", "shop": "where"})
    taken = spine.append_column("total", pa.array([1]))
    with pytest.raises(DataError, match="Column 'total' would come from the spine and from view 'visits'"):
        training_set(taken, Visits, log=log, time="when", keys={"user": "who"})


def test_nanoseconds_look_back_not_ahead(log: OfflineLog) -> None:
    before = pd.Timestamp(at(10)) - pd.Timedelta(1, "ns")
    spine = pd.DataFrame({"user": ["a", "a"], "event_timestamp": [before, pd.Timestamp(at(10))]})
    assert spine["event_timestamp"].dt.unit == "ns" or str(spine["event_timestamp"].dtype).startswith("datetime64[ns")
    assert training_set(spine, Visits, log=log).column("visits").to_pylist() == [0, 10]


def test_what_a_spine_must_not_be(log: OfflineLog) -> None:
    naive = pd.DataFrame({"user": ["a"], "event_timestamp": [datetime(2026, 1, 1)]})
    with pytest.raises(
        DataError, match=r"Time column 'event_timestamp' of the spine has no time zone.*dt.tz_localize\('UTC'\)"
    ):
        training_set(naive, Visits, log=log)
    with pytest.raises(DataError, match="row 0: '2026-01-01' has no time zone"):
        training_set([{"user": "a", "event_timestamp": "2026-01-01"}], Visits, log=log)
    with pytest.raises(DataError, match="is int64, expected timestamps with a zone"):
        training_set(pa.table({"user": ["a"], "event_timestamp": [1]}), Visits, log=log)
    with pytest.raises(DataError, match="is null in row 1"):
        training_set(pa.table({"user": ["a", "a"], "event_timestamp": [at(0), None]}), Visits, log=log)
    with pytest.raises(DataError, match=r"no column 'event_timestamp' \(time=\); did you mean 'event_time'"):
        training_set(pa.table({"user": ["a"], "event_time": [at(0)]}), Visits, log=log)
    with pytest.raises(DataError, match=r"no column 'user' \(key 'user' of view 'visits'\); did you mean 'users'"):
        training_set(pa.table({"users": ["a"], "event_timestamp": [at(0)]}), Visits, log=log)
    with pytest.raises(DataError, match="Key 'user' of view 'visits' is int64 in the spine, expected string"):
        training_set(pa.table({"user": [1], "event_timestamp": [at(0)]}), Visits, log=log)
    with pytest.raises(DataError, match="Key 'shop' of view 'by_shop' is string in the spine, expected int64"):
        training_set(pa.table({"shop": ["1"], "event_timestamp": [at(0)]}), ByShop, log=log)
    with pytest.raises(DataError, match="Key 'shop' of view 'by_shop' holds values that are no int64"):
        training_set(pa.table({"shop": [1.5], "event_timestamp": [at(0)]}), ByShop, log=log)
    with pytest.raises(DataError, match="The spine is a dict, expected a pandas or Polars frame"):
        training_set({"user": ["a"]}, Visits, log=log)
    with pytest.raises(MissingStoreError, match="has nothing of view 'fading'; it has by_shop, visits"):
        training_set(pa.table({"user": ["a"], "shop": [1], "event_timestamp": [at(0)]}), Fading, log=log)


def test_integers_with_gaps_are_keys_still(log: OfflineLog) -> None:
    spine = pd.DataFrame({"shop": [7, None, 8], "event_timestamp": [at(12)] * 3})
    assert str(spine["shop"].dtype) == "float64"
    assert training_set(spine, ByShop, log=log).column("visits").to_pylist() == [70, 0, 0]


def test_features_of_every_type(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    key = {"user": "ü", "shop": 2**53 + 1, "token": b"\x00"}
    log.append(EveryType, rows_of(EveryType, [(key, StoredRow(NULLS, AT, AT)), (key, StoredRow(FULL, AT + 1, AT))]))
    log.commit()
    spine = pa.table(
        {name: [value] * 3 for name, value in key.items()} | {"event_timestamp": [at(us) for us in (0, 1, -1)]}
    )
    found = training_set(spine, EveryType, log=log)
    empty, _ = read_at(definition(EveryType), None, None, None, AT)
    for name, values in found.drop_columns(spine.column_names).to_pydict().items():
        kind = definition(EveryType).dtypes[name]
        plain = [dict(v) if kind.startswith("map") and v is not None else v for v in values]
        full = FULL[name]
        if name == "seen":
            full = at(1)
        elif name == "seens":
            full = [datetime(1970, 1, 1, tzinfo=UTC) - timedelta(microseconds=1), at(0)]
        elif name == "by_paid":
            full = {True: [at(0), None], False: []}
        assert plain == [None, full, empty[name]], name
    assert HIDDEN not in found.column_names


FLOATS = st.none() | st.floats(-100, 100)
ENTITIES = st.sampled_from([("a", 1), ("a", 2), ("b", 1)])
TIMES = st.integers(-2, 30).map(lambda step: step * HOUR // 8)


@st.composite
def stored(draw: st.DrawFn) -> list[tuple[tuple[str, int], StoredRow]]:
    """Rows of `Fading`, one per entity and instant."""
    found = {}
    for entity, when in draw(st.lists(st.tuples(ENTITIES, TIMES), max_size=12)):
        fade = draw(FLOATS)
        hidden = draw(FLOATS)
        values = {
            "visits": draw(st.integers(0, 3)),
            "mean": draw(st.sampled_from([-1.0, 2.5])),
            "cities": draw(st.none() | st.lists(st.sampled_from(["x", "y"]), max_size=2)),
            "fade": fade,
            "double": 0.5 if fade is None else fade * 2,
            "hidden": None if hidden is None else hidden + 1,
            "_hidden_1": hidden,
        }
        found[entity, when] = StoredRow(values, AT + when, AT + when - draw(st.integers(0, 2)) * HOUR)
    return [(entity, each) for (entity, _), each in sorted(found.items(), key=lambda item: item[0][1])]


@settings(suppress_health_check=list(HealthCheck))
@given(rows=stored(), asked=st.lists(st.tuples(ENTITIES, TIMES), min_size=1, max_size=12), cut=st.integers(0, 12))
def test_it_is_read_at_of_the_newest_row(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[tuple[str, int], StoredRow]],
    asked: list[tuple[tuple[str, int], int]],
    cut: int,
) -> None:
    """Against a loop: for each spine row the newest row of its entity at or before it, read as an online row is
    read."""
    while 0 < cut < len(rows) and rows[cut][1].event_timestamp_us == rows[cut - 1][1].event_timestamp_us:
        cut += 1
    view = definition(Fading)
    pairs = [({"user": user, "shop": shop}, each) for (user, shop), each in rows]
    with OfflineLog(tmp_path_factory.mktemp("log")) as log:
        log.append(Fading, rows_of(Fading, pairs[:cut]))
        log.tail(Fading, rows_of(Fading, pairs[cut:]))
        log.commit()
        spine = pa.table(
            {
                "user": [user for (user, _), _ in asked],
                "shop": [shop for (_, shop), _ in asked],
                "at": [at(when) for _, when in asked],
            }
        )
        found = training_set(spine, Fading, log=log, time="at", statuses=True).to_pylist()
    for (entity, when), got in zip(asked, found, strict=True):
        known = [each for other, each in rows if other == entity and each.event_timestamp_us <= AT + when]
        newest = known[-1] if known else None
        if newest is None:
            values, status = read_at(view, None, None, None, AT + when)
        else:
            values, status = read_at(view, newest.values, newest.event_timestamp_us, newest.newest_event_us, AT + when)
        for name in view.feature_names():
            expected = values[name]
            if isinstance(expected, float):
                expected = pytest.approx(expected, rel=1e-12)
            assert got[name] == expected, name
            assert got[f"{name}__status"] == status[name], name
    # Stored as codes in this order: a new one goes to the end.
    assert [str(each) for each in STATUSES] == [
        "PRESENT",
        "NULL",
        "NOT_FOUND",
        "OUTSIDE_MAX_AGE",
        "DEFAULT",
        "FAILED",
    ]
