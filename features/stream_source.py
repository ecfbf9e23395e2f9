"""The rows of a stream as the source of feature views: what the steps of a flow give is what the views take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from headrace.features.sources import Source, set_fields
from headrace.features.steps import Step
from headrace.features.streams import Stream


@dataclass(frozen=True, init=False, repr=False)
class StreamSource(Source):
    """A stream of a flow, as views name it: `class Pickups(FeatureView, source=rides.filter(Ride.km > 20), ...)`.

    Attributes:
        stream: the stream; its step's event class is that of the rows. name: "FLOW.STEP". lateness_us, late: of the
        sources that the stream comes from, the longest lateness, and "count" where one of them counts late events, or
        rows count from the end of a span of `stateful_batches`.
        What else those say (`dedup`, `max_ahead`, `idle_after`) has been done when a row comes out of a step.
    """

    stream: Stream = field(hash=False, compare=False)

    kind: ClassVar[str] = "stream"

    def __init__(self, stream: Stream) -> None:
        roots = stream.step.roots
        set_fields(
            self,
            stream=stream,
            event=stream.step.event,
            name=f"{stream.flow.name}.{stream.step.name}",
            lateness_us=max(root.lateness_us for root in roots),
            max_ahead_us=None,
            dedup=None,
            idle_after_us=None,
            late="count" if any(root.late == "count" for root in roots) or _is_late(stream.step) else "dead_letter",
        )

    @property
    def roots(self) -> tuple[Source, ...]:
        return self.stream.step.roots


def _is_late(step: Step | None) -> bool:
    """Whether rows of a step count later than they happened: after spans of frames."""
    return step is not None and (step.kind == "stateful_batches" or _is_late(step.parent) or _is_late(step.other))


def source_given(source: Any) -> Any:
    """What a view was given as its source; a stream as a source."""
    return StreamSource(source) if isinstance(source, Stream) else source
