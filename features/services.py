"""Feature services: the features that one model asks for, in a declared order, under a name and a version.

    amount = Request("amount", float)

    pricing = FeatureService(
        "pricing",
        [DriverActivity["pickups_30m", "fare_mean_1h"], CityLoad],
        derived={"to_mean": derived(amount / DriverActivity["fare_mean_1h"], default=1.0)},
        version=2,
    )

A service is a contract: a model trained on version 2 goes on asking for version 2. `derived=` are features on demand:
computed when asked, from features of any of the views and from what the caller knows only then (`Request`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headrace.features import dtypes
from headrace.features.columns import Expression, FeatureRef, Unnamed, replace_leaves
from headrace.features.errors import DefinitionError
from headrace.features.features import Derivation, DerivedFeature, Feature
from headrace.features.naming import NamedFeature
from headrace.features.views import ViewDefinition, definition


@dataclass(frozen=True, eq=False)
class FeatureOf(Feature):
    """A feature of a view, for a service: `DriverActivity["fare_mean_1h"]`. Stands in expressions of `derived`."""

    view: ViewDefinition
    name: str

    @property
    def dtype(self) -> str:
        return self.view.dtypes[self.name]

    @property
    def key(self) -> tuple[Any, ...]:
        return ("of", self.view.fingerprint(), self.name)

    def __str__(self) -> str:
        return f"{self.view.name}:{self.name}"


class Request(Feature):
    """A value that whoever asks gives along, such as the amount of the payment that is to be judged.

    Args:
        name: of the column of the request.
        dtype: its type: float, int, str, bool, bytes or datetime, or a name of features/dtypes.py.
    """

    def __init__(self, name: str, dtype: str | type = float) -> None:
        known = dtypes.OF_PYTHON.get(dtype, "") if isinstance(dtype, type) else dtype
        if not name.isidentifier():
            raise DefinitionError(f"Request({name!r}): its name must be a word of letters, digits and underscores.")
        if not dtypes.is_known(known):
            raise DefinitionError(f"Request('{name}'): {dtype!r} is no type. Use float, int, str, bool, ...")
        self.name, self._dtype = name, known

    @property
    def dtype(self) -> str:
        return self._dtype

    @property
    def key(self) -> tuple[Any, ...]:
        return ("request", self.name, self._dtype)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Request({self.name!r}, {self._dtype!r})"


@dataclass(frozen=True)
class ServedFeature:
    """A stored feature as it is served.

    Attributes:
        name: in answers. view: where it comes from. feature: its name there.
    """

    name: str
    view: ViewDefinition
    feature: str

    @property
    def dtype(self) -> str:
        return self.view.dtypes[self.feature]

    @property
    def ref(self) -> str:
        """`view:feature`."""
        return f"{self.view.name}:{self.feature}"


Asked = Any
"""A view (class or definition), `View["feature"]`, `View["one", "other"]`."""


class FeatureService:
    """The features that one model asks for.

    Args:
        name: a word.
        features: views (all their features), `View["feature"]`, `View["one", "other"]`; the order is that of answers.
        derived: features on demand, name -> `derived(...)` over `View["feature"]`, `Request` and earlier ones of them.
        version: of the contract; raise it when features come, go or change their order.
        full_names: name every feature `view__feature`. By default only those of which two views have one.

    Attributes:
        features: the stored features, in order. on_demand: those of `derived`, which follow them. request: what a
        caller must give along.

    Raises:
        DefinitionError: no feature, one twice, a name twice, an operand that is neither stored nor given along.
    """

    def __init__(
        self,
        name: str,
        features: Iterable[Asked] | Asked = (),
        *,
        derived: Mapping[str, Derivation] | None = None,
        version: int = 1,
        full_names: bool = False,
    ) -> None:
        if not name.isidentifier():
            raise DefinitionError(f"Service {name!r}: its name must be a word of letters, digits and underscores.")
        shown = f"Service '{name}'"
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise DefinitionError(f"{shown}: version is {version!r}, expected 1, 2, ...")
        self.name, self.version = name, version
        self.features: tuple[ServedFeature, ...] = served_features(shown, features, full_names=full_names)
        made = _OnDemand(shown, {each.name for each in self.features})
        for each, draft in (derived or {}).items():
            made.add(each, draft)
        self.on_demand: tuple[NamedFeature, ...] = tuple(made.named)
        self.request: tuple[Request, ...] = tuple(made.request.values())
        self.inputs: Mapping[str, FeatureOf] = made.inputs
        if not self.views:
            raise DefinitionError(f"{shown} has no features of views. Give views, or some of theirs: View['feature'].")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all features in the order of answers."""
        return (*(each.name for each in self.features), *(each.name for each in self.on_demand))

    @cached_property
    def dtypes(self) -> dict[str, str]:
        """Type of each feature, by its name in answers."""
        stored = {each.name: each.dtype for each in self.features}
        return stored | {each.name: each.feature.dtype for each in self.on_demand}

    @cached_property
    def views(self) -> tuple[ViewDefinition, ...]:
        """The views that are read, each once."""
        found = [*(each.view for each in self.features), *(each.view for each in self.inputs.values())]
        return tuple({view.name: view for view in found}.values())

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Key columns of all entities that are asked about."""
        return tuple(dict.fromkeys(key for view in self.views for key in view.entity.keys))

    def canonical(self) -> tuple[Any, ...]:
        """What the service says, as nested tuples of plain values."""
        stored = tuple((each.name, each.view.fingerprint(), each.feature) for each in self.features)
        inputs = tuple((ref, each.key) for ref, each in sorted(self.inputs.items()))
        made = tuple((each.name, each.feature.key) for each in self.on_demand)
        return ("service 1", self.name, self.version, stored, inputs, made)

    def fingerprint(self) -> str:
        """32 hex digits of what the service says: another for any change of a feature it serves."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.blake2b(repr(self.canonical()).encode(), digest_size=16).hexdigest()

    def describe(self) -> str:
        """A table of the features: name, type, where each comes from."""
        lines = [f"{self.name} version {self.version}, for {', '.join(self.keys) or 'no entity'}"]
        if self.request:
            lines[0] += f", given along: {', '.join(f'{each.name} ({each.dtype})' for each in self.request)}"
        rows = [(each.name, each.dtype, each.ref) for each in self.features]
        rows += [(each.name, each.feature.dtype, str(each.feature)) for each in self.on_demand]
        first, second = (max(len(row[at]) for row in rows) for at in (0, 1))
        return "\n".join([*lines, *(f"  {a:{first}}  {b:{second}}  {c}" for a, b, c in rows)])

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, FeatureService) and self._fingerprint == other._fingerprint)

    def __hash__(self) -> int:
        return hash(self._fingerprint)

    def __str__(self) -> str:
        return self.describe()

    def __repr__(self) -> str:
        return f"FeatureService('{self.name}', version={self.version}, {len(self.names)} features)"


