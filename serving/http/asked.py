"""What a request to `/get-online-features` asks for: its JSON, the choice of features, the entities.

body (bytes) -> Body (parsed) -> Choice (features, found once for each list or service) -> entities, request data
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import Any

import msgspec

from headrace.features import dtypes
from headrace.features.errors import DataError, DefinitionError, did_you_mean
from headrace.features.time import instant_us
from headrace.serving.asking import Plan
from headrace.serving.catalog import Catalog
from headrace.serving.http.feast_wire import Wire
from headrace.serving.http.problems import Problem, unknown, unprocessable
from headrace.serving.http.settings import ServerSettings
from headrace.stores.keys import plain_key

_MOST_CHOICES = 1000
_SHOWN = 50
"""Names that an error lists at most."""


class Body(msgspec.Struct, gc=False):
    """The JSON of a request. Fields that it does not name are passed over: a later Feast client may send some."""

    entities: dict[str, list[Any]]
    features: list[str] | None = None
    feature_service: str | None = None
    full_feature_names: bool = False
    request: dict[str, list[Any]] | None = None
    at: str | None = None
    feast_statuses: bool | None = None
    include_feature_view_version_metadata: bool = False


_decode = msgspec.json.Decoder(Body).decode
_PLACE = re.compile(r" - at `\$\.?(.*)`$")


def parsed(body: bytes) -> Body:
    """Raises Problem: 400 for what is no JSON, 422 for JSON of another form."""
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        found = _PLACE.search(str(error))
        said = str(error)[: found.start()] if found else str(error)
        field = _named(body, found[1]) if found else None
        missing = re.search(r"missing required field `(\w+)`", said)
        if missing:
            field = missing[1]
        raise unprocessable(f"{f'{field}: ' if field else ''}{_plain(said)}", field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem(400, f"The request's body is no JSON: {said}.", reason="malformed") from None


class Choice:
    """A choice of features and how it is answered.

    Attributes:
        plan: of the client. wire: how its answers are written.
    """

    __slots__ = ("_binary", "plan", "request_names", "wire")

    def __init__(self, plan: Plan, wire: Wire) -> None:
        self.plan, self.wire = plan, wire
        self.request_names = frozenset(each.name for each in plan.request)
        self._binary = {name for name, dtype in plan.keys.items() if dtype == dtypes.BYTES}
        self._binary |= {each.name for each in plan.request if each.dtype == dtypes.BYTES}

    def given(self, body: Body, settings: ServerSettings) -> tuple[dict[str, list[Any]], dict[str, list[Any]] | None]:
        """Entities and request data of a request; the latter may stand among the former, as Feast's clients send it.

        Raises:
            Problem: 422 for more entities than the server's limit, a column given twice, or an `at` that is none.
        """
        entities, request = body.entities, body.request
        if body.at is not None:
            try:
                instant_us(body.at, "at")
            except DefinitionError as error:
                raise unprocessable(str(error), "at") from None
        for name, values in entities.items():
            if len(values) > settings.entities:
                raise unprocessable(
                    f"entities.{name} has {len(values):,} values, the server's limit is {settings.entities:,}. Ask for "
                    "fewer entities at a time.",
                    f"entities.{name}",
                    "too_many_entities",
                )
            if len(values) * len(self.plan.columns) > settings.values:
                raise unprocessable(
                    f"{len(values):,} entities times {len(self.plan.columns):,} features are more than the server's "
                    f"limit of {settings.values:,} values. Ask for fewer entities at a time.",
                    f"entities.{name}",
                    "too_many_entities",
                )
        if self.request_names:
            among = self.request_names & entities.keys()
            if among:
                request = {} if request is None else dict(request)
                entities = dict(entities)
                for name in among:
                    if name in request:
                        raise unprocessable(
                            f"'{name}' is given in 'entities' and in 'request'. Give it once.", f"request.{name}"
                        )
                    request[name] = entities.pop(name)
        if self._binary:
            entities = self._decoded("entities", entities)
            request = None if request is None else self._decoded("request", request)
        return entities, request

    def _decoded(self, where: str, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """JSON has no bytes: they come as base64."""
        out = dict(columns)
        for name in self._binary & columns.keys():
            out[name] = [_from_base64(f"{where}.{name}[{at}]", value) for at, value in enumerate(columns[name])]
        return out

    def field(self, entities: dict[str, list[Any]], request: dict[str, list[Any]] | None) -> str | None:
        """The field of a request that the client refused, as a path; None when it cannot be told."""
        keys = self.plan.keys
        if entities.keys() != keys.keys():
            odd = sorted(entities.keys() - keys.keys())
            return f"entities.{odd[0]}" if odd else "entities"
        if len({len(values) for values in entities.values()}) > 1:
            return "entities"
        for name, values in entities.items():
            for at, value in enumerate(values):
                try:
                    plain_key("", name, keys[name], value)
                except DataError:
                    return f"entities.{name}[{at}]"
        given = request or {}
        if given.keys() != self.request_names:
            odd = sorted(given.keys() - self.request_names)
            return f"request.{odd[0]}" if odd else "request"
        for each in self.plan.request:
            for at, value in enumerate(given[each.name]):
                try:
                    dtypes.coerce(value, each.dtype, each.name)
                except DefinitionError:
                    return f"request.{each.name}[{at}]"
        return "request" if given else None


class Choices:
    """The choices of features that requests made, each worked out once; the most recent thousand."""

    def __init__(self, catalog: Catalog, settings: ServerSettings) -> None:
        self._catalog, self._most = catalog, settings.features
        self._known: dict[Any, Choice] = {}

    def of(self, body: Body) -> Choice:
        """The choice of a request.

        Raises:
            Problem: 404 for a service, view or feature that is not served; 422 for none, too many, or one twice.
        """
        mark: Any = body.feature_service or tuple(body.features or ()), body.full_feature_names
        found = self._known.get(mark)
        if found is None:
            found = self._choice(*mark)
            if len(self._known) >= _MOST_CHOICES:
                del self._known[next(iter(self._known))]
            self._known[mark] = found
        return found

    def _choice(self, asked: str | tuple[str, ...], full_names: bool) -> Choice:
        field = "feature_service" if isinstance(asked, str) else "features"
        if isinstance(asked, str):
            if asked not in self._catalog.services:
                raise unknown(_no("feature service", asked, self._catalog.services), field)
        elif not asked:
            raise unprocessable(
                "No feature was asked for. Give 'features', such as [\"view:feature\"], or 'feature_service'.", field
            )
        elif len(asked) > self._most:
            raise self._too_many(len(asked), field)
        else:
            for at, ref in enumerate(asked):
                self._check(ref, f"features[{at}]")
        try:
            plan = self._catalog.plan(asked, full_names)
        except DefinitionError as error:
            raise unprocessable(str(error), field) from None
        if len(plan.columns) > self._most:
            raise self._too_many(len(plan.columns), field)
        names = None
        if full_names and isinstance(asked, str):
            service = self._catalog.services[asked]
            names = [f"{each.view.name}__{each.feature}" for each in service.features]
            names += [each.name for each in service.on_demand]
        return Choice(plan, Wire(plan, names))

    def _check(self, ref: str, field: str) -> None:
        name, colon, feature = ref.partition(":")
        view = self._catalog.views.get(name)
        if view is None:
            raise unknown(_no("view", name, self._catalog.views), field)
        if colon and feature not in view.feature_names():
            raise unknown(_no(f"feature of view '{name}'", feature, view.feature_names()), field)

    def _too_many(self, n: int, field: str) -> Problem:
        return unprocessable(
            f"{n:,} features were asked for, the server's limit is {self._most:,}. Ask for fewer at a time.",
            field,
            "too_many_features",
        )


def _no(kind: str, name: str, known: Any) -> str:
    names = sorted(known)
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return (
        f"No {kind} is named {name[:200]!r}{did_you_mean(name[:200], names)} Served are: "
        f"{', '.join(names[:_SHOWN]) or 'none'}{more}. GET /features lists all with their types."
    )


def _from_base64(where: str, value: Any) -> Any:
    if value is None:
        return None
    try:
        return b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise unprocessable(f"{where} is {str(value)[:100]!r}, expected bytes as base64 text.", where) from None


def _named(body: bytes, place: str) -> str:
    """A place as msgspec tells it (`entities[...]`), with the name of the column in place of the dots."""
    name, dots, rest = place.partition("[...]")
    if not dots:
        return place
    try:
        columns = msgspec.json.decode(body).get(name, {})
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return name
    odd = [key for key, values in columns.items() if not isinstance(values, list)] if isinstance(columns, dict) else []
    return f"{name}.{odd[0]}{rest}" if odd else name


def _plain(said: str) -> str:
    """`Expected `array`, got `int`` in our words."""
    found = re.fullmatch(r"Expected `(.*?)`, got `(.*?)`", said)
    return f"got {found[2]}, expected {found[1]}." if found else f"{said}."
