"""What changes from one definition of a view to another, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.features.describing import feature_text
from headrace.features.features import MISSING, AggregateFeature, DerivedFeature
from headrace.features.time import format_duration

if TYPE_CHECKING:
    from headrace.features.sources import Source
    from headrace.features.views import ViewDefinition


def changes(old: ViewDefinition, new: ViewDefinition) -> list[str]:
    """One sentence per difference, from `old` to `new`; empty when they say the same. Hidden features are not told."""
    found: list[str] = []
    if old.name != new.name:
        found.append(f"view renamed from {old.name} to {new.name}")
    if (old.entity.name, old.entity.keys) != (new.entity.name, new.entity.keys):
        found.append(f"entity changed from {old.entity!r} to {new.entity!r}")
    found += _source(old.source, new.source)
    found += _columns(old, new)
    for name, before, after in (("ttl", old.ttl_us, new.ttl_us), ("log_every", old.log_every_us, new.log_every_us)):
        if before != after:
            found.append(f"{name} changed from {_span(before)} to {_span(after)}")
    if old.log != new.log:
        found.append("offline log turned on" if new.log else "offline log turned off")
    return found + _features(old, new)


def _source(old: Source, new: Source) -> list[str]:
    if repr(old) == repr(new):
        return []
    return [f"source changed from {old!r} to {new!r}"]


def _columns(old: ViewDefinition, new: ViewDefinition) -> list[str]:
    """Changed types of columns that both read."""
    found = []
    if old.schema.time_field != new.schema.time_field:
        found.append(f"event time changed from {old.schema.time_field} to {new.schema.time_field}")
    for name in old.event_columns:
        if name in new.event_columns:
            before, after = old.schema.field(name).dtype, new.schema.field(name).dtype
            if before != after:
                found.append(f"column {name} changed from {before} to {after}")
    return found


def _features(old: ViewDefinition, new: ViewDefinition) -> list[str]:
    found = []
    before, after = old.feature_names(), new.feature_names()
    for name in before:
        if name not in after:
            found.append(f"feature {name} removed (was {feature_text(old, old.feature(name))})")
    for name in after:
        if name not in before:
            found.append(f"feature {name} added: {feature_text(new, new.feature(name))}")
        else:
            found += _feature(name, old, new)
    kept = [name for name in before if name in after]
    if kept != [name for name in after if name in before]:
        found.append(f"order of features changed to {', '.join(after)}")
    return found


def _feature(name: str, old: ViewDefinition, new: ViewDefinition) -> list[str]:
    a, b = old.feature(name), new.feature(name)
    found = []
    before, after = feature_text(old, a), feature_text(new, b)
    if before != after:
        found.append(f"feature {name} changed from {before} to {after}")
    if repr(a.default) != repr(b.default):
        found.append(f"feature {name}: default changed from {_default(a)} to {_default(b)}")
    if a.dtype != b.dtype:
        found.append(f"feature {name}: type changed from {a.dtype} to {b.dtype}")
    if not found and _keys(old, a) != _keys(new, b):
        found.append(f"feature {name}: its function or parameters changed")
    return found


def _keys(view: ViewDefinition, feature: AggregateFeature | DerivedFeature) -> list[object]:
    """What a feature and the hidden ones it reads say; of public ones their own sentences tell."""
    if isinstance(feature, AggregateFeature):
        return [feature.key]
    hidden = (name for name in feature.inputs if name in view.hidden_names)
    return [feature.key, *(_keys(view, view.feature(name)) for name in hidden)]


def _default(feature: AggregateFeature | DerivedFeature) -> str:
    return "none" if feature.default is MISSING else repr(feature.default)


def _span(us: int | None) -> str:
    return "none" if us is None else format_duration(us)
