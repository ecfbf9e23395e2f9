"""An object's state written: each thing it holds once, as plain data; see headrace.features.object_state."""

from __future__ import annotations

import collections
import functools
import random
import types
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from headrace.features.object_names import (
    BUILTINS,
    CONTAINERS,
    FORMAT,
    PACKAGES,
    ObjectStateError,
    found_function,
    has_own,
    installed,
    is_plain_class,
    looked_up,
    name_of,
    numbered,
    root_of,
    slot_names,
)

if TYPE_CHECKING:
    from headrace.features.object_state import Known

_INT64 = range(-(2**63), 2**63)


class Writer:
    """One object written. `collecting`: classes and functions that are not known yet become known."""

    def __init__(self, known: Known, collecting: bool = False) -> None:
        self._known = known
        self._collecting = collecting
        self._names = {id(each): name for named in (known.functions, known.classes) for name, each in named.items()}
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # keeps what is made on the way alive, so that no id is used twice
        self._waiting: collections.deque[tuple[int, Any, int, str]] = collections.deque()
        self._places: dict[int, tuple[int, str]] = {}  # number -> number of its owner, step
        self._nodes: list[Any] = []
        self._shapes: dict[tuple[Any, ...], int] = {}
        self._shape_list: list[Any] = []
        self._packages: dict[str, str] = {}
        self._views: list[tuple[int, Any]] = []

    def write(self, value: Any) -> bytes:
        import msgspec

        root = self._value(value, -1, "")
        while self._waiting:
            number, each, _, _ = self._waiting.popleft()
            self._nodes[number] = self._node(number, each)
        for number, base in self._views:
            if id(base) in self._numbers:
                raise self._refused(number, "an array that looks into another array it holds", "Keep a copy instead.")
        if self._collecting:
            return b""
        try:
            return msgspec.msgpack.encode([FORMAT, self._packages, self._shape_list, self._nodes, root])
        except UnicodeEncodeError as error:
            raise ObjectStateError(f"The state holds text that is no UTF-8 ({error.object!r}). Clean it.") from error

    def _value(self, value: Any, owner: int, step: Any) -> Any:
        kind = type(value)
        if kind is float or kind is str or kind is bool or value is None or kind is bytes:
            return value
        if kind is int and value in _INT64:
            return value
        known = self._numbers.get(id(value))
        if known is None:
            known = self._numbers[id(value)] = len(self._nodes)
            self._kept.append(value)
            self._nodes.append(None)
            self._places[known] = (owner, step)
            self._waiting.append((known, value, owner, step))
        return [known]

    def _values(self, number: int, values: Iterable[Any]) -> list[Any]:
        return [self._value(each, number, f"[{at}]") for at, each in enumerate(values)]

    def _pairs(self, number: int, pairs: Iterable[tuple[Any, Any]]) -> list[Any]:
        out = []
        for key, each in pairs:
            out.append(self._value(key, number, " (a key)"))
            out.append(self._value(each, number, f"[{key!r:.40}]"))
        return out

    def _node(self, number: int, value: Any) -> list[Any]:
        kind = type(value)
        writer = _WRITERS.get(kind)
        if writer is not None:
            return writer(self, number, value)
        if isinstance(value, type):
            return ["class", self._class(number, value)]
        if isinstance(value, types.MethodType):
            return self._method(number, value)
        if callable(value) and isinstance(value, (types.FunctionType, types.BuiltinFunctionType,
                                                  types.MethodDescriptorType)):  # fmt: skip
            return ["function", self._function(number, value)]
        if isinstance(value, Enum):
            return ["enum", self._class(number, kind), value.name]
        numpy = _numpy_node(self, number, value)
        if numpy is not None:
            return numpy
        return self._object(number, value)

    def _object(self, number: int, value: Any) -> list[Any]:
        kind = type(value)
        name = self._class(number, kind)
        if issubclass(kind, tuple):
            return ["named", name, self._values(number, value)]
        if kind.__module__.startswith("river._river_rust"):
            return self._compiled(number, value, name)
        if hasattr(kind, "__setstate__") and has_own(kind, "__getstate__") and name in self._known.classes:
            return ["told", name, self._value(value.__getstate__(), number, ".__getstate__()")]
        attributes = dict(getattr(value, "__dict__", ()))
        for slot in slot_names(kind):
            try:
                attributes[slot] = getattr(value, slot)
            except AttributeError:
                continue
        shape = (name, *attributes)
        at = self._shapes.get(shape)
        if at is None:
            at = self._shapes[shape] = len(self._shape_list)
            self._shape_list.append([name, list(attributes)])
        held = [self._value(each, number, f".{name}") for name, each in attributes.items()]
        base = next((each for each in CONTAINERS if issubclass(kind, each)), None)
        return ["object", at, held] if base is None else ["object", at, held, *self._content(number, value, base)]

    def _content(self, number: int, value: Any, base: type) -> list[Any]:
        """Of an object that is a container too: the kind, its items and what it was made with."""
        if issubclass(base, dict):
            made_with = value.default_factory if base is collections.defaultdict else None
            pairs = self._pairs(number, dict.items(value))
            return [base.__name__, pairs, self._value(made_with, number, ".default_factory")]
        made_with = value.maxlen if base is collections.deque else None
        return [base.__name__, self._values(number, base.__iter__(value)), made_with]  # type: ignore[attr-defined]

    def _compiled(self, number: int, value: Any, name: str) -> list[Any]:
        """An object of River's compiled part, which tells its state as bytes, or as the arguments that make it."""
        if hasattr(value, "__setstate__"):
            made_with = value.__getnewargs__() if hasattr(value, "__getnewargs__") else ()
            return ["compiled", name, self._value(made_with, number, "()"), value.__getstate__()]
        made_of = value.__reduce__()
        if made_of[0] is type(value) and len(made_of) == 2:
            return ["compiled", name, self._value(made_of[1], number, "()"), None]
        raise self._refused(number, f"a {name}", "")

    def _class(self, number: int, kind: type) -> str:
        name = self._names.get(id(kind)) or name_of(kind)
        if name.startswith(".") or BUILTINS.get(name) is kind:
            return name
        root = root_of(name)
        if root in PACKAGES and "<locals>" not in name and looked_up(name) is kind:
            self._packages[root] = installed(root)
            return name
        if self._collecting and is_plain_class(kind):
            self._names[id(kind)] = self._known.learn(kind)
            return self._names[id(kind)]
        why = "Keep it out of the object, or make it of plain values."
        if is_plain_class(kind):
            why = f"It came while learning: name the class, stateful(..., classes=[{kind.__name__}])."
        raise self._refused(number, f"a {name}", why)

    def _function(self, number: int, function: Any) -> str:
        known = self._names.get(id(function))
        if known is not None:
            return known
        name = f"{getattr(function, '__module__', None) or 'builtins'}.{function.__qualname__}"
        if root_of(name) in PACKAGES and found_function(name) is function:
            return name
        if not self._collecting:
            raise self._refused(number, f"the function {name}", "State knows the functions that the definition holds.")
        known = self._names[id(function)] = numbered(f".{function.__qualname__}", self._known.functions)
        self._known.functions[known] = function
        return known

    def _method(self, number: int, method: types.MethodType) -> list[Any]:
        owner = method.__self__
        kind = owner if isinstance(owner, type) else type(owner)
        name = method.__func__.__name__
        if getattr(getattr(kind, name, None), "__func__", getattr(kind, name, None)) is not method.__func__:
            raise self._refused(number, f"the method {method.__qualname__}", "Keep the object, not its method.")
        told = f"{self._class(number, kind)}.{name}"
        if self._collecting:
            self._known.methods.add(told)
        elif told not in self._known.methods:
            raise self._refused(number, f"the method {told}", "State knows the methods that the definition holds.")
        return ["method", self._value(owner, number, ".__self__"), name]

    def _refused(self, number: int, what: str, why: str) -> ObjectStateError:
        steps: list[str] = []
        while number >= 0:
            number, step = self._places[number]
            steps.append(step)
        return ObjectStateError(
            f"{'object' + ''.join(reversed(steps))} is {what}, which state cannot hold. {why}".rstrip()
        )


