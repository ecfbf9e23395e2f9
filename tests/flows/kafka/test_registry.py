"""The registry's client: what it asks, how it waits, what it says."""

from __future__ import annotations

import pytest
from tests.flows.kafka.registering import FakeRegistry, framed, serving
from tests.flows.kafka.sent import EVENT_SCHEMA, messages
from tests.servers.process import free_port

from headrace.features import DefinitionError, Event, EventTime, KafkaSource
from headrace.flows.kafka.decoding import MessageDecoder
from headrace.flows.kafka.errors import AccessError
from headrace.flows.kafka.registry import UNKNOWN_FOR_S, Registry, UnreachableRegistryError
from headrace.flows.kafka.settings import REGISTRY, registry_config


class Ride(Event):
    at: EventTime


def test_an_id_is_asked_for_once_and_an_unknown_one_again_after_a_while() -> None:
    now = [0.0]
    with serving(FakeRegistry()) as fake:
        registry = Registry({"url": fake.url}, clock=lambda: now[0])
        assert registry.schema(1) is None
        fake.add(1, EVENT_SCHEMA)
        assert registry.schema(1) is None
        now[0] = UNKNOWN_FOR_S
        found = registry.schema(1)
        assert found is not None
        assert (found.id, found.kind) == (1, "AVRO")
        assert registry.schema(1) is found
        assert fake.asked == ["/schemas/ids/1"] * 2


def test_a_registry_that_is_down_costs_no_message() -> None:
    port = free_port()
    fake = FakeRegistry()
    fake.add(1, EVENT_SCHEMA)
    source = KafkaSource("rides", Ride, format="avro", registry=f"http://127.0.0.1:{port}")
    decoder = MessageDecoder(source)
    sent = messages([framed(1, b"\x00")])
    with pytest.raises(UnreachableRegistryError, match=rf"127.0.0.1:{port}: .*Connection refused"):
        decoder.decode(sent)
    with serving(fake, port):
        fake.failing = 500
        with pytest.raises(UnreachableRegistryError, match=r"HTTP 500 .*No message is lost"):
            decoder.decode(sent)
        assert len(fake.asked) == 4
        fake.failing = None
        batch, dead, _ = decoder.decode(sent)
    assert (len(batch), dead) == (1, [])


def test_the_next_url_is_tried() -> None:
    with serving(FakeRegistry()) as fake:
        fake.add(1, EVENT_SCHEMA)
        registry = Registry({"url": f"http://127.0.0.1:{free_port()},{fake.url}/"}, pauses_s=())
        assert registry.schema(1) is not None


def test_user_and_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH", "flow:se:cret")
    with serving(FakeRegistry(login="flow:se:cret")) as fake:
        fake.add(1, EVENT_SCHEMA)
        source = KafkaSource(
            "rides",
            Ride,
            format="avro",
            registry=fake.url,
            schema_registry_basic_auth_user_info="${REGISTRY_AUTH}",
        )
        assert Registry(registry_config(source)).schema(1) is not None
        assert Registry({"url": fake.url.replace("://", "://flow:se%3Acret@")}).schema(1) is not None
        wrong = Registry({"url": fake.url, "basic.auth.user.info": "flow:wr0ng"})
        with pytest.raises(AccessError, match=r"refuses this client \(HTTP 401\)") as raised:
            wrong.schema(1)
        assert "wr0ng" not in str(raised.value) + repr(wrong)


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    source = KafkaSource("rides", Ride, format="avro", registry="http://one:8081", schema_registry_timeout=3)
    assert registry_config(source) == {"url": "http://one:8081", "timeout": 3}
    monkeypatch.setenv(REGISTRY, "http://two:8081")
    assert registry_config(source)["url"] == "http://two:8081"
    assert registry_config(source, {"schema.registry.url": "http://three:8081"})["url"] == "http://three:8081"
    with pytest.raises(DefinitionError, match=r"unknown settings timout\. There are: basic.auth.user.info"):
        Registry({"url": "http://one:8081", "timout": 3})
    with pytest.raises(DefinitionError, match="'registry:8081' is no URL"):
        Registry({"url": "registry:8081"})
    with pytest.raises(DefinitionError, match="a certificate or key of it cannot be read"):
        Registry({"url": "https://one", "ssl.ca.location": "no/such.pem"})
