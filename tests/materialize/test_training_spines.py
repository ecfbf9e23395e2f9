"""Training sets of feature services, of spines wherever they rest, in local time, and in every form of result."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import Entity, FeatureService, FeatureView, Lifetime, Request, derived
from headrace.features.errors import DataError, DefinitionError
from headrace.features.reading import read_at
from headrace.features.views import definition
from headrace.materialize import spine as spines
from headrace.materialize.spine_times import SpineClock, instants
from headrace.materialize.training import training_set
from headrace.serving.client import Client
from headrace.stores.memory import MemoryStore
from headrace.stores.offline import OfflineLog
from headrace.stores.online import StoredRow
from headrace.stores.testing import AT, VISITS, ByShop, Visit, Visits, instant, row, rows_of

SPINE = {
    "user": ["a", "b", "a", "new", "a", None],
    "event_timestamp": [instant(us) for us in (20, 14, 19, 20, 99, 20)],
    "label": [1, 2, 3, 4, 5, 6],
}
EXPECTED = [20, 0, 10, 0, 20, 0]

amount = Request("amount", float)


class Faded(FeatureView, source=VISITS, entity=Entity("user", key="user"), ttl="2h"):
    fade = Visit.amount.decayed_sum("1h", over=Lifetime())
    other = Visit.amount.decayed_sum("1h", over=Lifetime(), default=-1.0)
    double = derived(fade * 2, default=0.5)
    visits = Visit.count(last="1h")


SERVICE = FeatureService(
    "pricing",
    [Faded["double"], Visits["visits"], ByShop["visits"]],
    derived={
        "share": derived(amount / Visits["total"], default=-1.0),
        "faded": derived(Faded["other"] + amount),
    },
)


@pytest.fixture
def log(tmp_path: Path) -> OfflineLog:
    log = OfflineLog(tmp_path / "log")
    times = ((10, "a"), (15, "b"), (20, "a"))
    log.append(Visits, rows_of(Visits, [({"user": user}, row(t, visits=t, total=t / 2)) for t, user in times]))
    log.append(ByShop, rows_of(ByShop, [({"shop": 7}, StoredRow({"visits": 70}, AT + 12, AT + 12))]))
    faded = {"fade": 8.0, "other": -1.0, "double": 16.0, "visits": 1}
    log.append(Faded, rows_of(Faded, [({"user": "a"}, StoredRow(faded, AT + 10, AT + 10))]))
    log.commit()
    return log


def parquet(table: pa.Table, folder: Path) -> Path:
    pq.write_table(table, folder / "spine.parquet", row_group_size=2)
    return folder / "spine.parquet"


def parts(table: pa.Table, folder: Path) -> Path:
    (folder / "spine").mkdir()
    for part in range(3):
        pq.write_table(table.slice(part * 2, 2), folder / "spine" / f"{part}.parquet")
    return folder / "spine"


def relation(table: pa.Table, folder: Path) -> duckdb.DuckDBPyRelation:
    """Of a connection in another zone."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    return connection.sql(f"SELECT * FROM '{parquet(table, folder)}' ORDER BY label")


@pytest.mark.parametrize(
    "make",
    [
        parquet,
        parts,
        lambda table, folder: str(parquet(table, folder)),
        lambda table, folder: f"SELECT * FROM '{parquet(table, folder)}' ORDER BY label;",
        lambda table, folder: f"  with t as (from '{parquet(table, folder)}') select * from t",
        relation,
        lambda table, folder: pl.scan_parquet(parquet(table, folder)),
        lambda table, folder: table.to_reader(max_chunksize=2),
        lambda table, folder: ds.dataset(parquet(table, folder)),
        lambda table, folder: pa.Table.from_batches(table.to_batches(max_chunksize=1)),
    ],
)
@pytest.mark.parametrize("portion", [1, 4, 1 << 20])
def test_a_spine_rests_anywhere_and_is_answered_in_portions(
    log: OfflineLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any], portion: int
) -> None:
    plain = spines.Spine.portions
    monkeypatch.setattr(spines.Spine, "portions", lambda self: plain(self, portion))
    found = training_set(make(pa.table(SPINE), tmp_path), Visits, log=log, statuses=True)
    assert found.column("visits").to_pylist() == EXPECTED
    assert found.column("label").to_pylist() == SPINE["label"]
    assert found.column("event_timestamp").to_pylist() == SPINE["event_timestamp"]


