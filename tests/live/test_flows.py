"""Flows of steps over real topics: what they give does not depend on partitions, workers, restarts or deaths."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from river.anomaly import HalfSpaceTrees

from headrace.features import Event, EventTime, Flow, KafkaSource
from headrace.features.sinks import ParquetSink
from headrace.flows.recording import Summary
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings
from tests.servers.kafka import Kafka

START = datetime(2026, 1, 1, tzinfo=UTC)
Rows = list[dict[str, Any]]


class Order(Event):
    who: str
    city: str
    x: int
    at: EventTime


class Payment(Event):
    payer: str
    y: int
    at: EventTime


class Total(Event):
    who: str
    city: str
    total: int
    at: EventTime


class Pair(Event):
    who: str
    x: int
    y: int
    at: EventTime


class InCity(Event):
    city: str
    totals: int
    at: EventTime


def moment(second: float) -> datetime:
    return START + timedelta(seconds=second)


def add(state: int | None, row: Any) -> Any:
    now = (state or 0) + row.x
    return now, {"who": row.who, "city": row.city, "total": now}


def in_city(state: int | None, row: Any) -> Any:
    now = (state or 0) + row.total
    return now, {"city": row.city, "totals": now}


def pair(left: Any, right: Any) -> dict[str, Any]:
    return {"who": left.who, "x": left.x, "y": right.y}


def flow_of(kafka: Kafka, topics: tuple[str, str], out: Path) -> Flow:
    flow = Flow("shop")
    orders = flow.read(KafkaSource(topics[0], Order, name="orders", lateness="5s", bootstrap_servers=kafka.bootstrap))
    payments = flow.read(
        KafkaSource(topics[1], Payment, name="payments", lateness="5s", bootstrap_servers=kafka.bootstrap)
    )
    large = orders.filter(Order.x > 1)
    totals = large.key_by("who").stateful(add, gives=Total, name="totals")
    totals.key_by("city").stateful(in_city, gives=InCity, name="cities").write(ParquetSink(out / "cities"))
    totals.write(ParquetSink(out / "totals"))
    large.key_by("who").join(payments.key_by("payer"), pair, within="3s", gives=Pair, name="pairs").write(
        ParquetSink(out / "pairs")
    )
    return flow


def expected(orders: Rows, payments: Rows) -> dict[str, Counter[Any]]:
    large = sorted((row for row in orders if row["x"] > 1), key=lambda row: row["at"])
    totals: Counter[Any] = Counter()
    cities: Counter[Any] = Counter()
    of: dict[str, int] = {}
    its: dict[str, int] = {}
    for row in large:
        of[row["who"]] = of.get(row["who"], 0) + row["x"]
        totals[row["who"], row["city"], of[row["who"]], row["at"]] += 1
        its[row["city"]] = its.get(row["city"], 0) + of[row["who"]]
        cities[row["city"], its[row["city"]], row["at"]] += 1
    pairs = Counter(
        (row["who"], row["x"], other["y"], max(row["at"], other["at"]))
        for row in large
        for other in payments
        if row["who"] == other["payer"] and abs(row["at"] - other["at"]) <= timedelta(seconds=3)
    )
    return {"totals": totals, "cities": cities, "pairs": pairs}


def written_to(folder: Path) -> Counter[Any]:
    files = [*folder.rglob("*.parquet")]
    return Counter(tuple(row.values()) for file in files for row in pq.read_table(file).to_pylist())


def written(out: Path) -> dict[str, Counter[Any]]:
    return {name: written_to(out / name) for name in ("totals", "cities", "pairs")}


def settings_of(name: str, data: Path, **more: Any) -> FlowSettings:
    return FlowSettings(name=name, data=str(data), clock="stream", until_end=True, **more)


def load(count: int) -> tuple[Rows, Rows]:
    orders = [
        {"who": f"u{n * 7 % 11}", "city": "ab"[n % 2], "x": n % 5, "at": moment(n + n * 13 % 4 / 10)}
        for n in range(count)
    ]
    payments = [{"payer": f"u{n * 5 % 11}", "y": n, "at": moment(n * 1.5)} for n in range(count // 2)]
    return orders, payments


def messages(rows: Rows) -> Rows:
    return [{**row, "at": row["at"].isoformat()} for row in rows]


VIEWS = """
from river.anomaly import HalfSpaceTrees

