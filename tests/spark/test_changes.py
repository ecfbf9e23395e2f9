"""Between two runs on Spark: other cores, more shards, a changed view; and a driver that is followed by another."""

from __future__ import annotations

import os
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource, Lifetime
from headrace.flows.recording import LOG
from headrace.flows.snapshot import SnapshotError
from headrace.flows.spark.query import PART, run_on_spark
from headrace.flows.spark.session import session
from headrace.flows.spark.settings import SparkSettings
from headrace.flows.worker.observing import Silent
from headrace.flows.worker.settings import FlowSettings
from headrace.serving import Client
from headrace.stores.errors import FencedError
from headrace.stores.offline import OfflineLog
from headrace.stores.opening import open_online
from tests.servers.kafka import Kafka

pytestmark = pytest.mark.timeout(480)  # beside others a JVM and its Python processes take their time

START = datetime(2026, 1, 1, tzinfo=UTC)


class Ride(Event):
    who: str
    fare: float
    at: EventTime


def views(topic: str, bootstrap: str, more: bool) -> list[Any]:
    source = KafkaSource(topic, Ride, name="rides", lateness="5s", bootstrap_servers=bootstrap)
    features = {"rides": Ride.count(over=Lifetime())}
    if more:
        features["fares"] = Ride.fare.sum(over=Lifetime())
    # Not keyed by `who`: rows go through the shuffle.
    return [type("ByWho", (FeatureView,), features, source=source, entity=Entity("who", key="who"))]


def rides(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {"who": f"u{n % 7}", "fare": float(n % 5), "at": (START + timedelta(seconds=n)).isoformat()}
        for n in range(first, first + count)
    ]


def served(data: Path, view: Any, names: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
    with open_online(data / "online", read_only=True) as store:
        client = Client(store)
        found = {f"u{n}": client.get(view, who=f"u{n}") for n in range(7)}
    return {who: tuple(vector[name] for name in names) for who, vector in found.items()}


def expected(rows: list[dict[str, Any]]) -> dict[str, tuple[int, float]]:
    count = Counter(row["who"] for row in rows)
    return {who: (n, sum(row["fare"] for row in rows if row["who"] == who)) for who, n in count.items()}


@pytest.mark.skipif("SPARK_LONG" not in os.environ, reason="minutes beside other tests: SPARK_LONG=1 runs it")
def test_other_cores_more_shards_and_a_changed_view(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(2, "rides")
    settings = FlowSettings(topic, str(tmp_path), clock="stream", until_end=True)

    def run(cores: int, *, more: bool = False, shards: int | None = None, **changed: Any) -> None:
        load = partial(views, topic, kafka.bootstrap, more)
        spark = SparkSettings(f"local[{cores}]", shards=shards)
        run_on_spark(load(), replace(settings, **changed), spark, load=load)

    rows = rides(0, 100)
    kafka.produce(topic, rows)
    run(1)
    (view,) = views(topic, kafka.bootstrap, False)
    assert served(tmp_path, view, ("rides",)) == {who: (n,) for who, (n, _) in expected(rows).items()}
    with pytest.raises(SnapshotError, match=r"'rides\.by\.who' has state in 2 shards, and now it would have 5"):
        run(2, shards=5)
    rows += rides(100, 100)
    kafka.produce(topic, rows[100:])
    there, owned = session(SparkSettings("local[3]"))
    try:
        assert owned
        with pytest.raises(SnapshotError, match="fares"):
            run(3, more=True)
        run(3, more=True, on_change="backfill")
        assert not there.sparkContext._jsc.sc().isStopped()
    finally:
        there.stop()
    (view,) = views(topic, kafka.bootstrap, True)
    assert served(tmp_path, view, ("rides", "fares")) == expected(rows)


def test_a_driver_that_another_one_has_followed_ends(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(1, "rides")
    load = partial(views, topic, kafka.bootstrap, False)
    settings = FlowSettings(topic, str(tmp_path), clock="stream")
    turned = threading.Event()

    class Told(Silent):
        def alive(self) -> None:
            turned.set()

    def follow() -> None:
        turned.wait()
        OfflineLog(tmp_path / LOG, part=PART).claim(steal=True)  # as another driver does first of all
        kafka.produce(topic, rides(0, 5))

    following = threading.Thread(target=follow)
    following.start()
    with pytest.raises(FencedError, match=PART):
        run_on_spark(load(), settings, SparkSettings("local[1]", 0.1), load=load, observer=Told())
    following.join()