def test_what_is_no_spine_says_so(log: OfflineLog, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The spine 'nothing\.parquet' cannot be read as Parquet: .*SELECT"):
        training_set("nothing.parquet", Visits, log=log)
    with pytest.raises(DataError, match=r"The spine's SQL fails: .*nowhere"):
        training_set("SELECT * FROM nowhere", Visits, log=log)
    text = tmp_path / "spine.parquet"
    text.write_text("user,at")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        training_set(text, Visits, log=log)
    none = training_set("SELECT 'a' AS user, now() AS event_timestamp LIMIT 0", Visits, log=log)
    assert none.schema.names == ["user", "event_timestamp", "visits", "total"]
    assert none.num_rows == 0


@pytest.mark.parametrize("make", [pd.DataFrame, lambda data: pa.table(data).to_pylist()])
def test_naive_times_among_others_are_no_utc(log: OfflineLog, make: Callable[..., Any]) -> None:
    times = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1)]
    spine = pd.DataFrame({"user": ["a", "a"], "event_timestamp": pd.Series(times, dtype=object)})
    data = spine if make is pd.DataFrame else spine.to_dict("records")
    with pytest.raises(DataError, match=r"with a zone and times without one; .* row 1: 2026-01-01T00:00:00"):
        training_set(data, Visits, log=log)


def test_a_service_is_answered_as_its_lookups_are(log: OfflineLog) -> None:
    """Against lookups of the same rows: at the instant of the newest, an hour after, two hours after (expired)."""
    assert SERVICE.names == ("double", "visits__visits", "by_shop__visits", "share", "faded")
    users, amounts = ["a", "b", "new"], [5.0, None, 3.0]
    for later in (20, 20 + 3_600_000_000, 20 + 7_200_000_000):
        spine = {
            "user": users,
            "shop": [7, 8, 7],
            "amount": amounts,
            "event_timestamp": [instant(later)] * 3,
        }
        found = training_set(pa.table(spine), SERVICE, log=log, statuses=True)
        names = [name for name in found.column_names if name not in spine and not name.endswith("__status")]
        assert names == list(SERVICE.names)
        store = MemoryStore()
        for view in (Visits, ByShop, Faded):
            store.write(view, log.latest(view))
        entities = {"user": users, "shop": spine["shop"]}
        answer = Client(store).features(SERVICE, entities, request={"amount": amounts}, at=instant(later))
        for at, expected in enumerate(answer.to_dicts()):
            got = found.slice(at, 1).to_pylist()[0]
            assert {name: got[name] for name in names} == {name: expected[name] for name in names}
        for name in names:
            assert found[f"{name}__status"].to_pylist() == [str(each) for each in answer.status(name)], name


def test_some_features_of_views_and_what_the_request_must_be(log: OfflineLog) -> None:
    spine = {"user": ["a"], "shop": [7], "event_timestamp": [instant(20)], "amount": [5.0]}
    some = training_set(pa.table(spine), [Faded["double"], Visits["total", "visits"]], log=log)
    assert some.column_names == [*spine, "double", "total", "visits"]
    values, _ = read_at(
        definition(Faded), {"fade": 8.0, "other": -1.0, "double": 16.0, "visits": 1}, AT + 10, AT + 10, AT + 20
    )
    assert some.to_pylist()[0] | spine == spine | {"double": values["double"], "total": 10.0, "visits": 20}
    one = training_set(pa.table(spine), Visits["visits"], log=log, prefix=True)
    assert one.column_names == [*spine, "visits__visits"]
    with pytest.raises(DataError, match=r"no column 'amount' \(amount of the service's request, float64\)"):
        training_set(pa.table(spine).drop_columns("amount"), SERVICE, log=log)
    with pytest.raises(DataError, match=r"Row 0 of the spine: request: .*amount"):
        training_set(pa.table(spine | {"amount": ["5"]}), SERVICE, log=log)
    with pytest.raises(DefinitionError, match="service 'pricing' names its features itself"):
        training_set(pa.table(spine), SERVICE, log=log, prefix=True)
    with pytest.raises(DefinitionError, match="is no feature"):
        training_set(pa.table(spine), ["visits"], log=log)


BERLIN = "Europe/Berlin"


def local(*texts: str) -> dict[str, Any]:
    return {"user": ["a"] * len(texts), "event_timestamp": [datetime.fromisoformat(each) for each in texts]}


