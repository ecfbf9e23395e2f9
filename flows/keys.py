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
FRESH = 1024
"""So many new keys, and a quarter of the others, are made columns of at once."""


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
        self._columns = [pa.array([], type=t) for t in self._types]  # of the keys before `_done`
        self._done = 0
        self._order = np.empty(0, dtype=np.int64)  # with room for more
        self._ordered = 0

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
        if len(slots) <= SMALL:
            return self._arrays([self.keys[slot] for slot in slots.tolist()])
        if len(self.keys) - self._done > max(FRESH, self._done // 4):
            self._complete()
        fresh = slots >= self._done
        if not fresh.any():
            indices = pa.array(slots)
            return [column.take(indices) for column in self._columns]
        old, new = np.flatnonzero(~fresh), np.flatnonzero(fresh)
        place = np.empty(len(slots), dtype=np.int64)
        place[old], place[new] = np.arange(len(old)), np.arange(len(old), len(slots))
        before, back = pa.array(slots[old]), pa.array(place)
        more = self._arrays([self.keys[slot] for slot in slots[new].tolist()])
        return [pa.concat_arrays([c.take(before), m]).take(back) for c, m in zip(self._columns, more, strict=True)]

    def order(self, slots: Ints) -> Ints:
        """(n,) numbers that put keys in an order which depends on the keys alone.

        They are 64 bits of a digest: among a million keys two have one number in one flow of 37 million. Such
        two keep the order in which they were first seen.
        """
        done, known = self._ordered, len(self.keys)
        if done < known:
            digests = b"".join(hashlib.blake2b(repr(key).encode(), digest_size=8).digest() for key in self.keys[done:])
            if known > len(self._order):
                grown = np.empty(max(FRESH, 2 * known), dtype=np.int64)
                grown[:done] = self._order[:done]
                self._order = grown
            self._order[done:known] = np.frombuffer(digests, dtype="<i8")
            self._ordered = known
        return self._order[slots]

    def _complete(self) -> None:
        """Bring the columns up to the keys. It copies them, so it is for a share of new keys, not for each batch's."""
        if self._done < len(self.keys):
            more = self._arrays(self.keys[self._done :])
            self._columns = [pa.concat_arrays([old, its]) for old, its in zip(self._columns, more, strict=True)]
            self._done = len(self.keys)

    def _arrays(self, keys: Sequence[Any]) -> list[pa.Array]:
        """Keys as columns."""
        if len(self.names) == 1:
            return [pa.array(keys, type=self._types[0])]
        parts = zip(*keys, strict=True) if keys else [()] * len(self.names)
        return [pa.array(part, type=t) for part, t in zip(parts, self._types, strict=True)]

    def keep(self, slots: Ints) -> None:
        """Forget every key but those of `slots`, which are renumbered in that order."""
        self._complete()
        columns, order = [column.take(pa.array(slots)) for column in self._columns], self.order(slots)
        keys = self.keys
        self._restart([keys[s] for s in slots.tolist()])
        self._columns, self._done = columns, len(slots)
        self._order, self._ordered = order, len(slots)

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
