"""What can go wrong between a flow and Kafka, said so that somebody can mend it.

ClusterError (HeadraceError)           Kafka did not do what was asked
├── UnreachableClusterError            no broker answers; the same call may work later
├── AccessError                        Kafka knows us and says no, or does not know us
└── UnknownTopicError                  a topic that the cluster does not have
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError

from headrace.features.errors import HeadraceError, did_you_mean
from headrace.flows.kafka.secrets import without_secrets


class ClusterError(HeadraceError):
    """Kafka did not do what was asked."""


class UnreachableClusterError(ClusterError):
    """No broker answers, or not in time. Nothing is lost; the same call may work later."""

    @classmethod
    def of(cls, config: Mapping[str, Any], task: str, reasons: Iterable[str] = ()) -> UnreachableClusterError:
        """No answer of the servers that a client is configured with; `reasons`: what librdkafka told of it."""
        told = "; ".join(dict.fromkeys(without_secrets(r, config) for r in reasons))
        return cls(
            f"Cannot {task}: no answer from Kafka at {servers(config)} ({protocol(config)})"
            f"{f'. librdkafka says: {told}' if told else ''}. Check that a broker listens at that address, that its "
            "advertised.listeners name an address that this machine can reach, and that security_protocol is that of "
            "the listener."
        )


class AccessError(ClusterError):
    """Kafka refuses this client: wrong credentials, or no right to the resource."""


class UnknownTopicError(ClusterError):
    """A topic that the cluster does not have, or does not show to this client."""

    @classmethod
    def of(cls, topic: str, known: Iterable[str], config: Mapping[str, Any]) -> UnknownTopicError:
        shown = sorted(name for name in known if not name.startswith("__"))
        some = ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
        return cls(
            f"Kafka at {servers(config)} has no topic '{topic}'{did_you_mean(topic, shown)} It shows this client: "
            f"{some or 'no topic at all'}. Make the topic, or give the flow's user the right to describe it."
        )


def servers(config: Mapping[str, Any]) -> str:
    """The addresses that a client begins with."""
    return str(config.get("bootstrap.servers") or config.get("metadata.broker.list"))


def protocol(config: Mapping[str, Any]) -> str:
    """How a client speaks, as in "SASL_SSL, PLAIN as 'flow'"."""
    spoken = str(config.get("security.protocol", "plaintext")).upper()
    if not spoken.startswith("SASL"):
        return spoken
    mechanism = config.get("sasl.mechanism") or config.get("sasl.mechanisms") or "GSSAPI"
    user = config.get("sasl.username")
    return f"{spoken}, {mechanism}" + (f" as '{user}'" if user else "")


_UNREACHABLE = {
    *(KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE),
    *(KafkaError._TIMED_OUT_QUEUE, KafkaError.REQUEST_TIMED_OUT, KafkaError.NETWORK_EXCEPTION),
    *(KafkaError.BROKER_NOT_AVAILABLE, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS),
    *(KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_CONTROLLER, KafkaError.NOT_LEADER_FOR_PARTITION),
}
_UNKNOWN_US = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL}
_REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the topic: allow Read and Describe (Write too for topics of the flow)",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "the consumer group: allow Read",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the cluster: allow Create, or make the topic beforehand",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "the transactional id: allow Write",
}


def explained(error: KafkaError, config: Mapping[str, Any], task: str, reasons: Iterable[str] = ()) -> ClusterError:
    """An error of the client library as one that says what to check.

    task: what was being done, "read topic 'rides'". reasons: what librdkafka told meanwhile (`error_cb`).
    """
    code, text = error.code(), without_secrets(error.str(), config)
    told = [*reasons, text]
    if code in _UNKNOWN_US or (code in _UNREACHABLE and any(_is_login(reason) for reason in told)):
        shown = next((r for r in told if _is_login(r)), text)
        return AccessError(
            f"Cannot {task}: Kafka at {servers(config)} does not let this client in ({protocol(config)}): "
            f"{without_secrets(shown, config)}. Check security_protocol, sasl_mechanism, sasl_username and the "
            "variable that sasl_password names; for TLS ssl_ca_location."
        )
    if code in _REFUSED:
        return AccessError(
            f"Cannot {task}: Kafka at {servers(config)} knows this client ({protocol(config)}) and refuses it "
            f"{_REFUSED[code]}."
        )
    if code in _UNREACHABLE:
        return UnreachableClusterError.of(config, task, told)
    return ClusterError(f"Cannot {task}: Kafka at {servers(config)} answers {error.name()}: {text}")


def is_passing(error: KafkaError) -> bool:
    """Whether the client library goes on trying by itself after this error, so that waiting is the right thing."""
    return not error.fatal() and (error.retriable() or error.code() in _UNREACHABLE)


def _is_login(reason: str) -> bool:
    return "authentication" in reason.lower() or "SSL handshake" in reason
