"""Independent judges of exact sliding windows: NumPy, pandas rolling, DuckDB OVER RANGE and Polars rolling.

One stream of 600 payments of 5 users over a day, a third of them sharing an instant with another, with missing amounts;
the log's row at each event, of a stream and of a backfill, must equal what each judge says of the events in (t - 1 h,
t].
"""

import math
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from headrace import OfflineLog, backfill
from headrace.features import IterableSource, define
from headrace.testing import replay
from tests.known.payments import Payment, patient, user

NAMES = ("rows", "total", "mean", "least", "most", "std")
MIDNIGHT = np.datetime64("2026-01-01T00:00", "us")


EXACT = {
    "rows": Payment.count(last="1h", exact=True),
    "total": Payment.amount.sum(last="1h", exact=True),
    "mean": Payment.amount.mean(last="1h", exact=True),
    "least": Payment.amount.min(last="1h", exact=True),
    "most": Payment.amount.max(last="1h", exact=True),
    "std": Payment.amount.std(last="1h", exact=True),
}
"""The statistics that every judge knows."""

Stream = dict[str, Any]
Answers = dict[tuple[str, int], tuple[float | None, ...]]


@pytest.fixture(scope="module")
def stream() -> Stream:
    """Columns user, at (datetime64[us]) and amount (NaN where missing), in order of time."""
    rng = np.random.default_rng(20260101)
    at = np.sort(rng.integers(0, 24 * 60, 600))
    return {
        "user": rng.choice(["a", "b", "c", "d", "e"], 600),
        "at": MIDNIGHT + at.astype("timedelta64[m]"),
        "amount": np.where(rng.random(600) < 0.1, np.nan, np.round(rng.lognormal(3, 1, 600), 2)),
    }


def streamed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The log of a stream."""
    with replay(define("exact", source=patient, entity=user, features=EXACT)) as t:
        t.send(rows)
        assert not t.dead
        return list(t.log(tail=True))


def backfilled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The log of a backfill."""
    view = define(
        "exact", source=IterableSource(rows, Payment, lateness="4h", name="paid"), entity=user, features=EXACT
    )
    with TemporaryDirectory() as folder:
        assert not backfill([view], folder, batch_size=100).dead
        found: list[dict[str, Any]] = OfflineLog(Path(folder) / "log").scan(view).to_pylist()
        return found


@pytest.fixture(scope="module", params=[streamed, backfilled])
def ours(stream: Stream, request: pytest.FixtureRequest) -> Answers:
    """(user, instant) -> answers at the instants of events; sent in order, but with pairs swapped."""
    order = np.arange(600).reshape(-1, 2)[:, ::-1].ravel()
    log = request.param(
        [
            {
                "user": str(stream["user"][i]),
                "amount": None if np.isnan(stream["amount"][i]) else float(stream["amount"][i]),
                "at": f"{stream['at'][i]}Z",
            }
            for i in order
        ]
    )
    events = {(str(u), int(at)) for u, at in zip(stream["user"], stream["at"].astype(np.int64), strict=True)}
    answers = {}
    for row in log:
        key = row["user"], round(row["event_timestamp"].timestamp() * 1_000_000)
        if key in events:
            answers[key] = tuple(row[name] for name in NAMES)
    assert set(answers) == events
    return answers


def same(ours: Answers, theirs: Answers, std: float = 1e-9) -> None:
    """std: how near to each other standard deviations have to be, relatively."""
    assert set(ours) == set(theirs)
    for key, expected in theirs.items():
        for name, got, wanted in zip(NAMES, ours[key], expected, strict=True):
            if wanted is None or math.isnan(wanted):
                assert got is None, f"{name} of {key}: got {got}, expected null"
            else:
                assert got == pytest.approx(wanted, rel=std if name == "std" else 1e-9, abs=1e-12), f"{name} of {key}"


def test_numpy(stream: Stream, ours: Answers) -> None:
    theirs: Answers = {}
    for who, at in zip(stream["user"], stream["at"], strict=True):
        chosen = (stream["user"] == who) & (stream["at"] <= at) & (stream["at"] > at - np.timedelta64(1, "h"))
        amounts = stream["amount"][chosen & ~np.isnan(stream["amount"])]
        some, two = len(amounts) > 0, len(amounts) > 1
        theirs[str(who), int(at.astype(np.int64))] = (
            int(chosen.sum()),
            math.fsum(amounts),
            float(amounts.mean()) if some else None,
            float(amounts.min()) if some else None,
            float(amounts.max()) if some else None,
            float(amounts.std(ddof=1)) if two else None,
        )
    same(ours, theirs)


def test_pandas_rolling(stream: Stream, ours: Answers) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(stream).assign(one=1.0).set_index("at")
    theirs: Answers = {}
    for who, mine in frame.groupby("user"):
        rolling = mine.rolling("1h", closed="right", min_periods=0)
        columns = [
            rolling["one"].sum(),
            rolling["amount"].sum(),
            *(
                getattr(mine["amount"].rolling("1h", closed="right", min_periods=1), f)()
                for f in ("mean", "min", "max")
            ),
            mine["amount"].rolling("1h", closed="right", min_periods=2).std(),
        ]
        for at, *values in zip(mine.index.values.astype("datetime64[us]").astype(np.int64), *columns, strict=True):
            theirs[str(who), int(at)] = tuple(values)  # of rows at one instant the last, which has seen them all
    same(ours, theirs, std=1e-7)  # pandas 2 adds and removes as it rolls, and loses digits among equal values


def test_duckdb_over_range(stream: Stream, ours: Answers) -> None:
    duckdb = pytest.importorskip("duckdb")
    pa = pytest.importorskip("pyarrow")
    amounts = pa.array(stream["amount"], from_pandas=True)
    events = pa.table({"who": stream["user"].tolist(), "instant": stream["at"], "amount": amounts})
    query = """
        SELECT who, epoch_us(instant), count(*) OVER w, coalesce(sum(amount) OVER w, 0), avg(amount) OVER w,
               min(amount) OVER w, max(amount) OVER w, stddev_samp(amount) OVER w
        FROM events
        WINDOW w AS (PARTITION BY who ORDER BY instant
                     RANGE BETWEEN INTERVAL '3599999999 microseconds' PRECEDING AND CURRENT ROW)
    """
    with duckdb.connect() as connection:
        connection.register("events", events)
        rows = connection.execute(query).fetchall()
    same(ours, {(who, at): tuple(values) for who, at, *values in rows})


def test_polars_rolling(stream: Stream, ours: Answers) -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({name: column.tolist() if name == "user" else column for name, column in stream.items()})
    amount = pl.col("amount")
    rolled = (
        frame.with_columns(amount.fill_nan(None))
        .sort("user", "at")
        .rolling("at", period=timedelta(hours=1), closed="right", group_by="user")
        .agg(
            pl.len().alias("rows"),
            amount.sum().alias("total"),
            amount.mean().alias("mean"),
            amount.min().alias("least"),
            amount.max().alias("most"),
            amount.std().alias("std"),
        )
    )
    at = rolled["at"].dt.epoch("us").to_list()
    columns = [rolled[name].to_list() for name in NAMES]
    same(ours, {(who, t): values for who, t, *values in zip(rolled["user"].to_list(), at, *columns, strict=True)})