def _in_order(values: Any) -> list[Any]:
    """The members of a set of plain values in an order that does not depend on the process."""
    members = list(values)
    plain = all(type(each) in (bool, int, float, str, bytes) or each is None for each in members)
    return sorted(members, key=lambda each: (type(each).__name__, repr(each))) if plain else members


def _write_partial(writer: Writer, number: int, value: Any) -> list[Any]:
    held = writer._values(number, (*value.args, *value.keywords.values()))
    return ["partial", writer._value(value.func, number, ".func"), len(value.args), list(value.keywords), held]


def _write_random(writer: Writer, number: int, value: random.Random) -> list[Any]:
    version, inner, gauss = value.getstate()
    return ["random", version, b"".join(each.to_bytes(4, "little") for each in inner), gauss]


def _write_instant(writer: Writer, number: int, value: datetime) -> list[Any]:
    if value.tzinfo is not None and type(value.tzinfo) is not timezone:
        raise writer._refused(number, f"an instant in {value.tzinfo}", "Keep it in UTC.")
    return ["datetime", value.isoformat(), value.fold]


_WRITERS: dict[type, Callable[[Writer, int, Any], list[Any]]] = {
    int: lambda w, n, v: ["int", hex(v)],
    complex: lambda w, n, v: ["complex", v.real, v.imag],
    list: lambda w, n, v: ["list", w._values(n, v)],
    tuple: lambda w, n, v: ["tuple", w._values(n, v)],
    set: lambda w, n, v: ["set", w._values(n, _in_order(v))],
    frozenset: lambda w, n, v: ["frozenset", w._values(n, _in_order(v))],
    dict: lambda w, n, v: ["dict", w._pairs(n, v.items())],
    range: lambda w, n, v: ["range", v.start, v.stop, v.step],
    slice: lambda w, n, v: ["slice", w._values(n, (v.start, v.stop, v.step))],
    functools.partial: _write_partial,
    random.Random: _write_random,
    datetime: _write_instant,
    date: lambda w, n, v: ["date", v.isoformat()],
    timedelta: lambda w, n, v: ["timedelta", v.days, v.seconds, v.microseconds],
    timezone: lambda w, n, v: ["timezone", int(v.utcoffset(None).total_seconds() * 1_000_000)],
    Decimal: lambda w, n, v: ["decimal", str(v)],
    Fraction: lambda w, n, v: ["fraction", str(v.numerator), str(v.denominator)],
}


