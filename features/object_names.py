"""Which classes and functions the state of an object may name, and how they are found by their names.

A name is looked up in what the definition holds, among a few plain classes, or in the packages listed here; nothing
else is imported or called (contract C16).
"""

from __future__ import annotations

import collections
import functools
import importlib
import random
import types
from collections.abc import Mapping
from enum import Enum
from statistics import NormalDist
from typing import Any

from headrace.features.errors import DataError

FORMAT = 1
PACKAGES = ("river",)
"""Packages whose classes may be named by state; they are imported for it, by their installed names."""
APART = ("river.datasets", "river.stream", "river.checks", "river.evaluate", "river.compat", "river.conftest")
"""What of them may not: it reads files, asks servers or wraps other libraries, and no learning object holds it."""
BUILTINS: dict[str, type] = {
    f"{each.__module__}.{each.__qualname__}": each
    for each in (
        bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, object, type(None),
        collections.Counter, collections.OrderedDict, collections.defaultdict, collections.deque,
        collections.UserDict, collections.UserList, NormalDist, types.SimpleNamespace, random.Random,
    )
}  # fmt: skip
CONTAINERS = (collections.OrderedDict, collections.defaultdict, dict, list, set, collections.deque)
"""Mutable containers that classes derive from, the more special ones first."""


class ObjectStateError(DataError):
    """An object's state cannot be written or read."""


def installed(package: str) -> str:
    """The version of an installed package; empty where it has none."""
    return str(getattr(importlib.import_module(package), "__version__", ""))


def name_of(value: Any) -> str:
    """The full name of a class or function."""
    return f"{value.__module__}.{value.__qualname__}"


def numbered(name: str, taken: Mapping[str, Any]) -> str:
    number = 2
    while name in taken and f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}" if name in taken else name


def root_of(name: str) -> str:
    return name.partition(".")[0]


def has_own(kind: type, name: str) -> bool:
    """Whether a class has a method of its own where every object has one."""
    return getattr(kind, name, None) is not getattr(object, name, None)


def slot_names(kind: type) -> list[str]:
    found = []
    for each in kind.__mro__:
        own = each.__dict__.get("__slots__", ())
        for name in (own,) if isinstance(own, str) else own:
            if name in ("__dict__", "__weakref__"):
                continue
            private = name.startswith("__") and not name.endswith("__")
            found.append(f"_{each.__name__.lstrip('_')}{name}" if private else name)
    return found


def is_plain_class(kind: type) -> bool:
    """Whether objects of a class are no more than attributes (and perhaps a container): it is written in Python."""
    for each in kind.__mro__:
        if each is object or each in (tuple, Enum) or each in CONTAINERS:
            continue
        if not each.__flags__ & (1 << 9) or "__module__" not in each.__dict__:  # Py_TPFLAGS_HEAPTYPE
            return False
        if each.__basicsize__ > object.__basicsize__ + each.__itemsize__ and not _accounted(each):
            return False
    return True


def _accounted(kind: type) -> bool:
    """Whether a class keeps nothing beside its slots, `__dict__` and what its bases keep."""
    base = kind.__base__
    if base is None:
        return True
    own = kind.__dict__.get("__slots__", ())
    slots = [own] if isinstance(own, str) else [name for name in own if name not in ("__dict__", "__weakref__")]
    words = len(slots) + 2  # a pointer to __dict__ and one to the weak references
    return kind.__basicsize__ <= base.__basicsize__ + 8 * words


@functools.cache
def looked_up(name: str) -> Any:
    """The class, function or method of that name in one of `PACKAGES`, None where there is none.

    Only modules of the package are imported, and only what is defined in them is found: not what they import.
    """
    parts = name.split(".")
    if parts[0] not in PACKAGES or "<locals>" in name or name.startswith(tuple(f"{each}." for each in APART)):
        return None
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            if part.startswith("__") or (isinstance(found, types.ModuleType) and part not in vars(found)):
                return None
            found = getattr(found, part, None)
            if isinstance(found, types.ModuleType):
                return None
        if getattr(found, "__qualname__", None) == ".".join(parts[cut:]):
            return found if root_of(getattr(found, "__module__", None) or "") == parts[0] else None
        return None
    return None


def found_function(name: str) -> Any:
    """A static method of a class of `PACKAGES`, which some objects keep as their strategy."""
    owner, _, last = name.rpartition(".")
    kind = looked_up(owner)
    if not isinstance(kind, type) or not isinstance(vars(kind).get(last), staticmethod):
        return None
    return looked_up(name)
