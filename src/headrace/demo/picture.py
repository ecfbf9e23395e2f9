"""The demo's figure: a bad-weather day minute by minute, and what the features add to a model.

Above, an airport each: every dot is a flight at its scheduled departure, as late as it turned out to leave; the line is
the feature that is served in that minute, the mean delay of what has left in the hour before. Below, both models on
flights they have not seen: precision against recall, and how many of the riskiest flights did leave late.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import DateFormatter, HourLocator
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import precision_recall_curve

from headrace.demo.flights import NEW_YORK
from headrace.demo.lift import Judged

INK, PALE, GRID = "#22303c", "#8a97a3", "#e6eaee"
WATER, ALARM, SAND = "#0b6fa4", "#d1495b", "#b9c2ca"
STYLE = {"color": INK, "fontsize": 10}

AIRPORTS = {"EWR": "Newark", "JFK": "Kennedy", "LGA": "LaGuardia"}


def draw(
    path: Path,
    day: pd.Timestamp,
    headline: str,
    minutes: pd.DataFrame,
    flights: pd.DataFrame,
    before: Judged,
    after: Judged,
) -> None:
    """Draws the figure and writes it as PNG.

    Args:
        day: midnight in New York at the start of the day shown.
        headline: what happened on the day.
        minutes: origin, event_timestamp, delay_mean_1h (minutes, NaN when the window is empty): a row each minute.
        flights: origin, event_timestamp, dep_delay (minutes): the day's flights.
        before, after: the model without and with the features.
    """
    figure = Figure(figsize=(13, 9.2), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    top = figure.add_gridspec(1, 3, left=0.06, right=0.975, top=0.825, bottom=0.515, wspace=0.07)
    bottom = figure.add_gridspec(1, 2, left=0.06, right=0.975, top=0.33, bottom=0.075, wspace=0.17)
    _title(figure, 0.945, headline, f"{day:%-d %B %Y}, minute by minute: how late is my airport running right now?")
    _title(figure, 0.415, "What such features are worth to a model", _worth(before, after))

    limit = _ceiling(flights["dep_delay"])
    shared: Any = None
    for place, (code, name) in enumerate(AIRPORTS.items()):
        axes = figure.add_subplot(top[place], sharey=shared)
        shared = shared or axes
        _airport(
            axes, day, f"{name} ({code})", minutes[minutes["origin"] == code], flights[flights["origin"] == code], limit
        )
        axes.tick_params(labelleft=place == 0)
        if place == 0:
            axes.set_ylabel("minutes late", **STYLE)
            _legend(figure, axes)
    _precision_recall(figure.add_subplot(bottom[0]), before, after)
    _riskiest(figure.add_subplot(bottom[1]), before, after)
    figure.savefig(path)


def _airport(
    axes: Any, day: pd.Timestamp, name: str, minutes: pd.DataFrame, flights: pd.DataFrame, limit: float
) -> None:
    late = (flights["dep_delay"] > 15).to_numpy()
    scheduled = _local(flights["event_timestamp"])
    delay = np.minimum(flights["dep_delay"].to_numpy(), limit)
    axes.scatter(
        scheduled[~late], delay[~late], s=9, color=SAND, linewidth=0, label="a flight at its scheduled departure"
    )
    axes.scatter(
        scheduled[late], delay[late], s=13, color=ALARM, alpha=0.6, linewidth=0, label="… more than 15 minutes late"
    )
    mean = minutes["delay_mean_1h"].to_numpy(dtype="float64", na_value=np.nan)
    time = _local(minutes["event_timestamp"])
    axes.fill_between(time, 0, np.maximum(mean, 0), color=WATER, alpha=0.10, linewidth=0)
    axes.plot(
        time,
        mean,
        color=WATER,
        linewidth=2,
        solid_joinstyle="round",
        label="the feature: mean delay of the last hour's departures",
    )
    start = day.tz_localize(None)
    axes.set_xlim(start + pd.Timedelta(hours=5), start + pd.Timedelta(hours=24))
    axes.set_ylim(-25, limit * 1.04)
    axes.xaxis.set_major_locator(HourLocator(byhour=range(6, 24, 3)))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    axes.set_title(name, loc="left", fontweight="bold", **STYLE)
    quiet(axes)


def _precision_recall(axes: Any, before: Judged, after: Judged) -> None:
    for place, (judged, color, name) in enumerate(((after, WATER, "with features"), (before, PALE, "timetable alone"))):
        precision, recall, _ = precision_recall_curve(judged.late, judged.probability)
        # The first few flights give a jagged, meaningless start.
        shown = recall > 0.004
        axes.plot(recall[shown], precision[shown], color=color, linewidth=2)
        label = f"{name}: average precision {judged.average_precision:.2f}"
        at = (0.99, 0.9 - 0.1 * place)
        axes.text(*at, label, transform=axes.transAxes, ha="right", color=color, fontsize=10, fontweight="bold")
    base = float(before.late.mean())
    axes.axhline(base, color=SAND, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        "by guessing", (1, base), xytext=(0, -12), textcoords="offset points", ha="right", color=PALE, fontsize=9
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set_xlabel("recall: share of the late flights that are found", **STYLE)
    axes.set_ylabel("precision", **STYLE)
    _percent(axes)


def _riskiest(axes: Any, before: Judged, after: Judged) -> None:
    """Bars: flights ordered by predicted risk, in tenths; the share of each tenth that left late."""
    tenths = np.arange(10)
    for judged, color, shift in ((before, SAND, -0.2), (after, WATER, 0.2)):
        order = np.argsort(-judged.probability, kind="stable")
        share = [float(part.mean()) for part in np.array_split(judged.late[order], 10)]
        axes.bar(tenths + shift, share, width=0.38, color=color)
        for tenth in (0, 9):
            axes.annotate(
                f"{share[tenth]:.0%}",
                (tenth + 1.2 * shift, share[tenth]),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                color=INK,
                fontsize=9,
            )
    base = float(before.late.mean())
    axes.axhline(base, color=PALE, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        f"all flights {base:.0%}",
        (9.5, base),
        xytext=(0, 4),
        textcoords="offset points",
        ha="right",
        color=PALE,
        fontsize=9,
    )
    axes.set_xticks(tenths, [*("riskiest\ntenth", "2nd", "3rd"), *(f"{n}th" for n in range(4, 10)), "safest\ntenth"])
    axes.set_ylabel("share that left late", **STYLE)
    axes.set(xlim=(-0.6, 9.6), ylim=(0, 0.68))
    _percent(axes, x=False)


def _title(figure: Figure, y: float, text: str, below: str) -> None:
    figure.text(0.06, y, text, fontsize=17, fontweight="bold", color=INK)
    figure.text(0.06, y - 0.027, below, fontsize=11, color=PALE)


def _worth(before: Judged, after: Judged) -> str:
    return (
        f"{len(after.late):,} flights of September to December, never seen in training: "
        f"ROC AUC {before.roc_auc:.3f} from the timetable, {after.roc_auc:.3f} with the features"
    )


def _legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="lower right",
        bbox_to_anchor=(0.982, 0.858),
        ncols=len(labels),
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handletextpad=0.4,
        columnspacing=1.6,
        markerscale=1.6,
    )


def quiet(axes: Any) -> None:
    """A pale grid, and no frame but the line below."""
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(SAND)
    axes.tick_params(length=0, pad=6, colors=PALE, labelsize=9)


def _percent(axes: Any, x: bool = True) -> None:
    quiet(axes)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if x:
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _local(instants: pd.Series) -> np.ndarray:
    return np.asarray(instants.dt.tz_convert(NEW_YORK).dt.tz_localize(None))


def _ceiling(delay: pd.Series) -> float:
    """The top of the scale, minutes: all but the few latest flights; those are drawn on the edge."""
    return float(np.ceil(np.quantile(delay, 0.995) / 60) * 60)
