"""A worker's metrics for Prometheus, told by the worker's `Observer` calls. docs/operations.md lists every one.

A call costs microseconds and happens per batch, not per event. Metrics of a task go when the task leaves the worker, so
that two workers never tell the lag of one partition.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.flows.kafka.statistics import ClientStatistics
from headrace.flows.worker.observing import Silent
from headrace.version import VERSION

# From a millisecond, a round trip to Redis, to a minute, when an alarm should have rung.
FRESHNESS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
STEP_S = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
CHECKPOINT_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_EVENTS = (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 50_000)


class ArrayHistogram(Collector):
    """A histogram that takes whole arrays: 20,000 observations in about a millisecond, where one by one takes 20."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = np.asarray(bounds, dtype=np.float64)
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, values: npt.NDArray[np.float64]) -> None:
        """Count values; one equal to a bound is below it. What is not finite is left out."""
        kept = values[np.isfinite(values)]
        # bounds[i-1] < value <= bounds[i] is bucket i.
        found = np.bincount(np.searchsorted(self._bounds, kept, side="left"), minlength=len(self._counts))
        with self._lock:
            self._counts += found
            self._sum += float(kept.sum())

    def quantile(self, q: float) -> float | None:
        """The upper bound of the bucket that holds the q-quantile, None before the first value."""
        with self._lock:
            counts = self._counts.copy()
        if not counts.sum():
            return None
        index = int(np.searchsorted(np.cumsum(counts), q * counts.sum()))
        return float(self._bounds[index]) if index < len(self._bounds) else float("inf")

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            below = np.cumsum(self._counts).tolist()
            total = self._sum
        bounds = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        yield HistogramMetricFamily(
            self._name, self._documentation, buckets=list(zip(bounds, below, strict=True)), sum_value=total
        )


