"""The state of a Python object as bytes, and back, without ever running code that the bytes name (contract C16).

For objects that learn: River's, and those of the user. Nothing of pickle is in it. The bytes hold plain data and names,
and a name is looked up, never followed:

    bytes     = MessagePack [FORMAT, {package: version}, shapes, nodes, root]
    shape     = [class name, names of attributes]         one for all objects with these attributes
    node      = [kind, ...]                                a list, dict, object, array, generator of random numbers, ...
    value     = None | bool | int | float | str | bytes | [number of a node]

An object is made by its class's `__new__` and its attributes are put into it: `__init__`, `__reduce__`, properties and
`__setattr__` are not called. Its class must be one of a package that `Known` lists (River) or one that the definition
itself holds; the same goes for functions. So whoever can write the bytes chooses values, never code. Objects that are
shared, or contain themselves, come back so. What cannot be written (a file, a lock, a function made on the way) is
refused with its place.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from headrace.features.object_names import FORMAT, ObjectStateError, name_of, numbered
from headrace.features.object_reading import Reader, parts_of
from headrace.features.object_writing import Writer

__all__ = ["FORMAT", "Known", "ObjectStateError", "alike", "decode", "encode", "versions"]


@dataclass(frozen=True)
class Known:
    """Which classes and functions state may name, beside those of `PACKAGES` and a few plain ones.

    classes, functions: by the name under which state knows them: a dot and their own name, whatever file or module
    they are in, so that a definition may move. methods: those that objects hold bound, by name.
    """

    classes: dict[str, type] = field(default_factory=dict)
    functions: dict[str, Any] = field(default_factory=dict)
    methods: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, *objects: Any, classes: Iterable[type] = ()) -> Known:
        """What these objects hold.

        Raises:
            ObjectStateError: one of them holds what cannot be written, named with its place.
        """
        made = cls()
        for kind in classes:
            made.learn(kind)
        for each in objects:
            Writer(made, collecting=True).write(each)
        return made

    def learn(self, kind: type) -> str:
        """A class becomes known, if it is not; its name."""
        known = next((name for name, each in self.classes.items() if each is kind), None)
        if known is not None:
            return known
        name = numbered(f".{kind.__qualname__}", self.classes)
        self.classes[name] = kind
        return name

    def called(self, kind: type) -> str:
        """The name under which state knows a class, if it does."""
        return next((name for name, each in self.classes.items() if each is kind), name_of(kind))


def encode(value: Any, known: Known) -> bytes:
    """The state of an object and all it holds.

    Raises:
        ObjectStateError: something in it cannot be written: its place, its type, and what to do.
    """
    with _no_collection():
        return Writer(known).write(value)


def decode(data: bytes, known: Known) -> Any:
    """The object that `encode` wrote, made anew.

    Raises:
        ObjectStateError: damaged, of another version of a package, or it names what `known` does not have.
    """
    with _no_collection():
        return Reader(known).read(data)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Many small objects at once make the garbage collector look through all there are, again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def alike(one: bytes, other: bytes) -> bool:
    """Whether two states are the same, whatever their generators of random numbers would give next."""
    a, b = parts_of(one), parts_of(other)
    if a[:3] != b[:3] or a[4] != b[4] or len(a[3]) != len(b[3]):
        return False
    return all(x == y or x[0] == y[0] == "random" for x, y in zip(a[3], b[3], strict=True))


def versions(data: bytes) -> dict[str, str]:
    """Versions of the packages whose classes the state holds."""
    return dict(parts_of(data)[1])
