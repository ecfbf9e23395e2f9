"""What a snapshot says of the view it is of, and what that means for another definition of the view."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from headrace.features.describing import feature_text
from headrace.features.features import AggregateFeature
from headrace.features.time import format_duration
from headrace.features.views import ViewDefinition
from headrace.flows.identity import Names, computed
from headrace.flows.plan import Plan
from headrace.flows.snapshot import SnapshotError

OnChange: TypeAlias = Literal["refuse", "start", "backfill"]
"""What to do where a view is not the one whose state was saved: give up, begin what has no state empty, or begin it
empty and let it be filled from the source's history (`SourceFlow.graft`)."""


class FeatureNote(msgspec.Struct):
    """A feature: in words, and for one that has state what it computes and of which generation it is."""

    name: str
    text: str
    default: str
    hidden: bool
    computed: str | None
    since: int


class Description(msgspec.Struct):
    """A definition as its snapshot tells it.

    keys: name and type of each. takes: by group, the name of the mask of the events that it takes.
    """

    keys: list[tuple[str, str]]
    time: str
    features: list[FeatureNote]
    ttl_us: int | None
    log_every_us: int | None
    log: bool
    takes: dict[str, str]


@dataclass(frozen=True)
class Change:
    """What differs from a saved view to a new definition of it.

    told: one sentence each. added: features that have no saved state, hidden ones included. lost: whether state is
    given up. since: generations of the new definition's features.
    """

    told: tuple[str, ...]
    added: tuple[str, ...]
    lost: bool
    since: dict[str, int]


def describe(plan: Plan, names: Names) -> Description:
    """The description of the view of a plan."""
    view = plan.view
    notes = []
    for each in view.features:
        state = isinstance(each.feature, AggregateFeature)
        notes.append(
            FeatureNote(
                each.name,
                feature_text(view, each.feature),
                repr(each.feature.default),
                each.hidden,
                computed(each.feature) if state else None,
                plan.since.get(each.name, 0),
            )
        )
    return Description(
        keys=[(key, view.schema.field(key).dtype) for key in view.entity.keys],
        time=view.schema.time_field,
        features=notes,
        ttl_us=view.ttl_us,
        log_every_us=view.log_every_us,
        log=view.log,
        takes={group.name: names.masks[group.takes] for group in names.groups},
    )


def compare(old: Description, view: ViewDefinition) -> Change:
    """What changes from the view that was saved to `view`.

    Raises:
        SnapshotError: entities are told apart by other keys, or instants taken from another column: then nothing of
            the state can be kept.
    """
    keys = [(key, view.schema.field(key).dtype) for key in view.entity.keys]
    if keys != old.keys or view.schema.time_field != old.time:
        what = f"keys {_keys(old.keys)} and event time '{old.time}'"
        now = f"keys {_keys(keys)} and event time '{view.schema.time_field}'"
        raise SnapshotError(
            f"View '{view.name}' was saved with {what}, and now has {now}: its state is of other entities or instants "
            "and cannot be kept. Give the changed view another name, or start it with an empty data directory and "
            "replay its source."
        )
    known = {note.computed: note.since for note in old.features if note.computed is not None}
    latest = 1 + max(known.values(), default=0)
    since: dict[str, int] = {}
    added = []
    kept = set()
    for each in view.aggregates:
        what_it_is = computed(each.feature)
        since[each.name] = known.get(what_it_is, latest)
        if what_it_is in known:
            kept.add(what_it_is)
        else:
            added.append(each.name)
    return Change(
        told=tuple(_told(old, view)),
        added=tuple(added),
        lost=any(name not in kept for name in known),
        since={name: age for name, age in since.items() if age},
    )


def _told(old: Description, view: ViewDefinition) -> list[str]:
    found = []
    for name, before, after in (("ttl", old.ttl_us, view.ttl_us), ("log_every", old.log_every_us, view.log_every_us)):
        if before != after:
            found.append(f"{name} changed from {_span(before)} to {_span(after)}")
    if old.log != view.log:
        found.append("offline log turned on" if view.log else "offline log turned off")
    before_by = {note.name: note for note in old.features}
    now = {each.name: each for each in view.features}
    for note in old.features:
        if note.name not in now and not note.hidden:
            found.append(f"feature {note.name} removed (was {note.text})")
    for name, each in now.items():
        text, default = feature_text(view, each.feature), repr(each.feature.default)
        before_note = before_by.get(name)
        if before_note is None:
            if not each.hidden:
                found.append(f"feature {name} added: {text}")
            continue
        if before_note.text != text:
            if not (each.hidden and before_note.hidden):
                found.append(f"feature {name} changed from {before_note.text} to {text}")
        elif isinstance(each.feature, AggregateFeature) and before_note.computed != computed(each.feature):
            found.append(f"feature {name}: its function or parameters changed")
        if before_note.default != default:
            found.append(f"feature {name}: default changed from {_default(before_note.default)} to {_default(default)}")
    return found


def refusal(view: ViewDefinition, change: Change) -> SnapshotError:
    """The error that asks what to do about a change."""
    told = "; ".join(change.told) or "features that others are derived from changed"
    return SnapshotError(
        f"View '{view.name}' is not the one whose state was saved: {told}. Features that are computed as before can "
        'keep their state. Say what to do about the others: on_change="start" (--on-change start) begins them empty, '
        '"backfill" fills them from the history of the source first; or set the definition back. To begin the whole '
        "view anew give it another name, or an empty data directory, and replay its source."
    )


def _keys(keys: list[tuple[str, str]]) -> str:
    return ", ".join(f"'{name}' ({dtype})" for name, dtype in keys)


def _default(text: str) -> str:
    return "none" if text == "MISSING" else text


def _span(us: int | None) -> str:
    return "none" if us is None else format_duration(us)