class Metrics(Silent):
    """An `Observer` that keeps metrics in a registry of its own.

    Args:
        flow: name of the flow, a label of `headrace_build_info`. worker: of this process.
    """

    def __init__(self, flow: str, worker: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)  # memory, processor time, open files

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(f"headrace_{name}", documentation, labels, registry=registry)

        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(f"headrace_{name}", documentation, labels, registry=registry)

        def histogram(name: str, documentation: str, bounds: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"headrace_{name}", documentation, labels, registry=registry, buckets=bounds)

        gauge("build_info", "1; labels say what runs.", "version", "flow", "worker").labels(VERSION, flow, worker).set(
            1
        )
        self._events = counter("events", "Messages processed.", "part")
        self._bytes = counter("event_bytes", "Bytes of their payloads.", "part")
        self._taken = counter("events_taken", "Events let in by admission.", "part")
        self._duplicates = counter("duplicates", "Events seen before, dropped.", "part")
        self._tombstones = counter("tombstones", "Messages without a payload.", "part")
        self._dead = counter("dead_letters", "Events that could not be taken, by reason.", "part", "reason")
        self._missing = counter("missing_values", "Null or NaN inputs, by column.", "part", "column")
        self._given = counter("step_rows", "Rows that steps of flows gave, by step.", "part", "step")
        self._drift = counter("drift", "Drifts found in settled values.", "view", "feature", "detector")
        self._other = counter("other_events", "Events of whatever other kind.", "part", "kind")
        self._rows = counter("rows", "Rows written to the online store or the log.", "view", "where")
        self._batch = histogram("batch_events", "Messages in a batch.", BATCH_EVENTS)
        self._step = histogram("step_seconds", "Time of a step of a batch.", STEP_S, "step")
        self._write = histogram("write_seconds", "Time of a write, by where.", STEP_S, "where")
        self._offset = gauge("offset", "Next offset of the task's partition.", "part")
        self._lag = gauge("lag_messages", "Messages behind the partition's end.", "part")
        self._watermark = gauge("watermark_timestamp_seconds", "Watermark of the task, event time.", "part")
        self._checkpoints = counter("checkpoints", "Checkpoints committed.", "part", "kind")
        self._checkpoint_s = histogram("checkpoint_seconds", "Time to make a checkpoint durable.", CHECKPOINT_S)
        self._checkpoint_bytes = gauge("checkpoint_bytes", "Size of the newest checkpoint.", "part")
        self._checkpoint_at = gauge("checkpoint_timestamp_seconds", "When the newest checkpoint was committed.", "part")
        self.freshness_s = ArrayHistogram(
            "headrace_freshness_seconds", "From a record's timestamp to its rows written online.", FRESHNESS_S, registry
        )
        self._ready = gauge("ready", "1: tasks are assigned and none is restoring.")
        self._tasks = gauge("tasks", "Tasks of this worker.")
        self._assigned = counter("tasks_assigned", "Tasks taken over, at the start or in a rebalance.")
        self._revoked = counter("tasks_revoked", "Tasks that have left.")
        self._round_trip = gauge("kafka_round_trip_seconds", "Mean time of requests to a broker.", "topic", "broker")
        self._read_ahead = gauge("kafka_read_ahead_bytes", "Read from Kafka and not taken yet.", "topic")
        self._trouble = gauge("trouble", "1 while something fails and is being retried.", "what")
        self._troubles = counter("troubles", "Failures that were retried.", "what")
        self._loop = gauge("loop_timestamp_seconds", "When the main loop last turned.")
        self._of_task: tuple[Gauge, ...] = (
            self._offset,
            self._lag,
            self._watermark,
            self._checkpoint_bytes,
            self._checkpoint_at,
        )
        self._kinds = {"taken": self._taken, "duplicate": self._duplicates, "tombstone": self._tombstones}
        self._reasoned = {"dead": self._dead, "missing": self._missing, "given": self._given}

    def assigned(self, part: str, topic: str, partition: int) -> None:
        self._tasks.inc()
        self._assigned.inc()

    def revoked(self, part: str) -> None:
        self._tasks.dec()
        self._revoked.inc()
        for gauge in self._of_task:
            with suppress(KeyError):  # not told yet
                gauge.remove(part)

    def ready(self, yes: bool) -> None:
        self._ready.set(yes)

    def alive(self) -> None:
        self._loop.set(time.time())

    def batch(self, part: str, events: int, nbytes: int, steps: Mapping[str, float]) -> None:
        self._events.labels(part).inc(events)
        self._bytes.labels(part).inc(nbytes)
        self._batch.observe(events)
        for step, seconds in steps.items():
            self._step.labels(step).observe(seconds)

    def counted(self, part: str, what: str, count: int) -> None:
        kind, colon, detail = what.partition(":")
        known: Any
        if colon and kind in self._reasoned:
            known = self._reasoned[kind].labels(part, detail)
        elif kind == "drift":
            known = self._drift.labels(*detail.split("."))
        elif kind in self._kinds:
            known = self._kinds[kind].labels(part)
        else:
            known = self._other.labels(part, what)
        known.inc(count)

    def wrote(self, view: str, where: str, rows: int, seconds: float) -> None:
        self._rows.labels(view, where).inc(rows)
        self._write.labels(where).observe(seconds)

    def position(self, part: str, *, offset: int, lag: int | None, watermark_us: int | None) -> None:
        self._offset.labels(part).set(offset)
        if lag is not None:
            self._lag.labels(part).set(lag)
        if watermark_us is not None:
            self._watermark.labels(part).set(watermark_us / 1e6)

    def freshness(self, seconds: npt.NDArray[np.float64]) -> None:
        self.freshness_s.observe(seconds)

    def checkpoint(self, part: str, *, seconds: float, nbytes: int, delta: bool) -> None:
        self._checkpoints.labels(part, "delta" if delta else "full").inc()
        self._checkpoint_s.observe(seconds)
        self._checkpoint_bytes.labels(part).set(nbytes)
        self._checkpoint_at.labels(part).set(time.time())

    def client(self, topic: str, statistics: ClientStatistics) -> None:
        self._read_ahead.labels(topic).set(statistics.queued_bytes)
        for broker, seconds in statistics.round_trip_s.items():
            self._round_trip.labels(topic, broker).set(seconds)

    def trouble(self, what: str, message: str) -> None:
        self._trouble.labels(what).set(1)
        self._troubles.labels(what).inc()

    def recovered(self, what: str) -> None:
        self._trouble.labels(what).set(0)
