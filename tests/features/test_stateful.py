"""Stateful features are defined: which objects, driven how, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from river import anomaly, cluster, compose, drift, linear_model, preprocessing, stats, tree, utils

from headrace.features import (
    DataError,
    DefinitionError,
    Entity,
    Event,
    EventTime,
    IterableSource,
    Lifetime,
    Session,
    define,
)


class Ride(Event):
    driver_id: str
    fare: float
    km: float
    tip: float | None
    city: str
    paid: bool
    at: EventTime


class Streak:
    """How many values in a row were above a bound."""

    def __init__(self, above: float = 20.0) -> None:
        self.above = above
        self.length = 0

    def learn(self, x: float) -> None:
        self.length = self.length + 1 if x > self.above else 0

    def value(self) -> int:
        return self.length


class Surprise:
    """Asked before it learns, because its value looks at the event."""

    def __init__(self) -> None:
        self.last: float | None = None

    def learn(self, x: float) -> None:
        self.last = x

    def value(self, x: float) -> float | None:
        return None if self.last is None else abs(x - self.last)


def told(feature: Any, *rows: tuple[Any, ...]) -> list[Any]:
    """The feature's value after each input."""
    agg = feature.agg
    state, out = agg.init(), []
    for at, row in enumerate(rows):
        state = agg.update(state, row, at * 1_000_000, at)
        state = agg.decode(agg.encode(state))
        out.append(agg.finish(state, at))
    return out


def test_which_methods_drive_it() -> None:
    """Detectors of anomalies and models tell first and then learn; everything else learns first."""
    x = [Ride.fare, Ride.km]
    scaled = preprocessing.StandardScaler()
    assert told(Ride.fare.stateful(stats.Mean()), (1.0,), (3.0,)) == [1.0, 2.0]
    assert told(Ride.fare.stateful(stats.Cov(), y=Ride.km), (1.0, 2.0), (3.0, 4.0))[1] == 2.0
    assert told(Ride.fare.stateful(Streak(), output=int), (21.0,), (30.0,), (5.0,)) == [1, 2, 0]
    assert told(Ride.fare.stateful(Surprise()), (1.0,), (3.5,)) == [None, 2.5]
    assert told(Ride.fare.stateful(Surprise(), learn_first=True), (1.0,), (3.5,)) == [0.0, 0.0]
    assert told(Ride.fare.stateful(scaled), (1.0,), (3.0,)) == [0.0, 1.0]
    assert told(Ride.stateful(scaled, x=x), (1.0, 1.0), (3.0, 5.0))[1] == {"fare": 1.0, "km": 1.0}
    model = Ride.stateful(linear_model.LinearRegression(), x=x, y=Ride.tip)
    assert told(model, (1.0, 2.0, 1.0), (1.0, 2.0, None)) == [0.0, told(model, *[(1.0, 2.0, 1.0)] * 2)[1]]
    labels = Ride.stateful(tree.HoeffdingTreeClassifier(), x=x, y=Ride.city)
    assert labels.dtype == "string"
    assert told(labels, (1.0, 2.0, "oslo"), (1.0, 2.0, None)) == [None, "oslo"]
    assert Ride.stateful(cluster.KMeans(seed=1), x=x).dtype == "int64"
    halves = Ride.stateful(anomaly.HalfSpaceTrees(seed=1), x=x)
    assert told(halves, (0.1, 0.2)) == [0.0]


def test_which_value() -> None:
    steps = [(0.0,)] * 300 + [(9.0,)] * 300
    drifts = told(Ride.fare.stateful(drift.ADWIN()), *steps)
    first = drifts.index(1)
    assert 300 < first < 400
    assert drifts[:first] == [0] * first
    last = told(Ride.fare.stateful(drift.ADWIN(), value="last_drift"), *steps)
    assert last[first - 1 : first + 1] == [None, first * 1_000_000]
    now = told(Ride.fare.stateful(drift.ADWIN(), value="drift_detected"), *steps)
    assert (now.index(True), now[first - 1]) == (first, False)
    width = Ride.fare.stateful(drift.ADWIN(), value="width", output=float)
    assert told(width, *steps)[first - 1 : first + 1] == [float(first), told(width, *steps)[first]]
    own = Ride.fare.stateful(stats.Mean(), value=lambda mean, x: x - mean.get())
    assert told(own, (1.0,), (3.0,)) == [0.0, 1.0]
    odds = Ride.stateful(tree.HoeffdingTreeClassifier(), x=[Ride.fare], y=Ride.city, value="predict_proba_one")
    assert odds.dtype == "map<string,float64>"
    assert told(odds, (1.0, "oslo"), (1.0, "rome"))[1] == {"oslo": 1.0}


def test_a_method_may_ask_for_the_event_time() -> None:
    from datetime import timedelta

    rolling = utils.TimeRolling(stats.Mean, period=timedelta(seconds=2))
    assert told(Ride.fare.stateful(rolling), (1.0,), (3.0,), (5.0,)) == [1.0, 2.0, 4.0]


