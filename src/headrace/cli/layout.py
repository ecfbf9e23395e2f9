"""Where the nodes and arrows of a picture stand: in layers from left to right, each behind all that it takes rows from.

1. A node's layer is the longest way to it from a node that takes nothing.
2. An arrow over several layers gets a bend in each between them, which has a place of its own there. So no arrow runs
   through a node.
3. Layers are put in order by the mean place of neighbours, back and forth, so that few arrows cross.
4. Each is drawn as near to the height of its neighbours as those above it allow.
(The steps of Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures", 1981.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 8
BEND_HEIGHT = 6.0
"""Of the place that an arrow takes up among nodes, in pixels."""

Stand = int | tuple[int, int, int]
"""A node by its number, or the bend of an arrow: from, to, layer."""


@dataclass(frozen=True)
class Layout:
    """Pixels from the upper left.

    nodes: left, top of each node, by number. arrows: for each arrow the points it runs through, from the right side of
    its first node to the left side of its last: two for each layer, between which it is level.
    """

    nodes: tuple[tuple[float, float], ...]
    arrows: tuple[tuple[tuple[float, float], ...], ...]
    width: float
    height: float


def layout(
    sizes: Sequence[tuple[float, float]],
    arrows: Sequence[tuple[int, int]],
    *,
    across: float = 56.0,
    down: float = 18.0,
    margin: float = 16.0,
) -> Layout:
    """Places of nodes without circles among their arrows.

    Args:
        sizes: width and height of each node. arrows: from, to. across, down: between layers, and nodes of a layer.
    """
    layer = _layers(len(sizes), arrows)
    layers: list[list[Stand]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for i, at in enumerate(layer):
        layers[at].append(i)
    ways: list[list[Stand]] = []
    for above, below in arrows:
        bends: list[Stand] = [(above, below, at) for at in range(layer[above] + 1, layer[below])]
        for at, bend in enumerate(bends, layer[above] + 1):
            if bend not in layers[at]:
                layers[at].append(bend)
        ways.append([above, *bends, below])
    before: dict[Stand, list[Stand]] = {}
    after: dict[Stand, list[Stand]] = {}
    for way in ways:
        for one, two in pairwise(way):
            after.setdefault(one, []).append(two)
            before.setdefault(two, []).append(one)
    for sweep in range(SWEEPS):
        _order(layers if sweep % 2 == 0 else layers[::-1], before if sweep % 2 == 0 else after)

    heights = {each: sizes[each][1] if isinstance(each, int) else BEND_HEIGHT for row in layers for each in row}
    middle = _heights(layers, heights, before, after, down)
    top = min((middle[each] - heights[each] / 2 for each in heights), default=0.0)
    middle = {each: at - top + margin for each, at in middle.items()}
    left, widths, x = [], [], margin
    for row in layers:
        widths.append(max((sizes[each][0] for each in row if isinstance(each, int)), default=0.0))
        left.append(x)
        x += widths[-1] + across
    at_left = [left[layer[i]] + (widths[layer[i]] - sizes[i][0]) / 2 for i in range(len(sizes))]
    lines = []
    for way, (above, below) in zip(ways, arrows, strict=True):
        points = [(at_left[above] + sizes[above][0], middle[above])]
        for each in way:
            at = each[2] if isinstance(each, tuple) else layer[each]
            if each != above:
                points.append((left[at], middle[each]))
            if each != below:
                points.append((left[at] + widths[at], middle[each]))
        lines.append((*points, (at_left[below], middle[below])))
    return Layout(
        tuple((at_left[i], middle[i] - sizes[i][1] / 2) for i in range(len(sizes))),
        tuple(lines),
        x - across + margin if layers else 2 * margin,
        max((middle[each] + heights[each] / 2 for each in heights), default=margin) + margin,
    )


def _layers(count: int, arrows: Sequence[tuple[int, int]]) -> list[int]:
    layer = [0] * count
    changed, rounds = True, 0
    while changed:
        changed, rounds = False, rounds + 1
        if rounds > count + 1:
            raise ValueError("the arrows go in a circle, which has no first layer")
        for above, below in arrows:
            if layer[below] <= layer[above]:
                layer[below], changed = layer[above] + 1, True
    return layer


def _order(layers: Sequence[list[Stand]], beside: Mapping[Stand, Sequence[Stand]]) -> None:
    """Each layer by the mean place of neighbours in the layer before; without any a node keeps its place."""
    for one, two in pairwise(layers):
        places = {each: i for i, each in enumerate(one)}
        means = {}
        for i, each in enumerate(two):
            near = [places[other] for other in beside.get(each, ()) if other in places]
            means[each] = sum(near) / len(near) if near else float(i)
        two.sort(key=means.__getitem__)


def _heights(
    layers: Sequence[Sequence[Stand]],
    heights: Mapping[Stand, float],
    before: Mapping[Stand, Sequence[Stand]],
    after: Mapping[Stand, Sequence[Stand]],
    down: float,
) -> dict[Stand, float]:
    middle: dict[Stand, float] = {}
    for row in layers:
        y = 0.0
        for each in row:
            middle[each] = y + heights[each] / 2
            y += heights[each] + down
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        for row in layers if forth else layers[::-1]:
            beside = before if forth else after
            wanted = []
            for each in row:
                near = [middle[other] for other in beside.get(each, ())]
                wanted.append(sum(near) / len(near) if near else middle[each])
            lowest = float("-inf")
            placed = []
            for each, want in zip(row, wanted, strict=True):
                at = max(want, lowest + heights[each] / 2)
                placed.append(at)
                lowest = at + heights[each] / 2 + down
            shift = sum(want - at for want, at in zip(wanted, placed, strict=True)) / len(row)
            middle.update((each, at + shift) for each, at in zip(row, placed, strict=True))
    return middle
