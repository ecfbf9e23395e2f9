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
    ends: dict[str, int] = {}
    watermarks: dict[str, tuple[int, int]] = {}
    for source in flow.sources:
        defined = source.kafka(flow.bootstrap)
        for topic in source.topics:
            for partition, end in kafka.ends(topic.name).items():
                ends[f"{defined.name}-{defined.number(topic.name, partition):04d}"] = end
        events = [m.sent for m in messages_of(source, messages) if m.sent is not None]
        numbers = sum(topic.partitions for topic in source.topics)
        for name in source.views:
            watermarks[name] = numbers, judged_apart(source.stream, events).watermark
    left: list[str] = []

    def settled() -> bool:
        left.clear()
        parts = OfflineLog(flow.data / LOG).manifest().parts
        for part, end in ends.items():
            read = (
                max((o for it in parts[part].offsets.values() for o in it.values()), default=0) if part in parts else 0
            )
            if read < end:
                left.append(f"{part} at {read} of {end}")
        for name, (numbers, watermark) in watermarks.items():
            got = [commit.views[name].settled_us or 0 for commit in parts.values() if name in commit.views]
            if len(got) < numbers or min(got) < watermark:
                left.append(f"{name} settled {sorted(got)} of {numbers} parts to {watermark}")
        return not left

    flow.until(settled, "everything read and settled", timeout_s, lambda: "; ".join(left))