def test_pipelines_do_what_their_last_step_does() -> None:
    pipeline = preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=7)
    feature = Ride.stateful(pipeline, x={"fare": Ride.fare, "rate": Ride.fare / Ride.km})
    assert str(feature.agg).startswith("MinMaxScaler | HalfSpaceTrees (river ")
    assert told(feature, (1.0, 2.0)) == [0.0]
    named = Ride.stateful(compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()),
                          x=[Ride.fare], y=Ride.paid)  # fmt: skip
    assert named.dtype == "bool"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Ride.fare.stateful(anomaly.HalfSpaceTrees), "random numbers without a seed.*seed=7"),
        (lambda: Ride.fare.stateful(anomaly.HalfSpaceTrees()), "random numbers without a seed"),
        (lambda: Ride.fare.stateful(linear_model.LinearRegression()), "learns from a label too.*y=Ride.tip"),
        (lambda: Ride.fare.stateful(stats.Mean(), y=Ride.km), "takes no label. Leave y= out"),
        (lambda: Ride.fare.stateful(stats.Cov()), "learns from a label"),
        (lambda: Ride.stateful(stats.Mean(), x=[Ride.fare, Ride.km]), "takes numbers, not rows of 2 columns"),
        (lambda: Ride.stateful(stats.Mean(), x=[]), "x= is empty"),
        (lambda: Ride.stateful(stats.Mean(), x=[Ride.fare / 2]), "x={'share'"),
        (lambda: Ride.stateful(stats.Mean(), x=3), "say what it learns from"),
        (lambda: Ride.fare.stateful(3), "no methods that Headrace knows"),
        (lambda: Ride.fare.stateful(stats.Mean(), value="gett"), "'gett': a Mean has none such"),
        (lambda: Ride.fare.stateful(stats.Mean(), output="double"), "output='double' is no type"),
        (lambda: Ride.fare.stateful(stats.Mean(), last="1h"), "no option 'last'.*over=Session"),
        (lambda: Ride.fare.stateful(stats.Mean(), by=Ride.city), "no option 'by'"),
        (lambda: Ride.fare.stateful(stats.Mean(), over=Lifetime(ending="1h")), "over=Lifetime"),
        (lambda: Ride.fare.stateful(Holding()), "cannot rest in a snapshot: object.file is a .*TextIOWrapper"),
        (lambda: Ride.fare.stateful(Random()), "random numbers without a seed"),
        (lambda: Ride.fare.stateful(Streak, default="x"), "default"),
        (lambda: Ride.fare.stateful(lambda a: a), r"\(\) failed with TypeError"),
    ],
)  # fmt: skip
def test_what_is_refused(make: Any, match: str) -> None:
    with pytest.raises(DefinitionError, match=match):
        make()


class Holding(Streak):
    """Opens a file when it learns."""

    def learn(self, x: float) -> None:
        self.file = sys.__stdout__


class Random(Streak):
    """Looks at the process."""

    def learn(self, x: float) -> None:
        import random

        self.length = random.randrange(10**9)


def test_sessions_do_not_go_with_late_events_that_count() -> None:
    source = IterableSource([], Ride, late="count")
    feature = Ride.fare.stateful(stats.Mean(), over=Session("1d"))
    with pytest.raises(DefinitionError, match="over a session cannot count what comes late"):
        define("v", source=source, entity=Entity("driver", key="driver_id"), features={"f": feature})


def test_errors_of_the_object_name_it_and_its_input() -> None:
    class Picky(Streak):
        def learn(self, x: float) -> None:
            if x < 0:
                raise ValueError("below zero")

    with pytest.raises(DataError, match=r"Picky: its learn failed for x=-1\.0 with ValueError: below zero"):
        told(Ride.fare.stateful(Picky()), (-1.0,))
    with pytest.raises(DataError, match="output="):
        told(Ride.fare.stateful(Streak(), value=lambda model, x: "text"), (1.0,))


def test_what_a_fingerprint_tells_apart() -> None:
    def key(model: Any, **options: Any) -> Any:
        return Ride.fare.stateful(model, **options).key

    class Streak2(Streak):
        def learn(self, x: float) -> None:
            self.length = self.length + 2 if x > self.above else 0

    assert key(Streak()) == key(Streak(20.0))
    keys = [key(Streak()), key(Streak(21.0)), key(Streak2()), key(Streak(), learn_first=False), key(stats.Mean()),
            key(Streak(), value=lambda m, x: m.length), key(Streak(), value=lambda m, x: m.length + 1),
            key(stats.Quantile(0.5)), key(stats.Quantile(0.6))]  # fmt: skip
    assert len(set(keys)) == len(keys)


def made() -> list[Any]:
    """Features whose keys must not depend on the process."""
    return [
        Ride.stateful(preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=7), x=[Ride.fare, Ride.km]),
        Ride.stateful(tree.HoeffdingTreeClassifier(), x=[Ride.fare], y=Ride.city),
        Ride.fare.stateful(Streak()),
        Ride.fare.stateful(stats.Quantile(0.5)),
    ]


def test_the_key_is_the_same_in_every_process() -> None:
    program = "from tests.features.test_stateful import made; print([each.key for each in made()])"
    other = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONHASHSEED": "1"}, cwd=Path(__file__).parents[2],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert other.strip() == str([each.key for each in made()])
