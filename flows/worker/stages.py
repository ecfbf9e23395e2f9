"""Which views of a source are computed where: beside its partitions, or after a repartition topic.

A view's state lives with its entity, so all events of an entity must come by one partition. They do when the topic is
keyed by the entity (the source says so with `keyed_by`) or has one partition only. Otherwise the events are re-keyed:
sent on to a topic of the flow's own whose messages are keyed by the entity (docs/decisions/0011-re-keying.md).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition


@dataclass(frozen=True)
class Route:
    """Views after one repartition topic.

    name: of its parts, such as "rides.by.city". topic: the repartition topic. keys: the entity's key columns.
    """

    name: str
    topic: str
    keys: tuple[str, ...]
    views: tuple[ViewDefinition, ...]


@dataclass(frozen=True)
class Stages:
    """A source's views by where they are computed: `direct` beside the source's partitions, the others in `routes`."""

    source: KafkaSource
    direct: tuple[ViewDefinition, ...]
    routes: tuple[Route, ...]

    def advice(self) -> list[str]:
        """For each route, what is done and how to be spared it."""
        topics = ", ".join(self.source.topics)
        return [
            f"Source '{self.source.name}' ({topics}) does not say that its messages are keyed by "
            f"{' and '.join(route.keys)}: {', '.join(view.name for view in route.views)} re-keys them through the "
            f"topic '{route.topic}'. If all messages of one {' and '.join(route.keys)} go to one partition, declare "
            f"keyed_by={list(route.keys) if len(route.keys) > 1 else route.keys[0]!r} and spare the way."
            for route in self.routes
        ]


def stages_of(flow: str, source: KafkaSource, views: Iterable[ViewDefinition], partitions: int) -> Stages:
    """How a flow named `flow` computes `views` over `source`, whose topics have so many partitions together."""
    direct: list[ViewDefinition] = []
    routed: dict[tuple[str, ...], list[ViewDefinition]] = {}
    for view in views:
        keys = tuple(view.entity.keys)
        if partitions == 1 or _is_keyed(source, keys):
            direct.append(view)
        else:
            routed.setdefault(keys, []).append(view)
    prefix = repartition_prefix(flow, source)
    routes = tuple(
        Route(f"{source.name}.by.{'.'.join(keys)}", f"{prefix}{'.'.join(keys)}", keys, tuple(its))
        for keys, its in routed.items()
    )
    return Stages(source, tuple(direct), routes)


def repartition_prefix(flow: str, source: KafkaSource) -> str:
    """How the names of a flow's repartition topics of a source begin; the key columns follow."""
    return f"headrace.{flow}.{source.name}.by."


def _is_keyed(source: KafkaSource, keys: Sequence[str]) -> bool:
    """Whether all events of an entity come by one partition: the topic's key is (a part of) the entity's.

    Messages keyed by the city bring all events of a (city, driver) by one partition too.
    """
    keyed_by = source.keyed_by
    return keyed_by is not None and len(source.topics) == 1 and set(keyed_by) <= set(keys)
