"""Drift detectors on features: what they find depends on the events alone, and goes through checkpoints."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from prometheus_client import generate_latest
from river import drift

from headrace.features import DefinitionError, Entity, Event, EventTime, FeatureView, IterableSource, define, definition
from headrace.flows.decode import decode_rows, reading_of
from headrace.flows.drift import DRIFT, Drift, drifts_in
from headrace.flows.pipeline import Output, SourceFlow
from headrace.flows.runner import run
from headrace.flows.worker.task import Task
from headrace.ops.metrics import Metrics
from headrace.stores.checkpoints import read_checkpoint

START = 1_767_225_600_000_000


class Ride(Event):
    driver_id: str
    fare: float
    city: str
    at: EventTime


def rides(n: int) -> list[dict[str, Any]]:
    """Fares about 10, and about 25 from the middle on."""
    draw = random.Random(4)
    return [
        {
            "driver_id": draw.choice("abc"),
            "fare": draw.gauss(25 if at > n // 2 else 10, 2),
            "city": "oslo",
            "at": START + at * 1_000_000 - draw.randint(0, 3) * 1_000_000,
        }
        for at in range(n)
    ]


def view(rows: list[dict[str, Any]], **detectors: Any) -> Any:
    class Fares(FeatureView, source=IterableSource(rows, Ride, lateness="3s", unit="us"),
                entity=Entity("driver", key="driver_id"), drift=detectors):  # fmt: skip
        fare = Ride.fare.mean(last="1m", hop="1s")
        rides = Ride.count(last="1m", hop="1s")
        top = Ride.city.top_k(1, last="1m")

    return definition(Fares)


def by_hand(detector: Any, log: Any, feature: str) -> list[tuple[int, float]]:
    """Instants and values at which a detector of River's says drift, given the log's values one after the other."""
    found = []
    for at, value in zip(log["event_timestamp"].cast("int64").to_pylist(), log[feature].to_pylist(), strict=True):
        if value is not None:
            detector.update(value)
            if detector.drift_detected:
                found.append((at, value))
    return found


def pushed(view: Any, rows: list[dict[str, Any]], size: int, restart: bool) -> list[Drift]:
    flow, found = SourceFlow(view.source, [view]), []
    for number, start in enumerate(range(0, len(rows), size)):
        if restart and number % 2:
            parts = {name: [part.data] for name, part in flow.save(full=True).items()}
            flow = SourceFlow(view.source, [view])
            flow.load(parts)
        batch, _ = decode_rows(Ride.__schema__, rows[start : start + size], 0, start, reading_of(view.source))
        found += flow.push(batch).drifts
    return found


def test_a_detector_sees_the_settled_values_in_order(tmp_path: Path) -> None:
    rows = rides(600)
    made = view(rows, fare=[drift.ADWIN(), drift.PageHinkley()], rides=drift.ADWIN())
    assert [watch.name for watch in made.drift] == ["ADWIN", "PageHinkley", "ADWIN"]
    whole = pushed(made, rows, 600, restart=False)
    assert {(each.feature, each.detector) for each in whole} >= {("fare", "ADWIN"), ("fare", "PageHinkley")}
    assert pushed(made, rows, 23, restart=False) == whole
    assert pushed(made, rows, 50, restart=True) == whole

    summary = run([made], tmp_path, batch_size=90)
    assert summary.drifts["fares.fare.ADWIN"] == sum(
        each.feature == "fare" and each.detector == "ADWIN" for each in whole
    )
    batch, _ = decode_rows(Ride.__schema__, rows, 0, 0, reading_of(made.source))
    log = SourceFlow(made.source, [made]).push(batch).log[made.name]
    for name, detector in (("ADWIN", drift.ADWIN()), ("PageHinkley", drift.PageHinkley())):
        mine = [(each.at_us, each.value) for each in whole if (each.feature, each.detector) == ("fare", name)]
        assert mine == by_hand(detector, log, "fare")
    checkpoint = read_checkpoint(tmp_path / "log")
    assert checkpoint is not None
    assert drifts_in(checkpoint.snapshots[f"{made.source.name}.{DRIFT}"][-1]) == whole


def test_the_definition_does_not_change_by_being_watched() -> None:
    assert view([], fare=drift.ADWIN()).fingerprint() == view([]).fingerprint()


def test_another_detector_begins_anew() -> None:
    rows = rides(400)
    first = SourceFlow(view(rows).source, [view(rows, fare=drift.ADWIN())])
    batch, _ = decode_rows(Ride.__schema__, rows, 0, 0, reading_of(first.source))
    assert first.push(batch).drifts
    parts = {name: [part.data] for name, part in first.save(full=True).items()}
    for detector, rows_seen in ((drift.ADWIN(), 100), (drift.ADWIN(delta=0.1), 0)):
        flow = SourceFlow(first.source, [view(rows, fare=detector)])
        flow.load(parts)
        (state,) = flow._detectors._states.values()
        assert (state.seen > rows_seen) == (rows_seen > 0)
    none = SourceFlow(first.source, [view(rows)])
    none.load(parts)
    assert f"{first.source.name}.{DRIFT}" not in none.save()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"fair": drift.ADWIN()}, "'fair', which it does not have; did you mean 'fare'"),
        ({"top": drift.ADWIN()}, "detectors look at numbers"),
        ({"fare": 3}, "3 is no detector"),
        ({"fare": drift.KSWIN()}, "random numbers without a seed"),
        (["fare"], "drift= is a dict"),
    ],
)
def test_what_is_refused(given: Any, match: str) -> None:
    features = {"fare": Ride.fare.mean(last="1m"), "top": Ride.city.top_k(1, last="1m")}
    with pytest.raises(DefinitionError, match=match):
        define(
            "v", source=IterableSource([], Ride), entity=Entity("d", key="driver_id"), features=features, drift=given
        )


def test_the_metric() -> None:
    metrics = Metrics("pickups", "w1")
    metrics.counted("rides-0001", "drift:fares.fare.ADWIN", 2)
    text = generate_latest(metrics.registry).decode()
    assert 'headrace_drift_total{detector="ADWIN",feature="fare",view="fares"} 2.0' in text


def test_a_task_counts_drifts_and_sends_them_to_a_topic() -> None:
    made = view([], fare=drift.ADWIN())
    outbox, observer = Mock(), Mock()
    task = Task(
        part="rides-0000", topic="rides", partition=0, partitions=1, offset=0, flow=SourceFlow(made.source, [made]),
        log=Mock(), threads=(Mock(), Mock()), observer=observer, kind="wall", tails=False, outbox=outbox,
        dead_letter_topic=None, drift_topic="drifts", give_up=threading.Event(),
    )  # fmt: skip
    found = Drift("fares", "fare", "ADWIN", START, 25.5, 2, 640)
    task.emit(Output(drifts=[found]), (), None)
    observer.counted.assert_called_once_with("rides-0000", "drift:fares.fare.ADWIN", 1)
    ((part, topic, _, value, _, key), _) = outbox.send.call_args
    assert (part, topic, key) == ("rides-0000", "drifts", b"fares.fare.ADWIN/rides-0000/2")
    told = json.loads(value)
    assert (told["feature"], told["value"], told["at"][:19]) == ("fare", 25.5, "2026-01-01T00:00:00")
