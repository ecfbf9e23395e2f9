"""Models of River in a flow: against a new model for each entity that sees its events in order, restarts included."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from river import anomaly, cluster, drift, linear_model, preprocessing, stats, tree

import headrace.testing
from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource, Session, define
from headrace.flows.decode import decode_rows, reading_of
from headrace.flows.pipeline import SourceFlow
from headrace.flows.snapshot import SnapshotError

MINUTE = 60_000_000
START = 1_767_225_600_000_000


class Ride(Event):
    driver_id: str
    fare: float
    km: float | None
    tip: float | None
    city: str
    at: EventTime


driver = Entity("driver", key="driver_id")
X = [Ride.fare, Ride.km]


def halves() -> Any:
    return preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=7, n_trees=4, height=5, window_size=10)


def forest() -> Any:
    return tree.HoeffdingTreeClassifier(grace_period=10, delta=0.1)


FEATURES: dict[str, Callable[[], Any]] = {
    "surprise": lambda: Ride.stateful(halves(), x=X),
    "expected": lambda: Ride.stateful(
        preprocessing.StandardScaler() | linear_model.LinearRegression(), x=X, y=Ride.tip
    ),
    "place": lambda: Ride.stateful(forest(), x=X, y=Ride.city),
    "drifts": lambda: Ride.fare.stateful(drift.PageHinkley(min_instances=5, threshold=1.0)),
    "median": lambda: Ride.fare.stateful(stats.Quantile(0.5), where=Ride.city == "oslo"),
    "group": lambda: Ride.stateful(cluster.KMeans(seed=3, n_clusters=2), x=X),
    "spree": lambda: Ride.fare.stateful(stats.Sum(), over=Session("10m"), default=0.0),
}


def by_hand(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the features tell after one driver's rows, in order: River used as its documentation does."""
    surprise, place, group = halves(), forest(), cluster.KMeans(seed=3, n_clusters=2)
    expected = preprocessing.StandardScaler() | linear_model.LinearRegression()
    jumps, median, drifts = drift.PageHinkley(min_instances=5, threshold=1.0), stats.Quantile(0.5), 0
    spree, last = 0.0, None
    told: dict[str, Any] = dict.fromkeys(FEATURES)
    for row in rows:
        x = {"fare": row["fare"], "km": row["km"]}
        if row["km"] is not None:
            told["surprise"] = surprise.score_one(x)
            surprise.learn_one(x)
            told["expected"] = expected.predict_one(x)
            if row["tip"] is not None:
                expected.learn_one(x, row["tip"])
            told["place"] = place.predict_one(x)
            place.learn_one(x, row["city"])
            told["group"] = group.predict_one(x)
            group.learn_one(x)
        jumps.update(row["fare"])
        drifts += jumps.drift_detected
        if row["city"] == "oslo":
            median.update(row["fare"])
            told["median"] = median.get()
        spree = row["fare"] if last is None or row["at"] - last >= 10 * MINUTE else spree + row["fare"]
        last = row["at"]
        told |= {"drifts": drifts, "spree": spree}
    return told


