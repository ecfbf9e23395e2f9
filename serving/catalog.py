"""What a client knows by name, views and feature services, and the plans of what it was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from headrace.features.errors import DefinitionError, did_you_mean
from headrace.features.services import FeatureOf, FeatureService, served_features
from headrace.features.views import ViewDefinition, definition
from headrace.serving.asking import Plan, plan_of
from headrace.serving.single import SingleView

Known: TypeAlias = Any
"""A view (class or definition) or a feature service."""

_MOST_PLANS = 1000
_TEXT = {str}


class Catalog:
    """Views and services by name. A service makes its views known, too. Thread-safe.

    Attributes:
        views: by name. services: by name.

    Raises:
        DefinitionError: two different views or services of one name.
    """

    def __init__(self, known: Known | Iterable[Known] = ()) -> None:
        self.views: dict[str, ViewDefinition] = {}
        self.services: dict[str, FeatureService] = {}
        self._plans: dict[Any, Plan] = {}
        self._singles: dict[Any, SingleView] = {}
        single = hasattr(known, "__view__") or isinstance(known, (ViewDefinition, FeatureService))
        for each in [known] if single else known:
            if isinstance(each, FeatureService):
                if self.services.setdefault(each.name, each) != each:
                    raise DefinitionError(f"Two different services are called '{each.name}'. Rename one of them.")
                self._add(each.views)
            else:
                self._add([definition(each)])

    def _add(self, views: Iterable[ViewDefinition]) -> None:
        for view in views:
            if self.views.setdefault(view.name, view) != view:
                raise DefinitionError(f"Two different views are called '{view.name}'. Rename one of them.")

    def view(self, name: str) -> ViewDefinition:
        """The view of that name. Raises DefinitionError when there is none."""
        if name not in self.views:
            raise DefinitionError(f"No view is named '{name}'{_instead(name, self.views)}")
        return self.views[name]

    def single(self, view: Any) -> SingleView:
        """A view, given as class, definition or name, for lookups of all its features."""
        found = self._singles.get(view)
        if found is None:
            named = self.view(view) if isinstance(view, str) else definition(view)
            found = self._singles[view] = SingleView(named)
        return found

    def service(self, name: str) -> FeatureService:
        """The service of that name. Raises DefinitionError when there is none."""
        if name not in self.services:
            raise DefinitionError(f"No feature service is named '{name}'{_instead(name, self.services)}")
        return self.services[name]

    def plan(self, asked: Any, full_names: bool = False) -> Plan:
        """How to answer; made once for each choice of features. A plan is its own."""
        if isinstance(asked, Plan):
            return asked
        if isinstance(asked, (str, FeatureService)):
            mark: Any = asked
        elif isinstance(asked, (list, tuple)) and set(map(type, asked)) == _TEXT:
            mark = (tuple(asked), full_names)  # the usual case, and many times faster than looking into each
        else:
            mark = (_mark(asked), full_names)
        found = self._plans.get(mark)
        if found is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            found = self._plans[mark] = self._plan(asked, full_names)
        return found

    def _plan(self, asked: Any, full_names: bool) -> Plan:
        if isinstance(asked, str):
            asked = self.service(asked)
        if isinstance(asked, FeatureService):
            return plan_of(asked)
        shown = "A lookup"
        features = served_features(shown, self._features(asked), full_names=full_names)
        if not features:
            raise DefinitionError(f"{shown}: no feature was asked for. Give a service, views or their features.")
        return Plan(shown, features)

    def _features(self, asked: Any) -> Any:
        if isinstance(asked, str):
            name, _, feature = asked.partition(":")
            view = self.view(name)
            return view[feature] if feature else view
        if isinstance(asked, (list, tuple)):
            return [self._features(each) for each in asked]
        return asked


def _mark(asked: Any) -> Any:
    if isinstance(asked, (list, tuple)):
        return tuple([_mark(each) for each in asked])
    return asked.key if isinstance(asked, FeatureOf) else asked


def _instead(name: str, known: Mapping[str, Any]) -> str:
    names = tuple(known)
    return (
        f"{did_you_mean(name, names)} This client knows: {', '.join(names) or 'none'}. Give it to "
        "Client(store, [...]), or ask by the class or service itself."
    )
