"""Views over streams of flows over topics: the same rows as of the flow that is run embedded over the same events."""

import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.features import Entity, Flow, IterableSource, KafkaSource, define
from headrace.features.sources import Source
from headrace.flows.snapshot import SnapshotError
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from tests.flows.test_live import eventually
from tests.live.test_flows import Order, Total, add, load, messages
from tests.oracle.operator import rows_of
from tests.servers.kafka import Kafka

CITY, PERSON = Entity("city", key="city"), Entity("person", key="who")


def views_over(source: Source) -> list[Any]:
    """A view by a column that the topic is not keyed by, over rows as they come; and one over rows of a step by key."""
    flow = Flow("shop")
    large = flow.read(source).filter(Order.x > 1)
    cities = define(
        "cities", source=large, entity=CITY, features={"n": Order.count(last="10s"), "x": Order.x.sum(last="1m")}
    )
    totals = large.key_by("who").stateful(add, gives=Total, name="totals")
    totals.window("people", entity=PERSON, features={"most": Total.total.max(last="30s"), "n": Total.count(last="5s")})
    return [cities, flow]


def told(data: Path, views: list[Any]) -> dict[str, Any]:
    """Log rows with the tail and what is served, of both views."""
    found: dict[str, Any] = {}
    log = headrace.OfflineLog(data / "log")
    with headrace.EmbeddedStore(data / "online", read_only=True) as store:
        client = headrace.Client(store)
        for view in (views[0], *views[1].views):
            key = view.entity.keys[0]
            rows = rows_of(log.scan(view))
            entities = sorted({row[key] for row in rows})
            found[view.name] = sorted(map(repr, rows))
            found[f"{view.name} served"] = [client.get(view, {key: each}).to_dict() for each in entities]
    return found


def test_views_over_streams_of_topics(kafka: Kafka, tmp_path: Path) -> None:
    """Through two cuts, each run going on from the checkpoints of the one before; the last without what was online."""
    topic = kafka.new_topic(3, "orders")
    orders, _ = load(120)
    views = views_over(KafkaSource(topic, Order, name="orders", lateness="5s", bootstrap_servers=kafka.bootstrap))
    data = tmp_path / "data"
    settings = FlowSettings(name=topic, data=str(data), clock="stream", until_end=True)
    for some in (orders[:50], orders[50:90], orders[90:]):
        kafka.produce(topic, messages(some))
        summary = run_worker(views, settings)
        assert not summary.dead
        if some[-1] is orders[89]:
            shutil.rmtree(data / "online")
    assert summary.entities.keys() == {"cities", "people"}
    plain = views_over(IterableSource(orders, Order, name="orders", lateness="5s"))
    headrace.run(plain, tmp_path / "embedded")
    expected = told(tmp_path / "embedded", plain)
    assert told(data, views) == expected
    assert len(expected["cities"]) > 70
    assert len(expected["people"]) > 70
    more = define("more", source=views[0].source.stream, entity=CITY, features={"n": Order.count(last="1m")})
    with pytest.raises(SnapshotError, match=r"View 'more' is not in the checkpoint of stream 'shop\.filter'"):
        run_worker([*views, more], settings)


def test_a_row_shows_at_once_and_falls_while_nothing_comes(kafka: Kafka, tmp_path: Path) -> None:
    """Behind a cut, by the wall's clock; the watermark is an hour behind and nobody waits for it."""
    topic = kafka.new_topic(2, "orders")
    source = KafkaSource(topic, Order, name="orders", lateness="1h", bootstrap_servers=kafka.bootstrap)
    large = Flow("shop").read(source).filter(Order.x > 1)
    features = {"n": Order.count(last="1h"), "now": Order.count(last="1s", exact=True)}
    view = define("cities", source=large, entity=CITY, features=features)
    stop, data = threading.Event(), tmp_path / "data"
    settings = FlowSettings(name=topic, data=str(data), checkpoint_every_s=0.5)
    worker = threading.Thread(target=run_worker, args=([view], settings), kwargs={"stop": stop}, daemon=True)
    worker.start()
    eventually((data / "online").exists)
    kafka.produce(topic, [{"who": "u", "city": "a", "x": x, "at": datetime.now(UTC).isoformat()} for x in (1, 2, 3)])
    with headrace.EmbeddedStore(data / "online", read_only=True) as store:

        def shown() -> Any:
            row = store.read(view, [{"city": "a"}])[0] if view.name in store.views() else None
            return None if row is None else row.values

        eventually(lambda: shown() is not None and shown()["n"] == 2)
        eventually(lambda: shown() == {"n": 2, "now": 0})
    stop.set()
    worker.join(60)
    assert not worker.is_alive()
