"""An object made anew from its state, without calling what the state names; see headrace.features.object_state."""

from __future__ import annotations

import collections
import functools
import random
import types
from collections.abc import Callable
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
    installed,
    looked_up,
    name_of,
)

if TYPE_CHECKING:
    from headrace.features.object_state import Known


def parts_of(data: bytes) -> list[Any]:
    import msgspec

    try:
        parts = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ObjectStateError(f"The state of an object is damaged: {error}. Restore an earlier checkpoint.") from error
    if not isinstance(parts, list) or not parts or parts[0] != FORMAT or len(parts) != 5:
        got = parts[0] if isinstance(parts, list) and parts else parts
        raise ObjectStateError(
            f"The state of an object has format {got!r:.40}, expected {FORMAT}. Use the version that wrote it."
        )
    return parts


class Reader:
    """One object read: first every mutable thing is made empty, then all are filled."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._nodes: list[Any] = []
        self._shapes: list[tuple[type, list[str]]] = []
        self._made: dict[int, Any] = {}
        self._making: set[int] = set()
        self._full: set[int] = set()

    def read(self, data: bytes) -> Any:
        _, packages, shapes, self._nodes, root = parts_of(data)
        if not isinstance(packages, dict) or not isinstance(shapes, list) or not isinstance(self._nodes, list):
            raise ObjectStateError("The state of an object is damaged. Restore an earlier checkpoint.")
        for package, version in packages.items():
            if package not in PACKAGES:
                raise ObjectStateError(f"The state names the package '{package}', which it may not. Do not trust it.")
            here = installed(package)
            if here != version:
                raise ObjectStateError(
                    f"The state was written with {package} {version}, and {here} is installed, whose objects may hold "
                    f"other things. Install {package}=={version}, or begin the feature anew (--on-change)."
                )
        try:
            self._shapes = [(self._class(name), [str(each) for each in attributes]) for name, attributes in shapes]
            for number, node in enumerate(self._nodes):
                if node[0] in _SHELLS:
                    self._made[number] = _SHELLS[node[0]](self, node)
            # Attributes first: what is put into sets and dicts may be told apart by them.
            for number, node in enumerate(self._nodes):
                if node[0] == "object":
                    self._attributes(self._made[number], node)
            for told in (False, True):  # what takes its state by a method of its own comes last
                for number, node in enumerate(self._nodes):
                    if node[0] in _FILLS and (node[0] == "told") == told:
                        self._fill(number)
            return self._value(root)
        except ObjectStateError:
            raise
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # River's compiled part may panic, which is no Exception
            raise ObjectStateError(
                f"The state of an object is damaged ({type(error).__name__}: {error}). Restore an earlier checkpoint."
            ) from error

    def _value(self, value: Any) -> Any:
        if type(value) is not list:
            return value
        (number,) = value
        if number in self._made:
            return self._made[number]
        if number in self._making:
            raise ObjectStateError("The state of an object is damaged: a tuple holds itself.")
        self._making.add(number)
        node = self._nodes[number]
        made = self._made[number] = _MAKERS[node[0]](self, *node[1:])
        return made

    def filled(self, value: Any) -> Any:
        """As `_value`, and the lists and dicts in it have all that is in them already."""
        if type(value) is list:
            (number,) = value
            node = self._nodes[number]
            if node[0] in ("list", "dict", "tuple", "set") and number not in self._full:
                for each in node[1]:
                    self.filled(each)
                if node[0] != "tuple":
                    self._fill(number)
        return self._value(value)

    def _fill(self, number: int) -> None:
        if number not in self._full:
            self._full.add(number)
            node = self._nodes[number]
            _FILLS[node[0]](self, self._made[number], node)

    def _all(self, values: Any) -> list[Any]:
        made = self._made
        return [
            each if type(each) is not list else made[each[0]] if each[0] in made else self._value(each)
            for each in values
        ]

    def _class(self, name: str) -> type:
        found = BUILTINS.get(name) or self._known.classes.get(name) or looked_up(name)
        if not isinstance(found, type):
            raise ObjectStateError(
                f"The state names the class {name}, which the definition does not have. "
                "Set the definition back, or begin the feature anew (--on-change)."
            )
        return found

    def _function(self, name: str) -> Any:
        found = self._known.functions.get(name) or found_function(name)
        if found is None:
            raise ObjectStateError(
                f"The state names the function {name}, which the definition does not have. "
                "Set the definition back, or begin the feature anew (--on-change)."
            )
        return found

    def _method(self, owner: Any, name: str) -> Any:
        owner = self._value(owner)
        kind = owner if isinstance(owner, type) else type(owner)
        found = getattr(kind, name, None)
        function = getattr(found, "__func__", found)
        if f"{self._known.called(kind)}.{name}" not in self._known.methods or not isinstance(
            function, types.FunctionType
        ):
            raise ObjectStateError(
                f"The state names the method {name} of {name_of(kind)}, which the definition does not hold. "
                "Set the definition back, or begin the feature anew (--on-change)."
            )
        return types.MethodType(function, owner)

    def _shell(self, node: Any) -> Any:
        """An empty object of a shape."""
        kind = self._shapes[node[1]][0]
        if len(node) == 3:
            return kind.__new__(kind)
        base = next(each for each in CONTAINERS if each.__name__ == node[3])
        if not issubclass(kind, base):
            raise ObjectStateError(f"The state of a {name_of(kind)} is damaged: it is no {node[3]}.")
        made = base.__new__(kind)
        if base is collections.deque:
            collections.deque.__init__(made, (), node[5])
        elif base is not collections.defaultdict:
            base.__init__(made)
        return made

    def _attributes(self, made: Any, node: Any) -> None:
        kind, names = self._shapes[node[1]]
        slots = _slots_of(kind)
        held = getattr(made, "__dict__", None)
        if held is not None and not slots:
            held.update(zip(names, self._all(node[2]), strict=True))
            return
        for name, value in zip(names, self._all(node[2]), strict=True):
            if name in slots:
                slots[name].__set__(made, value)
            elif held is not None:
                held[name] = value
            else:
                raise ObjectStateError(f"The state of a {name_of(kind)} has {name!r}, which the class does not.")

    def _content(self, made: Any, node: Any) -> None:
        if len(node) == 3:
            return
        base = next(each for each in CONTAINERS if each.__name__ == node[3])
        if base is collections.defaultdict:
            collections.defaultdict.__init__(made, self._value(node[5]))
        _put(base, made, self._all(node[4]))

    def _told(self, made: Any, node: Any) -> None:
        made.__setstate__(self.filled(node[2]))

    def _new(self, node: Any) -> Any:
        kind = self._class(node[1])
        if node[1] not in self._known.classes:
            raise ObjectStateError(f"The state of a {node[1]} is damaged: it is of another kind.")
        made: Any = object.__new__(kind)
        return made


def _put(base: type, made: Any, items: list[Any]) -> None:
    """Items into a container, by the base's own way."""
    if issubclass(base, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            base.__setitem__(made, key, value)
    elif base is set:
        set.update(made, items)
    else:
        base.extend(made, items)  # type: ignore[attr-defined]


@functools.cache
def _slots_of(kind: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in kind.__mro__:
        for name, member in vars(each).items():
            if isinstance(member, types.MemberDescriptorType):
                found.setdefault(name, member)
    return found


_SHELLS: dict[str, Callable[[Reader, Any], Any]] = {
    "list": lambda r, node: [],
    "dict": lambda r, node: {},
    "set": lambda r, node: set(),
    "object": Reader._shell,
    "told": Reader._new,
}
_FILLS: dict[str, Callable[[Reader, Any, Any], None]] = {
    "list": lambda r, made, node: made.extend(r._all(node[1])),
    "dict": lambda r, made, node: _put(dict, made, r._all(node[1])),
    "set": lambda r, made, node: made.update(r._all(node[1])),
    "object": Reader._content,
    "told": Reader._told,
}


def _make_random(reader: Reader, version: int, inner: bytes, gauss: float | None) -> random.Random:
    made = random.Random(0)
    numbers = tuple(int.from_bytes(inner[at : at + 4], "little") for at in range(0, len(inner), 4))
    made.setstate((version, numbers, gauss))
    return made


def _make_array(reader: Reader, dtype: str, shape: list[int], order: Any, data: bytes) -> Any:
    import numpy as np

    return np.frombuffer(data, dtype=_plain_dtype(dtype)).reshape(shape, order=order).copy(order=order)


def _make_objects(reader: Reader, shape: list[int], values: list[Any]) -> Any:
    import numpy as np

    made = np.empty(len(values), dtype=object)
    made[:] = reader._all(values)
    return made.reshape(shape)


def _make_scalar(reader: Reader, dtype: str, data: bytes) -> Any:
    import numpy as np

    return np.frombuffer(data, dtype=_plain_dtype(dtype))[0]


def _plain_dtype(text: str) -> Any:
    import numpy as np

    found = np.dtype(text)
    if found.hasobject:
        raise ObjectStateError("The state of an object is damaged: an array of bytes cannot hold objects.")
    return found


def _make_randomstate(reader: Reader, state: Any) -> Any:
    import numpy as np

    made = np.random.RandomState(0)
    made.set_state(reader.filled(state))
    return made


def _make_generator(reader: Reader, state: Any) -> Any:
    import numpy as np

    told = reader.filled(state)
    kinds = {each.__name__: each for each in (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM,
                                              np.random.Philox, np.random.SFC64)}  # fmt: skip
    bits = kinds[told["bit_generator"]]()
    bits.state = told
    return np.random.Generator(bits)


def _make_compiled(reader: Reader, name: str, made_with: Any, state: bytes | None) -> Any:
    kind: Any = reader._class(name)
    if not kind.__module__.startswith("river._river_rust"):
        raise ObjectStateError(f"The state of a {name} is damaged: it is no compiled class.")
    made = kind.__new__(kind, *reader.filled(made_with))
    if state is not None:
        made.__setstate__(state)
    return made


def _make_named(reader: Reader, name: str, values: list[Any]) -> Any:
    kind = reader._class(name)
    return tuple.__new__(kind, reader._all(values))


def _make_enum(reader: Reader, name: str, member: str) -> Any:
    kind: Any = reader._class(name)
    if not issubclass(kind, Enum):
        raise ObjectStateError(f"The state of a {name} is damaged: it is no Enum.")
    return kind.__members__[member]


def _make_partial(reader: Reader, function: Any, args: int, keywords: list[str], held: list[Any]) -> Any:
    values = reader._all(held)
    return functools.partial(reader._value(function), *values[:args], **dict(zip(keywords, values[args:], strict=True)))


def _dtype(text: str) -> Any:
    import numpy as np

    return np.dtype(text)


_MAKERS: dict[str, Callable[..., Any]] = {
    "int": lambda r, text: int(text, 16),
    "complex": lambda r, real, imag: complex(real, imag),
    "tuple": lambda r, values: tuple(r._all(values)),
    "frozenset": lambda r, values: frozenset(r._all(values)),
    "range": lambda r, start, stop, step: range(start, stop, step),
    "slice": lambda r, values: slice(*r._all(values)),
    "datetime": lambda r, text, fold: datetime.fromisoformat(text).replace(fold=fold),
    "date": lambda r, text: date.fromisoformat(text),
    "timedelta": lambda r, days, seconds, us: timedelta(days, seconds, us),
    "timezone": lambda r, us: timezone(timedelta(microseconds=us)),
    "decimal": lambda r, text: Decimal(text),
    "fraction": lambda r, top, bottom: Fraction(int(top), int(bottom)),
    "class": lambda r, name: r._class(name),
    "function": lambda r, name: r._function(name),
    "method": Reader._method,
    "enum": _make_enum,
    "named": _make_named,
    "partial": _make_partial,
    "random": _make_random,
    "array": _make_array,
    "objects": _make_objects,
    "scalar": _make_scalar,
    "dtype": lambda r, text: _dtype(text),
    "randomstate": _make_randomstate,
    "generator": _make_generator,
    "compiled": _make_compiled,
}
