"""Feature views: the features of one entity from one source, declared as a class and kept as plain data.

    class DriverActivity(FeatureView, source=rides, entity=driver, ttl="7d"):
        pickups_30m = Ride.count(last="30m")
        fare_mean   = Ride.fare.mean(last=["1h", "1d"])        # fare_mean_1h, fare_mean_1d

The class statement checks everything and leaves a `ViewDefinition` in `DriverActivity.__view__`; `definition(view)`
gives it for either. Every other part of Headrace reads only the definition.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from headrace.features.columns import columns_of
from headrace.features.drift import DriftWatch, drift_watches
from headrace.features.entities import Entity
from headrace.features.errors import DefinitionError, UnknownColumnError, did_you_mean
from headrace.features.events import EventSchema
from headrace.features.features import AggregateFeature, DerivedFeature, Feature, FeatureGroup
from headrace.features.naming import NamedFeature, name_features
from headrace.features.sources import Source
from headrace.features.stream_source import source_given
from headrace.features.time import duration_us
from headrace.features.windows import Session

ROW_COLUMNS = ("event_timestamp", "newest_event")
"""Columns that every feature row has beside the entity's keys and the features."""

_KEY_DTYPES = ("string", "int64", "bytes")


@dataclass(frozen=True, eq=False)
class ViewDefinition:
    """A feature view as data. Equal when it says the same (`fingerprint`), wherever its events come from.

    Attributes:
        name: snake_case of the class name, or name=. source: where the events come from. entity: whom the features are
        about. features: all features in order of evaluation within their kind and of definition otherwise, hidden ones
        included. ttl_us: a row whose newest event is this old or older counts as never seen; None: never.
        log_every_us: the offline log keeps at most one row per entity in this time; None: every change. log: whether
        there is an offline log. drift: detectors that look at settled values; no part of what the view says.
    """

    name: str
    source: Source
    entity: Entity
    features: tuple[NamedFeature, ...]
    ttl_us: int | None = None
    log_every_us: int | None = None
    log: bool = True
    drift: tuple[DriftWatch, ...] = ()

    @property
    def schema(self) -> EventSchema:
        """The event's columns."""
        return self.source.schema

    def feature(self, name: str) -> AggregateFeature | DerivedFeature:
        """The feature of that name, hidden ones included.

        Raises:
            DefinitionError: there is none; with a suggestion.
        """
        try:
            return self._by_name[name]
        except KeyError:
            known = self.feature_names()
            raise DefinitionError(
                f"View '{self.name}' has no feature '{name}'{did_you_mean(name, known)} Its features are: "
                f"{', '.join(known)}."
            ) from None

    def feature_names(self) -> tuple[str, ...]:
        """Names of the public features, in order of definition."""
        return tuple(each.name for each in self.features if not each.hidden)

    @cached_property
    def hidden_names(self) -> frozenset[str]:
        """Names of the features that are computed for others only."""
        return frozenset(each.name for each in self.features if each.hidden)

    @cached_property
    def dtypes(self) -> dict[str, str]:
        """Type of every feature, hidden ones included."""
        return {each.name: each.feature.dtype for each in self.features}

    @cached_property
    def aggregates(self) -> tuple[NamedFeature, ...]:
        """Features that need the engine, hidden ones included."""
        return tuple(each for each in self.features if isinstance(each.feature, AggregateFeature))

    @cached_property
    def derivations(self) -> tuple[NamedFeature, ...]:
        """Derived features, hidden ones included, each after the features it reads."""
        waiting = [each for each in self.features if isinstance(each.feature, DerivedFeature)]
        known = {each.name for each in self.aggregates}
        ordered: list[NamedFeature] = []
        while waiting:
            ready = [each for each in waiting if known.issuperset(each.feature.inputs)]  # type: ignore[union-attr]
            ordered += ready
            known.update(each.name for each in ready)
            waiting = [each for each in waiting if each not in ready]
            if not ready:
                raise DefinitionError(
                    f"View '{self.name}': {', '.join(each.name for each in waiting)} are derived in a circle."
                )
        return tuple(ordered)

    @cached_property
    def decaying(self) -> dict[str, int]:
        """Features whose value falls by time alone, with their half-life in microseconds."""
        return {
            each.name: each.feature.agg.half_life_us  # type: ignore[union-attr]
            for each in self.aggregates
            if each.feature.agg.kind == "decayed_sum"  # type: ignore[union-attr]
        }

    @cached_property
    def rederived(self) -> tuple[NamedFeature, ...]:
        """Derived features that a reader computes anew, because an input of theirs decays, in order of evaluation."""
        moving = set(self.decaying)
        found = []
        for each in self.derivations:
            if moving.intersection(each.feature.inputs):  # type: ignore[union-attr]
                moving.add(each.name)
                found.append(each)
        return tuple(found)

    @cached_property
    def stored_names(self) -> tuple[str, ...]:
        """Features that a stored row holds, in order: the public ones, and hidden ones that `rederived` needs."""
        needed = {name for each in self.rederived for name in each.feature.inputs}  # type: ignore[union-attr]
        return tuple(each.name for each in self.features if not each.hidden or each.name in needed)

    @cached_property
    def event_columns(self) -> tuple[str, ...]:
        """Columns of the event that the view reads, entity keys and event time included, in order of declaration."""
        used = {*self.entity.keys, self.schema.time_field}
        for each in self.aggregates:
            feature = each.feature
            assert isinstance(feature, AggregateFeature)
            for expr in (feature.column, feature.where, feature.by):
                used.update(columns_of(expr))
        return tuple(name for name in self.schema.names if name in used)

    def canonical(self) -> tuple[Any, ...]:
        """What the view says, as nested tuples of plain values; where the events come from is no part of it."""
        schema = self.schema
        columns = tuple((name, schema.field(name).dtype) for name in self.event_columns)
        features = tuple((each.name, each.hidden, each.feature.key) for each in self.features)
        entity = (self.entity.name, self.entity.keys)
        event = (schema.name, columns, schema.time_field)
        return ("view 1", self.name, entity, event, features, self.ttl_us, self.log_every_us, self.log)

    def fingerprint(self) -> str:
        """32 hex digits of what the view says: the same in every process, another for any change of a definition.

        It covers name, entity, the event's columns in use, all features, ttl and log, not the source: a view replayed
        from a file and run live from Kafka has one fingerprint.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.blake2b(repr(self.canonical()).encode(), digest_size=16).hexdigest()

    @cached_property
    def _by_name(self) -> dict[str, AggregateFeature | DerivedFeature]:
        return {each.name: each.feature for each in self.features}

    def describe(self) -> str:
        """A table of the features: type, what is computed, over which window, with which error."""
        from headrace.features.describing import describe

        return describe(self)

    def diff(self, other: Any) -> list[str]:
        """What would change if `other` took this view's place, one sentence each; empty when they say the same."""
        from headrace.features.comparing import changes

        return changes(self, definition(other))

    def __getitem__(self, names: Any) -> Any:
        """Features for a service: `view["fare_mean_1h"]`, or several: `view["fare_mean_1h", "pickups_30m"]`."""
        from headrace.features.services import features_of_view

        return features_of_view(self, names)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, ViewDefinition) and self.canonical() == other.canonical()

    def __hash__(self) -> int:
        return hash(self._fingerprint)

    def __str__(self) -> str:
        return self.describe()

    def __repr__(self) -> str:
        return (
            f"ViewDefinition('{self.name}', {len(self.feature_names())} features, fingerprint {self._fingerprint[:8]})"
        )


