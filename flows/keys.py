"""Entities as slot numbers: each key is looked up once per batch, not once per event."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.flows.batch import ARROW_TYPES, EventBatch

Ints = npt.NDArray[np.int64]
FEW = 8
"""Up to this many known keys per different key of a batch, all known keys are searched at once in Arrow."""
SMALL = 128
"""In a batch of so many events each key is looked up: setting Arrow to work takes longer."""


class KeyTable:
    """Keys of one view's entity, numbered 0, 1, ... in the order in which they were first seen.

    names, dtypes: the entity's key columns.
    """

    def __init__(self, names: Sequence[str], dtypes: Sequence[str]) -> None:
        self.names = tuple(names)
        self.dtypes = tuple(dtypes)
        self._types = [ARROW_TYPES[d] for d in dtypes]
        self._restart([])

    def _restart(self, keys: list[Any]) -> None:
        self.keys = keys
        self._slots = {key: slot for slot, key in enumerate(keys)}
        self._columns = [pa.array([], type=t) for t in self._types]
        self._order = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.keys)

    def slots(self, batch: EventBatch) -> Ints:
        """(n,) slot of each event; keys seen for the first time are given the next numbers."""
        if len(batch) <= SMALL:
            columns = [batch.arrow(name).to_pylist() for name in self.names]
            each = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
            get, add = self._slots.get, self.add
            return np.array([add(key) if (slot := get(key)) is None else slot for key in each], dtype=np.int64)
        codes, distinct = self._distinct(batch)
        if isinstance(distinct, pa.Array) and len(self.keys) <= FEW * len(distinct):
            self._complete()
            found = pc.index_in(distinct, value_set=self._columns[0])
            numbers = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
            for at in np.flatnonzero(numbers < 0).tolist():
                numbers[at] = self.add(distinct[at].as_py())
            return numbers[codes]
        keys = distinct.to_pylist() if isinstance(distinct, pa.Array) else distinct
        slots = list(map(self._slots.get, keys))
        if None in slots:
            slots = [self.add(key) if slot is None else slot for key, slot in zip(keys, slots, strict=True)]
        return np.array(slots, dtype=np.int64)[codes]

    def add(self, key: Any) -> int:
        """Give a key that has no slot the next one."""
        slot = self._slots[key] = len(self.keys)
        self.keys.append(key)
        return slot

    def _distinct(self, batch: EventBatch) -> tuple[Ints, pa.Array | list[Any]]:
        """Codes of the events' keys, and the different keys: an array of one key column, tuples of several."""
        codes, array = _dictionary(batch.arrow(self.names[0]))
        if len(self.names) == 1:
            return codes, array
        columns = [array.to_pylist()]
        for name in self.names[1:]:
            more, array = _dictionary(batch.arrow(name))
            words = array.to_pylist()
            # Codes below n * n fit: a batch has far fewer than 2**31 events. Made dense again at every step.
            used, codes = np.unique(codes * len(words) + more, return_inverse=True)
            left, right = np.divmod(used, len(words))
            columns = [[column[i] for i in left] for column in columns] + [[words[i] for i in right]]
        return codes, list(zip(*columns, strict=True))

    def slot(self, key: Any) -> int | None:
        """Slot of a key, if it has one."""
        return self._slots.get(key)

    def columns(self, slots: Ints) -> list[pa.Array]:
        """Key columns of the given slots."""
        self._complete()
        indices = pa.array(slots)
        return [column.take(indices) for column in self._columns]

    def order(self, slots: Ints) -> Ints:
        """(n,) numbers that put keys in an order which depends on the keys alone.

        They are 64 bits of a digest: among a million keys two have one number in one flow of 37 million. Such
        two keep the order in which they were first seen.
        """
        self._complete()
        return self._order[slots]

    def _complete(self) -> None:
        """Bring the columns up to the keys. Amortised: a few new keys are appended to one Arrow array."""
        done = len(self._order)
        if done == len(self.keys):
            return
        new = self.keys[done:]
        parts = [new] if len(self.names) == 1 else list(zip(*new, strict=True))
        arrays = [pa.array(part, type=t) for part, t in zip(parts, self._types, strict=True)]
        self._columns = [pa.concat_arrays([old, more]) for old, more in zip(self._columns, arrays, strict=True)]
        digests = b"".join(hashlib.blake2b(repr(key).encode(), digest_size=8).digest() for key in new)
        self._order = np.concatenate([self._order, np.frombuffer(digests, dtype="<i8").astype(np.int64)])

    def keep(self, slots: Ints) -> None:
        """Forget every key but those of `slots`, which are renumbered in that order."""
        self._complete()
        columns, order = [column.take(pa.array(slots)) for column in self._columns], self._order[slots]
        keys = self.keys
        self._restart([keys[s] for s in slots.tolist()])
        self._columns, self._order = columns, order

    def since(self, slot: int) -> list[Any]:
        """The keys of the slots from `slot` on, in order."""
        return self.keys[slot:]

    def load(self, keys: list[Any]) -> None:
        """The keys of slots 0, 1, ..., as a snapshot has them."""
        self._restart([tuple(key) if isinstance(key, list) else key for key in keys])


def _dictionary(array: pa.Array) -> tuple[Ints, pa.Array]:
    """Codes of the values, and the different values; none is null."""
    coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    return coded.indices.to_numpy(zero_copy_only=False).astype(np.int64, copy=False), coded.dictionary
