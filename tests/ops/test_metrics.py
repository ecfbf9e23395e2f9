"""What a worker's calls become in Prometheus: figures with their labels, and none for tasks that have left."""

import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from headrace.flows.kafka.statistics import ClientStatistics
from headrace.ops.metrics import ArrayHistogram, Metrics


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """`name{label="value"}` -> figure, of our own metrics."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """A worker's life in twenty calls."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)  # Feast sets it for its own server when imported
    metrics = Metrics("rides", "a-0")
    metrics.assigned("rides-0000", "rides", 0)
    metrics.assigned("rides-0001", "rides", 1)
    metrics.ready(True)
    metrics.alive()
    metrics.batch("rides-0000", 1_000, 80_000, {"poll": 0.001, "decode": 0.002, "process": 0.02})
    metrics.batch("rides-0000", 500, 40_000, {"poll": 0.001, "decode": 0.001, "process": 0.01})
    for what, count in (
        ("taken", 1_490),
        ("duplicate", 5),
        ("tombstone", 2),
        ("dead:late", 3),
        ("dead:malformed", 2),
        ("missing:fare", 7),
        ("given:pickups.far", 9),
        ("strange", 1),
    ):
        metrics.counted("rides-0000", what, count)
    metrics.wrote("driver_activity", "online", 900, 0.004)
    metrics.wrote("driver_activity", "log", 1_200, 0.02)
    metrics.position("rides-0000", offset=1_500, lag=25, watermark_us=1_700_000_000_000_000)
    metrics.position("rides-0001", offset=7, lag=None, watermark_us=None)
    metrics.freshness(np.array([0.0005, 0.001, 0.004, 0.2, 1_000.0]))
    metrics.checkpoint("rides-0000", seconds=0.3, nbytes=123, delta=False)
    metrics.checkpoint("rides-0000", seconds=0.1, nbytes=12, delta=True)
    fast = ClientStatistics({}, {"a:9092": 0.002}, ("a:9092",), ("b:9092",), 5, 700, 1_500)
    metrics.client("rides", fast)
    metrics.trouble("online store", "refused")
    return metrics


def test_every_call_becomes_a_figure(told: Metrics) -> None:
    found = samples(told.registry)
    expected = {
        'headrace_events_total{part="rides-0000"}': 1_500,
        'headrace_event_bytes_total{part="rides-0000"}': 120_000,
        'headrace_kafka_round_trip_seconds{broker="a:9092",topic="rides"}': 0.002,
        'headrace_kafka_read_ahead_bytes{topic="rides"}': 700,
        'headrace_events_taken_total{part="rides-0000"}': 1_490,
        'headrace_duplicates_total{part="rides-0000"}': 5,
        'headrace_tombstones_total{part="rides-0000"}': 2,
        'headrace_dead_letters_total{part="rides-0000",reason="late"}': 3,
        'headrace_dead_letters_total{part="rides-0000",reason="malformed"}': 2,
        'headrace_missing_values_total{column="fare",part="rides-0000"}': 7,
        'headrace_step_rows_total{part="rides-0000",step="pickups.far"}': 9,
        'headrace_other_events_total{kind="strange",part="rides-0000"}': 1,
        'headrace_rows_total{view="driver_activity",where="online"}': 900,
        'headrace_rows_total{view="driver_activity",where="log"}': 1_200,
        "headrace_batch_events_count": 2,
        "headrace_batch_events_sum": 1_500,
        'headrace_step_seconds_count{step="decode"}': 2,
        'headrace_write_seconds_count{where="log"}': 1,
        'headrace_offset{part="rides-0000"}': 1_500,
        'headrace_lag_messages{part="rides-0000"}': 25,
        'headrace_watermark_timestamp_seconds{part="rides-0000"}': 1.7e9,
        'headrace_checkpoints_total{kind="full",part="rides-0000"}': 1,
        'headrace_checkpoints_total{kind="delta",part="rides-0000"}': 1,
        "headrace_checkpoint_seconds_count": 2,
        'headrace_checkpoint_bytes{part="rides-0000"}': 12,
        'headrace_freshness_seconds_bucket{le="0.001"}': 2,
        'headrace_freshness_seconds_bucket{le="+Inf"}': 5,
        "headrace_freshness_seconds_count": 5,
        "headrace_ready": 1,
        "headrace_tasks": 2,
        "headrace_tasks_assigned_total": 2,
        'headrace_trouble{what="online store"}': 1,
        'headrace_troubles_total{what="online store"}': 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["process_resident_memory_bytes"] > 1e6
    assert found["headrace_loop_timestamp_seconds"] > 1.7e9


def test_a_task_that_has_left_tells_no_lag_any_more(told: Metrics) -> None:
    told.revoked("rides-0000")
    told.revoked("rides-0001")
    told.recovered("online store")
    found = samples(told.registry)
    gauges = (
        "offset",
        "lag_messages",
        "watermark_timestamp_seconds",
        "checkpoint_bytes",
        "checkpoint_timestamp_seconds",
    )
    assert not [name for name in found if name.startswith(tuple(f"headrace_{gauge}{{" for gauge in gauges))]
    assert found["headrace_tasks"] == 0
    assert found["headrace_tasks_revoked_total"] == 2
    assert found['headrace_events_total{part="rides-0000"}'] == 1_500  # what was counted stays
    assert found['headrace_trouble{what="online store"}'] == 0


def test_an_array_is_counted_as_its_values_one_by_one_would_be() -> None:
    registry = CollectorRegistry()
    histogram = ArrayHistogram("x_seconds", "X.", (1.0, 2.0, 5.0), registry)
    assert histogram.quantile(0.5) is None
    histogram.observe(np.array([0.0, 1.0, 1.5, 2.0, 5.0, 6.0, np.nan, np.inf]))
    found = samples(registry)
    below = [sum(value <= bound for value in (0.0, 1.0, 1.5, 2.0, 5.0, 6.0)) for bound in (1.0, 2.0, 5.0, np.inf)]
    assert [found[f'x_seconds_bucket{{le="{bound}"}}'] for bound in ("1.0", "2.0", "5.0", "+Inf")] == below
    assert found["x_seconds_sum"] == 15.5
    assert [histogram.quantile(q) for q in (0.1, 0.5, 0.8, 1.0)] == [1.0, 2.0, 5.0, float("inf")]


def test_the_page_of_operations_lists_every_metric_and_no_other(told: Metrics) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    listed = set(re.findall(r"^\| `(headrace_\w+)`", page, re.MULTILINE))
    ours = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in told.registry.collect()
        if family.name.startswith("headrace_")
    }
    assert listed == ours
