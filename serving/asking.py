"""From what a model asks for to what stores are asked, and from their rows to the answer. No I/O.

Question = Plan.question(entities, request)     checks keys and request data, makes the asks
FeatureTable = Question.answer(parts, t)        max age, decay, order, features on demand
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from headrace.features import derivation, dtypes
from headrace.features.errors import DataError, DefinitionError
from headrace.features.features import MISSING, DerivedFeature
from headrace.features.naming import NamedFeature
from headrace.features.reading import RowReader, Status, column_of, row_reader
from headrace.features.services import FeatureOf, FeatureService, Request, ServedFeature
from headrace.features.time import format_instant
from headrace.features.views import ViewDefinition
from headrace.serving.table import FeatureTable, Origin, TableColumn
from headrace.serving.vectors import moment_of
from headrace.stores.keys import plain_key
from headrace.stores.layout import RowLayout, row_layout
from headrace.stores.lookups import Ask, FoundRow, Keys
from headrace.stores.online import Clock

Entities: TypeAlias = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]
"""Key column -> n values, or n mappings of key column -> value."""

_TEXT, _WHOLE = {str}, {int}

Part: TypeAlias = "list[FoundRow | None] | Exception"
"""The rows of one view, or why its store failed."""


class OutOfReachError(DataError):
    """The online store cannot tell about that instant: it keeps the newest row of an entity and no other."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewPart:
    """What is asked of one view.

    Attributes:
        reader: of its features that are needed.
    """

    view: ViewDefinition
    layout: RowLayout
    reader: RowReader


class Plan:
    """How a choice of features is answered; made once for each.

    Args:
        features: in the order of answers. on_demand: computed after them, from `inputs` and `request`.
        service: whose features these are, if they are a service's.
    """

    def __init__(
        self,
        shown: str,
        features: tuple[ServedFeature, ...],
        on_demand: tuple[NamedFeature, ...] = (),
        inputs: Mapping[str, FeatureOf] | None = None,
        request: tuple[Request, ...] = (),
        service: FeatureService | None = None,
    ) -> None:
        self.shown, self.on_demand, self.request, self.service = shown, on_demand, request, service
        inputs = inputs or {}
        needed: dict[str, tuple[ViewDefinition, dict[str, None]]] = {}
        for view, name in [
            *((each.view, each.feature) for each in features),
            *((each.view, each.name) for each in inputs.values()),
        ]:
            needed.setdefault(view.name, (view, {}))[1][name] = None
        self.parts = tuple(_part(view, tuple(names)) for view, names in needed.values())
        places: dict[tuple[str, str], int] = {}
        for part in self.parts:
            for name in part.reader.names:
                places[part.view.name, name] = len(places)
        order = [places[each.view.name, each.feature] for each in features]
        self._order = None if order == list(range(len(places))) else order
        self._origin = {part.view.name: at for at, part in enumerate(self.parts)}
        self._inputs = {ref: (places[of.view.name, of.name], of.dtype) for ref, of in inputs.items()}
        self._input_views = sorted({self._origin[of.view.name] for of in inputs.values()})
        self._dtypes = {ref: of.dtype for ref, of in inputs.items()}
        self._dtypes |= {each.name: each.dtype for each in request}
        self._dtypes |= {each.name: each.feature.dtype for each in on_demand}
        stored = tuple(
            TableColumn(each.name, each.dtype, self._origin[each.view.name], _default(each)) for each in features
        )
        made = tuple(
            TableColumn(each.name, each.feature.dtype, len(self.parts), _own_default(each)) for each in on_demand
        )
        self.columns = stored + made
        self._moments = [
            (at, convert) for at, each in enumerate(self.columns) if (convert := moment_of(each.dtype)) is not None
        ]
        self.keys: dict[str, str] = {}
        for part in self.parts:
            for name, dtype in part.layout.keys:
                if self.keys.setdefault(name, dtype) != dtype:
                    raise DefinitionError(
                        f"{shown}: key '{name}' is {self.keys[name]} in one view and {dtype} in '{part.view.name}'. "
                        "Ask for them one after the other."
                    )

    def question(self, entities: Entities, request: Mapping[str, Sequence[Any]] | None) -> Question:
        """The asks for these entities.

        Raises:
            DataError: a key or a column of the request is missing, unknown, of another type or of another length.
        """
        columns, n = self._columns(entities)
        given = self._request(request or {}, n)
        made: dict[tuple[str, ...], Keys] = {}
        asks = []
        for part in self.parts:
            names = part.layout.key_names
            if names not in made:
                made[names] = list(zip(*(columns[name] for name in names), strict=True))
            asks.append(Ask(part.layout, part.reader.stored, made[names]))
        return Question(self, columns, n, given, asks)

    def _columns(self, entities: Entities) -> tuple[dict[str, Sequence[Any]], int]:
        names = self.keys
        if isinstance(entities, Mapping):
            given: Mapping[str, Sequence[Any]] = entities
            if given.keys() != names.keys():
                raise self._wrong_keys(given)
            lengths = [len(values) for values in given.values()]
            n = lengths[0] if lengths else 0
            if lengths.count(n) != len(lengths):
                told = dict(zip(given, lengths, strict=True))
                raise DataError(f"{self.shown}: key columns are of different lengths: {told}. Give each n values.")
        else:
            n = len(entities)
            for row in entities:
                if len(row) != len(names) or row.keys() != names.keys():
                    raise self._wrong_keys(row)
            given = {name: [row[name] for row in entities] for name in names}
        return {name: self._key_column(name, dtype, given[name]) for name, dtype in names.items()}, n

    def _key_column(self, name: str, dtype: str, values: Sequence[Any]) -> Sequence[Any]:
        kinds = set(map(type, values))
        if dtype == dtypes.STRING and kinds == _TEXT:
            return values
        if dtype == dtypes.INT and kinds == _WHOLE and min(values) >= -(2**63) and max(values) < 2**63:
            return values
        view = next(part.view.name for part in self.parts if name in part.layout.key_names)
        return [plain_key(view, name, dtype, value) for value in values]

    def _wrong_keys(self, given: Mapping[str, Any]) -> DataError:
        expected = ", ".join(f"{name} ({dtype})" for name, dtype in self.keys.items())
        return DataError(f"{self.shown}: got the key columns {sorted(given)}, expected exactly {expected}.")

    def _request(self, given: Mapping[str, Sequence[Any]], n: int) -> dict[str, Sequence[Any]]:
        if not given and not self.request:
            return {}
        names = tuple(each.name for each in self.request)
        if given.keys() != set(names):
            raise DataError(
                f"{self.shown}: got the request columns {sorted(given)}, expected exactly "
                f"{', '.join(f'{each.name} ({each.dtype})' for each in self.request) or 'none'}."
            )
        out: dict[str, Sequence[Any]] = {}
        for each in self.request:
            values = given[each.name]
            if len(values) != n:
                raise DataError(
                    f"{self.shown}: the request's '{each.name}' has {len(values)} values for {n} entities. Give one "
                    "for each."
                )
            try:
                out[each.name] = [
                    None if value is None or value != value else dtypes.coerce(value, each.dtype, each.name)
                    for value in values
                ]
            except DefinitionError as error:
                raise DataError(f"{self.shown}: request: {error}") from None
        return out