def test_local_times_need_their_zone_and_mind_the_turn_of_the_clock(tmp_path: Path) -> None:
    """In Berlin 2026-10-25 the clock goes from 03:00 back to 02:00 (01:00Z); 2026-03-29 from 02:00 to 03:00 (01:00Z).

    The log has rows every half hour about 01:00Z: a row's `visits` is its minute after 00:00Z.
    """
    log = OfflineLog(tmp_path)
    for day in ("2026-03-29", "2026-10-25"):
        start = round(datetime.fromisoformat(f"{day}T00:00Z").timestamp()) * 1_000_000
        at = [(start + minute * 60_000_000, minute) for minute in range(0, 150, 30)]
        log.append(
            Visits,
            rows_of(Visits, [({"user": "a"}, StoredRow({"visits": m, "total": 0.0}, t, t)) for t, m in at]),
        )
    log.commit()

    def minutes(*texts: str, form: Callable[[dict[str, Any]], Any] = pa.table, **rules: str) -> list[int]:
        found: list[int] = training_set(form(local(*texts)), Visits, log=log, zone=BERLIN, **rules)[
            "visits"
        ].to_pylist()
        return found

    def sql(data: dict[str, Any]) -> str:
        rows = ", ".join(f"('a', TIMESTAMP '{each}')" for each in data["event_timestamp"])
        return f"SELECT * FROM (VALUES {rows}) AS spine(user, event_timestamp)"

    autumn = ("2026-10-25T01:59:59", "2026-10-25T02:30", "2026-10-25T03:00")
    spring = ("2026-03-29T01:59:59", "2026-03-29T02:30", "2026-03-29T03:00")
    twice = r"row 1: the local time 2026-10-25T02:30:00 occurs twice in Europe/Berlin.*ambiguous='earlier' or 'later'"
    never = r"row 1: .* does not occur in Europe/Berlin.*nonexistent='shift'"
    for form in (pa.table, pd.DataFrame, pl.DataFrame, pl.LazyFrame, lambda data: pa.table(data).to_pylist(), sql):
        # The first row of autumn has the last row of March.
        assert minutes(*autumn, form=form, ambiguous="earlier") == [120, 30, 120]
        assert minutes(*autumn, form=form, ambiguous="later") == [120, 90, 120]
        assert minutes(*spring, form=form, nonexistent="shift") == [30, 90, 60]
        with pytest.raises(DataError, match=twice):
            minutes(*autumn, form=form, nonexistent="shift")
        with pytest.raises(DataError, match=never):
            minutes(*spring, form=form, ambiguous="later")
    texts = [{"user": "a", "event_timestamp": each} for each in ("2026-10-25T02:30", "2026-10-25T02:30+01:00")]
    found = training_set(texts, Visits, log=log, zone=BERLIN, ambiguous="earlier")
    assert found["visits"].to_pylist() == [30, 90]
    with pytest.raises(DataError, match=r"row 0: the local time"):
        training_set(texts, Visits, log=log, zone=BERLIN)
    with pytest.raises(DefinitionError, match="zone='Berlin' is no known time zone"):
        training_set(texts, Visits, log=log, zone="Berlin")
    with pytest.raises(DataError, match="zone='Europe/Berlin', or df"):
        training_set(pa.table(local("2026-03-29T01:00")), Visits, log=log)


@given(
    times=st.lists(st.datetimes(datetime(1995, 1, 1), datetime(2037, 1, 1)), min_size=1, max_size=20),
    zone=st.sampled_from(["America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Casablanca", BERLIN]),
    later=st.booleans(),
    turns=st.lists(st.integers(0, 59), max_size=5),
)
def test_local_times_are_those_of_zoneinfo(times: list[datetime], zone: str, later: bool, turns: list[int]) -> None:
    times += [datetime(2026, 10, 25, 2, minute) for minute in turns] + [datetime(2026, 3, 8, 2, m) for m in turns]
    clock = SpineClock(zone, "later" if later else "earlier", "shift")
    got = instants(pa.chunked_array([pa.array(times, pa.timestamp("us"))]), "at", clock)
    for time, us in zip(times, got.tolist(), strict=True):
        before, after = (time.replace(tzinfo=ZoneInfo(zone), fold=fold).utcoffset() for fold in (0, 1))
        assert before is not None
        assert after is not None
        offset = after if before > after and later else before  # a gap is shifted: read by the offset before it
        assert us == round((time.replace(tzinfo=UTC) - offset).timestamp() * 1e6)