def _numpy_node(writer: Writer, number: int, value: Any) -> list[Any] | None:
    if root_of(type(value).__module__) != "numpy":
        return None
    import numpy as np

    if isinstance(value, np.generic):
        if value.dtype.hasobject or value.dtype.names:
            raise writer._refused(number, f"a {type(value).__name__}", "Keep plain numbers.")
        return ["scalar", value.dtype.str, value.tobytes()]
    if type(value) is np.ndarray:
        if isinstance(value.base, np.ndarray):
            writer._views.append((number, value.base))
        if value.dtype.names:
            raise writer._refused(number, f"an array of {value.dtype}", "Keep one array per column.")
        if value.dtype.hasobject:
            return ["objects", list(value.shape), writer._values(number, value.ravel().tolist())]
        order: Any = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        return ["array", value.dtype.str, list(value.shape), order, value.tobytes(order)]
    if type(value) is np.random.RandomState:
        state: Any = value.get_state(legacy=False)
        return ["randomstate", writer._value(state, number, ".get_state()")]
    if type(value) is np.random.Generator:
        return ["generator", writer._value(value.bit_generator.state, number, ".bit_generator.state")]
    if isinstance(value, np.dtype) and not value.names:
        return ["dtype", value.str]
    if isinstance(value, np.ufunc):
        return ["function", writer._function(number, value)]
    return None
