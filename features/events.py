"""Events: typed rows of a stream, declared as a class whose attributes are its columns.

class Ride(Event):
    driver_id: str
    fare: float
    tip: float | None
    at: EventTime

Ride.fare              a Column, to aggregate or compare
Ride.count(last="1h")  rows
Ride.where(...)        the same columns, of some rows
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from headrace.features import dtypes
from headrace.features.building import aggregate_rows, condition_on
from headrace.features.columns import Column, Expression, Logic
from headrace.features.dtypes import TIMESTAMP
from headrace.features.errors import DefinitionError, UnknownColumnError

if TYPE_CHECKING:
    from headrace.features.methods import WindowOptions

if TYPE_CHECKING:
    EventTime: TypeAlias = Column[datetime]
else:

    class EventTime:
        """Annotation of the column that says when an event happened; an event has exactly one."""


@dataclass(frozen=True)
class Field:
    """One column of an event: its name, type (dtypes.py) and whether it may be null."""

    name: str
    dtype: str
    nullable: bool = False


@dataclass(frozen=True)
class EventSchema:
    """Name and columns of an event.

    Attributes:
        name: the class name.
        fields: its columns in the order of declaration, the time among them.
        time_field: name of the column that holds the event time.
    """

    name: str
    fields: tuple[Field, ...]
    time_field: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    def field(self, name: str) -> Field:
        """The column of that name.

        Raises:
            UnknownColumnError: there is none; with a suggestion.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise UnknownColumnError.of(self.name, name, self.names)

    def __contains__(self, name: object) -> bool:
        return any(field.name == name for field in self.fields)


class EventMeta(type):
    """Reads the annotations of an event class and turns attribute access into columns."""

    __schema__: EventSchema | None

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> EventMeta:
        cls = super().__new__(mcls, name, bases, namespace)
        root = not any(isinstance(base, EventMeta) for base in bases)
        cls.__schema__ = None if root else _schema(cls, namespace)
        return cls

    def __getattr__(cls, name: str) -> Column[Any]:
        schema = cls.__dict__.get("__schema__")
        if schema is None or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        field = schema.field(name)
        return Column(schema.name, field.name, field.dtype, field.nullable)

    def __dir__(cls) -> list[str]:
        return [*super().__dir__(), *(cls.__schema__.names if cls.__schema__ else ())]

    def __repr__(cls) -> str:
        if cls.__schema__ is None:
            return super().__repr__()
        columns = ", ".join(f"{f.name}: {f.dtype}{' | None' if f.nullable else ''}" for f in cls.__schema__.fields)
        return f"{cls.__schema__.name}({columns})"

    def count(cls, **options: Unpack[WindowOptions]) -> Any:
        """How many events; see `WindowOptions`."""
        return aggregate_rows(_of(cls).name, None, options)

    def stateful(
        cls,
        model: Any,
        *,
        x: Any,
        y: Any = None,
        value: Any = None,
        output: str | type | None = None,
        learn_first: bool | None = None,
        classes: Sequence[type] = (),
        **options: Unpack[WindowOptions],
    ) -> Any:
        """What an object tells that learns from an entity's events, one after the other in their order.

        Args:
            model: an object of River's or of your own, or a class or function that makes one without arguments; see
                headrace.features.learners for the methods it is driven by. Every entity gets its own.
            x: what it learns from: columns, or a dict of expressions by name. An event in which one of them is missing
                is not for the object.
            y: the label; an event without it is scored or predicted, and not learned from.
            value: what to take of the object, where that is not plain: the name of a method or attribute, or a
                function of (object, x). Of a drift detector "drifts" (how many there were) or "last_drift".
            output: type of the value, where it is not what the object's kind says: float, str, "map<string,float64>".
            learn_first: whether it learns from an event before it tells its value. Anomaly detectors and models tell
                first (test, then learn), everything else learns first.
            classes: your own classes whose objects it makes only while it learns; those that it holds from the
                beginning are known.
            options: over=Lifetime() or over=Session(gap), where=, default=.

        Raises:
            DefinitionError: nothing that learns, a state that cannot rest in a snapshot, random numbers without a
                seed, a label that is missing or not wanted.
        """
        return _stateful(f"{_of(cls).name}.stateful", _of(cls).name, model, x, y, value, output, learn_first, classes,
                         options)  # fmt: skip

    def where(cls, condition: Any) -> FilteredEvent:
        """The events for which the condition is true (not false, not null)."""
        schema = _of(cls)
        return FilteredEvent(cls, condition_on(schema.name, condition, f"{schema.name}.where"))


