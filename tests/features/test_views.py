"""Views: how features get their names, what the definition says, how it prints, hashes and diffs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest

from headrace.features import (
    DefinitionError,
    Entity,
    Event,
    EventTime,
    FeatureView,
    FileSource,
    KafkaSource,
    LastN,
    Lifetime,
    Session,
    Sliding,
    Tumbling,
    UnknownColumnError,
    ViewDefinition,
    definition,
    derived,
)
from headrace.features.features import AggregateFeature, DerivedFeature
from headrace.features.functions import where
from headrace.features.views import snake_case


class Ride(Event):
    driver_id: str
    fare: float
    tip: float | None
    city: str
    status: str
    at: EventTime


RIDES = KafkaSource("rides", Ride, lateness="10s")
DRIVER = Entity("driver", key="driver_id")
done = Ride.where(Ride.status == "completed")


class DriverActivity(FeatureView, source=RIDES, entity=DRIVER, ttl="7d"):
    pickups_30m = Ride.count(last="30m")
    fare_mean = Ride.fare.mean(last=["1h", "1d"])
    fare_p95 = Ride.fare.quantile(0.95, last="7d")
    completed = done.count(last="1d")
    rate = derived(completed / Ride.count(last="1d"), default=0.0)


VIEW = definition(DriverActivity)


def view_of(**features: Any) -> ViewDefinition:
    """A view of these features, made as a class statement does."""
    return definition(type(FeatureView)("Some", (FeatureView,), dict(features), source=RIDES, entity=DRIVER))


def aggregate(view: ViewDefinition, name: str) -> AggregateFeature:
    feature = view.feature(name)
    assert isinstance(feature, AggregateFeature)
    return feature


def test_the_example_of_the_design() -> None:
    assert VIEW.name == "driver_activity"
    assert VIEW.feature_names() == ("pickups_30m", "fare_mean_1h", "fare_mean_1d", "fare_p95", "completed", "rate")
    assert [each.name for each in VIEW.features if each.hidden] == ["_rate_1"]
    assert VIEW.ttl_us == 7 * 86_400_000_000
    assert VIEW.log_every_us is None
    assert VIEW.log
    assert VIEW.dtypes["rate"] == "float64"
    assert VIEW.event_columns == ("driver_id", "fare", "status", "at")
    assert aggregate(VIEW, "fare_mean_1d").window == Sliding("1d")
    assert str(aggregate(VIEW, "completed").where) == "Ride.status == 'completed'"


def test_every_window_and_quantile_of_a_list_becomes_a_feature() -> None:
    view = view_of(
        n=Ride.count(over=[Session("30m"), Tumbling("1d"), LastN(10), Lifetime()]),
        p=Ride.fare.quantile([0.5, 0.999], last=["1h", "1d"]),
        one=Ride.fare.max(last=["1h"]),
        q=Ride.fare.quantile([0.5], last="1h"),
        before=Ride.count(last=["1h"], ending="1d ago"),
    )
    assert view.feature_names() == (
        *("n_session_30m", "n_tumbling_1d", "n_last_10", "n_lifetime"),
        *("p_p50_1h", "p_p50_1d", "p_p99_9_1h", "p_p99_9_1d"),
        *("one_1h", "q_p50", "before_1h_ending_1d"),
    )


def test_ending_moves_any_window() -> None:
    view = view_of(a=Ride.count(over=Session("30m"), ending="1d ago"), b=Ride.fare.decayed_sum("1h", ending="1h"))
    assert aggregate(view, "a").window == Session("30m", ending="1d")
    assert aggregate(view, "b").window == Lifetime(ending="1h")


def test_features_inside_derived_are_reused_or_hidden() -> None:
    rides = Ride.count(last="1d")
    view = view_of(
        rides=rides,
        rate=derived(done.count(last="1d") / Ride.count(last="1d")),
        again=derived(done.count(last="1d") * 2 + Ride.fare.max(last="1h")),
    )
    assert [(each.name, each.hidden) for each in view.features] == [
        ("rides", False),
        ("_rate_1", True),
        ("rate", False),
        ("_again_1", True),
        ("again", False),
    ]
    rate, again = view.feature("rate"), view.feature("again")
    assert isinstance(rate, DerivedFeature)
    assert isinstance(again, DerivedFeature)
    assert (rate.inputs, again.inputs) == (("_rate_1", "rides"), ("_rate_1", "_again_1"))


def test_derived_features_of_derived_features_are_computed_in_order() -> None:
    late = derived(derived(Ride.count(last="1h") + 1) * Ride.fare.sum(last="1h"))
    view = view_of(z=derived(late / 2), late=late)
    assert [each.name for each in view.derivations] == ["_late_1", "late", "z"]
    with pytest.raises(DefinitionError, match="View 'some': a, b are derived in a circle"):
        view_of(a=derived(abs, inputs=["b"]), b=derived(abs, inputs=["a"]), n=Ride.count(last="1h"))


def test_a_leading_underscore_hides_a_feature() -> None:
    base = Ride.count(last="1h")
    view = view_of(_base=base, twice=derived(base * 2))
    assert view.feature_names() == ("twice",)
    assert view.feature("twice").inputs == ("_base",)  # type: ignore[union-attr]


def test_where_joins_the_filter_of_the_event() -> None:
    view = view_of(
        a=done.fare.mean(last="1h", where=Ride.city == "NYC"),
        b=done.where(Ride.city == "NYC").fare.mean(last="1h"),
        c=(done.fare + done.tip).mean(last="1h"),
    )
    assert view.feature("a").key == view.feature("b").key
    assert str(aggregate(view, "c").column) == "Ride.fare + Ride.tip"
    assert str(aggregate(view, "c").where) == "Ride.status == 'completed'"


def test_by_makes_a_map() -> None:
    view = view_of(fares=Ride.fare.mean(last="1h", by=Ride.city, top=3), n=Ride.count(last="1h", by=Ride.city))
    assert (view.dtypes["fares"], view.dtypes["n"]) == ("map<string,float64>", "map<string,int64>")
    assert aggregate(view, "n").agg.top == 20  # type: ignore[attr-defined]


def test_defaults_take_the_type_of_the_feature() -> None:
    view = view_of(m=Ride.fare.mean(last="1h", default=0), t=derived(where(Ride.count(last="1h") > 3, 1, 0), default=2))
    assert repr(view.feature("m").default) == "0.0"
    assert view.dtypes["t"] == "int64"


def test_expressions_over_columns_can_be_aggregated() -> None:
    view = view_of(
        share=(Ride.fare > 15).mean(last="1h"), late=(Ride.fare > 15).sum(last="1h"), net=(Ride.fare - 1).sum(last="1h")
    )
    assert list(view.dtypes.values()) == ["float64", "int64", "float64"]


def test_views_inherit_features() -> None:
    class Base(FeatureView, source=RIDES, entity=DRIVER):
        rides = Ride.count(last="1h")

    class More(Base, source=RIDES, entity=DRIVER):
        fares = Ride.fare.sum(last="1h")

    assert definition(More).feature_names() == ("rides", "fares")


def test_names() -> None:
    assert snake_case("ABTest") == "ab_test"

    class Anything(FeatureView, source=RIDES, entity=DRIVER, name="rides_of_driver"):
        n = Ride.count(last="1h")

    assert definition(Anything).name == "rides_of_driver"
    assert repr(Anything) == "<FeatureView rides_of_driver>"


def test_unknown_features_get_a_suggestion() -> None:
    with pytest.raises(DefinitionError, match=r"View 'driver_activity' has no feature 'ratio'; did you mean 'rate'\?"):
        VIEW.feature("ratio")
    with pytest.raises(DefinitionError, match=r"is no feature view\. Give a class declared as"):
        definition(Ride)


def test_it_prints() -> None:
    lines = str(DriverActivity).splitlines()
    assert lines[0] == "driver_activity: 6 features of driver (driver_id)"
    assert lines[1].startswith(
        "from KafkaSource('rides', Ride, lateness='10s'); ttl 7d; log of every change; fingerprint "
    )
    assert lines[3].split() == ["feature", "type", "computed", "as", "window", "error", "default"]
    table = {line.split()[0]: line for line in lines[4:]}
    assert "last 30m, hop 30s  events up to 30s older" in table["pickups_30m"]
    assert "quantile 0.95 of Ride.fare" in table["fare_p95"]
    assert "events up to 2h older; ±1% of the value" in table["fare_p95"]
    assert "count where Ride.status == 'completed'" in table["completed"]
    assert table["rate"].split("  ")[-1].strip() == "0.0"
    assert str(VIEW) == str(DriverActivity) == VIEW.describe()


def test_every_kind_of_window_and_aggregation_prints() -> None:
    view = view_of(
        a=Ride.count(over=[Tumbling("1d"), Tumbling("1h", current=True), Session("30m"), LastN(1), Lifetime()]),
        b=Ride.fare.decayed_sum("90m"),
        c=Ride.city.top_k(3, last="1h", exact=True, ending="1d"),
        d=Ride.city.approx_distinct(last="1h"),
        e=Ride.city.distinct(50, last="1h"),
        f=Ride.fare.mean(last="1h", by=Ride.city),
    )
    text = view.describe()
    for part in (
        "newest whole 1d",
        "current 1h",
        "session, gap 30m",
        "last 1 event\n",
        "lifetime",
        "decayed_sum (half-life 1h30m) of Ride.fare",
        "last 1h, exact, ending 1d ago",
        "±1.6% (1σ) above 4,096",
        "at most 50",
        "mean of Ride.fare by Ride.city (top 20)",
    ):
        assert part in text, part


PROGRAM = """
    from headrace.features import *

    class Ride(Event):
        driver_id: str
        fare: float
        city: str
        at: EventTime

    class Spread(CustomAggregation):
        def init(self): return []
        def update(self, state, value): return [*state, value]
        def merge(self, a, b): return a + b
        def finish(self, state): return max(state) - min(state)

    class V(FeatureView, source=KafkaSource("r", Ride), entity=Entity("d", key="driver_id")):
        n = Ride.count(last=["1h", "1d"], where=Ride.city.is_in(["b", "a", "c"]) & ~(Ride.fare > 1.5))
        s = Ride.fare.aggregate(Spread(), last="1h", default=-1)
        r = derived(lambda a: a * 2.5 + 1, inputs=[Ride.fare.mean(last="1h", by=None)])

    print(V.__view__.fingerprint())