@dataclass(slots=True, eq=False)  # a frozen one takes twice as long to make
class Question:
    """One call.

    Attributes:
        asks: one for each part of the plan. n: number of entities.
    """

    plan: Plan
    entities: dict[str, Sequence[Any]]
    n: int
    request: dict[str, Sequence[Any]]
    asks: list[Ask]

    def answer(self, found: Sequence[Part], t_us: int, exactly: bool) -> FeatureTable:
        """The answer at t.

        Args:
            found: for each ask its rows, or why its store failed. exactly: t was asked for, so a later row is refused.

        Raises:
            OutOfReachError: with `exactly`, a row is of after t.
        """
        plan = self.plan
        pieces, origins, failures = [], [], {}
        for part, rows in zip(plan.parts, found, strict=True):
            if isinstance(rows, Exception):
                failures[part.view.name] = rows
                none: list[int | None] = [None] * self.n
                origins.append(Origin(part.view.name, [Status.FAILED] * self.n, none, none))
                pieces.append([(None,) * len(part.reader.names)] * self.n)
                continue
            if exactly:
                self._check_reach(part, rows, t_us)
            values, why = part.reader.read(rows, t_us)
            pieces.append(values)
            as_of = [None if row is None else row[1] for row in rows]
            newest = [None if row is None else row[2] for row in rows]
            origins.append(Origin(part.view.name, why, as_of, newest))
        if len(pieces) == 1:
            whole = pieces[0]
        else:
            whole = [sum(some, ()) for some in zip(*pieces, strict=True)] if pieces else [()] * self.n
        order = plan._order
        rows_out = whole if order is None else [tuple([row[at] for at in order]) for row in whole]
        if plan.on_demand:
            origin, made = self._made(whole, origins)
            origins.append(origin)
            rows_out = [row + more for row, more in zip(rows_out, made, strict=True)]
        if plan._moments:
            rows_out = [_shown(row, plan._moments) for row in rows_out]
        return FeatureTable(plan.columns, origins, rows_out, self.entities, t_us, failures)

    def _check_reach(self, part: ViewPart, rows: Sequence[FoundRow | None], t_us: int) -> None:
        for key, row in zip(self.asks[self.plan._origin[part.view.name]].keys, rows, strict=True):
            if row is not None and row[1] > t_us:
                asked = dict(zip(part.layout.key_names, key, strict=True))
                raise out_of_reach(part.view.name, asked, row[1], t_us)

    def _made(
        self, whole: Sequence[tuple[Any, ...]], origins: Sequence[Origin]
    ) -> tuple[Origin, list[tuple[Any, ...]]]:
        """The features on demand. Their event time is that of the oldest row they are computed from."""
        plan, n = self.plan, self.n
        columns = {}
        for ref, (place, dtype) in plan._inputs.items():
            columns[ref] = column_of([row[place] for row in whole], dtype)
        for name, given in self.request.items():
            columns[name] = column_of(list(given), plan._dtypes[name])
        made = derivation.derive(plan.on_demand, columns, plan._dtypes, n)
        plain = []
        for each in plan.on_demand:
            values, valid = made[each.name]
            plain.append([value if ok else None for value, ok in zip(values.tolist(), valid.tolist(), strict=True)])
        of = [origins[at] for at in plan._input_views]
        failed = [at for at in of if at.why is not None and Status.FAILED in at.why]
        if failed:
            none: list[int | None] = [None] * n
            return Origin("", [Status.FAILED] * n, none, none), [(None,) * len(plain)] * n
        times = _oldest([each.event_times_us for each in of], n)
        return Origin("", None, times, _oldest([each.newest_us for each in of], n)), list(zip(*plain, strict=True))


