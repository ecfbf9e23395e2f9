"""What a step remembers of its keys, in checkpoints that hold only the keys that have changed since the one before.

A part of such a checkpoint is either everything, or a delta: values of the keys that had a row since, and the names of
those that are forgotten. A chain of parts begins anew when its deltas have grown (`Chain`). Each key's value stands
alone: an object that two keys share is written for each.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy.typing as npt

from headrace.features.object_state import Known, ObjectStateError, decode, encode
from headrace.flows.chain import Chain, Chained, Link
from headrace.flows.snapshot import SnapshotError, pack, seal_of
from headrace.stores.checkpoints import SnapshotPart

SHARE = 0.5
"""Where more keys than this share of them have changed, everything is written."""


class Part(Chained):
    """The meta of a part.

    step: fingerprint of the step. passed: the instant up to which rows have gone on. memory: of `encode`. waiting: rows
    that wait, Arrow IPC.
    """

    step: str
    passed: int
    memory: bytes
    waiting: bytes


class Remembered:
    """values: by key. last: the newest row of each key where keys are forgotten, longest silent first; a key that has
    a row goes to its end.
    """

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self.last: dict[Any, int] = {}
        self._touched: dict[Any, None] = {}
        self._chain = Chain()

    def touch(self, keys: Iterable[Any]) -> None:
        """These keys have rows, or are forgotten: their values may have changed, in whatever way."""
        self._touched.update(dict.fromkeys(keys))

    def part(
        self, step: str, passed: int, waiting: bytes, arrays: Mapping[str, npt.NDArray[Any]], known: Known, full: bool
    ) -> SnapshotPart:
        """The next part of a checkpoint; what is remembered is written at once, and may change then.

        Raises:
            ObjectStateError: something remembered cannot rest in one.
        """
        told = None
        if not full and self._chain.open and len(self._touched) <= SHARE * max(len(self.values), len(self.last)):
            told = encode(self._changes(), known)
        delta = told is not None and self._chain.bears(len(told))
        memory = told if told is not None and delta else encode([self.values, self.last], known)
        self._touched = {}

        def packed(link: Link) -> bytes:
            meta = {"link": link, "step": step, "passed": passed, "memory": memory, "waiting": waiting}
            return pack(meta, arrays)

        return self._chain.add(len(memory), packed, delta=delta)

    def _changes(self) -> list[Any]:
        """[values of changed keys, keys without a value, the end of `last` with all changed keys]."""
        values, last = self.values, self.last
        changed = {key: values[key] for key in self._touched if key in values}
        gone = [key for key in self._touched if key not in values]
        heard = sum(key in last for key in self._touched)
        return [changed, gone, [list(each) for each in islice(reversed(last.items()), heard)][::-1]]

    def resume(self, parts: Sequence[Part], chain: Sequence[bytes], known: Known) -> None:
        """Go on from the parts of a checkpoint, whose bytes are `chain`.

        Raises:
            SnapshotError: what was remembered cannot be read.
        """
        try:
            self.values, self.last = decode(parts[0].memory, known)
            for part in parts[1:]:
                changed, gone, heard = decode(part.memory, known)
                for key in [*changed, *gone]:
                    self.values.pop(key, None)
                    self.last.pop(key, None)
                self.values.update(changed)
                self.last.update(heard)
        except ObjectStateError as error:
            raise SnapshotError(str(error)) from error
        self._touched = {}
        self._chain.resume(seal_of(chain[-1]), [len(part.memory) for part in parts])
