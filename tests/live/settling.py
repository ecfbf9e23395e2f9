"""When a flow has read everything and its log has settled."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.flows.recording import LOG
from headrace.stores.offline import OfflineLog
from tests.live.expected import judged_apart
from tests.live.flow import LiveFlow
from tests.live.outcome import messages_of
from tests.live.streams import Message
from tests.oracle.naive import FAR
from tests.servers.kafka import Kafka


def until_settled(flow: LiveFlow, kafka: Kafka, messages: Sequence[Message]) -> None:
    """Wait until checkpoints cover every message, and until every part of every view has settled all they say."""
    ends: dict[str, int] = {}
    watermarks: dict[str, int] = {}
    for source in flow.sources:
        defined = source.kafka(flow.bootstrap)
        for topic in source.topics:
            for partition, end in kafka.ends(topic.name).items():
                ends[f"{defined.name}-{defined.number(topic.name, partition):04d}"] = end
        events = [m.sent for m in messages_of(source, messages) if m.sent is not None]
        for name in source.views:
            watermarks[name] = judged_apart(source.stream, events).watermark
    left: list[str] = []

    def settled() -> bool:
        left.clear()
        parts = OfflineLog(flow.data / LOG).manifest().parts

        def offset_of(part: str) -> int:
            known = parts[part].offsets.values() if part in parts else ()
            return max((offset for its in known for offset in its.values()), default=0)

        for part, end in ends.items():
            if offset_of(part) < end:
                left.append(f"{part} at {offset_of(part)} of {end}")
        if left:  # Before that there is no use in asking what was sent on.
            return False
        for topic in kafka.names():
            route = topic.removeprefix(f"headrace.{flow.name}.")
            if route != topic:
                for partition, end in kafka.ends(topic).items():
                    part = f"{route}-{partition:04d}"
                    if offset_of(part) < end:
                        left.append(f"{part} at {offset_of(part)} of {end}")
        for name, watermark in watermarks.items():
            got = [commit.views[name].settled_us or 0 for commit in parts.values() if name in commit.views]
            if min(got, default=-FAR) < watermark:
                left.append(f"{name} settled {sorted(got)}, to be settled to {watermark}")
        return not left

    flow.until(settled, "everything read and settled", why=lambda: "; ".join(left))