def test_instants_with_a_zone_do_not_mind_the_turn(log: OfflineLog) -> None:
    """Both 01:30 of the night in which New York's clock is turned back, an hour apart, from aware columns."""
    times = [datetime(2026, 11, 1, 1, 30, fold=fold, tzinfo=ZoneInfo("America/New_York")) for fold in (0, 1)]
    us = [round(each.timestamp() * 1e6) for each in times]
    assert us[1] - us[0] == 3_600_000_000
    for column in (
        pa.array(us).cast(pa.timestamp("us", "America/New_York")),
        pd.Series(pd.to_datetime(us, unit="us", utc=True)).dt.tz_convert("America/New_York"),
        pl.Series(us).cast(pl.Datetime("us", "America/New_York")),
    ):
        arrow = pa.chunked_array([pa.array(column)])
        assert instants(arrow, "at", SpineClock("Asia/Tokyo")).tolist() == us


def test_results_in_every_form(log: OfflineLog, tmp_path: Path) -> None:
    spine = pd.DataFrame(SPINE, index=[9, 8, 7, 6, 5, 4])
    expected = training_set(spine, Visits, log=log, statuses=True)
    frame = training_set(spine, Visits, log=log, statuses=True, as_="pandas")
    assert list(frame.index) == [9, 8, 7, 6, 5, 4]
    assert frame["visits"].tolist() == EXPECTED
    assert str(frame["visits"].dtype) == "int64"
    polars = training_set(spine, Visits, log=log, as_="polars")
    assert polars["visits"].to_list() == EXPECTED
    path = training_set(spine, Visits, log=log, statuses=True, to=tmp_path / "set.parquet")
    assert path == tmp_path / "set.parquet"
    assert pq.read_table(path).to_pylist() == expected.to_pylist()
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["set.parquet"]
    with pytest.raises(DefinitionError, match=r"as_='numpy' is unknown. Choose one of 'arrow', 'pandas', 'polars'"):
        training_set(spine, Visits, log=log, as_="numpy")  # type: ignore[call-overload]
    with pytest.raises(DataError, match=r"cannot be written: .*Make its folder first"):
        training_set(spine, Visits, log=log, to=tmp_path / "no" / "set.parquet")


def test_pandas_gets_large_integers_with_gaps_unharmed(tmp_path: Path) -> None:
    class Largest(FeatureView, source=VISITS, entity=Entity("user", key="user")):
        shop = Visit.shop.max(last="1h")

    with OfflineLog(tmp_path) as log:
        log.append(Largest, rows_of(Largest, [({"user": "a"}, StoredRow({"shop": 2**53 + 1}, AT, AT))]))
        log.commit()
        spine = pa.table({"user": ["a", "b"], "event_timestamp": [instant(0)] * 2})
        frame = training_set(spine, Largest, log=log, as_="pandas")
    assert str(frame["shop"].dtype) == "Int64"
    assert frame["shop"][0] == 2**53 + 1
    assert frame["shop"].isna().tolist() == [False, True]


def test_a_result_that_fails_half_way_leaves_what_was_there(
    log: OfflineLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = spines.Spine.portions
    monkeypatch.setattr(spines.Spine, "portions", lambda self: plain(self, 2))
    path = tmp_path / "set.parquet"
    path.write_text("before")
    spine = pa.table(SPINE | {"event_timestamp": [*SPINE["event_timestamp"][:5], None]})
    with pytest.raises(DataError, match="is null in row 5"):
        training_set(spine, Visits, log=log, to=path)
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["set.parquet"]


def test_many_rows_in_little_memory(log: OfflineLog) -> None:
    """200,000 questions in portions of 2^20 at most, with 64 MB for DuckDB, in order."""
    n = 200_000
    which = np.arange(n) % 3
    spine = pa.table(
        {
            "user": pa.array(np.array(["a", "b", "new"])).take(pa.array(which)),
            "event_timestamp": pa.array(np.arange(n) % 30 + AT).cast(pa.timestamp("us", "UTC")),
        }
    )
    found = training_set(spine, Visits, log=log, memory="64MB").column("visits").to_numpy()
    t = np.arange(n) % 30
    expected = np.where(which == 0, np.where(t >= 20, 20, np.where(t >= 10, 10, 0)), np.where(t >= 15, 15, 0))
    assert np.array_equal(found, np.where(which == 2, 0, expected))
