"""What the lookup server does with pushes: rows into its online store, events into the topics of its views' sources."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition
from headrace.serving.http.pushing import Publisher, Pushing
from headrace.stores.online import OnlineStore
from headrace.stores.redis import RedisStore


class WhenAsked:
    """A `Publisher` for a source that loads its libraries with the first event: most servers never see one."""

    def __init__(self, source: KafkaSource, overrides: Mapping[str, str], timeout_s: float) -> None:
        self._given = source, overrides, timeout_s
        self._lock = threading.Lock()
        self._made: Publisher | None = None

    def prepared(self, events: Sequence[Any]) -> tuple[Sequence[Any], dict[int, str]]:
        return self._publisher().prepared(events)

    def publish(self, messages: Sequence[Any]) -> None:
        self._publisher().publish(messages)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def _publisher(self) -> Publisher:
        with self._lock:
            if self._made is None:
                from headrace.flows.kafka.publishing import SourcePublisher

                self._made = SourcePublisher(*self._given)
            return self._made


def pushing(
    store: OnlineStore, views: Iterable[ViewDefinition], kafka: Mapping[str, str], *, most: int, timeout_s: float
) -> Pushing:
    """The pushes of a server.

    Args:
        store: what it reads; rows can be pushed where several may write, in Redis. kafka: settings of librdkafka.
        most: rows or events of one request. timeout_s: of a request; Kafka has a little less.
    """
    views = list(views)
    sources = {root.name: root for view in views for root in view.source.roots if isinstance(root, KafkaSource)}
    publishers: dict[str, Publisher] = {}
    if importlib.util.find_spec("confluent_kafka") is not None:
        publishers = {name: WhenAsked(source, kafka, max(0.5, 0.6 * timeout_s)) for name, source in sources.items()}
    return Pushing(store if isinstance(store, RedisStore) else None, views, publishers, most=most)