def rides(n: int, seed: int, late: int) -> list[dict[str, Any]]:
    """Rides in arrival order, some of them up to `late` minutes behind the newest."""
    draw = random.Random(seed)
    now, made = 0, []
    for at in range(n):
        now += draw.choice((0, 0, 1, 2, 12 if draw.random() < 0.1 else 1))
        fare = draw.uniform(1, 30) + (40 if at > n // 2 and draw.random() < 0.3 else 0)
        made.append({
            "driver_id": draw.choice("ab"),
            "fare": fare,
            "km": None if draw.random() < 0.1 else fare / 3 + draw.random(),
            "tip": None if draw.random() < 0.3 else fare / 10,
            "city": draw.choice(("oslo", "rome")),
            "at": START + (now - draw.randint(0, late)) * MINUTE,
        })  # fmt: skip
    return made


def view(late: int) -> Any:
    source = IterableSource([], Ride, lateness=f"{late}m", unit="us")
    return define("driver_models", source=source, entity=driver, features={n: f() for n, f in FEATURES.items()})


def in_order(sent: list[dict[str, Any]], who: str, upto: int) -> list[dict[str, Any]]:
    mine = [(row["at"], at, row) for at, row in enumerate(sent) if row["driver_id"] == who and row["at"] <= upto]
    return [row for _, _, row in sorted(mine, key=lambda each: each[:2])]


@pytest.mark.parametrize(("late", "batch"), [(0, 7), (4, 1), (4, 16)])
def test_models_in_a_flow(late: int, batch: int) -> None:
    """Every row online and in the log is what models say that saw the events up to then in order; the flow is
    thrown away and made anew from its snapshot before every third batch."""
    made = view(late)
    sent = rides(80, batch, late)
    flow = SourceFlow(made.source, [made])
    chains: dict[str, list[bytes]] = {}
    log = []
    done: list[dict[str, Any]] = []
    for number, start in enumerate(range(0, len(sent), batch)):
        if number % 3 == 2:
            for name, part in flow.save().items():
                chains[name] = [*chains[name], part.data] if part.delta else [part.data]
            flow = SourceFlow(made.source, [made])
            flow.load(chains)
        rows = sent[start : start + batch]
        decoded, dead = decode_rows(Ride.__schema__, rows, 0, start, reading_of(made.source))
        assert not dead
        out = flow.push(decoded)
        assert not out.dead
        done += rows
        log += [each for table in out.log.values() for each in table.to_pylist()]
        if number % 4 == 0:
            for row in (each for table in out.online.values() for each in table.to_pylist()):
                check(row, in_order(done, row["driver_id"], instant(row)))
    log += [each for table in flow.tail().values() for each in table.to_pylist()]
    assert {row["driver_id"] for row in log} == {"a", "b"}
    for at, row in enumerate(log):
        if at % 9 == 0 or at > len(log) - 10:
            check(row, in_order(sent, row["driver_id"], instant(row)))


def instant(row: dict[str, Any]) -> int:
    return round(row["event_timestamp"].timestamp() * 1_000_000)


def check(row: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    wanted = by_hand(rows)
    if rows[-1]["at"] + 10 * MINUTE <= instant(row):
        wanted["spree"] = 0.0
    wanted["group"] = None if wanted["group"] is None else int(wanted["group"])
    assert {name: row[name] for name in FEATURES} == wanted


def test_the_replay_of_a_test_shows_scores() -> None:
    class Models(FeatureView, source=IterableSource([], Ride), entity=driver):
        mean = Ride.fare.stateful(stats.Mean())

    with headrace.testing.replay(Models) as t:
        base = {"driver_id": "7", "km": 1.0, "tip": None, "city": "oslo"}
        t.send([{**base, "fare": 10.0, "at": "12:00"}, {**base, "fare": 20.0, "at": "12:01"}])
        assert t.get(driver_id="7")["mean"] == 15.0
        assert t.get(driver_id="8").status["mean"] == "NOT_FOUND"


def test_another_version_of_river_is_a_changed_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    source = IterableSource([], Ride, unit="us")

    def defined() -> Any:
        features = {"mean": Ride.fare.stateful(stats.Mean()), "rides": Ride.count(last="1h")}
        return define("v", source=source, entity=driver, features=features)

    rows, _ = decode_rows(Ride.__schema__, rides(5, 1, 0), 0, 0, reading_of(source))
    with monkeypatch.context() as patched:
        patched.setattr("river.__version__", "0.0.1")
        old = SourceFlow(source, [defined()])
        old.push(rows)
        saved = {name: [part.data] for name, part in old.save().items()}
    flow = SourceFlow(source, [defined()])
    with pytest.raises(SnapshotError, match=r"Mean \(river 0\.0\.1\) of Ride\.fare .* to Mean \(river 0\.\d+\.\d+\)"):
        flow.load(saved)
    flow.load(saved, "start")
    (table,) = flow.rows(flow.clock_us).values()
    for row in table.to_pylist():
        assert row["mean"] is None
        assert row["rides"] > 0
    grafted = SourceFlow(source, [defined()])
    grafted.load(saved, "backfill")
    history = SourceFlow(source, [defined()])
    history.push(rows)
    grafted.graft(history)
    (table,) = grafted.rows(grafted.clock_us).values()
    means = {row["driver_id"]: row["mean"] for row in table.to_pylist()}
    for who, mean in means.items():
        fares = [row["fare"] for row in rides(5, 1, 0) if row["driver_id"] == who]
        assert mean == pytest.approx(sum(fares) / len(fares))
