"""Aggregations of the user's own: four plain methods, run by every path of Headrace."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

from headrace.features import dtypes
from headrace.features.aggregations import Aggregation, Position, State
from headrace.features.code import code_key
from headrace.features.errors import DataError, DefinitionError

_PLAIN = (bool, int, float, str, bytes)


class CustomAggregation:
    """Base of an aggregation of your own.

    Give `init`, `update`, `merge`, `finish` and, where the result is no float, `output`. The state must be made of
    None, bool, int (64 bits), float, str, bytes, list and dict, so that it can rest in a snapshot without pickle
    (contract C16).

    - `update(state, value)` gets one present value (never null or NaN): a str, int, float, bool or bytes; an instant
      comes as int microseconds. It may change `state` in place and returns it.
    - `merge(a, b)` joins two states; both are yours to change or return. The result of all updates and merges must
      not depend on their order: events may arrive out of order and windows are put together from tiles.
    - `finish(state)` gives the value, or None for null. A window without inputs is `empty` without asking `finish`.

    Parameters are attributes of the object, best as a frozen dataclass; they are part of the view's fingerprint, as is
    the code of the four methods. A class that refers to `name` keeps that name in stored states when it is renamed.

    >>> class Spread(CustomAggregation):
    ...     def init(self):
    ...         return []
    ...     def update(self, state, value):
    ...         return [min(state[0], value), max(state[1], value)] if state else [value, value]
    ...     def merge(self, a, b):
    ...         return [min(a[0], b[0]), max(a[1], b[1])] if a and b else a or list(b)
    ...     def finish(self, state):
    ...         return state[1] - state[0]
    """

    output: ClassVar[str | type] = float
    """Type of the result: float, int, str, bool, bytes, datetime, or text such as "list<float64>"."""
    empty: ClassVar[Any] = None
    """The value of a window without inputs."""
    takes: ClassVar[tuple[str | type, ...]] = ()
    """Types of column it accepts; () for any."""
    name: ClassVar[str | None] = None
    """Name in fingerprints and tables; the class name unless given."""

    def init(self) -> State:
        raise DefinitionError(f"Aggregation '{type(self).__name__}' has no init(): return the state of no events.")

    def update(self, state: State, value: Any) -> State:
        raise DefinitionError(f"Aggregation '{type(self).__name__}' has no update(state, value): return the new state.")

    def merge(self, a: State, b: State) -> State:
        raise DefinitionError(f"Aggregation '{type(self).__name__}' has no merge(a, b): return the state of both.")

    def finish(self, state: State) -> Any:
        raise DefinitionError(f"Aggregation '{type(self).__name__}' has no finish(state): return the value.")


@dataclass(frozen=True, eq=False)
class Custom(Aggregation):
    """A `CustomAggregation` as an `Aggregation`. State: [inputs, state of the user's].

    Raises:
        DefinitionError: not such an object, a method missing, a state that cannot be stored, an unknown result type.
    """

    user: CustomAggregation
    kind: ClassVar[str] = "custom"

    def __post_init__(self) -> None:
        user = self.user
        if isinstance(user, type) and issubclass(user, CustomAggregation):
            raise DefinitionError(
                f"aggregate({user.__name__}): give an object, not the class: aggregate({user.__name__}())."
            )
        if not isinstance(user, CustomAggregation):
            raise DefinitionError(
                f"aggregate({user!r}): expected a CustomAggregation. Subclass it and give an object of it."
            )
        for method in ("init", "update", "merge", "finish"):
            if getattr(type(user), method) is getattr(CustomAggregation, method):
                raise DefinitionError(
                    f"Aggregation '{self.name}' has no {method}(). It needs init, update, merge and finish."
                )
        self.out_dtype(None)
        for each in user.takes:
            _dtype(each, f"takes of aggregation '{self.name}'")
        try:
            state = user.init()
        except Exception as error:
            raise DefinitionError(
                f"Aggregation '{self.name}': its init() failed with {type(error).__name__}: {error}"
            ) from error
        fault = _not_plain(state)
        if fault:
            raise DefinitionError(
                f"Aggregation '{self.name}': init() returned a state with {fault}, which a snapshot cannot hold. "
                "Build it of None, bool, int, float, str, bytes, list and dict (a set as a dict or sorted "
                "list, a tuple as a list)."
            )

    @property
    def name(self) -> str:
        return self.user.name or type(self.user).__name__

    @property
    def empty(self) -> Any:
        return self.user.empty

    def accepts(self, in_dtype: str | None) -> bool:
        takes = tuple(_dtype(each, self.name) for each in self.user.takes)
        return in_dtype is not None and (not takes or in_dtype in takes)

    def out_dtype(self, in_dtype: str | None) -> str:
        return _dtype(self.user.output, f"output of aggregation '{self.name}'")

    def init(self) -> State:
        return [0, self._run("init", self.user.init)]

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        return [state[0] + 1, self._run("update", self.user.update, state[1], value)]

    def merge(self, a: State, b: State) -> State:
        # A copy: a merge may well return b or share its lists, and an update may change a state in place.
        return [a[0] + b[0], self._run("merge", self.user.merge, a[1], _copied(b[1]))]

    def finish(self, state: State, t_us: int) -> Any:
        if not state[0]:
            return self.empty
        value = self._run("finish", self.user.finish, state[1])
        try:
            return None if value != value else dtypes.coerce(value, self.out_dtype(None), f"aggregation '{self.name}'")
        except DefinitionError as error:
            raise DataError(f"{error} Its finish() returned that; set `output` to the type it returns.") from error

    def is_empty(self, state: State) -> bool:
        return not state[0]

    def encode(self, state: State) -> bytes:
        fault = _not_plain(state[1])
        if fault:
            raise DataError(
                f"Aggregation '{self.name}': its state holds {fault}, which a snapshot cannot hold. "
                "Build it of None, bool, int, float, str, bytes, list and dict."
            )
        return super().encode(state)

    @property
    def key(self) -> tuple[Any, ...]:
        user = self.user
        names = [f.name for f in fields(user)] if is_dataclass(user) else sorted(vars(user))
        parameters = tuple((name, repr(getattr(user, name))) for name in names)
        methods = tuple(code_key(getattr(type(user), each)) for each in ("init", "update", "merge", "finish"))
        return (self.kind, self.name, parameters, methods, self.out_dtype(None), repr(user.empty))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return self.name

    def _run(self, step: str, method: Any, *args: Any) -> Any:
        try:
            return method(*args)
        except Exception as error:
            raise DataError(
                f"Aggregation '{self.name}': its {step}() failed with {type(error).__name__}: {error}"
            ) from error


def _dtype(value: str | type, name: str) -> str:
    if isinstance(value, type) and value in dtypes.OF_PYTHON:
        return dtypes.OF_PYTHON[value]
    if isinstance(value, str) and dtypes.is_known(value):
        return value
    raise DefinitionError(
        f"{name}: {value!r} is no type. Use float, int, str, bool, bytes, datetime or text such as 'list<float64>'."
    )


def _copied(state: Any) -> Any:
    """A state with lists and dicts of its own."""
    if type(state) is list:
        return [_copied(each) for each in state]
    if type(state) is dict:
        return {key: _copied(each) for key, each in state.items()}
    return state


def _not_plain(state: Any) -> str | None:
    """What in a state MessagePack would not give back as it was, or None."""
    if state is None or type(state) in _PLAIN:
        return None
    if type(state) is list:
        return next(filter(None, map(_not_plain, state)), None)
    if type(state) is dict:
        return next(filter(None, (_not_plain(each) for pair in state.items() for each in pair)), None)
    return f"a {type(state).__name__} ({state!r})"