from headrace.features import Event, EventTime, Flow, KafkaSource
from headrace.features.sinks import ParquetSink


class Reading(Event):
    machine: str
    value: float
    at: EventTime


class Score(Event):
    machine: str
    score: float
    at: EventTime


class Scorer:
    def __init__(self) -> None:
        self.trees = HalfSpaceTrees(n_trees=3, height=4, window_size=8, seed=7)

    def on_event(self, row):
        found = {"value": row.value}
        score = self.trees.score_one(found)
        self.trees.learn_one(found)
        return {"machine": row.machine, "score": score}


flow = Flow("watch")
readings = flow.read(KafkaSource(TOPIC, Reading, name="readings", lateness="3s", bootstrap_servers=BOOTSTRAP))
readings.key_by("machine").stateful(Scorer, gives=Score, name="scores").write(ParquetSink(OUT))
"""


def scores(rows: Rows) -> Counter[Any]:
    """As River gives them in a loop."""
    models: dict[str, Any] = {}
    found: Counter[Any] = Counter()
    for row in sorted(rows, key=lambda each: each["at"]):
        made = HalfSpaceTrees(n_trees=3, height=4, window_size=8, seed=7)
        model = models.setdefault(row["machine"], made)
        found[row["machine"], model.score_one({"value": row["value"]}), row["at"]] += 1
        model.learn_one({"value": row["value"]})
    return found


def test_scores_of_a_model_go_on_after_deaths_and_with_other_workers(kafka: Kafka, tmp_path: Path) -> None:
    topic = kafka.new_topic(3, "readings")
    file, data, out = tmp_path / "watch.py", tmp_path / "data", tmp_path / "out"
    named = f"TOPIC, BOOTSTRAP, OUT = {topic!r}, {kafka.bootstrap!r}, {str(out)!r}\n"
    file.write_text(named + VIEWS)
    quick = {"session.timeout.ms": "1500", "heartbeat.interval.ms": "300"}
    kafka_settings = "".join(f'"{name}" = "{value}"\n' for name, value in quick.items())
    flow = f'[flow]\nname = "{topic}"\nclock = "stream"\ncheckpoint_every = "200ms"\n'
    (tmp_path / "headrace.toml").write_text(f'{flow}[offline]\ndata = "{data}"\n[kafka]\n{kafka_settings}')
    rng = random.Random(5)
    rows = [
        {"machine": f"m{rng.randrange(6)}", "value": rng.random() + n % 40 // 38, "at": moment(n + rng.random())}
        for n in range(240)
    ]
    command = [sys.executable, "-m", "headrace", "run", str(file), "--quiet"]
    with ExitStack() as stack:

        def start(*more: str) -> subprocess.Popen[bytes]:
            log = stack.enter_context((tmp_path / f"log-{rng.random()}").open("wb"))
            made = subprocess.Popen([*command, *more], stdout=log, stderr=log, cwd=tmp_path)
            stack.callback(made.wait)
            stack.callback(made.kill)
            return made

        workers = [start("--worker-id", "w1")]
        for part in range(4):
            kafka.produce(topic, messages(rows[part * 60 : part * 60 + 60]))
            until = time.monotonic() + 60
            while sum(written_to(out).values()) < part * 60 - 12:
                assert time.monotonic() < until, f"{sum(written_to(out).values())} rows within a minute"
                assert any(worker.poll() is None for worker in workers)
                time.sleep(0.1)
            if part == 1:
                workers.append(start("--worker-id", "w2"))
            elif part == 2:
                workers[0].kill()
        for worker in workers:
            worker.kill()
        ended = start("--until-end")
        assert ended.wait(90) == 0
    assert written_to(out) == scores(rows)


def test_a_flow_over_two_topics_gives_what_a_list_program_gives(kafka: Kafka, tmp_path: Path) -> None:
    topics = kafka.new_topic(3, "orders"), kafka.new_topic(2, "payments")
    orders, payments = load(120)
    kafka.produce(topics[0], messages(orders))
    kafka.produce(topics[1], messages(payments))
    summary: Summary = run_worker([flow_of(kafka, topics, tmp_path / "out")], settings_of(topics[0], tmp_path / "data"))
    assert json.dumps(dict(summary.dead)) == "{}"
    assert written(tmp_path / "out") == expected(orders, payments)
