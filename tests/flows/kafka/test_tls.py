"""TLS, alone and with SASL, on a real broker; and a registry behind TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.flows.kafka.registering import FakeRegistry, serving
from tests.flows.kafka.sent import AT, EVENT_SCHEMA, rows_of
from tests.servers.kafka import USERS, KafkaServer
from tests.servers.process import free_port

from headrace.features import Event, EventTime, KafkaSource
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.kafka.errors import AccessError
from headrace.flows.kafka.registry import Registry, UnreachableRegistryError
from headrace.flows.kafka.settings import consumer_config, producer_config
from headrace.flows.kafka.topics import Cluster


class Ride(Event):
    driver_id: str
    at: EventTime


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key in PKCS #8."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "the test needs the program openssl"
    made, key = folder / "server.pem", folder / "server.key"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    making = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([openssl, *making, "-keyout", str(key), "-out", str(made)], check=True, capture_output=True)
    return made, key


def inline(file: Path) -> str:
    """A PEM file as one line of a properties file."""
    return file.read_text().strip().replace("\n", "\\n")


@pytest.fixture
def secured(kafka_address: dict[str, Any], tmp_path: Path) -> Iterator[tuple[dict[str, int], Path]]:
    """A broker that speaks TLS, and SASL over TLS: ports by protocol, and the certificate to trust.

    `kafka_address` sees to it that Kafka is installed.
    """
    trusted, key = certificate(tmp_path)
    server = KafkaServer(tmp_path / "kafka")
    ports = {"PLAINTEXT": server.port, "SSL": free_port(), "SASL_SSL": server.sasl_port}
    listeners = {**ports, "CONTROLLER": server.controller_port}
    users = " ".join(f'user_{name}="{secret}"' for name, secret in USERS.items())
    server.settings |= {
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
        "listener.security.protocol.map": ",".join(
            f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in listeners
        ),
        "listener.name.sasl_ssl.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": inline(trusted),
        "ssl.keystore.key": inline(key),
    }
    try:
        server.start()
        yield ports, trusted
    finally:
        server.kill()


def test_tls_alone_and_with_sasl(secured: tuple[dict[str, int], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ports, trusted = secured
    Cluster({"bootstrap.servers": f"127.0.0.1:{ports['PLAINTEXT']}"}).ensure_topic("rides", 1)
    monkeypatch.setenv("RIDES_PASSWORD", USERS["flow"])
    login = {"sasl_mechanism": "PLAIN", "sasl_username": "flow", "sasl_password": "${RIDES_PASSWORD}"}
    for protocol, options in (("SSL", {}), ("SASL_SSL", login)):
        source = KafkaSource(
            "rides",
            Ride,
            bootstrap_servers=f"127.0.0.1:{ports[protocol]}",
            security_protocol=protocol,
            ssl_ca_location=str(trusted),
            **options,
        )
        assert Cluster.of(source).partitions(["rides"]) == {"rides": 1}
        producer = Producer(producer_config(source))
        producer.produce("rides", f'{{"driver_id": "{protocol}", "at": "{AT}"}}')
        assert producer.flush(30) == 0
        assert read(source)[-1]["driver_id"] == protocol

    stranger = KafkaSource("rides", Ride, bootstrap_servers=f"127.0.0.1:{ports['SSL']}", security_protocol="SSL")
    with pytest.raises(AccessError, match=r"does not let this client in \(SSL\): .*certificate verify failed"):
        Cluster.of(stranger, timeout_s=4).partitions(["rides"])


def read(source: KafkaSource) -> list[dict[str, Any]]:
    """Every event of the only partition of a source's topic."""
    end = Cluster.of(source).offsets(source.topics, "latest")[source.topic, 0]
    consumer = Consumer(consumer_config(source, "tests.tls"))
    consumer.assign([TopicPartition(source.topic, 0, 0)])
    got: list[Any] = []
    while len(got) < end:
        got += consumer.consume(end - len(got), 5)
    consumer.close()
    return rows_of(MessageDecoder(source).decode(got)[0])


def test_a_registry_behind_tls(tmp_path: Path) -> None:
    trusted, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, key)
    fake = FakeRegistry()
    fake.add(1, EVENT_SCHEMA)
    with serving(fake, context=context):
        assert fake.url.startswith("https://")
        assert Registry({"url": fake.url, "ssl.ca.location": str(trusted)}).schema(1) is not None
        with pytest.raises(UnreachableRegistryError, match="certificate verify failed"):
            Registry({"url": fake.url}, pauses_s=()).schema(1)
