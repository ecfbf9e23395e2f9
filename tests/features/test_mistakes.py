"""A mistake in a definition fails while it is read, and the message says what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from headrace.features import (
    CustomAggregation,
    DefinitionError,
    Entity,
    Event,
    EventTime,
    FeatureView,
    FileSource,
    FrameSource,
    IterableSource,
    KafkaSource,
    Lifetime,
    Tumbling,
    derived,
)
from headrace.features.functions import coalesce, log, where
from headrace.features.views import definition


class Ride(Event):
    driver_id: str
    fare: float
    seats: int
    city: str
    paid: bool
    status: str
    at: EventTime


class Payment(Event):
    driver_id: str
    amount: float
    at: EventTime


RIDES = KafkaSource("rides", Ride)
DRIVER = Entity("driver", key="driver_id")
done = Ride.where(Ride.status == "completed")


def view(_options: dict[str, Any] | None = None, **features: Any) -> Any:
    """What the statement `class Some(FeatureView, source=RIDES, entity=DRIVER, ...)` does."""
    options = {"source": RIDES, "entity": DRIVER, **(_options or {})}
    body = features or {"n": Ride.count(last="1h")}
    return definition(type(FeatureView)("Some", (FeatureView,), body, **options))


def event(**annotations: Any) -> Any:
    """What the statement `class Bad(Event)` with these annotations does."""
    return type(Event)("Bad", (Event,), {"__annotations__": annotations, "__module__": __name__})


def twice_defined() -> None:
    class Twice(FeatureView, source=RIDES, entity=DRIVER):
        rides = Ride.count(last="1h")
        rides = Ride.count(last="2h")  # noqa: PIE794


def function_in_view() -> None:
    class WithFunction(FeatureView, source=RIDES, entity=DRIVER):
        rides = Ride.count(last="1h")

        def rate(self) -> float:
            return 1.0


Make = Callable[[], Any]

COLUMNS: list[tuple[Make, str]] = [
    (lambda: Ride.fair, "event 'Ride' has no column 'fair'; did you mean 'fare'? Its columns are: driver_id, fare,"),
    (lambda: done.stauts, "event 'Ride' has no column 'stauts'; did you mean 'status'?"),
    (lambda: Ride.fare == "a", "Ride.fare == 'a': cannot compare float64 with string."),
    (lambda: Ride.city > 3, "Ride.city > 3: cannot compare string with int64."),
    (lambda: Ride.paid > False, "Ride.paid > False: true and false have no order. Use == or !="),
    (lambda: Ride.city + "x", "Ride.city + 'x': Ride.city is string, expected a number. Declare the column as int"),
    (lambda: Ride.paid * 2, "expected a number. Turn a condition into a number with where(condition, 1, 0)."),
    (lambda: Ride.fare == None, "Use .is_null() to ask for nulls."),  # noqa: E711
    (lambda: Ride.fare > float("nan"), "NaN means missing here (contract C6). Use .is_null()"),
    (lambda: Ride.at > "2026-01-01", "Ride.at > '2026-01-01': '2026-01-01' has no time zone. Add one"),
    (lambda: Ride.at > datetime(2026, 1, 1), "the naive datetime 2026-01-01T00:00:00 has no time zone."),
    (lambda: Ride.seats == 2**63, "9223372036854775808 does not fit 64 bits."),
    (lambda: Ride.fare > [1], "[1] (list) is no column value."),
    (lambda: Ride.fare > 1 and Ride.fare < 2, "Combine conditions with & | ~ instead of and, or, not"),
    (lambda: 1 < Ride.fare < 3, "write a range as (1 < x) & (x < 3)"),
    (lambda: Ride.where(Ride.fare > 1 & Ride.seats), "put each comparison in brackets, (a > 1) & (b < 2)."),
    (lambda: ~Ride.fare, "~Ride.fare: it is float64, but ~ negates a condition."),
    (lambda: Ride.city.is_in("NYC"), "Ride.city.is_in: give a list of values, got 'NYC'."),
    (lambda: Ride.city.is_in([]), "Ride.city.is_in: the list is empty, so no row could pass."),
    (lambda: Ride.city.is_in([1]), "Ride.city is_in 1: cannot compare string with int64."),
    (lambda: Ride.where(True), "Ride.where: got True, expected a condition on columns."),
    (lambda: Ride.where(Ride.fare), "Ride.where: Ride.fare is float64, expected a condition."),
    (lambda: Ride.where(Payment.amount > 1), "Payment.amount is a column of Payment, but the rows are of Ride."),
    (lambda: Ride.where(Ride.count(last="1h") > 1), "a condition on rows reads columns of the event, not features."),
    (lambda: log(Ride.city), "log(Ride.city): it is string, expected a number."),
    (lambda: where(Ride.fare, 1, 2), "where(Ride.fare, ...): the condition is float64, expected bool. Compare it."),
    (lambda: where(Ride.paid, 1, "a"), "where: its values have different types (int64, string). Use one type."),
    (lambda: coalesce(Ride.fare), "coalesce: give at least two values, got 1."),
]

AGGREGATIONS: list[tuple[Make, str]] = [
    (lambda: Ride.city.mean(last="1h"), "Ride.city.mean: Ride.city is string, and mean takes int64, float64, bool."),
    (lambda: Ride.paid.max(last="1h"), "Of a condition use mean (its share) or sum (how often it is true)."),
    (lambda: Ride.at.sum(last="1h"), "Of instants use min, max, first or last;"),
    (lambda: Ride.fare.top_k(3, last="1h"), "Ride.fare is float64, and top_k takes string, int64, bool, timestamp"),
    (lambda: Ride.fare.mean(), "Ride.fare.mean: it names no window. Say which events it covers: last='1h' (sliding),"),
    (lambda: Ride.count(), "Ride.count: it names no window. Say which events it covers:"),
    (lambda: Ride.count(lsat="1h"), "Ride.count: it has no option 'lsat'; did you mean 'last'?"),  # type: ignore[call-arg]
    (lambda: Ride.count(last="1h", over=Lifetime()), "Ride.count: got both last= and over=. Give one of them;"),
    (lambda: Ride.count(last=[]), "Ride.count: last= is an empty list. Name at least one width"),
    (lambda: Ride.count(over=[]), "Ride.count: over= is an empty list. Name at least one window."),
    (lambda: Ride.count(over=Tumbling), "Ride.count: over= takes a window, got the class Tumbling."),  # type: ignore[typeddict-item]
    (lambda: Ride.count(over="1d"), "Ride.count: over= takes a window, got '1d'."),  # type: ignore[typeddict-item]
    (lambda: Ride.count(over=Lifetime(), hop="1m"), "Ride.count: hop= goes with last=."),
    (lambda: Ride.count(last=["1h", "1h"]), "Ride.count: '1h' is listed twice."),
    (lambda: Ride.count(last="1h", hop="7m"), "Ride.count: Sliding window of 1h: it is not a multiple of its hop 7m."),
    (lambda: Ride.count(last=60), "Ride.count: last: got the number 60, whose unit would be a guess."),  # type: ignore[typeddict-item]
    (lambda: Ride.count(last="1h", ending="-1d"), "Ride.count: ending: got the negative duration '-1d'."),
    (lambda: Ride.count(over=Lifetime(ending="1h"), ending="1d"), "has its own ending, and ending='1d' is given too."),
    (lambda: Ride.count(last="1h", top=3), "Ride.count: top= goes with by=, the column whose values are the buckets."),
    (lambda: Ride.count(last="1h", by="city"), "Ride.count: by= takes a column such as Ride.city, got 'city'."),  # type: ignore[typeddict-item]
    (lambda: Ride.count(last="1h", by=Ride.fare), "by=Ride.fare is float64; buckets are made of string, int64, bool."),
    (lambda: Ride.count(last="1h", by=Payment.driver_id), "is a column of Payment, but the rows are of Ride."),
    (
        lambda: Ride.count(last="1h", where=Payment.amount > 1),
        "Ride.count: where= Payment.amount > 1: Payment.amount is",
    ),
    (lambda: Ride.fare.mean(last="1h", default="no"), "Ride.fare.mean: default: got 'no' (string), expected float64."),
    (lambda: Ride.fare.mean(last="1h", default=float("nan")), "NaN means missing here (contract C6). Use None"),
    (lambda: Ride.city.top_k(2, last="1h", default=[]), "expected a dict (map<string,int64>)."),
    (lambda: Ride.fare.quantile(95, last="1h"), "quantile: q must be between 0 and 1, got 95."),
    (lambda: Ride.fare.quantile([], last="1h"), "Ride.fare.quantile: the list of q is empty."),
    (
        lambda: Ride.fare.decayed_sum("1h", by=Ride.city),
        "by= does not go with decayed_sum, because a stored map cannot",
    ),
    (lambda: Ride.fare.decayed_sum("0s"), "half_life: it must be longer than zero, such as '1h'."),
    (lambda: (Ride.fare + Payment.amount).sum(last="1h"), "it mixes columns of the events Payment and Ride."),
    (lambda: (Ride.fare + done.fare).sum(last="1h"), "its columns come from differently filtered events."),
    (lambda: (Ride.count(last="1h") + 1).sum(last="1h"), "only columns of an event can be aggregated."),
]

DERIVED: list[tuple[Make, str]] = [
    (lambda: derived(Ride.fare * 2), "derived(Ride.fare * 2): Ride.fare is a column, which has a value per event;"),
    (lambda: derived(3), "derived: got 3, expected an expression over features, such as a / b, or a function"),
    (lambda: derived(abs), "derived(abs): say what it reads: derived(abs, inputs=[feature, ...])."),
    (lambda: derived(abs, inputs=[3]), "derived(abs): input 3 is no feature."),  # type: ignore[list-item]
    (lambda: derived(abs, inputs=["a"], dtype="double"), "derived(abs): dtype 'double' is no type."),
    (lambda: derived(Ride.count(last="1h") * 2, default="x"), "default of a derived feature: got 'x' (string)"),
    (lambda: derived(Ride.count(last="1h") * 2, inputs=["a"]), "inputs= goes with a function;"),
    (
        lambda: derived(Ride.count(last=["1h", "1d"]) / 2),
        "A group of 2 features (1h, 1d) cannot stand in an expression.",
    ),
    (lambda: derived(1 / Ride.count(last=["1h"])), "Choose one of them, such as group['1h']."),
    (lambda: Ride.count(last=["1h", "1d"])["2d"], "The group has no '2d'. It has: 1h, 1d."),
    (lambda: derived(Ride.city.last(last="1h") + 1), "is string, expected a number."),
]

VIEWS: list[tuple[Make, str]] = [
    (twice_defined, "View 'Twice': feature 'rides' is defined twice. Rename one of them."),
    (function_in_view, "View 'with_function': 'rate' is a function. To compute a feature by it write rate = derived("),
    (lambda: view({"source": None}), "View 'some': source=: it is missing. Write class ...(FeatureView, ..., source="),
    (lambda: view({"source": Ride}), "View 'some': source=: got Ride("),
    (
        lambda: view({"entity": "driver"}),
        "View 'some': entity=: got 'driver'. Write class ...(FeatureView, ..., entity=",
    ),
    (
        lambda: view({"entity": Entity("d", key="driver")}),
        "has the key 'driver': event 'Ride' has no column 'driver'; did",
    ),
    (
        lambda: view({"entity": Entity("d", key="fare")}),
        "key 'fare' is float64 in event 'Ride'. Keys are string, int64,",
    ),
    (lambda: view({"ttl": "7"}), "View 'some': ttl: got '7', which is no duration."),
    (
        lambda: view({"ttl": "0s"}),
        "View 'some': ttl must be longer than zero, such as '7d'. Leave it out for no bound.",
    ),
    (lambda: view({"log": False, "log_every": "1m"}), "log_every= thins the log that log=False turns off."),
    (lambda: view({"name": "my view"}), "View 'my view': its name must be a word of letters, digits and underscores."),
    (lambda: view(_=1), "View 'some' has no features. Define at least one"),
    (lambda: view(_n=Ride.count(last="1h")), "View 'some' shows no feature: names that begin with an underscore are"),
    (lambda: view(n=3), "View 'some': 'n' is 3, which is no feature. Move constants out of the view."),
    (lambda: view(n=done), "which is rows. Say what to compute, such as n.count(last='1h')."),
    (lambda: view(n=Ride.fare), "a column needs an aggregation such as .mean(last='1h')."),
    (lambda: view(n=Ride.count(last="1h") / 2), "To compute it from features write n = derived(...)"),
    (
        lambda: view(driver_id=Ride.count(last="1h")),
        "feature 'driver_id' has the name of a column of every feature row",
    ),
    (lambda: view(newest_event=Ride.at.max(last="1h")), "feature 'newest_event' has the name of a column of every"),
    (
        lambda: view(n=Ride.count(last=["1h"]), n_1h=Ride.count(last="1h")),
        "two features would be called 'n_1h'",
    ),
    (lambda: view(n=Payment.amount.sum(last="1h")), "is computed from Payment, but the view's source holds Ride."),
    (lambda: view(n=derived(abs, inputs=["rids"]), rides=Ride.count(last="1h")), "did you mean 'rides'?"),
    (lambda: FeatureView(), "is a definition and has no objects. Use the class itself"),
]

EVENTS: list[tuple[Make, str]] = [
    (
        lambda: event(x=int),
        "Event 'Bad' has no event time. Annotate exactly one column with EventTime, such as `at: EventTime`.",
    ),
    (lambda: event(a=EventTime, b=EventTime), "Event 'Bad' has 2 event times (a, b)."),
    (
        lambda: event(x=list, at=EventTime),
        "Event 'Bad': column 'x' has the type list, which is no column type. Use str,",
    ),
    (lambda: event(x=int | str, at=EventTime), "Event 'Bad': column 'x' has several types (int | str)."),
    (lambda: event(x="Decimal", at=EventTime), "Event 'Bad': the type of 'x', 'Decimal', is unknown. Use str, int,"),
    (lambda: event(at=EventTime | None), "Event 'Bad': the event time 'at' cannot be null."),
    (lambda: event(count=int, at=EventTime), "Event 'Bad': column 'count' has a name that events use themselves"),
    (lambda: event(mro=int, at=EventTime), "Event 'Bad': column 'mro' has a name that events use themselves"),
    (lambda: event(_x=int, at=EventTime), "Event 'Bad': column '_x' begins with an underscore"),
    (lambda: event(event_timestamp=int, at=EventTime), "has the name of a column that every feature row has."),
    (lambda: Event.count(last="1h"), "Event itself has no columns. Declare an event: class Ride(Event): ..."),
    (lambda: Ride(fare=1.0), "Ride(...): driver_id, seats, city, paid, status, at is missing."),
    (lambda: Ride(fair=1.0), "event 'Ride' has no column 'fair'; did you mean 'fare'?"),
]

SOURCES: list[tuple[Make, str]] = [
    (lambda: Entity("driver"), "Entity 'driver': give either key= or keys=."),
    (lambda: Entity("driver", keys="driver_id"), "keys= is a list of names, got 'driver_id'. For one key use key="),
    (lambda: Entity("driver", keys=[]), "Entity 'driver': keys= is empty."),
    (lambda: Entity("driver", keys=["a", "a"]), "Entity 'driver': a key is named twice in ['a', 'a']."),
    (lambda: Entity("driver", key=Ride.fare), "key Ride.fare is no column name. Give the name of the event's column"),  # type: ignore[arg-type]
    (lambda: KafkaSource("", Ride), "KafkaSource: the topic must be a name, got ''."),
    (lambda: KafkaSource("rides", "Ride"), "KafkaSource 'rides': event: 'Ride' is no event. Declare one"),
    (lambda: KafkaSource("rides", done), "is a filtered event. Give the event itself, and filter each feature"),
    (lambda: KafkaSource("rides", Ride, lateness=10), "KafkaSource 'rides': lateness: got the number 10"),  # type: ignore[arg-type]
    (lambda: KafkaSource("rides", Ride, lateness="500d"), "lateness is 500d, more than a year."),
    (
        lambda: KafkaSource("rides", Ride, late="drop"),
        "late='drop' is unknown. Choose late='dead_letter' or late='count'.",
    ),
    (lambda: KafkaSource("rides", Ride, dedup="id"), "KafkaSource 'rides': dedup: event 'Ride' has no column 'id'"),
    (lambda: KafkaSource("rides", Ride, dedup=Payment.amount), "dedup=Payment.amount is a column of Payment, but the"),
    (lambda: KafkaSource("rides", Ride, idle_after="0s"), "KafkaSource 'rides': idle_after must be longer than zero"),
    (lambda: FileSource("rides.xlsx", Ride), "FileSource 'rides.xlsx': its suffix does not tell the format."),
    (lambda: FileSource("rides", Ride, format="xml"), "'xml' is unknown. Choose one of csv, duckdb, jsonl, parquet."),
    (
        lambda: FileSource("r.csv", Ride, columns={"fair": "x"}),
        "columns= maps event columns to file columns: event 'Ride'",
    ),
    (lambda: FileSource("r.csv", Ride, name="my rides"), "name='my rides' is no name; use letters, digits"),
    (lambda: FileSource("r.csv", Ride, zone="New York"), "zone='New York' is no known time zone. Use an IANA name"),
    (lambda: FileSource("r.csv", Ride, unit="seconds"), "unit='seconds' is unknown. Choose one of s, ms, us, ns."),
    (lambda: FileSource(3, Ride), "FileSource: the path must be text or a Path, got 3."),  # type: ignore[arg-type]
    (lambda: FrameSource([{}], Ride), "FrameSource 'ride': got a list, expected a pandas or Polars frame or a pyarrow"),
    (lambda: IterableSource("x", Ride), "IterableSource 'ride': got a str, expected an iterable of dicts or of Ride."),
]


class NoMerge(CustomAggregation):
    def init(self) -> Any:
        return []

    def update(self, state: Any, value: Any) -> Any:
        return state

    def finish(self, state: Any) -> Any:
        return 1.0


class SetState(NoMerge):
    def init(self) -> Any:
        return [set()]

    def merge(self, a: Any, b: Any) -> Any:
        return a


class BadOutput(SetState):
    output = "double"

    def init(self) -> Any:
        return []


class OnlyText(BadOutput):
    output = int
    takes = (str,)


class FailingInit(OnlyText):
    def init(self) -> Any:
        raise ZeroDivisionError("oh")


CUSTOM: list[tuple[Make, str]] = [
    (lambda: Ride.fare.aggregate(NoMerge(), last="1h"), "Aggregation 'NoMerge' has no merge(). It needs init, update,"),
    (lambda: Ride.fare.aggregate(NoMerge, last="1h"), "give an object, not the class: aggregate(NoMerge())."),  # type: ignore[arg-type]
    (
        lambda: Ride.fare.aggregate(max, last="1h"),
        "expected a CustomAggregation. Subclass it and give an object of it.",
    ),  # type: ignore[arg-type]
    (
        lambda: Ride.fare.aggregate(SetState(), last="1h"),
        "init() returned a state with a set (set()), which a snapshot",
    ),
    (lambda: Ride.fare.aggregate(BadOutput(), last="1h"), "output of aggregation 'BadOutput': 'double' is no type."),
    (lambda: Ride.fare.aggregate(OnlyText(), last="1h"), "OnlyText does not take Ride.fare, which is float64."),
    (lambda: Ride.city.aggregate(FailingInit(), last="1h"), "its init() failed with ZeroDivisionError: oh"),
]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(make, message, id=message[:60])
        for group in (COLUMNS, AGGREGATIONS, DERIVED, VIEWS, EVENTS, SOURCES, CUSTOM)
        for make, message in group
    ],
)
def test_mistakes(make: Make, message: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        make()
    assert message in str(raised.value)
