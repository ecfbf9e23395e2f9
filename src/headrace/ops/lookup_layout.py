"""Which metrics the lookup server has, and the cell of every series of them: routes and statuses that are known, views,
services and features that are served, and nothing that a caller can make up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.features.errors import DataError, DefinitionError
from headrace.features.reading import Status
from headrace.features.services import FeatureService
from headrace.features.views import ViewDefinition
from headrace.ops.cells import Family, Layout
from headrace.serving.asking import OutOfReachError
from headrace.stores.errors import SchemaMismatchError, UnreachableError

# From a quarter of a millisecond, a lookup of one entity, to 5 seconds, when most callers have given up.
LATENCY_S = (0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# From a hop of the shortest windows to a month without an event.
AGE_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0, 604800.0, 2592000.0)

ROUTES = (
    "/get-online-features",
    "/push",
    "/write-to-online-store",
    "/features",
    "/healthz",
    "/readyz",
    "/health",
    "/metrics",
    "/openapi.json",
    "other",
)
STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
REFUSALS = (
    "unauthorized",
    "too_large",
    "too_many_entities",
    "too_many_features",
    "malformed",
    "unknown",
    "timeout",
    "unreachable",
    "other",
)
FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (UnreachableError, "unreachable"),
    (SchemaMismatchError, "schema"),
    (OutOfReachError, "out_of_reach"),
    (DefinitionError, "asked"),
    (DataError, "asked"),
)
FAILURE_KINDS = ("unreachable", "schema", "out_of_reach", "asked", "other")
LIST = "list"
"""What a choice of features that is no service is called."""

NOT_PRESENT = tuple(each for each in Status if each is not Status.PRESENT)


@dataclass(frozen=True)
class Served:
    """What a server serves: the labels of its metrics.

    Attributes:
        features: of views `(view, feature)`, of services on demand `(service, feature)`.
    """

    views: tuple[str, ...]
    services: tuple[str, ...]
    features: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, views: Iterable[ViewDefinition], services: Iterable[FeatureService]) -> Served:
        """What is served of these views and services; views of services are served, too."""
        services = tuple(services)
        all_views = {view.name: view for view in (*views, *(view for each in services for view in each.views))}
        features = [(view.name, name) for view in all_views.values() for name in view.feature_names()]
        on_demand = [(service.name, each.name) for service in services for each in service.on_demand]
        return cls(
            tuple(all_views), tuple(each.name for each in services), tuple(dict.fromkeys([*features, *on_demand]))
        )


class LookupLayout:
    """The cells of a server's metrics, the same in each of its processes."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.layout = layout = Layout()

        def family(kind: Any, name: str, documentation: str, *labels: str, **more: Any) -> Family:
            return layout.family(Family(kind, f"headrace_{name}", documentation, labels, **more))

        counter, gauge = partial(family, "counter"), partial(family, "gauge")
        cell = layout.cell

        requests = counter("http_requests", "Requests that were answered.", "route", "status")
        self.requests = {(route, kind): cell(requests, route, kind) for route in ROUTES for kind in STATUS_CLASSES}
        seconds = family(
            "histogram", "http_request_seconds", "From the head to the end of the answer.", "route", bounds=LATENCY_S
        )
        self.seconds = {route: cell(seconds, route) for route in ROUTES}
        bytes_in = counter("http_request_bytes", "Bytes of the bodies of requests.", "route")
        self.bytes_in = {route: cell(bytes_in, route) for route in ROUTES}
        bytes_out = counter("http_response_bytes", "Bytes of the bodies of answers.", "route")
        self.bytes_out = {route: cell(bytes_out, route) for route in ROUTES}
        self.in_flight = cell(gauge("http_in_flight", "Requests that have begun and not ended."))
        refused = counter("http_refused", "Requests that were refused, by reason.", "reason")
        self.refused = {reason: cell(refused, reason) for reason in REFUSALS}

        asked = ("service",)
        names = (*served.services, LIST)
        lookups = family("histogram", "lookup_seconds", "Time of a lookup, stores included.", *asked, bounds=LATENCY_S)
        self.lookups = {name: cell(lookups, name) for name in names}
        entities = counter("lookup_entities", "Entities that were asked for.", *asked)
        self.entities = {name: cell(entities, name) for name in names}
        failures = counter("lookup_failures", "Lookups that failed, by reason.", "reason")
        self.failures = {kind: cell(failures, kind) for kind in FAILURE_KINDS}
        self.retries = cell(counter("lookup_retries", "Reads of a store that were made again."))
        view_failures = counter("lookup_view_failures", "Views that a partial answer went without.", "view")
        self.view_failures = {view: cell(view_failures, view) for view in served.views}
        rows = counter("lookup_rows", "Rows that were asked for.", "view")
        self.rows = {view: cell(rows, view) for view in served.views}
        age = family(
            "histogram", "lookup_row_age_seconds", "From what a row is as of to its answer.", "view", bounds=AGE_S
        )
        self.age = {view: cell(age, view) for view in served.views}
        values = counter("lookup_values", "Values that were served.", "view", "feature", sparse=True)
        self.values = {each: cell(values, *each) for each in served.features}
        absent = counter(
            "lookup_values_not_present", "Those of them that are not PRESENT.", "view", "feature", "status", sparse=True
        )
        self.absent = {
            each: tuple(cell(absent, *each, status.value) for status in NOT_PRESENT) for each in served.features
        }
        cached = counter("lookup_cache", "Rows asked of the cache: found there or not.", "found")
        self.cache_hits, self.cache_misses = cell(cached, "yes"), cell(cached, "no")

        logged = counter(
            "feature_log_rows", "Rows for the feature log: kept, or dropped because it fell behind.", "kept"
        )
        self.logged, self.log_drops = cell(logged, "yes"), cell(logged, "no")

        each_worker = {"summed": False}
        self.ready = cell(gauge("worker_ready", "1: the worker takes requests and its store answers.", **each_worker))
        self.starts = cell(counter("worker_starts", "How often the worker was started.", **each_worker))
        self.started_at = cell(gauge("worker_start_timestamp_seconds", "When the worker was started.", **each_worker))
        self.turned_at = cell(gauge("worker_loop_timestamp_seconds", "When its loop last turned.", **each_worker))
        self.delay = cell(gauge("worker_loop_delay_seconds", "How late its loop last turned.", **each_worker))
        self.memory = cell(gauge("worker_memory_bytes", "Memory in use.", **each_worker))
        self.processor = cell(counter("worker_cpu_seconds", "Processor time.", **each_worker))
        self.files = cell(gauge("worker_open_files", "Open files and connections.", **each_worker))
        self.of_process = (self.ready, self.started_at, self.turned_at, self.delay, self.memory, self.files)
        """Gauges that begin anew with the process."""
