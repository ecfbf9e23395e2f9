"""What a Kafka source holds, and the mistakes that it finds before anything runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headrace.features import (
    DefinitionError,
    Event,
    EventTime,
    KafkaSource,
    MessageBody,
    MessageHeader,
    MessageKey,
    MessageTime,
)
from headrace.features.kafka_source import option_name


class Ride(Event):
    ride_id: str
    driver_id: str
    fare: float
    seats: int
    at: EventTime


class Blob(Event):
    key: str
    body: bytes
    at: EventTime


class Payment(Event):
    amount: float
    at: EventTime


class Message:
    DESCRIPTOR = "of rides.Ride"


def test_defaults() -> None:
    source = KafkaSource("rides", Ride)
    assert (source.name, source.topics, source.topic, source.keyed_by) == ("rides", ("rides",), "rides", None)
    assert (source.start, source.format, source.message_schema, source.registry) == ("earliest", "json", None, None)
    assert (source.columns, source.tombstones, source.on_gap, source.options) == ({}, "skip", "fail", {})
    assert (source.zone, source.ambiguous, source.nonexistent, source.unit) == (None, "refuse", "refuse", None)
    assert repr(source) == "KafkaSource('rides', Ride)"


def test_what_is_given() -> None:
    source = KafkaSource(
        ["rides-eu", "rides.us"],
        Ride,
        name="rides",
        keyed_by=[Ride.driver_id, "ride_id"],
        start="2026-05-01T12:00:00Z",
        columns={"at": MessageTime(), "driver_id": MessageKey(), "ride_id": MessageHeader("id"), "fare": "total"},
        lateness="10s",
        on_gap="skip",
        bootstrap_servers="kafka:9092",
        **{"sasl.password": "${PASSWORD}"},
    )
    assert (source.name, source.topic, source.keyed_by) == ("rides", "rides-eu,rides.us", ("driver_id", "ride_id"))
    assert source.start == 1_777_636_800_000_000
    assert source.options == {"bootstrap_servers": "kafka:9092", "sasl.password": "${PASSWORD}"}
    assert repr(source) == (
        "KafkaSource(['rides-eu', 'rides.us'], Ride, lateness='10s', name='rides', keyed_by=['driver_id', 'ride_id'], "
        "start='2026-05-01T12:00:00Z', columns={'at': MessageTime(), 'driver_id': MessageKey(), "
        "'ride_id': MessageHeader('id'), 'fare': 'total'}, on_gap='skip')"
    )
    assert KafkaSource("rides", Ride, start=datetime(2026, 5, 1, 12, tzinfo=UTC)).start == source.start
    assert KafkaSource("rides", Ride, keyed_by=Ride.driver_id).keyed_by == ("driver_id",)
    assert KafkaSource("rides", Ride, format="avro", schema=Path("ride.avsc")).message_schema == "ride.avsc"
    assert KafkaSource("rides", Ride, format="protobuf", schema=Message).message_schema is Message


def test_partition_numbers() -> None:
    one, two = KafkaSource("rides", Ride), KafkaSource(["rides", "trips"], Ride)
    assert [one.number("rides", p) for p in (0, 32767)] == [0, 32767]
    assert [two.number("rides", 7), two.number("trips", 1023)] == [7, 2047]
    for source, topic, partition in ((one, "rides", 32767), (two, "rides", 7), (two, "trips", 1023)):
        assert source.place(source.number(topic, partition)) == (topic, partition)
    with pytest.raises(DefinitionError, match=r"partition 1024 of topic 'trips' is beyond the 1024 that a source"):
        two.number("trips", 1024)
    with pytest.raises(DefinitionError, match="partition 32768 of topic 'rides' is beyond the 32768 that"):
        one.number("rides", 32768)
    with pytest.raises(DefinitionError, match="does not read topic 'trips', but rides"):
        one.number("trips", 0)


def test_raw_messages_are_the_column_that_is_left() -> None:
    parts = {"key": MessageKey(), "at": MessageTime()}
    assert KafkaSource("blobs", Blob, format="raw", columns=parts).columns["body"] == MessageBody()


def test_option_names() -> None:
    assert [option_name(n) for n in ("linger_ms", "error_cb", "on_commit")] == ["linger.ms", "error_cb", "on_commit"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"topic": []}, "the topic must be a name, got []"),
        ({"topic": "my rides"}, "'my rides' is no topic name"),
        ({"topic": ["a", "a"]}, "expected up to 32 different topics, got a, a"),
        ({"topic": [f"t{i}" for i in range(33)]}, "expected up to 32 different topics"),
        ({"keyed_by": "driver"}, "keyed_by: event 'Ride' has no column 'driver'; did you mean 'driver_id'?"),
        ({"keyed_by": Payment.amount}, "keyed_by=Payment.amount is a column of Payment, but the source holds Ride"),
        ({"keyed_by": []}, "keyed_by is empty"),
        ({"start": "newest"}, "start='newest' is unknown. Choose 'earliest', 'latest' or an instant"),
        ({"start": "2026-05-01"}, "start: '2026-05-01' has no time zone"),
        ({"start": 5}, "start: 5 (int) is a number"),
        ({"format": "xml"}, "format='xml' is unknown. Choose one of 'json', 'avro', 'protobuf', 'raw'"),
        ({"schema": "{}"}, "schema= is for format='avro' and 'protobuf', and this is 'json'"),
        ({"registry": "http://r"}, "registry= is for format='avro' and 'protobuf', and this is 'json'"),
        ({"format": "avro"}, "Avro is read with the schema it was written with: give registry="),
        ({"format": "avro", "schema": 5}, "schema= is a int; give Avro's JSON text or its file"),
        ({"format": "avro", "schema": "{}", "registry": "http://r"}, "with a registry each message names its own"),
        ({"format": "avro", "registry": "registry:8081"}, "registry='registry:8081' is no URL"),
        ({"format": "avro", "registry": "http://me:pass@r"}, "registry= has a password in it"),
        ({"format": "protobuf"}, "Protobuf needs the message: schema=RideMessage"),
        ({"format": "protobuf", "schema": "rides.desc"}, "schema='rides.desc' is no Protobuf message"),
        ({"format": "raw"}, "a raw message has no fields, so where do ride_id, driver_id, fare, seats, at come from?"),
        ({"columns": {"fair": "x"}}, "columns=: event 'Ride' has no column 'fair'; did you mean 'fare'?"),
        ({"columns": {"fare": 5}}, "columns= maps 'fare' to 5; expected the name of a field"),
        ({"columns": {"fare": MessageTime()}}, "column 'fare' is float64, and MessageTime() gives instants"),
        ({"columns": {"fare": MessageBody()}}, "column 'fare' is float64, and MessageBody() gives bytes or str"),
        ({"columns": {"fare": MessageKey("int")}}, "column 'fare' is float64, and MessageKey('int') gives integers"),
        ({"unit": "minutes"}, "unit='minutes' is unknown"),
        ({"zone": "Mars"}, "zone='Mars' is no known time zone"),
        ({"tombstones": "keep"}, "tombstones='keep' is unknown. Choose one of 'skip', 'dead_letter'"),
        ({"on_gap": "stop"}, "on_gap='stop' is unknown. Choose one of 'fail', 'skip'"),
        ({"latenes": "5s"}, "unknown argument 'latenes'; did you mean 'lateness'?"),
        ({"max_ahed": "5s"}, "unknown argument 'max_ahed'; did you mean 'max_ahead'?"),
        ({"key_by": "driver_id"}, "unknown argument 'key_by'; did you mean 'keyed_by'?"),
        ({"sasl_password": "hunter2"}, "sasl_password is a secret, which no definition holds"),
        ({"sasl_oauthbearer_client_secret": "hunter2"}, "is a secret, which no definition holds"),
        ({"schema_registry_bearer_auth_token": "hunter2"}, "is a secret, which no definition holds"),
        ({"ssl.key.password": "hunter2"}, "ssl.key.password is a secret, which no definition holds"),
        ({"schema_registry_basic_auth_user_info": "me:pw"}, "is a secret, which no definition holds"),
    ],
)
def test_mistakes_are_found_in_the_definition(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        KafkaSource(**{"topic": "rides", "event": Ride, **arguments})
    assert message in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MessageKey("utf8"), "MessageKey: encoding='utf8' is unknown. Choose one of 'text', 'int', 'json'"),
        (lambda: MessageKey(field="id"), "is for a key that is a JSON object: add encoding='json'"),
        (lambda: MessageHeader(""), "MessageHeader: the name must be text, got ''"),
    ],
)
def test_mistakes_in_parts(make: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        make()
    assert message in str(raised.value)


def test_settings_of_librdkafka_are_no_mistakes() -> None:
    """Names that librdkafka has, some of which resemble arguments of ours."""
    names = (
        *("client_id", "group_id", "debug", "statistics_interval_ms", "fetch_wait_max_ms", "max_poll_interval_ms"),
        *(
            "security_protocol",
            "sasl_mechanism",
            "sasl_username",
            "ssl_ca_location",
            "enable_ssl_certificate_verification",
        ),
        *("sasl_oauthbearer_token_endpoint_url", "sasl_oauthbearer_client_id", "sasl_oauthbearer_method"),
        *("metadata_max_age_ms", "client_rack", "check_crcs", "isolation_level", "session_timeout_ms", "oauth_cb"),
        *("broker_address_family", "schema_registry_url", "schema_registry_timeout", "max_partition_fetch_bytes"),
    )
    assert set(KafkaSource("rides", Ride, **dict.fromkeys(names, "x")).options) == set(names)