"""


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    found = set()
    for seed in ("0", "1", "random"):
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
        found.add(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip())
    assert len(found) == 1
    assert len(found.pop()) == 32


def variant(**changes: Any) -> ViewDefinition:
    options: dict[str, Any] = {"source": RIDES, "entity": DRIVER, "ttl": "7d", **changes.pop("options", {})}
    features = {"a": Ride.count(last="1h"), "b": derived(Ride.fare.mean(last="1h") * 2), "c": Ride.fare.max(last="1d")}
    features.update(changes)
    kept = {name: feature for name, feature in features.items() if feature is not None}
    return definition(type(FeatureView)("Other", (FeatureView,), kept, **options))


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"a": Ride.count(last="2h")}, "feature a changed from count (last 1h, hop 1m) to count (last 2h, hop 2m)"),
    (
        {"a": Ride.count(last="1h", hop="5m")},
        "feature a changed from count (last 1h, hop 1m) to count (last 1h, hop 5m)",
    ),
    (
        {"a": done.count(last="1h")},
        "feature a changed from count (last 1h, hop 1m) to count where Ride.status == 'completed'",
    ),
    ({"a": Ride.count(last="1h", default=1)}, "feature a: default changed from none to 1"),
    (
        {"b": derived(Ride.fare.mean(last="1h") * 3)},
        "feature b changed from [mean of Ride.fare (last 1h, hop 1m)] * 2 to [mean of Ride.fare (last 1h, hop 1m)] * 3",
    ),
    (
        {"b": derived(Ride.fare.mean(last="2h") * 2)},
        "feature b changed from [mean of Ride.fare (last 1h, hop 1m)] * 2 to [mean of",
    ),
    ({"c": None}, "feature c removed (was max of Ride.fare (last 1d, hop 15m))"),
    ({"d": Ride.count(last="1d")}, "feature d added: count (last 1d, hop 15m)"),
    ({"options": {"ttl": None}}, "ttl changed from 7d to none"),
    ({"options": {"log_every": "1m"}}, "log_every changed from none to 1m"),
    ({"options": {"log": False}}, "offline log turned off"),
    ({"options": {"name": "others"}}, "view renamed from other to others"),
    (
        {"options": {"entity": Entity("city", key="city")}},
        "entity changed from Entity('driver', keys=['driver_id']) to",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), CHANGES)
def test_every_change_of_a_definition_is_told_and_changes_the_fingerprint(
    change: dict[str, Any], sentence: str
) -> None:
    before, after = variant(), variant(**change)
    assert len(before.diff(after)) == 1
    assert before.diff(after)[0].startswith(sentence)
    assert before.fingerprint() != after.fingerprint()
    assert before != after


def test_where_events_come_from_is_told_but_is_no_part_of_the_definition() -> None:
    live, replayed = variant(), variant(options={"source": FileSource("rides.parquet", Ride)})
    assert live.diff(replayed) == [
        "source changed from KafkaSource('rides', Ride, lateness='10s') to FileSource('rides.parquet', Ride)"
    ]
    assert live.fingerprint() == replayed.fingerprint()
    assert live == replayed
    assert hash(live) == hash(replayed)


def test_order_and_parameters_of_functions_are_part_of_the_definition() -> None:
    a, c = Ride.count(last="1h"), Ride.count(last="1d")
    one, two = view_of(a=a, c=c), view_of(c=c, a=a)
    assert one.diff(two) == ["order of features changed to c, a"]
    assert one.fingerprint() != two.fingerprint()
    plus = [view_of(a=a, b=derived(lambda x, k=k: x + k, inputs=[a])) for k in (1, 2, 1)]
    assert plus[0].diff(plus[1]) == ["feature b: its function or parameters changed"]
    assert plus[0].diff(plus[2]) == []


def test_same_says_the_same() -> None:
    assert variant() == variant()
    assert variant().diff(variant()) == []
    assert repr(variant()).startswith("ViewDefinition('other', 3 features, fingerprint ")


def test_misspelt_columns_fail_with_a_suggestion() -> None:
    with pytest.raises(UnknownColumnError, match=r"event 'Ride' has no column 'fares'; did you mean 'fare'\?"):
        _ = Ride.fares
    with pytest.raises(UnknownColumnError, match=r"did you mean 'city'\?"):
        _ = done.ciy
    assert not hasattr(Ride, "fares")
    assert "fare" in dir(Ride)
