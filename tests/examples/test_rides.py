"""Ride hailing: the city is the same for the same seed, its stream is what a stream is, and it reaches Kafka."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka, KafkaServer

from headrace.cli.loading import load
from headrace.features.time import instant_us
from headrace.serving.client import Client
from headrace.stores.opening import open_online

EXAMPLES = Path(__file__).parents[2] / "examples"
GENERATOR = EXAMPLES / "rides_generator.py"
LIMIT_S = 120  # many times what anything here takes on a busy machine
START = datetime(2026, 3, 6, 17, 0, tzinfo=UTC)


def _city() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rides_city", EXAMPLES / "rides_city.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["rides_city"] = made  # its dataclasses look themselves up
    spec.loader.exec_module(made)
    return made


city = _city()


def stream(count: int, **options: object) -> list[tuple[float, bytes, bytes, str]]:
    given = {"rate": 100.0, "drivers": 500, "late": 0.05, "bad": 0.01, "seed": 3, "start": START} | options
    return list(islice(city.messages(**given), count))


def test_one_seed_is_one_stream() -> None:
    assert stream(5_000) == stream(5_000)
    assert stream(500) != stream(500, seed=4)


def test_messages_come_at_the_rate_and_a_few_out_of_order() -> None:
    made = stream(30_000, rate=25.0)
    due = [each.due for each in made]
    assert due == sorted(due)
    assert due[-1] == pytest.approx(1200, rel=0.05)
    rides = [(each.due, json.loads(each.payload)) for each in made if each.kind != "bad"]
    delays = [due - (instant_us(ride["at"], "at") / 1e6 - START.timestamp()) for due, ride in rides]
    assert sum(0.35 < each < 9 for each in delays) == pytest.approx(0.049 * len(rides), rel=0.1)
    assert sum(each > 60 for each in delays) == pytest.approx(0.001 * len(rides), rel=0.5)
    assert min(delays) >= 0


def test_a_driver_picks_up_and_drops_off_in_turn() -> None:
    state: dict[str, str] = {}
    rides = [json.loads(each.payload) for each in stream(20_000, late=0.0, bad=0.0)]
    for ride in rides:
        underway = state.pop(ride["driver_id"], None)
        assert (ride["status"] == "dropoff") == (underway is not None)
        assert ("fare" in ride) == (ride["status"] == "dropoff")
        if ride["status"] == "pickup":
            state[ride["driver_id"]] = ride["ride_id"]
        elif underway:
            assert ride["ride_id"] == underway
            assert ride["fare"] > 2.4
    assert Counter(ride["status"] for ride in rides)["cancelled"] == pytest.approx(0.036 * len(rides), rel=0.2)


def test_people_ride_to_work_in_the_morning_and_home_in_the_evening() -> None:
    def pickups_at(hour: int) -> Counter[str]:
        made = stream(40_000, start=START.replace(hour=hour), late=0.0, bad=0.0)[20_000:]
        rides = [json.loads(each.payload) for each in made]
        return Counter(ride["zone"] for ride in rides if ride["status"] == "pickup")

    morning, evening = pickups_at(7), pickups_at(17)
    assert morning["Westgate"] > 1.2 * evening["Westgate"]
    assert evening["Docklands"] > 1.2 * morning["Docklands"]


def test_a_file_holds_the_same_messages(tmp_path: Path) -> None:
    out = tmp_path / "rides.jsonl"
    command = [sys.executable, GENERATOR, "--out", out, "--events", "2000", "--start", "2026-03-06T17:00Z"]
    ran = subprocess.run([*command, "--rate", "100", "--drivers", "500", "--seed", "3"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    expected = stream(2000, late=0.02, bad=0.0001)
    assert out.read_bytes() == b"".join(each.payload + b"\n" for each in expected)
    assert "2,000 sent" in ran.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--out", "x.jsonl"], "add --events"),
        (["--rate", "0"], "--rate"),
        (["--start", "2026-03-06T17:00"], "no zone"),
        (["--bootstrap", "127.0.0.1:1"], "No Kafka at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_is_told(given: list[str], told: str, tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, GENERATOR, *given], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode != 0
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_generator_makes_its_topic_and_ctrl_c_ends_it(kafka: Kafka) -> None:
    topic = "rides-of-the-generator"
    kafka.topics.append(topic)
    command = [sys.executable, GENERATOR, "--topic", topic, "--bootstrap", kafka.bootstrap, "--rate", "2000"]
    running = subprocess.Popen([*command, "--partitions", "3"], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + LIMIT_S
    while topic not in kafka.names() or sum(kafka.ends(topic).values()) < 500:
        assert time.monotonic() < until
        assert running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 0, told
    messages = kafka.consume(topic)
    assert f"{len(messages):,} sent" in told
    places = {(message.key(), message.partition()) for message in messages}
    assert len(places) == len({key for key, _ in places})  # all of a driver's by one partition
    assert {partition for _, partition in places} == {0, 1, 2}
    now = datetime.now(UTC)
    first = json.loads(messages[0].value() or b"")
    assert now - timedelta(minutes=1) < datetime.fromisoformat(first["at"]) <= now


def _by_hand(messages: list[Any]) -> dict[str, tuple[int, float]]:
    """By driver, pickups and what was earned, from the messages that are rides."""
    found: dict[str, tuple[int, float]] = {}
    for message in messages:
        try:
            ride = json.loads(message.value())
            driver, status, surge = ride["driver_id"], ride["status"], float(ride["surge"])
            instant_us(ride["at"], "at")
        except (ValueError, KeyError):
            continue
        assert surge >= 1
        pickups, earned = found.get(driver, (0, 0.0))
        found[driver] = (pickups + (status == "pickup"), earned + ride.get("fare", 0.0))
    return found


def test_from_kafka_to_redis_the_features_are_a_count_by_hand(
    new_kafka: Callable[..., KafkaServer], redis_server: RedisAddress, tmp_path: Path
) -> None:
    """The commands of the page, with the addresses of the test's servers in place of those in headrace.toml."""
    kafka = Kafka(new_kafka().bootstrap)  # of its own, as the example's topic has a name that others may like too
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    variables |= {"HEADRACE_KAFKA_BOOTSTRAP": kafka.bootstrap, "HEADRACE_ONLINE_URL": redis_server.url}
    page = (EXAMPLES / "rides" / "README.md").read_text()

    def words(start: str) -> list[str]:
        (found,) = re.findall(rf"^    ({start}.*)$", page, re.MULTILINE)
        command = [str(EXAMPLES.parent / word) if word.endswith(".py") else word for word in found.split()]
        return [sys.executable, *(["-m", "headrace"] if command[0] == "headrace" else []), *command[1:]]

    def run(command: list[str]) -> str:
        ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=variables)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout + ran.stderr

    city = [*words("python examples/rides_generator.py"), "--drivers", "300", "--events"]
    run([*city, "6000", "--fast", "--rate", "300", "--bad", "0.003"])  # twenty seconds until now
    flow = subprocess.Popen(words("headrace run"), cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True)
    try:
        run([*city, "1000", "--seed", "2"])  # the flow runs, or is about to
        expected = _by_hand(kafka.consume("rides"))
        assert len(expected) == 300
        client = Client(open_online(redis_server.url, read_only=True))
        view = load(EXAMPLES / "rides.py").view("driver_activity")
        until = time.monotonic() + LIMIT_S
        while True:
            vectors = {driver: client.get(view, driver_id=driver) for driver in expected}
            differ = {
                driver: (vectors[driver]["pickups_30m"], vectors[driver]["earned_30m"], pickups, earned)
                for driver, (pickups, earned) in expected.items()
                if vectors[driver]["pickups_30m"] != pickups or vectors[driver]["earned_30m"] != pytest.approx(earned)
            }
            if not differ:
                break
            assert time.monotonic() < until, f"{len(differ)} drivers differ, such as {differ.popitem()}"
            assert flow.poll() is None, flow.communicate()[1]
            time.sleep(0.2)
        assert "last_zone" in run(words("headrace get"))
    finally:
        flow.send_signal(signal.SIGINT)
        _, told = flow.communicate(timeout=LIMIT_S)
    assert "Traceback" not in told
    assert "driver-42" in run(words("headrace history"))
    assert "malformed" in run([sys.executable, "-m", "headrace", "dead", "--json"])
