"""When a flow has read everything and its log has settled."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.flows.recording import LOG
from headrace.stores.offline import OfflineLog
from tests.live.expected import judged_apart
from tests.live.flow import LiveFlow
from tests.live.outcome import messages_of
from tests.live.streams import Message
from tests.servers.kafka import Kafka


def until_settled(flow: LiveFlow, kafka: Kafka, messages: Sequence[Message], timeout_s: float = 90) -> None:
    """Wait until checkpoints cover every message, and until every part of every view has settled all they say."""
    ends = {source.topics[0].name: {t.name: kafka.ends(t.name) for t in source.topics} for source in flow.sources}
    watermarks = {}
    for source in flow.sources:
        events = [m.sent for m in messages_of(source, messages) if m.sent is not None]
        for name in source.views:
            watermarks[name] = judged_apart(source.stream, events).watermark

    def settled() -> bool:
        manifest = OfflineLog(flow.data / LOG).manifest()
        for source in flow.sources:
            read = manifest.offsets.get(source.kafka(flow.bootstrap).name, {})
            due = {
                source.kafka(flow.bootstrap).number(topic, partition): end
                for topic, partitions in ends[source.topics[0].name].items()
                for partition, end in partitions.items()
            }
            if any(read.get(number, 0) < end for number, end in due.items()):
                return False
        return all(
            name in manifest.views and (manifest.views[name].settled_us or 0) >= watermark
            for name, watermark in watermarks.items()
        )

    flow.until(settled, "everything read and settled", timeout_s)
