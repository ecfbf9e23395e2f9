"""What the lookup server counts is what was served, whichever worker is asked and whatever became of the others."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from headrace.features import Entity, Event, EventTime, FeatureService, FeatureView, IterableSource, Request, derived
from headrace.ops.cells import ChangedCellsError, Family, Layout, SharedCells, observe, observe_all
from headrace.ops.lookup_layout import LATENCY_S, LookupLayout, Served
from headrace.ops.lookup_metrics import MOST_PLANS, ServerMetrics
from headrace.serving import Client
from headrace.stores.errors import UnreachableError
from headrace.stores.memory import MemoryStore


class Ride(Event):
    driver_id: str
    fare: float
    at: EventTime


rides = IterableSource([], Ride)
driver = Entity("driver", key="driver_id")


class Drivers(FeatureView, source=rides, entity=driver, ttl="1d"):
    count_1h = Ride.count(last="1h")
    mean_1h = Ride.fare.mean(last="1h")
    most_1h = Ride.fare.max(last="1h", default=-1.0)


class Others(FeatureView, source=rides, entity=driver):
    count_1h = Ride.count(last="1h")


amount = Request("amount", float)
pricing = FeatureService(
    "pricing", [Drivers["mean_1h", "count_1h"]], derived={"ratio": derived(amount / Drivers["mean_1h"])}
)
SECOND = 1_000_000


class Scene:
    """A client over a store, watched by the metrics of a server of two workers."""

    def __init__(self, store: Any) -> None:
        self.layout = LookupLayout(Served.of([Drivers.__view__, Others.__view__], [pricing]))
        self.cells = SharedCells.made(self.layout.layout, 2)
        self.workers = [ServerMetrics(self.layout, self.cells, number) for number in range(2)]
        self.clients = [Client(store, [Drivers, Others, pricing], watchers=[each]) for each in self.workers]

    def scraped(self, worker: int = 0) -> dict[tuple[str, ...], float]:
        """Samples that are not 0, by name and sorted label values."""
        for each in self.workers:
            each.add_up()
        kind, body = self.workers[worker].scrape("text/plain")
        assert kind.startswith("text/plain")
        found = {}
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                if sample.value:
                    labels = tuple(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                    found[(sample.name.removeprefix("headrace_"), *labels)] = sample.value
        return found


@pytest.fixture
def scene() -> Scene:
    return Scene(MemoryStore())


def test_requests_are_counted_by_route_and_class_and_a_path_that_nobody_serves_is_other(scene: Scene) -> None:
    metrics = scene.workers[0]
    for route, status in (("/get-online-features", 200), ("/get-online-features", 422), ("/made-up/7", 404)):
        metrics.began(route)
        metrics.ended(route, "POST", status, 0.0011, 100, 2000, "t")
    metrics.began("/push")
    metrics.refused("unauthorized")
    metrics.refused("a reason of tomorrow")
    found = scene.scraped(1)  # by the other worker
    assert found["http_requests_total", "route=/get-online-features", "status=2xx"] == 1
    assert found["http_requests_total", "route=/get-online-features", "status=4xx"] == 1
    assert found["http_requests_total", "route=other", "status=4xx"] == 1
    assert found["http_response_bytes_total", "route=/get-online-features"] == 4000
    assert found["http_request_seconds_bucket", "le=0.002", "route=other"] == 1
    assert ("http_request_seconds_bucket", "le=0.001", "route=other") not in found
    assert found["http_request_seconds_sum", "route=/get-online-features"] == pytest.approx(0.0022)
    assert found["http_in_flight",] == 1
    assert found["http_refused_total", "reason=unauthorized"] == found["http_refused_total", "reason=other"] == 1


def test_values_statuses_and_ages_are_those_that_were_served() -> None:
    store = MemoryStore()
    now = time.time_ns() // 1000
    stamps = pa.array([now - 30 * SECOND, now - 2 * SECOND], pa.timestamp("us", "UTC"))
    store.write(
        Drivers,
        pa.table(
            {
                "driver_id": ["1", "2"],
                "count_1h": pa.array([3, 2], pa.int64()),
                "mean_1h": pa.array([2.5, None], pa.float64()),
                "most_1h": pa.array([4.0, -1.0], pa.float64()),
                "event_timestamp": stamps,
                "newest_event": stamps,
            }
        ),
    )
    scene = Scene(store)
    one, other = scene.clients
    one.features([Drivers], {"driver_id": ["1", "2"]})  # every entity has its row
    other.features([Drivers], {"driver_id": ["1", "9"]}, full_names=True)  # one has none
    one.features("pricing", {"driver_id": ["1", "2", "9"]}, request={"amount": [5.0, 5.0, 5.0]})
    found = scene.scraped(1)

    def of(name: str, feature: str, *more: str, view: str = "drivers") -> float | None:
        return found.get((name, f"feature={feature}", *more, f"view={view}"))

    assert [of("lookup_values_total", each) for each in ("count_1h", "mean_1h", "most_1h")] == [7, 7, 4]
    assert of("lookup_values_total", "ratio", view="pricing") == 3
    absent = "lookup_values_not_present_total"
    assert of(absent, "count_1h", "status=NOT_FOUND") == 2
    assert of(absent, "count_1h", "status=NULL") is None
    assert of(absent, "mean_1h", "status=NULL") == 2
    assert of(absent, "mean_1h", "status=NOT_FOUND") == 2
    assert of(absent, "most_1h", "status=DEFAULT") == 1
    assert of(absent, "most_1h", "status=NOT_FOUND") == 1
    assert of(absent, "ratio", "status=NULL", view="pricing") == 2
    assert found["lookup_rows_total", "view=drivers"] == 7
    assert found["lookup_entities_total", "service=pricing"] == 3
    assert found["lookup_entities_total", "service=list"] == 4
    assert found["lookup_seconds_count", "service=list"] == 2
    # Driver 1 three times, about 30 s old; driver 2 twice, about 2 s; driver 9 has no row.
    assert found["lookup_row_age_seconds_count", "view=drivers"] == 5
    assert ("lookup_row_age_seconds_bucket", "le=1.0", "view=drivers") not in found
    assert found["lookup_row_age_seconds_bucket", "le=15.0", "view=drivers"] == 2
    assert found["lookup_row_age_seconds_bucket", "le=60.0", "view=drivers"] == 5


class Broken(MemoryStore):
    def look_up(self, asks: Any) -> Any:
        raise UnreachableError("gone")


def test_failures_are_counted_by_their_kind() -> None:
    scene = Scene(Broken())
    client = scene.clients[0]
    with pytest.raises(UnreachableError):
        client.features([Drivers], {"driver_id": ["1"]})
    with pytest.raises(ValueError, match="nothing_like_it"):
        client.features(["nothing_like_it"], {"driver_id": ["1"]})
    partial = Client(Broken(), [Drivers, Others], on_failure="partial", watchers=[scene.workers[0]])
    partial.features([Drivers, Others], {"driver_id": ["1", "2"]}, full_names=True)
    found = scene.scraped()
    assert found["lookup_failures_total", "reason=unreachable"] == 1
    assert found["lookup_failures_total", "reason=asked"] == 1
    assert found["lookup_view_failures_total", "view=drivers"] == 1
    key = ("lookup_values_not_present_total", "feature=count_1h", "status=FAILED", "view=others")
    assert found[key] == 2


def test_plans_without_end_are_counted_and_forgotten(scene: Scene) -> None:
    client, metrics = scene.clients[0], scene.workers[0]
    names = ["drivers:count_1h", "drivers:mean_1h", "drivers:most_1h", "others:count_1h"]
    asked = 0
    for number in range(MOST_PLANS + 50):
        client.catalog._plans.clear()  # a new plan each time, as of another list
        client.features([names[number % 4]], {"driver_id": ["1"]})
        asked += 1
    assert len(metrics._plans) <= MOST_PLANS
    values = [value for key, value in scene.scraped().items() if key[0] == "lookup_values_total"]
    assert sum(values) == asked


def test_a_worker_that_is_started_again_goes_on_counting_and_holds_no_request(scene: Scene) -> None:
    dead = scene.workers[0]
    dead.began("/push")
    dead.ended("/push", "POST", 200, 0.1, 1, 1, "t")
    dead.began("/push")  # and dies
    dead.turn(True, 0.25)
    scene.workers[0] = ServerMetrics(scene.layout, scene.cells, 0)
    scene.workers[0].turn(False, 0.25)
    found = scene.scraped(1)
    assert found["http_requests_total", "route=/push", "status=2xx"] == 1
    assert ("http_in_flight",) not in found
    assert found["worker_starts_total", "worker=0"] == 2
    assert ("worker_ready", "worker=0") not in found
    assert found["worker_memory_bytes", "worker=0"] > 1e6
    assert found["server_info", "services=1", "version=0.1.0", "views=2", "workers=2"] == 1


def test_what_others_count_is_added_and_not_set(scene: Scene) -> None:
    one, other = scene.workers
    one.feature_log(10, 1)
    one.feature_log(15, 1)
    other.feature_log(5, 0)
    found = scene.scraped()
    assert found["feature_log_rows_total", "kept=yes"] == 20
    assert found["feature_log_rows_total", "kept=no"] == 1


finite = st.floats(-1.0, 20.0, allow_nan=False)


@given(st.lists(finite, max_size=60), st.booleans())
def test_a_histogram_of_cells_is_that_of_the_client_library(values: list[float], at_once: bool) -> None:
    registry = CollectorRegistry()
    expected = Histogram("h", "h", registry=registry, buckets=LATENCY_S)
    layout = Layout()
    at = layout.cell(layout.family(Family("histogram", "h", "h", (), LATENCY_S)))
    cells = SharedCells.made(layout, 1)
    try:
        for value in values:
            expected.observe(value)
        if at_once and values:
            observe_all(cells.row(0), at, LATENCY_S, np.array(values))
        else:
            for value in values:
                observe(cells.row(0), at, LATENCY_S, value)
        (family,) = cells.collect()
        found = {(each.name, each.labels.get("le")): each.value for each in family.samples}
        known = {
            (each.name, each.labels.get("le")): each.value
            for each in next(iter(registry.collect())).samples
            if not each.name.endswith("_created")
        }
        total = known.pop(("h_sum", None))
        assert math.isclose(found.pop(("h_sum", None)), total, rel_tol=1e-9, abs_tol=1e-9)
        assert found == known
    finally:
        os.close(cells.fileno)


def test_cells_of_another_layout_are_refused() -> None:
    one, other = LookupLayout(Served(("a",), (), (("a", "x"),))), LookupLayout(Served(("a",), (), (("a", "y"),)))
    cells = SharedCells.made(one.layout, 2)
    assert SharedCells.inherited(LookupLayout(one.served).layout, 2, cells.fileno).layout.count == one.layout.count
    for layout, workers in ((other, 2), (one, 3)):
        with pytest.raises(ChangedCellsError, match="Restart the server"):
            SharedCells.inherited(layout.layout, workers, cells.fileno)
    os.close(cells.fileno)
