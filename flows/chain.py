"""Snapshots of one thing, one after the other: a full one, then deltas, each naming the one before by its checksum.

So a delta that is put after another part than the one it continues is noticed, as is one that is missing.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.flows.snapshot import SnapshotError, read_meta, seal_of, unpack
from headrace.stores.checkpoints import SnapshotPart

LONGEST = 64
"""A chain is begun anew after so many parts at the latest."""
WORTH = 0.5
"""A chain is begun anew when its deltas have outgrown this share of its full part."""


class Link(msgspec.Struct):
    """number: of the part in its chain, 0 for the full one. before: checksum of the part before."""

    number: int
    before: bytes


class Chained(msgspec.Struct):
    """What the meta of every part of a chain has."""

    link: Link


M = TypeVar("M", bound=Chained)
Decoded = tuple[M, dict[str, npt.NDArray[Any]]]


class Chain:
    """The parts saved so far: whether the next one may be a delta, and what it names.

    base, added: bytes of the full part, and of the deltas since, before compression.
    """

    def __init__(self) -> None:
        self._last: SnapshotPart | None = None
        self._seal = b""
        self._number = -1
        self._base = self._added = 0

    def begin(self) -> None:
        """The next part is a full one."""
        self._number = -1

    @property
    def open(self) -> bool:
        """Whether a delta could follow."""
        return 0 <= self._number < LONGEST - 1

    def bears(self, size: int) -> bool:
        """Whether a delta of about `size` bytes may follow."""
        return self.open and self._added + size <= WORTH * self._base

    def add(self, size: int, pack: Callable[[Link], bytes], *, delta: bool) -> SnapshotPart:
        """The next part, which `pack` makes later."""
        if delta:
            self._number += 1
            self._added += size
        else:
            self._number, self._base, self._added = 0, size, 0
        before = self._last if delta else None
        seal, number = self._seal, self._number

        def packed() -> bytes:
            return pack(Link(number, b"" if not delta else seal if before is None else seal_of(before.data)))

        made = SnapshotPart(packed, delta)
        self._last = made
        return made

    def resume(self, seal: bytes, sizes: Sequence[int]) -> None:
        """Go on after parts that were loaded, of these sizes before compression; `seal` is of the last of them."""
        self._last, self._seal = None, seal
        self._number = len(sizes) - 1
        self._base, self._added = sizes[0], sum(sizes[1:])


def follow(chain: Sequence[bytes], form: type[M], what: str) -> list[Decoded[M]]:
    """Meta and arrays of the parts of a chain.

    Raises:
        SnapshotError: a part is damaged, missing, or does not continue the one before it.
    """
    if not chain:
        raise SnapshotError(f"The checkpoint holds nothing of {what}. Restore an earlier checkpoint.")
    found: list[Decoded[M]] = []
    for at, data in enumerate(chain):
        given, arrays = unpack(data)
        meta = read_meta(given, form, what)
        if meta.link.number != at or (at and meta.link.before != seal_of(chain[at - 1])):
            raise SnapshotError(
                f"Snapshot of {what}: part {at + 1} of {len(chain)} is "
                + (f"delta {meta.link.number}" if meta.link.number else "a full one")
                + ", which does not continue the part before it: a delta is missing or of another chain. Restore an "
                "earlier checkpoint."
            )
        found.append((meta, arrays))
    return found


def size_of(arrays: dict[str, npt.NDArray[Any]]) -> int:
    """Bytes of arrays before compression."""
    return sum(int(np.asarray(array).nbytes) for array in arrays.values())
