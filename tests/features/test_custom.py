"""Aggregations of the user's own: what they are given, what may go wrong, what their fingerprint covers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from headrace.features import (
    CustomAggregation,
    DataError,
    Entity,
    Event,
    EventTime,
    FeatureView,
    KafkaSource,
    definition,
)
from headrace.features.code import code_key
from headrace.features.custom import Custom


class Ride(Event):
    driver_id: str
    fare: float
    city: str
    at: EventTime


@dataclass(frozen=True)
class Above(CustomAggregation):
    """How many values are above a bound."""

    bound: float = 0.0
    output = int
    empty = 0
    takes = (float, int)

    def init(self) -> Any:
        return {"n": 0}

    def update(self, state: Any, value: Any) -> Any:
        state["n"] += value > self.bound
        return state

    def merge(self, a: Any, b: Any) -> Any:
        return {"n": a["n"] + b["n"]}

    def finish(self, state: Any) -> Any:
        return state["n"]


class Plain(CustomAggregation):
    """An aggregation made of the four functions given."""

    output: Any = float

    def __init__(self, finish: Any = lambda state: state[0], output: Any = float, update: Any = None) -> None:
        self.given_finish, self.given_update, self.output = finish, update, output  # type: ignore[misc]

    def init(self) -> Any:
        return [0.0]

    def update(self, state: Any, value: Any) -> Any:
        return self.given_update(state, value) if self.given_update else [state[0] + value]

    def merge(self, a: Any, b: Any) -> Any:
        return [a[0] + b[0]]

    def finish(self, state: Any) -> Any:
        return self.given_finish(state)


def finished(user: CustomAggregation, values: list[Any]) -> Any:
    agg = Custom(user)
    state = agg.init()
    for i, value in enumerate(values):
        state = agg.update(state, value, i, (0, i))
    return agg.finish(state, 0)


def test_it_is_an_aggregation_like_the_others() -> None:
    class Rides(FeatureView, source=KafkaSource("rides", Ride), entity=Entity("driver", key="driver_id")):
        dear = Ride.fare.aggregate(Above(50.0), last=["1h", "1d"], default=-1)
        dear_by_city = Ride.fare.aggregate(Above(50.0), last="1h", by=Ride.city)

    view = definition(Rides)
    assert view.dtypes == {"dear_1h": "int64", "dear_1d": "int64", "dear_by_city": "map<string,int64>"}
    assert "Above of Ride.fare" in view.describe()


def test_results_take_the_type_told() -> None:
    assert finished(Above(1.0), [0.5, 1.5, 2.5]) == 2
    assert finished(Above(1.0), []) == 0
    assert finished(Plain(), []) is None
    assert (finished(Plain(lambda s: 3), [1.0]), type(finished(Plain(lambda s: 3), [1.0]))) == (3.0, float)
    assert finished(Plain(lambda s: float("nan")), [1.0]) is None
    assert finished(Plain(lambda s: None), [1.0]) is None
    assert finished(Plain(lambda s: [1, 2.5], "list<float64>"), [1.0]) == [1.0, 2.5]
    assert finished(Plain(lambda s: "1970-01-01T00:00:01Z", datetime), [1.0]) == 1_000_000


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (Plain(lambda s: "x"), "got 'x' (string), expected float64. Its finish() returned that; set `output`"),
        (Plain(lambda s: 1 / 0), "Aggregation 'Plain': its finish() failed with ZeroDivisionError: division by zero"),
        (Plain(update=lambda s, v: v.nothing), "its update() failed with AttributeError"),
    ],
)
def test_faults_name_the_aggregation_and_the_step(user: CustomAggregation, message: str) -> None:
    with pytest.raises(DataError) as raised:
        finished(user, [1.0])
    assert message in str(raised.value)


def test_a_state_that_cannot_be_stored_is_refused_when_it_is_stored() -> None:
    agg = Custom(Plain(update=lambda state, value: [{value}]))
    state = agg.update(agg.init(), 1.0, 0, (0, 0))
    with pytest.raises(DataError, match="its state holds a set"):
        agg.encode(state)


def test_parameters_and_code_are_part_of_what_it_says() -> None:
    assert Custom(Above(1.0)) == Custom(Above(1.0))
    assert Custom(Above(1.0)) != Custom(Above(2.0))
    assert hash(Custom(Above(1.0))) == hash(Custom(Above(1.0)))

    class Renamed(Above):
        name = "Above"

    assert Custom(Renamed(1.0)) == Custom(Above(1.0))

    class Changed(Above):
        name = "Above"

        def finish(self, state: Any) -> Any:
            return state["n"] + 1

    assert Custom(Changed(1.0)) != Custom(Above(1.0))


def test_code_is_known_by_what_it_does() -> None:
    def make(k: int) -> Any:
        return lambda x: x + k

    def recursive(n: int) -> int:
        return n and recursive(n - 1)

    assert code_key(make(1)) == code_key(make(1))
    assert code_key(make(1)) != code_key(make(2))
    assert code_key(lambda x=1: x) != code_key(lambda x=2: x)
    assert code_key(lambda x: x in {1, 2}) != code_key(lambda x: x in {1, 3})
    assert code_key(recursive) == code_key(recursive)
    assert code_key(max) == "builtins.max"


class Gathered(CustomAggregation):
    """All values, by sign: a merge that hands on its second state, lists and all."""

    output = "list<float64>"

    def init(self) -> Any:
        return {}

    def update(self, state: Any, value: Any) -> Any:
        state.setdefault(value < 0, []).append(value)
        return state

    def merge(self, a: Any, b: Any) -> Any:
        return {**b, **{sign: b.get(sign, []) + values for sign, values in a.items()}} if a else b

    def finish(self, state: Any) -> Any:
        return sorted(value for values in state.values() for value in values)


def test_a_merge_may_return_what_it_was_given() -> None:
    agg = Custom(Gathered())
    tile = agg.update(agg.init(), 1.0, 0, 0)
    fold = agg.merge(agg.init(), tile)
    agg.update(fold, 2.0, 0, 1)
    agg.update(fold, -3.0, 0, 2)
    assert agg.finish(tile, 0) == [1.0]
    assert agg.finish(fold, 0) == [-3.0, 1.0, 2.0]
