"""Flows on Spark: what they give is what a list program gives."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headrace.flows.spark.query import run_on_spark
from headrace.flows.spark.settings import SparkSettings
from tests.live import test_flows as plain
from tests.servers.kafka import Kafka

pytestmark = pytest.mark.timeout(480)  # beside others a JVM and its Python processes take their time


def flows(topics: tuple[str, str], bootstrap: str, out: str) -> list[Any]:
    class Server:
        pass

    server = Server()
    server.bootstrap = bootstrap
    return [plain.flow_of(server, topics, Path(out))]


def test_a_flow_over_two_topics_gives_what_a_list_program_gives(kafka: Kafka, tmp_path: Path) -> None:
    topics = kafka.new_topic(3, "orders"), kafka.new_topic(2, "payments")
    orders, payments = plain.load(120)
    kafka.produce(topics[0], plain.messages(orders))
    kafka.produce(topics[1], plain.messages(payments))
    load = partial(flows, topics, kafka.bootstrap, str(tmp_path / "out"))
    settings = plain.settings_of(topics[0], tmp_path / "data")
    summary = run_on_spark(load(), settings, SparkSettings("local[2]"), load=load)
    assert not summary.dead
    assert plain.written(tmp_path / "out") == plain.expected(orders, payments)
