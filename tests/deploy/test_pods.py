"""A worker and a lookup server started as their pods say: arguments, variables, the file as a ConfigMap mounts it.

Only addresses, ports and paths are those of this machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.deploy.kustomize import Resource, named
from tests.deploy.test_kubernetes import OVERLAYS, environment, main_container, triggers
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka
from tests.servers.process import free_port

RIDES = OVERLAYS["rides"]
SECONDS = 90.0
KEY = "a-key-of-sixteen-signs"


def mounted(config: Resource, folder: Path) -> Path:
    """A ConfigMap as pods see it: links to a folder named after the time, so that all files change at once."""
    behind = folder / "..2026_11_23_13_45_00.1234567890"
    behind.mkdir(parents=True)
    (folder / "..data").symlink_to(behind.name)
    for name, text in config["data"].items():
        (behind / name).write_text(text)
        (folder / name).symlink_to(Path("..data") / name)
    return folder


class Pod:
    """The main container of a workload as a process. places: what stands in the manifests -> what it is here."""

    def __init__(self, workload: Resource, places: dict[str, str], folder: Path) -> None:
        self.container = main_container(workload)
        (port,) = self.container["ports"]
        self.port = free_port()
        self.log = folder / f"{workload['metadata']['name']}.log"
        here = {**places, str(port["containerPort"]): str(self.port), "0.0.0.0": "127.0.0.1"}

        def placed(text: str) -> str:
            for there, place in here.items():
                text = text.replace(there, place)
            return text

        variables = {name: placed(value) for name, value in environment(RIDES, self.container).items()}
        variables.pop("NUMBA_CACHE_DIR", None)  # this machine's kernels are where it compiled them
        variables["HEADRACE_FLOW_CHECKPOINT_EVERY"] = "1s"  # the lag of a group is counted from checkpoints
        variables["HEADRACE_SERVE_DRAIN"] = "1s"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("headrace"), *map(placed, self.container["args"])],
                cwd=folder,
                env=os.environ | variables,
                stdout=log,
                stderr=log,
            )

    def asked(self, probe: str) -> int:
        """The status that a probe gets; 0: nobody listens."""
        return self.status(self.container[f"{probe}Probe"]["httpGet"]["path"])

    def status(self, path: str, **headers: str) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def until(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def started() -> Iterator[list[Pod]]:
    pods: list[Pod] = []
    yield pods
    for each in pods:
        each.end()


def lag(bootstrap: str, group: str, topic: str) -> int | None:
    """What an autoscaler sees of a group: messages behind; None: it has committed nothing in some partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        asked = [TopicPartition(topic, number) for number in consumer.list_topics(topic, 10).topics[topic].partitions]
        told = consumer.committed(asked, timeout=10)
        if any(each.offset < 0 for each in told):
            return None
        return sum(consumer.get_watermark_offsets(each, timeout=10)[1] - each.offset for each in told)
    finally:
        consumer.close()


def test_pods_run_as_they_are_told(
    kafka: Kafka, redis_server: RedisAddress, tmp_path: Path, started: list[Pod]
) -> None:
    kafka.make("rides", 4)
    at = datetime.now(UTC).isoformat()
    rides = [
        {"ride_id": str(n), "driver_id": f"d{n % 10}", "status": "pickup", "fare": 10.0, "at": at} for n in range(100)
    ]
    kafka.produce("rides", rides, key="driver_id")
    places = {
        "kafka:9092": kafka.bootstrap,
        "redis://redis:6379/0": redis_server.url,
        "s3://features/rides": str(tmp_path / "data"),
        "/views/": f"{mounted(named(RIDES, 'ConfigMap', 'headrace-views'), tmp_path / 'mounted')}/",
    }
    worker = Pod(named(RIDES, "StatefulSet", "headrace-flow"), places, tmp_path)
    started.append(worker)
    server = Pod(named(RIDES, "Deployment", "headrace-server"), places, tmp_path)
    started.append(server)
    for each in started:
        for probe in ("startup", "liveness", "readiness"):
            each.until(lambda each=each, probe=probe: each.asked(probe) == 200)
    # What the production overlay's autoscaler watches is what the worker commits.
    for trigger in triggers("kafka"):
        group, topic = trigger["metadata"]["consumerGroup"], trigger["metadata"]["topic"]
        worker.until(lambda group=group, topic=topic: lag(kafka.bootstrap, group, topic) == 0)
    assert "headrace_lag_messages" in page(worker, "/metrics")
    assert server.status("/metrics") == 401
    assert server.status("/metrics", Authorization=f"Bearer {KEY}") == 200
    server.until(lambda: looked_up(server, "driver_activity:pickups_30m", "d3") == ([10], ["PRESENT"]))
    for each in started:
        each.process.send_signal(signal.SIGTERM)
    for each in started:
        assert each.process.wait(SECONDS) == 0, each.log.read_text()


def page(pod: Pod, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{pod.port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def looked_up(pod: Pod, feature: str, driver: str) -> tuple[list[object], list[str]]:
    body = {"features": [feature], "entities": {"driver_id": [driver]}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{pod.port}/get-online-features",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        found = json.load(answer)["results"][1]
    return found["values"], found["statuses"]