def out_of_reach(view: str, key: Mapping[str, Any], as_of_us: int, t_us: int) -> OutOfReachError:
    """The error of a row that is newer than the instant asked."""
    return OutOfReachError(
        f"View '{view}': {dict(key)} was asked as of {format_instant(t_us)}, but its row in the online store is as of "
        f"{format_instant(as_of_us)} and nothing older is kept there. Ask the log: headrace.materialize.training_set."
    )


def entity_of(key: Mapping[str, Any] | None, keys: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entity that `get` was given, as a mapping or as keywords."""
    if key is not None and keys:
        raise DataError(f"get: the entity is given twice, as {dict(key)} and as {dict(keys)}. Give it once.")
    return keys if key is None else key


def plan_of(service: FeatureService) -> Plan:
    """The plan of a feature service."""
    shown = f"Service '{service.name}' version {service.version}"
    return Plan(shown, service.features, service.on_demand, service.inputs, service.request, service)


def instant_of(clock: Clock | None, asked_us: int | None) -> int:
    """The instant that a lookup is about: the one asked, else now: the wall clock, or where a replay stands.

    Raises:
        OutOfReachError: the instant asked is later than the store's flow has come.
    """
    now = time.time_ns() // 1000 if clock is None or clock.kind == "wall" else clock.us
    if asked_us is None or asked_us <= now or clock is None:
        return now if asked_us is None else asked_us
    if clock.kind == "wall":
        raise OutOfReachError(f"The online store was asked as of {format_instant(asked_us)}, which is in the future.")
    raise OutOfReachError(
        f"The online store was asked as of {format_instant(asked_us)}, but the replay that wrote it stands at "
        f"{format_instant(clock.us)}: what expires after that is not known there. Ask the log: "
        "headrace.materialize.training_set."
    )


def _part(view: ViewDefinition, names: tuple[str, ...]) -> ViewPart:
    return ViewPart(view, row_layout(view), row_reader(view, names))


def _shown(row: tuple[Any, ...], convert: Sequence[tuple[int, Any]]) -> tuple[Any, ...]:
    out = list(row)
    for at, function in convert:
        if out[at] is not None:
            out[at] = function(out[at])
    return tuple(out)


def _default(served: ServedFeature) -> Any:
    found = served.view.feature(served.feature).default
    if found is MISSING or found is None:
        return MISSING
    convert = moment_of(served.dtype)
    return found if convert is None else convert(found)


def _own_default(named: NamedFeature) -> Any:
    assert isinstance(named.feature, DerivedFeature)
    found, convert = named.feature.default, moment_of(named.feature.dtype)
    if found is MISSING or found is None:
        return MISSING
    return found if convert is None else convert(found)


def _oldest(times: Sequence[Sequence[int | None]], n: int) -> list[int | None]:
    if not times:
        return [None] * n
    return [None if None in row else min(row) for row in zip(*times, strict=True)]
