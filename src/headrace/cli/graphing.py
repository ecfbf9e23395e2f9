"""`headrace graph`: what a file computes, as a picture in data, and that as a Mermaid flowchart."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from headrace.cli.loading import ViewsFile
from headrace.features.sources import Source
from headrace.features.steps import Step
from headrace.features.stream_source import StreamSource


@dataclass(frozen=True)
class Node:
    """What rows come from, what is done with them, or where they go.

    name: what the user calls it. told: what it is. stored: whether rows are read or kept there: sources, sinks, stores.
    flow: whose step it is, "" for anything else.
    """

    name: str
    told: str = ""
    stored: bool = False
    flow: str = ""


@dataclass(frozen=True)
class Picture:
    """What a file computes. nodes: steps of a flow follow one another. arrows: rows go from the first to the second
    node, by their places in `nodes`."""

    nodes: tuple[Node, ...]
    arrows: tuple[tuple[int, int], ...]


def picture(file: ViewsFile) -> Picture:
    """A file's flows and views, from sources to sinks and stores; a source that several of them read is there once."""
    nodes: list[Node] = []
    places: dict[object, int] = {}
    arrows: list[tuple[int, int]] = []

    def place(key: object, node: Node) -> int:
        if key not in places:
            places[key] = len(nodes)
            nodes.append(node)
        return places[key]

    def source_place(source: Source) -> int:
        return place(source.name, Node(source.name, type(source).__name__, stored=True))

    for source in (*(each for flow in file.flows for each in flow.sources), *_roots(file)):
        source_place(source)
    for flow in file.flows:
        for step in flow.steps:
            if step.source is not None:
                places[step] = source_place(step.source)
            elif step.sink is None:
                place(step, Node(step.name, _told(step), flow=flow.name))
        for step in flow.steps:
            if step.sink is not None:
                place(step, Node(step.name, type(step.sink).__name__, stored=True))
            arrows += [(places[each], places[step]) for each in (step.parent, step.other) if each is not None]
    for view in file.views:
        made = place(view, Node(view.name, f"view of {view.entity.name}"))
        above = view.source.stream.step if isinstance(view.source, StreamSource) else view.source.name
        arrows.append((places[above], made))
        for store in ("online store", *(["offline log"] if view.log else [])):
            arrows.append((made, place((store,), Node(store, stored=True))))
    return Picture(tuple(nodes), tuple(arrows))


def mermaid(shown: Picture) -> str:
    """A flowchart from left to right; the steps of a flow stand in a box of their own."""
    drawn: list[str] = []
    for flow, members in groupby(enumerate(shown.nodes), key=lambda each: each[1].flow):
        box = [f"n{i}{_label(node)}" for i, node in members]
        drawn += [f'subgraph {_box(flow)}["{_escaped(flow)}"]', *box, "end"] if flow else box
    arrows = [f"n{above} --> n{below}" for above, below in shown.arrows]
    return "\n".join(["flowchart LR", *(f"    {line}" for line in (*drawn, *arrows))])


def _roots(file: ViewsFile) -> list[Source]:
    return [root for view in file.views for root in view.source.roots]


def _told(step: Step) -> str:
    if step.condition is not None:
        return f"not ({step.condition})" if step.kind == "otherwise" else f"{step.kind} {step.condition}"
    return f"{step.kind} by {step.key}" if step.key else step.kind


def _label(node: Node) -> str:
    text = "<br/>".join(_escaped(line) for line in (node.name, node.told) if line)
    return f'[("{text}")]' if node.stored else f'["{text}"]'


def _box(flow: str) -> str:
    return "flow_" + "".join(c if c.isalnum() and c.isascii() else "_" for c in flow)


def _escaped(text: str) -> str:
    """Text as a quoted Mermaid label has it."""
    for plain, name in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(plain, name)
    return text