class _Body(dict[str, Any]):
    """The namespace of a view's class body: a feature's name cannot be used twice."""

    def __init__(self, view: str) -> None:
        super().__init__()
        self.view = view

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self and isinstance(self[name], (Feature, FeatureGroup)):
            raise DefinitionError(f"View '{self.view}': feature '{name}' is defined twice. Rename one of them.")
        super().__setitem__(name, value)


class FeatureViewMeta(type):
    """Turns the class statement of a view into its `ViewDefinition`."""

    __view__: ViewDefinition | None

    @classmethod
    def __prepare__(mcls, name: str, bases: tuple[type, ...], /, **_: Any) -> _Body:
        return _Body(name)

    def __new__(
        mcls,
        cls_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        source: Any = None,
        entity: Any = None,
        ttl: str | timedelta | None = None,
        log_every: str | timedelta | None = None,
        log: bool = True,
        name: str | None = None,
        drift: Mapping[str, Any] | None = None,
    ) -> FeatureViewMeta:
        cls = super().__new__(mcls, cls_name, bases, dict(namespace))
        if not any(isinstance(base, FeatureViewMeta) for base in bases):
            cls.__view__ = None
            return cls
        inherited = {
            n: v
            for base in reversed(cls.__mro__[1:])
            for n, v in vars(base).items()
            if isinstance(v, (Feature, FeatureGroup))
        }
        body = {n: v for n, v in namespace.items() if not n.startswith("__")}
        cls.__view__ = define(
            name or snake_case(cls_name),
            source=source,
            entity=entity,
            features={**inherited, **body},
            ttl=ttl,
            log_every=log_every,
            log=log,
            drift=drift,
        )
        return cls

    def __init__(cls, cls_name: str, bases: tuple[type, ...], namespace: dict[str, Any], **_: Any) -> None:
        super().__init__(cls_name, bases, namespace)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise DefinitionError(
            f"{cls.__name__} is a definition and has no objects. Use the class itself: run it, get from it, print it."
        )

    def __getitem__(cls, names: Any) -> Any:
        """Features for a service: `View["fare_mean_1h"]`, or several: `View["fare_mean_1h", "pickups_30m"]`."""
        return definition(cls)[names]

    def __str__(cls) -> str:
        return cls.__view__.describe() if cls.__view__ is not None else super().__repr__()

    def __repr__(cls) -> str:
        return f"<FeatureView {cls.__view__.name}>" if cls.__view__ is not None else super().__repr__()


