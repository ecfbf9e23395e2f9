"""`headrace doctor` on real servers: well when all is well, and for each thing that is wrong a line that says so."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka
from tests.servers.process import free_port
from tests.servers.redis import RedisServer
from typer.testing import CliRunner, Result

from headrace.cli.commands import app
from headrace.ops.checks.data import check_data
from headrace.ops.secrets import forget

VIEWS = """
from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource

class Ride(Event):
    driver_id: str
    city: str
    at: EventTime

rides = KafkaSource("TOPIC", Ride, name="rides", KEYED lateness="10s")

class DriverActivity(FeatureView, source=rides, entity=Entity("driver", key="driver_id")):
    rides_30m = Ride.count(last="30m")
"""
PLANTED = "hunter2-PLANTED"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADRACE_DATA", raising=False)
    forget()
    return tmp_path


def doctor(*words: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *words], env={"COLUMNS": "200", "TERM": "dumb"})


def findings(*words: str, code: int = 0) -> list[dict[str, Any]]:
    result = doctor(*words, "--json")
    assert result.exit_code == code, result.output
    report = json.loads(result.stdout)
    assert report["ok"] == (code == 0)
    return report["findings"]


def levels(found: list[dict[str, Any]], level: str) -> dict[str, str]:
    return {each["about"]: f"{each['says']} -> {each['mend']}" for each in found if each["level"] == level}


def write(
    folder: Path, kafka: Kafka, redis: RedisAddress | None, topic: str, keyed: str = 'keyed_by="driver_id",'
) -> str:
    (folder / "views.py").write_text(VIEWS.replace("TOPIC", topic).replace("KEYED", keyed))
    online = "" if redis is None else f'[online]\nurl = "{redis.url}"\n'
    (folder / "headrace.toml").write_text(f'[kafka]\nbootstrap.servers = "{kafka.bootstrap}"\n{online}')
    return "views.py"


def rides(count: int, drivers: int) -> list[dict[str, Any]]:
    return [
        {"driver_id": f"d{n % drivers}", "city": "Lyon", "at": f"2026-01-01T12:{n % 60:02}:00Z"} for n in range(count)
    ]


def test_a_flow_that_is_well(folder: Path, kafka: Kafka, redis_server: RedisAddress) -> None:
    topic = kafka.new_topic(4, "rides")
    kafka.produce(topic, rides(60, 12), key="driver_id")
    file = write(folder, kafka, redis_server, topic)
    found = findings(file)
    assert "keyed by driver_id as it says" in " ".join(each["says"] for each in found)
    assert "60 of 60 message keys equal driver_id" in " ".join(each["says"] for each in found)
    assert f"127.0.0.1:{redis_server.port}" in " ".join(each["about"] for each in found if each["level"] != "fail")
    assert {each["area"] for each in found} == {"configuration", "machine", "data", "kafka", "redis", "server"}
    assert not (folder / "headrace-data").exists()  # nothing stays
    shown = doctor(file)
    assert shown.exit_code == 0
    assert "0 to mend" in shown.stdout
    assert shown.stdout.startswith("ok   configuration views.py: 1 view(s): driver_activity")


def test_a_topic_that_is_not_keyed_as_the_source_says(folder: Path, kafka: Kafka) -> None:
    topic = kafka.new_topic(4, "rides")
    rows = rides(60, 12)
    kafka.produce(topic, rows, partition=[n // 15 for n in range(60)])
    wrong = levels(findings(write(folder, kafka, None, topic), code=1), "fail")
    assert "says keyed_by driver_id, and driver_id=d" in wrong["rides"]
    assert "each partition would count its own share" in wrong["rides"]
    # Without the promise the flow re-keys, and all is well.
    found = findings(write(folder, kafka, None, topic, keyed=""))
    assert any("are re-keyed through the topic headrace." in each["says"] for each in found)


def test_a_topic_that_seems_to_be_keyed_though_nobody_says_so(folder: Path, kafka: Kafka) -> None:
    topic = kafka.new_topic(4, "rides")
    kafka.produce(topic, rides(60, 12), key="driver_id")
    doubtful = levels(findings(write(folder, kafka, None, topic, keyed="")), "warn")
    assert "60 of 60 message keys equal driver_id" in doubtful["rides"]
    assert "say keyed_by='driver_id'" in doubtful["rides"]


def test_messages_that_cannot_be_read_and_topics_that_are_empty(folder: Path, kafka: Kafka) -> None:
    topic = kafka.new_topic(1, "rides")
    file = write(folder, kafka, None, topic)
    assert "its topics are empty" in levels(findings(file), "warn")["rides"]
    kafka.produce(topic, [*rides(3, 3), "no json", {"city": "Lyon"}])
    doubtful = levels(findings(file), "warn")["rides"]
    assert "2 of 5 sampled messages cannot be read" in doubtful
    assert "offset 3 of partition 0" in doubtful


def test_kafka_that_is_not_there_or_lacks_the_topic(
    folder: Path, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = kafka.new_topic(1, "rides")
    wrong = levels(findings(write(folder, kafka, None, topic + "x"), code=1), "fail")["rides"]
    assert f"has no topic '{topic}x'; did you mean '{topic}'?" in wrong
    nowhere = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP_SERVERS", nowhere)
    wrong = levels(findings("views.py", code=1), "fail")["rides"]
    assert f"no answer from Kafka at {nowhere}" in wrong


def test_a_user_without_rights(folder: Path, kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = kafka.new_topic(1, "rides")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    binding = AclBinding(
        *(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:nobody", "*"),
        *(AclOperation.DESCRIBE, AclPermissionType.ALLOW),
    )
    admin.create_acls([binding])[binding].result(30)
    file = write(folder, kafka, None, topic)
    for name, value in {
        "BOOTSTRAP_SERVERS": kafka.sasl_bootstrap,
        "SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "SASL_MECHANISM": "PLAIN",
        "SASL_USERNAME": "nobody",
        "SASL_PASSWORD": "nobody-secret",
    }.items():
        monkeypatch.setenv(f"HEADRACE_KAFKA_{name}", value)
    wrong = levels(findings(file, code=1), "fail")
    assert "we may not Read" in wrong[topic]
    monkeypatch.setenv("HEADRACE_KAFKA_SASL_PASSWORD", PLANTED)
    result = doctor(file)
    assert result.exit_code == 1
    assert PLANTED not in result.output


def test_redis_that_is_not_there_and_one_that_forgets(
    folder: Path, new_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_redis(options=("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--requirepass", PLANTED))
    address = f"127.0.0.1:{server.port}"
    monkeypatch.setenv("HEADRACE_ONLINE_URL", f"redis://{address}")
    wrong = levels(findings(code=1), "fail")
    assert "do the user and password in the URL fit?" in wrong[f"redis://{address}"]
    monkeypatch.setenv("HEADRACE_ONLINE_URL", f"redis://:{PLANTED}@{address}")
    found = findings()
    doubtful = levels(found, "warn")
    assert "allkeys-lru -> Rows that Redis evicts read as entities never seen" in doubtful["memory"]
    assert "a restart loses every row" in doubtful["persistence"]
    assert PLANTED not in json.dumps(found)
    server.kill()
    result = doctor()
    assert result.exit_code == 1
    assert "cannot be reached" in result.stdout
    assert PLANTED not in result.output


def test_a_data_folder_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").write_text("no folder")
    (found,) = check_data(str(folder / "file" / "data"))
    assert found.level == "fail"
    assert "is no folder" in found.says


def test_an_object_store_is_asked_for_put_if_absent(folder: Path) -> None:
    (found,) = check_data("memory://doctor/data")
    assert (found.level, found.says.partition(";")[0]) == ("ok", "files are created once only")


def test_a_wrong_configuration_or_file_is_a_finding(folder: Path) -> None:
    (folder / "headrace.toml").write_text("[flw]\nname = 'x'")
    assert "did you mean 'flow'?" in levels(findings(code=1), "fail")["settings"]
    (folder / "views.py").write_text("x = 1")
    assert "has no feature view" in levels(findings("views.py", code=1), "fail")["views"]


def test_the_lookup_server_s_settings_are_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = '[serve]\nport = {}\nhost = "{}"\ncache = "{}"\n'

    def of_server(port: int, host: str, cache: str, code: int = 0) -> dict[str, dict[str, str]]:
        (folder / "headrace.toml").write_text(settings.format(port, host, cache))
        found = [each for each in findings(code=code) if each["area"] == "server"]
        return {level: levels(found, level) for level in ("ok", "warn", "fail")}

    monkeypatch.setattr("headrace.ops.doctor._kafka", lambda *given: iter(()))
    port = free_port()
    assert of_server(port, "127.0.0.1", "1s") == {
        "ok": {"keys": "0, at 127.0.0.1 -> ", "port": f"http://127.0.0.1:{port} is free -> "},
        "warn": {},
        "fail": {},
    }
    assert "no API key is set" in of_server(port, "0.0.0.0", "1s", code=1)["fail"]["keys"]
    monkeypatch.setenv("HEADRACE_SERVE_API_KEYS", f"{PLANTED}-{PLANTED}")
    with socket.create_server(("127.0.0.1", port)):
        doubts = of_server(port, "0.0.0.0", "5m")["warn"]
    assert "1; keys cross the network in clear text" in doubts["keys"]
    assert "running already" in doubts["port"]
    assert "300 s old" in doubts["cache"]
    monkeypatch.setenv("HEADRACE_SERVE_API_KEYS", "guess-me")
    told = of_server(port, "127.0.0.1", "1s", code=1)["fail"]["keys"]
    assert "could be guessed" in told
    assert "guess-me" not in told
