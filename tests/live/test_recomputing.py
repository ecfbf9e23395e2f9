"""What `headrace verify` computes anew from a topic: nothing differs from the flow's log, and every damage is found."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from headrace.features import Entity, Event, EventTime, KafkaSource, Lifetime, ViewDefinition, define
from headrace.features.time import format_instant
from headrace.flows.kafka.topics import Cluster
from headrace.flows.recording import LOG
from headrace.flows.worker.recomputing import recompute
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from headrace.materialize.verifying import check_log
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.offline import OfflineLog
from tests.servers.kafka import Kafka

MINUTE = 60_000_000
START = 1_767_225_600_000_000  # 2026-01-01T00:00Z
DRIVERS = [f"d{i}" for i in range(9)]


class Ride(Event):
    id: int
    driver: str
    city: str
    fare: float | None
    at: EventTime


def views_of(source: KafkaSource) -> list[ViewDefinition]:
    """One keyed like the topic, one that is re-keyed, and one that knows all of the past."""
    features = {"rides": Ride.count(last="30m", hop="1m"), "spent": Ride.fare.sum(last="1h", hop="5m")}
    by_driver, by_city = Entity("driver", key="driver"), Entity("city", key="city")
    return [
        define("drivers", source=source, entity=by_driver, features=features),
        define("cities", source=source, entity=by_city, features={"last": Ride.fare.last(last="2h"), **features}),
        define("ever", source=source, entity=by_driver, features={"rides": Ride.count(over=Lifetime())}),
    ]


def sent(kafka: Kafka, topic: str, count: int) -> None:
    """Rides in disorder: some late, some twice, some far ahead, some without a fare; one partition falls silent."""
    for i in range(count):
        driver = DRIVERS[i * i % 9]
        partition = DRIVERS.index(driver) % 3
        if partition == 2 and i > count // 2:
            driver, partition = DRIVERS[0], 0
        late = 40 * MINUTE if i % 37 == 36 else (i % 5) * MINUTE
        ahead = 600 * MINUTE if i % 53 == 52 else 0
        at = format_instant(START + i * MINUTE // 2 - late + ahead)
        fare = None if i % 11 == 0 else float(i % 13)
        row = {"id": i - i % 41 // 40, "driver": driver, "city": f"c{i % 4}", "fare": fare, "at": at}
        kafka.produce(topic, [row], partition=partition)


def run(kafka: Kafka, topic: str, folder: Path) -> tuple[FlowSettings, list[ViewDefinition]]:
    source = KafkaSource(
        topic, Ride, name="rides", keyed_by="driver", lateness="5m", dedup="id", max_ahead="2h", idle_after="20m",
        bootstrap_servers=kafka.bootstrap,
    )  # fmt: skip
    settings = FlowSettings(name=topic, data=str(folder), clock="stream", until_end=True)
    views = views_of(source)
    run_worker(views, settings)
    return settings, views


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_nothing_differs(kafka: Kafka, tmp_path: Path, share: float) -> None:
    topic = kafka.new_topic(3, "rides")
    sent(kafka, topic, 300)
    settings, views = run(kafka, topic, tmp_path / "flow")
    log, other = (OfflineLog(tmp_path / name / LOG) for name in ("flow", "anew"))
    reasons = set(read_dead_letters(log)["reason"].to_pylist())
    assert {"late", "ahead"} <= reasons
    made = recompute(views, settings, str(tmp_path / "anew"), share=share)
    assert (made.begins, made.left) == ({"drivers": None, "cities": None, "ever": None}, {})
    for view in views:
        check = check_log(view, log, other, share=share)
        assert check.differences == 0, check
        assert check.rows > (100 if share == 1 else 0)
        assert check.entities == len({row[view.entity.keys[0]] for row in other.scan(view).to_pylist()})


def test_damage_is_found_also_where_the_topic_has_forgotten_its_beginning(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(3, "rides")
    sent(kafka, topic, 400)
    settings, views = run(kafka, topic, tmp_path / "flow")
    (drivers, cities, _), source = views, views[0].source
    log, anew = OfflineLog(tmp_path / "flow" / LOG), OfflineLog(tmp_path / "anew" / LOG)
    assert isinstance(source, KafkaSource)
    Cluster.of(source).delete_records({(topic, 0): 10, (topic, 1): 5})
    made = recompute(views, settings, str(tmp_path / "anew"))
    assert made.left == {"ever": "the topic does not have its beginning, and a feature knows all of an entity's past"}
    begins = made.begins["drivers"]
    assert begins is not None
    assert 0 < begins - START < 100 * MINUTE
    for view in (drivers, cities):
        check = check_log(view, log, anew, from_us=made.begins[view.name])
        assert check.differences == 0, check
        assert check.rows > 50
    rows = log.scan(cities, tail=False)
    damaged = OfflineLog(tmp_path / "damaged" / LOG)
    spent = rows["spent"].to_pylist()
    spent[-7] = (spent[-7] or 0.0) + 2.0
    at = rows.column_names.index("spent")
    changed = rows.set_column(at, rows.schema.field(at), pa.array(spent, pa.float64()))
    kept = pa.concat_tables([changed.slice(0, rows.num_rows - 4), changed.slice(rows.num_rows - 3)])
    stray = changed.slice(rows.num_rows - 20, 1).set_column(0, rows.schema.field(0), pa.array(["nowhere"]))
    damaged.append(cities, pa.concat_tables([kept, stray]).sort_by("event_timestamp"))
    damaged.commit(settled_us={"cities": log.settled_us(cities) or 0})
    check = check_log(cities, damaged, anew, from_us=made.begins["cities"])
    assert (check.missing, check.extra, check.features["spent"].mismatched) == (1, 1, 1)
    assert check.features["spent"].largest == 2.0
    assert check.differences == 3