class FeatureView(metaclass=FeatureViewMeta):
    """Base of feature views: `class DriverActivity(FeatureView, source=rides, entity=driver): ...`.

    Arguments of the class statement:
        source: where its events come from; or a stream of a flow, whose rows are the view's events then.
        entity: whom the features are about; its keys are columns of the event.
        ttl: how old an entity's newest event may be for its values to count ("7d"); by default any age.
        log_every: thin the offline log to one row per entity in this time ("1m"); by default every change.
        log: False for a view without offline log.
        name: its name; by default the class name in snake_case.
        drift: by feature, a drift detector or several that look at its settled values: {"fare_mean": ADWIN()}.

    A feature whose name begins with an underscore is computed and can be used in `derived`, but is not shown.

    Raises:
        DefinitionError: anything wrong with it; the message says what to do.
    """


def define(
    name: str,
    *,
    source: Any,
    entity: Any,
    features: dict[str, Any],
    ttl: str | timedelta | None = None,
    log_every: str | timedelta | None = None,
    log: bool = True,
    drift: Mapping[str, Any] | None = None,
) -> ViewDefinition:
    """A view from its parts, checked; the class statement calls this, and so can a program that makes views.

    Raises:
        DefinitionError: as `FeatureView`.
    """
    shown = f"View '{name}'"
    if not name.isidentifier():
        raise DefinitionError(f"{shown}: its name must be a word of letters, digits and underscores.")
    source = source_given(source)
    if not isinstance(source, Source):
        raise DefinitionError(_argument(shown, "source", source, "source=KafkaSource('rides', Ride)"))
    if not isinstance(entity, Entity):
        raise DefinitionError(_argument(shown, "entity", entity, "entity=Entity('driver', key='driver_id')"))
    schema = source.schema
    _check_keys(shown, schema, entity)
    named = name_features(shown, features, taken={*entity.keys, *ROW_COLUMNS})
    for each in named:
        if isinstance(each.feature, AggregateFeature):
            _check_feature(f"{shown}: feature '{each.name}'", source, each.feature)
    ttl_us, every_us = _span(ttl, f"{shown}: ttl"), _span(log_every, f"{shown}: log_every")
    if every_us is not None and not log:
        raise DefinitionError(f"{shown}: log_every= thins the log that log=False turns off. Drop one of the two.")
    watches = drift_watches(shown, drift or {}, named)
    view = ViewDefinition(name, source, entity, named, ttl_us, every_us, bool(log), watches)
    _ = view.derivations  # finds circles now, not when the view runs
    return view


def definition(view: Any) -> ViewDefinition:
    """The `ViewDefinition` of a view class, or the definition itself.

    Raises:
        DefinitionError: it is neither.
    """
    if isinstance(view, ViewDefinition):
        return view
    found = getattr(view, "__view__", None)
    if isinstance(found, ViewDefinition):
        return found
    raise DefinitionError(
        f"{view!r} is no feature view. Give a class declared as class X(FeatureView, source=..., entity=...)."
    )


def snake_case(name: str) -> str:
    """
    >>> snake_case("DriverActivity"), snake_case("HTTPLoad24h")
    ('driver_activity', 'http_load24h')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _argument(shown: str, name: str, value: Any, example: str) -> str:
    got = "it is missing" if value is None else f"got {value!r}"
    return f"{shown}: {name}=: {got}. Write class ...(FeatureView, ..., {example})."


def _span(value: str | timedelta | None, name: str) -> int | None:
    if value is None:
        return None
    us = duration_us(value, name)
    if us == 0:
        raise DefinitionError(f"{name} must be longer than zero, such as '7d'. Leave it out for no bound.")
    return us


def _check_keys(shown: str, schema: EventSchema, entity: Entity) -> None:
    for key in entity.keys:
        try:
            field = schema.field(key)
        except UnknownColumnError as error:
            raise DefinitionError(f"{shown}: entity '{entity.name}' has the key '{key}': {error}") from None
        if field.dtype not in _KEY_DTYPES:
            raise DefinitionError(
                f"{shown}: entity '{entity.name}': key '{key}' is {field.dtype} in event '{schema.name}'. "
                f"Keys are {', '.join(_KEY_DTYPES)}."
            )


def _check_feature(shown: str, source: Source, feature: AggregateFeature) -> None:
    schema = source.schema
    if feature.agg.ordered and isinstance(feature.window, Session) and source.late == "count":
        raise DefinitionError(
            f"{shown}: {feature.agg} over a session cannot count what comes late: two sessions that a late event joins "
            "would be two objects. Use over=Lifetime(), or leave late='count' out of the source."
        )
    if feature.event != schema.name:
        raise DefinitionError(
            f"{shown} is computed from {feature.event}, but the view's source holds {schema.name}. "
            "A view has one source; put it into a view of its own."
        )
    for expr in (feature.column, feature.where, feature.by):
        for name in columns_of(expr):
            schema.field(name)