def features_of_view(view: ViewDefinition, names: Any) -> Any:
    """`View[names]`: one `FeatureOf` for a name, a tuple of them for several."""
    if isinstance(names, str):
        view.feature(names)
        if names in view.hidden_names:
            raise DefinitionError(f"View '{view.name}': feature '{names}' is hidden. Rename it without underscore.")
        return FeatureOf(view, names)
    return tuple(features_of_view(view, name) for name in names)


def served_features(
    shown: str, asked: Iterable[Asked] | Asked, *, full_names: bool = False
) -> tuple[ServedFeature, ...]:
    """The stored features of what was asked, by name: `feature`, or `view__feature` where two views have one.

    Raises:
        DefinitionError: something else than views and their features; a feature twice; two views of one name.
    """
    found = list(_features(shown, asked))
    views: dict[str, ViewDefinition] = {}
    for each in found:
        if views.setdefault(each.view.name, each.view) != each.view:
            raise DefinitionError(f"{shown}: two different views are called '{each.view.name}'. Rename one of them.")
    seen: dict[str, str] = {}
    several = set()
    for each in found:
        before = seen.setdefault(each.name, each.view.name)
        if before != each.view.name:
            several.add(each.name)
    out: dict[str, ServedFeature] = {}
    for each in found:
        name = f"{each.view.name}__{each.name}" if full_names or each.name in several else each.name
        if name in out:
            raise DefinitionError(f"{shown}: feature '{each}' is asked for twice. Leave one of them out.")
        out[name] = ServedFeature(name, views[each.view.name], each.name)
    return tuple(out.values())


def _features(shown: str, asked: Any) -> Iterable[FeatureOf]:
    if isinstance(asked, FeatureOf):
        yield asked
    elif isinstance(asked, ViewDefinition) or hasattr(asked, "__view__"):
        view = definition(asked)
        yield from (FeatureOf(view, name) for name in view.feature_names())
    elif isinstance(asked, Sequence) and not isinstance(asked, (str, bytes)):
        for each in asked:
            yield from _features(shown, each)
    else:
        raise DefinitionError(
            f"{shown}: {asked!r} is no feature. Give a view, or some of its features: View['feature', 'other']."
        )


class _OnDemand:
    """Collects the features on demand of a service. One use each."""

    def __init__(self, shown: str, taken: set[str]) -> None:
        self.shown, self.taken = shown, taken
        self.named: list[NamedFeature] = []
        self.request: dict[str, Request] = {}
        self.inputs: dict[str, FeatureOf] = {}
        self._drafts: dict[int, str] = {}

    def add(self, name: str, draft: Any) -> None:
        shown = f"{self.shown}: feature '{name}'"
        if not isinstance(draft, Derivation):
            raise DefinitionError(f"{shown} is {draft!r}. Write derived={{'{name}': derived(...)}}.")
        if not name.isidentifier() or name in self.taken or name in self.request:
            raise DefinitionError(f"{shown}: its name is taken, or is no word. Rename it.")
        if draft.fn is not None:
            inputs = tuple(self._ref(shown, each) for each in draft.operands)
            feature = DerivedFeature(None, draft.fn, inputs, draft.dtype, draft.default)
        else:
            assert draft.expr is not None
            read: dict[str, None] = {}

            def refer(leaf: Expression) -> Expression:
                if not isinstance(leaf, Unnamed):
                    return leaf
                ref = self._ref(shown, leaf.feature)
                read[ref] = None
                return FeatureRef(ref, leaf.dtype)

            expr = replace_leaves(draft.expr, refer)
            feature = DerivedFeature(expr, None, tuple(read), draft.dtype, draft.default)
        self.named.append(NamedFeature(name, feature))
        self.taken.add(name)
        self._drafts[id(draft)] = name

    def _ref(self, shown: str, operand: Any) -> str:
        """The name under which an operand is computed with."""
        if isinstance(operand, Request):
            before = self.request.setdefault(operand.name, operand)
            if before.key != operand.key or operand.name in self.taken:
                raise DefinitionError(f"{shown}: '{operand.name}' of the request is of two types or names a feature.")
            return operand.name
        if isinstance(operand, FeatureOf):
            self.inputs.setdefault(str(operand), operand)
            return str(operand)
        if id(operand) in self._drafts:
            return self._drafts[id(operand)]
        raise DefinitionError(
            f"{shown} reads {operand}. On demand a feature is computed from View['feature'], from "
            "Request('name', float) and from earlier ones of the same service."
        )
