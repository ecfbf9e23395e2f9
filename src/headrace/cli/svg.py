"""A picture as SVG, in light and dark, without anything to install."""

from xml.sax.saxutils import escape

from headrace.cli.graphing import Node, Picture
from headrace.cli.layout import layout

LONGEST = 44
"""Characters of a line; what is longer ends in an ellipsis, and is told whole when pointed at."""
HEIGHT, LID, PADDING = 46.0, 6.0, 14.0
NAME_WIDTH, TOLD_WIDTH = 7.9, 6.6
"""Of a character, in pixels, for 13 and 11 pixels of a sans-serif face; somewhat wide, since faces differ."""

_STYLE = """
    .ground { fill: #ffffff; }
    .step { fill: #eef4fb; stroke: #3b6ea5; }
    .view { fill: #f3eefb; stroke: #7654a8; }
    .stored { fill: #f4f4f0; stroke: #77776d; }
    .name { fill: #1d1d1b; font: 600 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; }
    .told { fill: #5c5c57; font: 11px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; }
    .arrow { fill: none; stroke: #8a8a82; stroke-width: 1.4; }
    .head { fill: #8a8a82; }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #16181c; }
      .step { fill: #1c2a3a; stroke: #6fa3dc; }
      .view { fill: #2a2239; stroke: #a98be0; }
      .stored { fill: #24262a; stroke: #9a9a92; }
      .name { fill: #f0f0ec; }
      .told { fill: #b4b4ad; }
    }
"""


def svg(shown: Picture) -> str:
    """An SVG document: sources on the left, sinks and stores on the right.

    A step's second line names its flow where there are several.
    """
    several = len({node.flow for node in shown.nodes if node.flow}) > 1
    lines = [_lines(node, several) for node in shown.nodes]
    sizes = [_size(name, told) for name, told in lines]
    places = layout(sizes, shown.arrows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{places.width:.0f}" height="{places.height:.0f}" '
        f'viewBox="0 0 {places.width:.0f} {places.height:.0f}" role="img" aria-label="What is computed">',
        f"  <style>{_STYLE}  </style>",
        '  <defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0 0.5 L8 4 L0 7.5 z"/></marker></defs>',
        '  <rect class="ground" width="100%" height="100%"/>',
    ]
    out += [f'  <path class="arrow" marker-end="url(#head)" d="{_way(points)}"/>' for points in places.arrows]
    for node, (name, told), (width, height), (x, y) in zip(shown.nodes, lines, sizes, places.nodes, strict=True):
        out.append(f"  <g><title>{_text(' '.join(each for each in (name, told) if each))}</title>")
        out.append(f"    {_shape(node, x, y, width, height)}")
        middle = y + height / 2 + (LID / 2 if node.stored else 0)
        for words, kind, at in ((name, "name", middle - (3 if told else -5)), (told, "told", middle + 13)):
            if words:
                out.append(
                    f'    <text class="{kind}" x="{x + width / 2:.1f}" y="{at:.1f}" text-anchor="middle">'
                    f"{_text(_clipped(words))}</text>"
                )
        out.append("  </g>")
    return "\n".join([*out, "</svg>", ""])


def _lines(node: Node, several: bool) -> tuple[str, str]:
    return node.name, f"{node.flow}: {node.told}" if several and node.flow else node.told


def _size(name: str, told: str) -> tuple[float, float]:
    return max(len(_clipped(name)) * NAME_WIDTH, len(_clipped(told)) * TOLD_WIDTH, 40.0) + 2 * PADDING, HEIGHT


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _text(text: str) -> str:
    """As XML has it, which allows no control characters."""
    return escape("".join(each if each.isprintable() else " " for each in text))


def _shape(node: Node, x: float, y: float, width: float, height: float) -> str:
    if not node.stored:
        kind = "step" if node.flow else "view"
        return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6"/>'
    half, sides = width / 2, height - 2 * LID
    return (
        f'<path class="stored" d="M{x:.1f} {y + LID:.1f} a{half:.1f} {LID} 0 0 1 {width:.1f} 0 v{sides:.1f} '
        f'a{half:.1f} {LID} 0 0 1 {-width:.1f} 0 z m0 0 a{half:.1f} {LID} 0 0 0 {width:.1f} 0"/>'
    )


def _way(points: tuple[tuple[float, float], ...]) -> str:
    """Level through layers, and in an S between them."""
    way = [f"M{points[0][0]:.1f} {points[0][1]:.1f} H{points[1][0]:.1f}"]
    for i in range(1, len(points) - 1, 2):
        (x0, y0), (x1, y1), (end, _) = points[i : i + 3]
        middle = (x0 + x1) / 2
        way.append(f"C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f} H{end:.1f}")
    return " ".join(way)
