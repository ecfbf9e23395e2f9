"""`headrace run` over Kafka on real servers, as a person runs it: one worker or several, stopped, asked, run again."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka, KafkaServer
from tests.servers.process import free_port, free_ports
from tests.servers.redis import RedisServer

from headrace.cli.loading import load
from headrace.ops.errors import DONE, INTERRUPTED, WRONG_CONFIGURATION
from headrace.serving.client import Client
from headrace.stores.opening import open_online

VIEWS = """
from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource

class Ride(Event):
    driver_id: str
    fare: float
    at: EventTime

rides = KafkaSource("TOPIC", Ride, name="rides", keyed_by="driver_id", lateness="10s")

class DriverActivity(FeatureView, source=rides, entity=Entity("driver", key="driver_id"), ttl="7d"):
    pickups_30m = Ride.count(last="30m")
    fare_max = Ride.fare.max(last="1d")
"""
DRIVERS = 20


class Project:
    """A views file over a topic of its own, with its configuration, and the command run in its folder."""

    def __init__(self, folder: Path, kafka: Kafka, redis: RedisAddress) -> None:
        self.folder = folder
        self.kafka = kafka
        self.redis = redis
        self.topic = kafka.new_topic(4, "rides")
        (folder / "rides.py").write_text(VIEWS.replace("TOPIC", self.topic))
        (folder / "headrace.toml").write_text(
            f'[flow]\ncheckpoint_every = "1s"\n[kafka]\nbootstrap.servers = "{kafka.bootstrap}"\n'
            f'[online]\nurl = "{redis.url}"\n'
        )
        self.running: list[subprocess.Popen[str]] = []

    def send(self, rides: int) -> None:
        now_ms = round(time.time() * 1000)
        rows = [{"driver_id": f"d{n % DRIVERS}", "fare": float(n), "at": _iso(now_ms - 1)} for n in range(rides)]
        self.kafka.produce(self.topic, rows, key="driver_id")

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        self.running.append(
            subprocess.Popen(
                [sys.executable, "-m", "headrace", *words],
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"COLUMNS": "160"} | environment,
            )
        )
        return self.running[-1]

    def run(self, *words: str, code: int = DONE, **environment: str) -> str:
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        return out if code == DONE else err

    def pickups(self) -> int:
        """The newest value of all drivers, summed: each ride counts once."""
        view = load(self.folder / "rides.py").view("driver_activity")
        with open_online(self.redis.url, read_only=True) as store:
            vectors = Client(store).get_many(view, [{"driver_id": f"d{driver}"} for driver in range(DRIVERS)])
        return sum(vector["pickups_30m"] for vector in vectors)

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()


def _iso(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms / 1000)) + f".{ms % 1000:03}Z"


@pytest.fixture
def project(tmp_path: Path, kafka: Kafka, redis_server: RedisAddress) -> Iterator[Project]:
    made = Project(tmp_path, kafka, redis_server)
    yield made
    made.end()


class Lines:
    """Log lines of a process as they come, read in a thread so that it never waits for a reader."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.all: list[dict[str, Any]] = []
        self._process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.all.append(json.loads(line))

    def wait(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 120.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in list(self.all):
                if condition(line):
                    return line
            assert self._process.poll() is None, self.all
            time.sleep(0.05)
        raise AssertionError(self.all)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def test_rides_become_features_that_get_and_history_show(project: Project) -> None:
    project.send(200)
    summary = json.loads(project.run("run", "rides.py", "--until-end", "--json"))
    assert summary["read"] == {"rides": 200}
    assert summary["taken"] == 200
    got = json.loads(project.run("get", "driver_activity", "driver_id=d7", "--json"))
    assert got["features"] == {"pickups_30m": 10, "fare_max": 187.0}
    with project.redis.client() as client:
        assert client.dbsize() >= DRIVERS  # there, and not in an embedded store
    assert not (project.folder / "headrace-data" / "online").exists()
    project.send(20)
    again = project.run("run", "rides.py", "--until-end")
    assert re.search(r"events read +20 in", again)
    assert "headrace get driver_activity driver_id=..." in again
    assert json.loads(project.run("get", "driver_activity", "driver_id=d7", "--json"))["features"]["pickups_30m"] == 11


def test_sigterm_to_a_supervisor_of_two_drains_checkpoints_and_leaves(project: Project) -> None:
    project.send(400)
    port = free_ports(2)
    process = project.start("run", "rides.py", "--workers", "2", "--metrics-port", str(port), "--json")
    lines = Lines(process)
    for worker in ("-0", "-1"):
        lines.wait(lambda line, end=worker: line["event"] == "ready" and line["worker"].endswith(end))
    pids = [line["pid"] for line in lines.all if line["event"] == "worker started"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
        assert json.load(answer)["ok"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == DONE, lines.all
    assert process.stdout is not None
    first = json.loads(process.stdout.read())
    assert not any(is_there(pid) for pid in pids)
    assert first["stopped"]
    # What the two had read is in their checkpoints: the next run reads the rest and no more.
    project.send(100)
    second = json.loads(project.run("run", "rides.py", "--until-end", "--workers", "2", "--json"))
    assert first["read"].get("rides", 0) + second["read"].get("rides", 0) == 500
    assert project.pickups() == 500


def test_workers_do_not_outlive_a_killed_supervisor_and_their_state_is_kept(project: Project) -> None:
    project.send(100)
    process = project.start("run", "rides.py", "--workers", "2")
    lines = Lines(process)
    lines.wait(lambda line: line["event"] == "ready")
    pids = [line["pid"] for line in lines.all if line["event"] == "worker started"]
    process.kill()
    wait_for(lambda: not any(is_there(pid) for pid in pids))
    project.run("run", "rides.py", "--until-end")
    assert project.pickups() == 100


def test_a_second_signal_ends_at_once_and_loses_nothing(project: Project) -> None:
    project.send(100)
    process = project.start("run", "rides.py", "--workers", "2")
    lines = Lines(process)
    lines.wait(lambda line: line["event"] == "ready")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    project.run("run", "rides.py", "--until-end")
    assert project.pickups() == 100


def test_a_changed_view_is_refused_for_good_with_the_way_out(project: Project) -> None:
    project.send(40)
    project.run("run", "rides.py", "--until-end")
    file = project.folder / "rides.py"
    file.write_text(file.read_text() + '    fare_min = Ride.fare.min(last="1d")\n')
    said = project.run("run", "rides.py", "--until-end", code=WRONG_CONFIGURATION)
    assert "error: " in said
    assert "Traceback" not in said
    assert "--on-change start" in said
    assert "--on-change backfill" in said
    said = project.run("run", "rides.py", "--workers", "2", code=WRONG_CONFIGURATION)
    assert [line for line in said.splitlines() if json.loads(line)["event"] == "configuration is wrong; the flow stops"]
    assert sum('"worker started"' in line for line in said.splitlines()) == 2


def test_no_password_is_printed_whatever_fails(project: Project) -> None:
    planted = "hunter2-PLANTED"
    environment = {
        "PLANTED": planted,
        "HEADRACE_ONLINE_URL": f"redis://:{planted}@127.0.0.1:{project.redis.port}/0",
        "HEADRACE_KAFKA_SASL_PASSWORD": planted,
        "HEADRACE_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "HEADRACE_KAFKA_SOCKET_TIMEOUT_MS": "1000",
    }
    for words in (("run", "rides.py", "--until-end"), ("run", "rides.py", "--until-end", "--log-format", "json")):
        process = project.start(*words, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode not in (DONE, -signal.SIGKILL), err
        assert planted not in out + err


def test_health_follows_redis_and_kafka(
    tmp_path: Path, new_kafka: Callable[..., KafkaServer], new_redis: Callable[..., RedisServer]
) -> None:
    kafka, redis = new_kafka(), new_redis(persist=True)
    project = Project(tmp_path, Kafka(kafka.bootstrap), RedisAddress(redis.url, redis.port))
    port = free_port()

    def ready() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    try:
        project.send(20)
        process = project.start("run", "rides.py", "--metrics-port", str(port))
        Lines(process)
        wait_for(lambda: ready()[0] == 200)
        redis.kill()
        project.send(20)
        wait_for(lambda: ready()[0] == 503 and "online store fails" in ready()[1])
        redis.start()
        wait_for(lambda: ready()[0] == 200)
        kafka.kill()
        wait_for(lambda: ready()[0] == 503 and "kafka fails" in ready()[1])
        kafka.start()
        wait_for(lambda: ready()[0] == 200)
        project.send(20)
        wait_for(lambda: project.pickups() == 60)
    finally:
        project.end()


def test_on_a_terminal_a_table_shows_the_workers_until_ctrl_c(project: Project) -> None:
    project.send(50)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace", "run", "rides.py", "--workers", "2"],
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"},
    )
    project.running.append(process)
    os.close(theirs)
    seen = b""
    asked = False
    while True:
        try:
            seen += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not asked and len(set(re.findall(rb"-([01]) +\d+ +[^ ]*ready", seen))) == 2:
            process.send_signal(signal.SIGINT)
            asked = True
    os.close(ours)
    assert asked, seen.decode()
    assert process.wait(60) == INTERRUPTED
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert "flow rides" in text
    assert "worker started" in text
    assert "stopping; a second signal ends at once" in text
    assert process.stdout is not None
    assert "Stopped; the next run goes on from here" in process.stdout.read()


def test_a_fresh_run_forgets_what_others_left(project: Project) -> None:
    project.send(40)
    assert json.loads(project.run("run", "rides.py", "--until-end", "--json"))["read"] == {"rides": 40}
    assert json.loads(project.run("run", "rides.py", "--until-end", "--fresh", "--json"))["read"] == {"rides": 40}
    assert project.pickups() == 40


def test_passwords_of_the_environment_open_kafka_and_redis(
    tmp_path: Path, kafka: Kafka, new_redis: Callable[..., RedisServer]
) -> None:
    password = "p@ss/w:rd #1%"
    redis = new_redis(options=("--requirepass", password))
    project = Project(tmp_path, kafka, RedisAddress(redis.url, redis.port))
    (tmp_path / "headrace.toml").write_text(
        f'[kafka]\nbootstrap.servers = "{kafka.sasl_bootstrap}"\nsecurity.protocol = "SASL_PLAINTEXT"\n'
        'sasl.mechanism = "PLAIN"\nsasl.username = "flow"\nsasl.password = "${KAFKA_PASSWORD}"\n'
        f'[online]\nurl = "redis://:${{REDIS_PASSWORD}}@127.0.0.1:{redis.port}/0"\n'
    )
    environment = {"KAFKA_PASSWORD": "flow-secret", "REDIS_PASSWORD": password}
    try:
        project.send(20)
        process = project.start("run", "rides.py", "--until-end", "--workers", "2", **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == DONE, err
        assert re.search(r"taken +20", out)
        for secret in (*environment.values(), "p%40ss"):
            assert secret not in out + err
        got = project.run("get", "driver_activity", "driver_id=d7", "--json", **environment)
        assert json.loads(got)["features"]["pickups_30m"] == 1
    finally:
        project.end()