class Event(metaclass=EventMeta):
    """Base of events. Columns are annotated str, int, float, bool, bytes, datetime, or one of them `| None`.

    Exactly one column is annotated `EventTime`.

    For type checkers, which take `Ride.fare` for a float, a column may be annotated `fare: Column[float]` instead.

    An object of the class is one event, for tests and Python sources: `Ride(driver_id="7", fare=3.5, at=...)`. Its
    columns are its attributes, and `vars(ride)` is the row.

    Raises:
        DefinitionError: a type that is no column type, no or several event times, a name that Headrace needs itself.

    >>> class Ride(Event):
    ...     driver_id: str
    ...     fare: float
    ...     at: EventTime
    >>> Ride
    Ride(driver_id: string, fare: float64, at: timestamp)
    >>> Ride.fare > 10
    Ride.fare > 10
    >>> Ride.fair
    Traceback (most recent call last):
    ...
    headrace.features.errors.UnknownColumnError: event 'Ride' has no column 'fair'; did you mean 'fare'? \
Its columns are: driver_id, fare, at.
    """

    def __init__(self, **values: Any) -> None:
        schema = _of(type(self))
        for name in values:
            schema.field(name)
        missing = [f.name for f in schema.fields if f.name not in values and not f.nullable]
        if missing:
            raise DefinitionError(
                f"{schema.name}(...): {', '.join(missing)} is missing. Only columns declared `| None` may be."
            )
        self.__dict__.update({f.name: values.get(f.name) for f in schema.fields})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class FilteredEvent:
    """The events for which a condition is true: `Ride.where(Ride.status == "completed")`.

    It has the event's columns, `count`, and `where` to narrow it further.
    """

    __slots__ = ("_condition", "_event")

    def __init__(self, event: EventMeta, condition: Expression) -> None:
        self._event = event
        self._condition = condition

    def __getattr__(self, name: str) -> Column[Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        field = _of(self._event).field(name)
        return Column(_of(self._event).name, field.name, field.dtype, field.nullable, self._condition)

    def count(self, **options: Unpack[WindowOptions]) -> Any:
        """How many of these events; see `WindowOptions`."""
        return aggregate_rows(_of(self._event).name, self._condition, options)

    def stateful(
        self,
        model: Any,
        *,
        x: Any,
        y: Any = None,
        value: Any = None,
        output: str | type | None = None,
        learn_first: bool | None = None,
        classes: Sequence[type] = (),
        **options: Unpack[WindowOptions],
    ) -> Any:
        """What an object tells that learns from these events; see `Event.stateful`. Take x and y from them too."""
        name = _of(self._event).name
        return _stateful(f"{name}.stateful", name, model, x, y, value, output, learn_first, classes, options)

    def where(self, condition: Any) -> FilteredEvent:
        """Those of these events for which `condition` is true too."""
        name = _of(self._event).name
        return FilteredEvent(self._event, Logic("&", self._condition, condition_on(name, condition, f"{name}.where")))

    def __repr__(self) -> str:
        return f"{_of(self._event).name}.where({self._condition})"


def _stateful(
    call: str, event: str, model: Any, x: Any, y: Any, value: Any, output: Any, learn_first: bool | None,
    classes: Sequence[type], options: Mapping[str, Any],
) -> Any:  # fmt: skip
    from headrace.features.building import learn_row
    from headrace.features.stateful import stateful

    row, made = stateful(call, event, model, x, y, value=value, output=output, learn_first=learn_first, classes=classes)
    return learn_row(row, made, options, call)


def schema_of(event: Any) -> EventSchema:
    """The schema of an event class.

    Raises:
        DefinitionError: it is no event class.
    """
    if isinstance(event, FilteredEvent):
        raise DefinitionError(
            f"{event!r} is a filtered event. Give the event itself, and filter each feature with where=."
        )
    if not isinstance(event, EventMeta):
        raise DefinitionError(f"{event!r} is no event. Declare one: class Ride(Event): ...")
    return _of(event)


def _of(event: Any) -> EventSchema:
    schema: EventSchema | None = event.__schema__
    if schema is None:
        raise DefinitionError("Event itself has no columns. Declare an event: class Ride(Event): ...")
    return schema


def _schema(cls: type, namespace: dict[str, Any]) -> EventSchema:
    fields: dict[str, Field] = {}
    time_fields: list[str] = []
    for base in reversed(cls.__mro__[1:]):
        inherited = base.__dict__.get("__schema__")
        if inherited is not None:
            fields.update({field.name: field for field in inherited.fields})
            time_fields = [inherited.time_field]
    own = _annotations(cls)
    for name in namespace:
        if not name.startswith("__") and name not in own and not callable(namespace[name]):
            raise DefinitionError(
                f"Event '{cls.__name__}': '{name}' has no type. Write `{name}: float` (columns have no values)."
            )
    for name, annotation in own.items():
        _check_name(cls.__name__, name, namespace)
        if annotation is EventTime:
            time_fields = [*(each for each in time_fields if each not in fields or each in own), name]
            fields[name] = Field(name, TIMESTAMP)
        else:
            fields[name] = _field(cls.__name__, name, annotation)
    if len(time_fields) != 1:
        found = f"has {len(time_fields)} event times ({', '.join(time_fields)})" if time_fields else "has no event time"
        raise DefinitionError(
            f"Event '{cls.__name__}' {found}. Annotate exactly one column with EventTime, such as `at: EventTime`."
        )
    return EventSchema(cls.__name__, tuple(fields.values()), time_fields[0])


def _annotations(cls: type) -> dict[str, Any]:
    """The class's own annotations, those written as text (`from __future__ import annotations`) resolved."""
    import inspect
    import sys

    module = vars(sys.modules.get(cls.__module__, types.ModuleType("none")))
    known = {"EventTime": EventTime, "datetime": datetime, "Column": Column, "Optional": typing.Optional}
    resolved = {}
    for name, annotation in inspect.get_annotations(cls).items():
        if isinstance(annotation, str):
            try:
                # In a function the author's names are out of sight; the words of columns resolve all the same.
                annotation = eval(annotation, {**known, **module})
            except Exception:
                raise DefinitionError(
                    f"Event '{cls.__name__}': the type of '{name}', {annotation!r}, is unknown.{_TYPES}"
                ) from None
        resolved[name] = annotation
    return resolved


_TYPES = " Use str, int, float, bool, bytes, datetime, one of them `| None`, or EventTime."


def _check_name(event: str, name: str, namespace: dict[str, Any]) -> None:
    if name.startswith("_"):
        raise DefinitionError(
            f"Event '{event}': column '{name}' begins with an underscore, which Headrace keeps for itself. Rename it."
        )
    if hasattr(EventMeta, name) or hasattr(object, name):
        raise DefinitionError(
            f"Event '{event}': column '{name}' has a name that events use themselves ({event}.{name}(...)). "
            "Rename the column; "
            f"a source can still read the file's '{name}' with columns={{...}}."
        )
    if name in ("event_timestamp", "newest_event"):
        raise DefinitionError(
            f"Event '{event}': column '{name}' has the name of a column that every feature row has. Rename it."
        )
    if name in namespace:
        raise DefinitionError(
            f"Event '{event}': column '{name}' has a value. Declare it by its type alone, `{name}: float`."
        )


def _field(event: str, name: str, annotation: Any) -> Field:
    nullable = False
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        options = [each for each in typing.get_args(annotation) if each is not type(None)]
        nullable = len(options) < len(typing.get_args(annotation))
        if len(options) != 1:
            raise DefinitionError(f"Event '{event}': column '{name}' has several types ({annotation}).{_TYPES}")
        annotation = options[0]
    if annotation is EventTime:
        raise DefinitionError(f"Event '{event}': the event time '{name}' cannot be null. Write `{name}: EventTime`.")
    if typing.get_origin(annotation) is Column:
        inner = typing.get_args(annotation)[0]
        return _field(event, name, inner | None if nullable else inner)
    dtype = dtypes.OF_PYTHON.get(annotation) if isinstance(annotation, type) else None
    if dtype is None:
        shown = getattr(annotation, "__name__", annotation)
        raise DefinitionError(
            f"Event '{event}': column '{name}' has the type {shown}, which is no column type.{_TYPES}"
        )
    return Field(name, dtype, nullable)
