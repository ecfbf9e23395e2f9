"""From the body of a view to its named features: groups get labels, and features inside `derived` get hidden names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.features.columns import Expression, FeatureRef, Unnamed, replace_leaves
from headrace.features.errors import DefinitionError, did_you_mean
from headrace.features.events import EventMeta, FilteredEvent
from headrace.features.features import AggregateFeature, Derivation, DerivedFeature, Feature, FeatureGroup


@dataclass(frozen=True, eq=False)
class NamedFeature:
    """A feature of a view under its name; hidden ones are computed for others and not shown."""

    name: str
    feature: AggregateFeature | DerivedFeature
    hidden: bool = False

    def __str__(self) -> str:
        return f"{self.name} = {self.feature}"


def name_features(shown: str, body: Mapping[str, Any], taken: set[str]) -> tuple[NamedFeature, ...]:
    """The features of a view in order of definition, each hidden one before the first that needs it.

    Args:
        shown: the view, for errors.
        body: names and values of the class body.
        taken: names that feature rows use themselves.

    Raises:
        DefinitionError: no feature, a name twice or taken, a value that is no feature, an input that does not exist.
    """
    drafts = _expand(shown, body)
    if not drafts:
        raise DefinitionError(
            f"{shown} has no features. Define at least one, such as rides_1h = Ride.count(last='1h')."
        )
    if all(name.startswith("_") for name in drafts):
        raise DefinitionError(f"{shown} shows no feature: names that begin with an underscore are hidden. Rename one.")
    for name in drafts:
        if name.lstrip("_") in taken or name in taken:
            raise DefinitionError(
                f"{shown}: feature '{name}' has the name of a column of every feature row (key or time). Rename it."
            )
    return _Namer(shown, drafts).run()


def _expand(shown: str, body: Mapping[str, Any]) -> dict[str, AggregateFeature | Derivation]:
    """Names and features, groups taken apart."""
    drafts: dict[str, AggregateFeature | Derivation] = {}
    for name, value in body.items():
        if isinstance(value, FeatureGroup):
            members: Mapping[str, Any] = {f"{name}_{label}": member for label, member in value.members.items()}
        elif isinstance(value, (AggregateFeature, Derivation)):
            members = {name: value}
        elif isinstance(value, Expression):
            raise DefinitionError(
                f"{shown}: '{name}' is the expression {value}. "
                f"To compute it from features write {name} = derived(...); "
                "a column needs an aggregation such as .mean(last='1h')."
            )
        elif isinstance(value, FilteredEvent):
            raise DefinitionError(
                f"{shown}: '{name}' is {value!r}, which is rows. Say what to compute, such as {name}.count(last='1h')."
            )
        elif (
            name.startswith("_")
            or callable(value)
            or isinstance(value, (EventMeta, classmethod, staticmethod, property))
        ):
            if (
                callable(getattr(value, "__func__", value))
                and not name.startswith("_")
                and not isinstance(value, EventMeta)
            ):
                raise DefinitionError(
                    f"{shown}: '{name}' is a function. To compute a feature by it write {name} = "
                    "derived(function, inputs=[...])."
                )
            continue
        else:
            raise DefinitionError(
                f"{shown}: '{name}' is {value!r}, which is no feature. Move constants out of the view."
            )
        for full, member in members.items():
            if full in drafts:
                raise DefinitionError(
                    f"{shown}: two features would be called '{full}' (one from the list of '{name}'). "
                    "Rename one of them."
                )
            drafts[full] = member
    return drafts


class _Namer:
    """Gives names to everything that derived features read. One use per view."""

    def __init__(self, shown: str, drafts: dict[str, AggregateFeature | Derivation]) -> None:
        self.shown = shown
        self.drafts = drafts
        self.by_identity = {id(feature): name for name, feature in reversed(drafts.items())}
        self.by_key = {feature.key: name for name, feature in reversed(drafts.items())}
        self.named: list[NamedFeature] = []
        self.hidden = 0

    def run(self) -> tuple[NamedFeature, ...]:
        for name, feature in self.drafts.items():
            self.hidden = 0
            self.named.append(NamedFeature(name, self._resolved(name, feature), name.startswith("_")))
        return tuple(self.named)

    def _resolved(self, name: str, feature: AggregateFeature | Derivation) -> AggregateFeature | DerivedFeature:
        if isinstance(feature, AggregateFeature):
            return feature
        if feature.fn is not None:
            inputs = tuple(self._input(name, each) for each in feature.operands)
            return DerivedFeature(None, feature.fn, inputs, feature.dtype, feature.default)
        assert feature.expr is not None
        inputs_found: dict[str, None] = {}

        def refer(leaf: Expression) -> Expression:
            if not isinstance(leaf, Unnamed):
                return leaf
            found = self._name_of(name, leaf.feature)
            inputs_found[found] = None
            return FeatureRef(found, leaf.dtype)

        expr = replace_leaves(feature.expr, refer)
        return DerivedFeature(expr, None, tuple(inputs_found), feature.dtype, feature.default)

    def _input(self, name: str, value: Feature | str) -> str:
        if not isinstance(value, str):
            return self._name_of(name, value)
        if value not in self.drafts:
            raise DefinitionError(
                f"{self.shown}: feature '{name}' reads '{value}', which the view does not have"
                f"{did_you_mean(value, self.drafts)} It has: {', '.join(self.drafts)}."
            )
        return value

    def _name_of(self, owner: str, feature: Any) -> str:
        """The name under which a feature is computed: its own, that of an equal one, or a new hidden one."""
        if not isinstance(feature, (AggregateFeature, Derivation)):
            raise DefinitionError(
                f"{self.shown}: feature '{owner}' reads '{feature}'. A view computes from its own features; what needs "
                "those of other views or of the request goes into FeatureService(..., derived={...})."
            )
        known = self.by_identity.get(id(feature)) or self.by_key.get(feature.key)
        if known is not None and known != owner:
            return known
        public_owner = owner
        while True:
            self.hidden += 1
            hidden = f"_{public_owner.lstrip('_')}_{self.hidden}"
            if hidden not in self.drafts and all(each.name != hidden for each in self.named):
                break
        self.by_key[feature.key] = hidden
        self.named.append(NamedFeature(hidden, self._resolved(hidden, feature), True))
        return hidden
