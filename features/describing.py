"""A view as a table of text: what print(view) shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

from headrace.features.aggregations import Aggregation
from headrace.features.buckets import ByBucket
from headrace.features.columns import Expression, FeatureRef, replace_leaves
from headrace.features.features import MISSING, AggregateFeature, DerivedFeature
from headrace.features.sketches import ApproxDistinct, Quantile
from headrace.features.time import format_duration
from headrace.features.windows import Hopping, LastN, Lifetime, Session, Sliding, Tumbling, Window

if TYPE_CHECKING:
    from headrace.features.views import ViewDefinition

_HEADER = ("feature", "type", "computed as", "window", "error", "default")
_WIDEST = 60


def describe(view: ViewDefinition) -> str:
    """Heading, then one line per public feature; ends without a newline."""
    keys = ", ".join(view.entity.keys)
    names = view.feature_names()
    ttl = f"ttl {format_duration(view.ttl_us)}" if view.ttl_us is not None else "no ttl"
    if not view.log:
        log = "no log"
    else:
        log = (
            f"log every {format_duration(view.log_every_us)}"
            if view.log_every_us is not None
            else "log of every change"
        )
    lines = [
        f"{view.name}: {len(names)} feature{'s' * (len(names) != 1)} of {view.entity.name} ({keys})",
        f"from {view.source!r}; {ttl}; {log}; fingerprint {view.fingerprint()[:8]}",
        "",
    ]
    rows = [_HEADER, *(_row(view, name) for name in names)]
    columns = [i for i in range(len(_HEADER)) if any(row[i] for row in rows[1:])]
    widths = {i: min(_WIDEST, max(len(row[i]) for row in rows)) for i in columns}
    lines += ["  ".join(row[i].ljust(widths[i]) for i in columns).rstrip() for row in rows]
    return "\n".join(lines)


def _row(view: ViewDefinition, name: str) -> tuple[str, ...]:
    feature = view.feature(name)
    default = "" if feature.default is MISSING else repr(feature.default)
    if isinstance(feature, DerivedFeature):
        return (name, feature.dtype, feature_text(view, feature), "", "", default)
    return (name, feature.dtype, computed_as(feature), window_text(feature.window), error_text(feature), default)


def feature_text(view: ViewDefinition, feature: AggregateFeature | DerivedFeature) -> str:
    """A feature in words; a derived one with the hidden features it reads written out."""
    if isinstance(feature, AggregateFeature):
        return f"{computed_as(feature)} ({window_text(feature.window)})"

    def shown(name: str) -> str:
        return f"[{feature_text(view, view.feature(name))}]" if name in view.hidden_names else name

    if feature.expr is None:
        function = getattr(feature.fn, "__name__", type(feature.fn).__name__)
        return f"{function}({', '.join(map(shown, feature.inputs))})"
    return str(replace_leaves(feature.expr, lambda leaf: _written_out(leaf, shown)))


def _written_out(leaf: Expression, shown: Callable[[str], str]) -> Expression:
    return FeatureRef(shown(leaf.name), leaf.dtype) if isinstance(leaf, FeatureRef) else leaf


def computed_as(feature: AggregateFeature) -> str:
    """The aggregation in words: `mean of Ride.fare where Ride.fare > 3 by Ride.city (top 20)`."""
    agg = feature.agg
    inner = agg.inner if isinstance(agg, ByBucket) else agg
    of = "" if feature.column is None else f" of {feature.column}"
    where = "" if feature.where is None else f" where {feature.where}"
    by = f" by {feature.by} (top {agg.top})" if isinstance(agg, ByBucket) else ""
    return f"{_name(inner)}{of}{where}{by}"


def _name(agg: Aggregation) -> str:
    match agg:
        case Quantile(q=q):
            return f"quantile {q:g}"
        case _ if hasattr(agg, "half_life_us"):
            return f"{agg.kind} (half-life {format_duration(agg.half_life_us)})"
    return str(agg)


def window_text(window: Window) -> str:
    """A window in words: `last 30m`, `session of gap 30m, ending 1d ago`."""
    match window:
        case Sliding():
            hop = "exact" if window.exact else f"hop {format_duration(window.hop_us)}"
            text = f"last {format_duration(window.width_us)}, {hop}"
        case Hopping():
            text = f"newest whole {format_duration(window.width_us)}, hop {format_duration(window.hop_us)}"
        case Tumbling(current=True):
            text = f"current {format_duration(window.width_us)}"
        case Tumbling():
            text = f"newest whole {format_duration(window.width_us)}"
        case Session():
            text = f"session, gap {format_duration(window.gap_us)}"
        case LastN():
            text = f"last {window.n} event{'s' * (window.n != 1)}"
        case Lifetime():
            text = "lifetime"
        case _:
            assert_never(window)
    return f"{text}, ending {format_duration(window.ending_us)} ago" if window.ending_us else text


def error_text(feature: AggregateFeature) -> str:
    """How far a value may be from the exact one: of its window, and of its aggregation. Empty when exact."""
    parts = []
    bound = feature.window.error_bound_us
    if bound:
        parts.append(f"events up to {format_duration(bound)} older")
    agg = feature.agg.inner if isinstance(feature.agg, ByBucket) else feature.agg
    match agg:
        case Quantile(error=error):
            parts.append(f"±{error:.2%} of the value".replace(".00%", "%"))
        case ApproxDistinct():
            parts.append(f"±{agg.error:.1%} (1σ) above {1 << agg.lg_k:,}")
        case _:
            limit = getattr(agg, "limit", None)
            if limit is not None:
                parts.append(f"at most {limit:,}")
    return "; ".join(parts)
