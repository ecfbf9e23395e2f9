"""Views over the streams of a flow: a `StreamFlow` for each stream, and how they go on from a checkpoint."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from headrace.features.errors import DefinitionError
from headrace.features.kafka_source import KafkaSource
from headrace.features.steps import VIEW, Step
from headrace.features.stream_source import StreamSource
from headrace.features.streams import Flow, Stream
from headrace.features.views import ViewDefinition, definition
from headrace.flows.changes import OnChange
from headrace.flows.snapshot import SnapshotError
from headrace.flows.stream_flow import StreamFlow
from headrace.flows.view_flow import ADMISSION


def apart(given: Iterable[Any]) -> tuple[list[Flow], list[ViewDefinition], list[ViewDefinition]]:
    """Flows, those of views over streams among them; views over sources; and views over streams.

    Raises:
        DefinitionError: two views have one name.
    """
    given = list(given)
    flows = [each for each in given if isinstance(each, Flow)]
    every = [definition(each) for each in given if not isinstance(each, Flow)]
    flows += [flow for flow in flows_of_streams(every) if flow not in flows]
    every += [view for flow in flows for view in flow.views if not any(view is each for each in every)]
    different_names(every)
    over = [view for view in every if view.source.kind == "stream"]
    return flows, [view for view in every if view.source.kind != "stream"], over


def different_names(views: Iterable[ViewDefinition]) -> None:
    """Raises DefinitionError where two views have one name."""
    names: set[str] = set()
    for view in views:
        if view.name in names:
            raise DefinitionError(f"Two views are named '{view.name}'. Give one of them another name, with name='...'.")
        names.add(view.name)


def flows_of_streams(views: Iterable[ViewDefinition]) -> list[Flow]:
    """The flows whose streams are sources of views, each once, in the order of the views."""
    found: dict[int, Flow] = {}
    for view in views:
        if isinstance(view.source, StreamSource):
            found.setdefault(id(view.source.stream.flow), view.source.stream.flow)
    return list(found.values())


def with_views(flow: Flow, views: Iterable[ViewDefinition]) -> Flow:
    """A copy of the flow in which the views over its streams are steps of the kind "view", named after them.

    They say where a view is computed: as a step that remembers something of the entity's first key, or of that by which
    the topic is keyed.
    """
    copied = Flow(flow.name, flow.on_error)
    copied.steps = flow.steps
    for view in views:
        if isinstance(view.source, StreamSource) and view.source.stream.flow is flow:
            step = view.source.stream.step
            keyed = [root.keyed_by for root in step.roots if isinstance(root, KafkaSource)]
            key = next((each for each in view.entity.keys if (each,) in keyed), view.entity.keys[0])
            copied.add(Step(view_step(view), VIEW, step.event, step, key=key))
    return copied


def view_step(view: ViewDefinition) -> str:
    """The name of a view's step: see `with_views`."""
    return f"view {view.name}"


def without_sinks(views: Iterable[ViewDefinition]) -> list[ViewDefinition]:
    """The views over streams of the same flows without sinks: to compute them once more and write nothing twice.

    Functions of the steps are called again, those of `inspect` too.
    """
    copies: dict[int, Flow] = {}
    found = []
    for view in views:
        if not isinstance(view.source, StreamSource):
            found.append(view)
            continue
        stream = view.source.stream
        copied = copies.get(id(stream.flow))
        if copied is None:
            copied = copies[id(stream.flow)] = Flow(stream.flow.name, stream.flow.on_error)
            copied.steps = tuple(step for step in stream.flow.steps if step.sink is None)
        found.append(replace(view, source=StreamSource(Stream(copied, stream.step))))
    return found


def stream_flows(flow: Flow, views: Iterable[ViewDefinition], *, live: bool = False) -> tuple[StreamFlow, ...]:
    """Those of the views that are over streams of the flow: one `StreamFlow` for each stream."""
    its = [each for each in views if isinstance(each.source, StreamSource) and each.source.stream.flow is flow]
    return streams_of(its, live=live)


def streams_of(views: Iterable[ViewDefinition], *, live: bool = False) -> tuple[StreamFlow, ...]:
    """A `StreamFlow` for each of the streams, of one flow, that views are over."""
    by_stream: dict[str, list[ViewDefinition]] = {}
    for view in views:
        by_stream.setdefault(view.source.name, []).append(view)
    return tuple(StreamFlow(its[0].source, its, live=live) for its in by_stream.values())


def resume(
    stream: StreamFlow,
    snapshots: Mapping[str, Sequence[bytes]],
    on_change: OnChange,
    watermark_us: int | None,
    newest_us: int | None,
) -> None:
    """The views of a stream go on from a checkpoint of its flow.

    Args:
        on_change: as of `ViewFlow.load`. watermark_us, newest_us: how far the sources had come; where the stream had no
            views, those of now begin there.

    Raises:
        SnapshotError: a view is not in the checkpoint or has changed, and nobody said to start it; or it was to be
            given its history, which has gone through the steps.
    """
    name = stream.source.name
    missing = [view.name for view in stream.views if f"{name}.{view.name}" not in snapshots]
    if missing and on_change == "refuse":
        raise SnapshotError(
            f"View '{missing[0]}' is not in the checkpoint of stream '{name}', whose source has been read already: it "
            'would miss all rows until now. Say on_change="start" (--on-change start) to begin it empty, or run it '
            "into another data folder."
        )
    if f"{name}.{ADMISSION}" in snapshots:
        stream.load(snapshots, on_change)
    else:
        stream.begin(watermark_us, newest_us)
    lacking = stream.backfills or (missing if on_change == "backfill" else ())
    if lacking:
        raise SnapshotError(
            f"View '{lacking[0]}' is new or has changed, and the stream '{name}' is not read again from its beginning: "
            'its rows have gone through the steps of the flow. Say on_change="start" to begin what is new empty, or '
            "run into another data folder."
        )
