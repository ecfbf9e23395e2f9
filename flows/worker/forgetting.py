"""Starting afresh: everything a live flow has left is forgotten, so that it reads its topics again from their start."""

import logging
from collections.abc import Iterable
from typing import Any

from headrace.features.kafka_source import KafkaSource
from headrace.flows.graph.viewing import apart
from headrace.flows.kafka.topics import Cluster
from headrace.flows.runner import by_source
from headrace.flows.worker.opening import LOG, ONLINE
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.stages import repartition_prefix
from headrace.stores.offline import remove_log
from headrace.stores.opening import open_online

logger = logging.getLogger("headrace.worker")


def forget(views: Iterable[Any], settings: FlowSettings) -> None:
    """Delete the flow's log with its checkpoints, its rows and positions online, and its repartition topics.

    views: with the flows of steps that run beside them. What these have written to sinks stays.
    No worker of the flow may run meanwhile. Topics of sources and consumer groups stay as they are.

    Raises:
        ClusterError: Kafka does not answer or does not allow it. StoreError: a store cannot be reached.
    """
    flows, every, over = apart(views)
    found = by_source(every, flows)
    for source, _ in found:
        if isinstance(source, KafkaSource):
            cluster = Cluster.of(source, settings.kafka)
            prefix = (
                repartition_prefix(settings.name, source),
                *(f"headrace.{settings.name}.{flow.name}.by." for flow in flows),
            )
            gone = [topic for topic in cluster.topics() if topic.startswith(prefix)]
            cluster.delete_topics(gone)
            if gone:
                logger.info("deleted the repartition topics %s", ", ".join(gone))
    place = settings.online or f"{settings.data.rstrip('/')}/{ONLINE}"
    store = open_online(place, project=settings.project, layout=settings.layout)  # type: ignore[arg-type]
    try:
        store.forget_writers(f"{settings.name}/")
        for view in (*every, *over):
            store.drop(view.name)
    finally:
        store.close()
    remove_log(f"{settings.data.rstrip('/')}/{LOG}")
