"""Draws what `benchmarks.growth` printed: a small picture for each axis.

python -m benchmarks.growth_picture docs/images/growth.png < growth.jsonl
"""

import json
import sys
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, LogLocator, NullLocator

from headrace.demo.picture import ALARM, INK, PALE, SAND, WATER, quiet

DEEP = "#083d5c"
WORDS: dict[str, Any] = {"fontsize": 9, "fontweight": "bold"}
WINDOWS = {"1m": 1, "30m": 30, "6h": 360, "1d": 1440, "30d": 43_200}  # minutes
SIZES = {"10k": 1e4, "100k": 1e5, "1M": 1e6, "5M": 5e6}
Lines = dict[str, dict[str, Any]]
Points = list[tuple[float, float]]


def main() -> None:
    lines: Lines = {}
    for line in map(json.loads, sys.stdin):
        lines[line["case"]] = line
    figure = Figure(figsize=(13, 7.6), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    places = figure.add_gridspec(2, 3, left=0.055, right=0.985, top=0.90, bottom=0.075, wspace=0.2, hspace=0.42)
    for place, draw in enumerate((entities, features, views, memory, windows, batches)):
        draw(figure.add_subplot(places[place]), lines)
    figure.savefig(sys.argv[1])


def entities(axes: Any, lines: Lines) -> None:
    there = [(size, lines[f"entities: {name}"]) for name, size in SIZES.items()]
    band(axes, there)
    curve(axes, [(size, cost(line)) for size, line in there], WATER, "the operator", (4, -16))
    curve(axes, [(size, 1e6 / line["limit"]) for size, line in there], PALE, "a NumPy pass", (4, -16))
    mark(axes, (1e6, cost(lines["keys: zipf"])), "Zipf keys", (-2, -15))
    frame(axes, "Entities: microseconds an event", sizes=True)
    axes.set_ylim(2e-3, 20)


def memory(axes: Any, lines: Lines) -> None:
    there = [(size, lines[f"entities: {name}"]) for name, size in SIZES.items()]
    curve(axes, [(size, line["resident"]) for size, line in there], DEEP, "what the process grew by", (1, 9))
    curve(axes, [(size, line["state"]) for size, line in there], WATER, "the operator's arrays", (1, -17))
    frame(axes, "Memory: bytes an entity", sizes=True)
    axes.set_ylim(300, 8000)


def features(axes: Any, lines: Lines) -> None:
    multiplied(axes, lines, "features", [1, 10, 50], ("over one window", (1, -17)))
    mark(axes, (50.0, cost(lines["features: 50, ten windows"])), "over ten windows", (-2, -15))
    frame(axes, "Features: microseconds an event", [1, 10, 50])


def views(axes: Any, lines: Lines) -> None:
    multiplied(axes, lines, "views", [1, 5, 20], ("of four features each", (1, -15)))
    frame(axes, "Views in a flow: microseconds an event", [1, 5, 20])


def multiplied(axes: Any, lines: Lines, what: str, counts: list[int], label: tuple[str, tuple[int, int]]) -> None:
    """What an event costs with more and more of something, beside what it would if each cost as much as the first."""
    there = [(float(n), lines[f"{what}: {n}"]) for n in counts]
    costs = [(at, cost(line)) for at, line in there]
    (first, cost_of_first), (last, _) = costs[0], costs[-1]
    end = cost_of_first * last / first
    axes.plot([first, last], [cost_of_first, end], color=SAND, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate("in proportion", (last, end), xytext=(-4, 2), textcoords="offset points", ha="right", color=PALE,
                  fontsize=9)  # fmt: skip
    band(axes, there)
    curve(axes, costs, WATER, *label)
    axes.set_ylim(1, 300)


def windows(axes: Any, lines: Lines) -> None:
    there = [(minutes, lines[f"windows: {name}"]) for name, minutes in WINDOWS.items()]
    band(axes, there)
    curve(axes, [(at, cost(line)) for at, line in there], WATER, "60 events in each window", (1, 12))
    frame(axes, "Windows: microseconds an event", list(WINDOWS.values()), list(WINDOWS))
    axes.set_ylim(1, 20)


def batches(axes: Any, lines: Lines) -> None:
    there = [name for name in SIZES if f"batch: 1; {name} entities" in lines]
    for size, color, shift in (("1", PALE, (-58, -17)), ("10", WATER, (-130, 9)), ("100", DEEP, (-58, 9))):
        its = [(SIZES[name], lines[f"batch: {size}; {name} entities"]) for name in there]
        label = "1 event" if size == "1" else f"{size} events"
        curve(axes, [(at, line["ours"]) for at, line in its], color, label, shift, at=1)
    fresh = [(SIZES[name], lines[f"batch: 10, one new; {name} entities"]["ours"]) for name in there]
    axes.plot(*zip(*fresh, strict=True), color=ALARM, linewidth=1.5, linestyle=(0, (4, 3)))
    mark(axes, fresh[-1], "10, one of a new entity", (0, 10))
    frame(axes, "Small batches: microseconds a batch", sizes=True)
    axes.set_ylim(50, 3000)


def cost(line: dict[str, Any]) -> float:
    """Microseconds an event."""
    return 1e6 / float(line["ours"])


def curve(axes: Any, points: Points, color: str, label: str, shift: tuple[int, int], *, at: int = 0) -> None:
    """A line; its label stands at one of its points, shifted by so many points of the page."""
    axes.plot(*zip(*points, strict=True), color=color, linewidth=2, marker="o", markersize=4.5, clip_on=False)
    axes.annotate(label, points[at], xytext=shift, textcoords="offset points", **WORDS, color=color)


def band(axes: Any, there: list[tuple[float, dict[str, Any]]]) -> None:
    """From the least to the most of the rounds."""
    most, least = ([1e6 / line[key] for _, line in there] for key in ("least", "most"))
    axes.fill_between([at for at, _ in there], least, most, color=WATER, alpha=0.14, linewidth=0)


def mark(axes: Any, point: tuple[float, float], label: str, shift: tuple[int, int]) -> None:
    axes.plot(*point, color=ALARM, marker="o", markersize=5, linestyle="none", clip_on=False)
    axes.annotate(label, point, xytext=shift, textcoords="offset points", ha="right", **WORDS, color=ALARM)


def frame(
    axes: Any, title: str, at: list[int] | None = None, names: list[str] | None = None, *, sizes: bool = False
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    if sizes:
        at, names = [int(size) for size in SIZES.values()], ["10 k", "100 k", "1 M", "5 M"]
    assert at is not None
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.xaxis.set_major_formatter(FixedFormatter(names or [str(each) for each in at]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=12)
    quiet(axes)


if __name__ == "__main__":
    main()
