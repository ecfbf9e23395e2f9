"""Folds of states that are Python objects: entries come and leave, and the fold of those that are there is at hand.

A queue of two stacks, as in runs.py, with a short front, because a state may be as large as all that went into it:

    front    the oldest entries, at most FRONT; each has the fold of itself and all after it in the front
    chunks   the others, CHUNK or so together, each with its fold; `_rest` is the fold of all chunks

So an entry that leaves costs a few merges however many there are, nothing is ever subtracted, and beside the entries
themselves only the front, the chunks and two totals are kept. The front takes half of the entries at the most: the
newest, which get the events, are not in it, so that an event is folded three times and not once per entry.
"""

from bisect import bisect_left, bisect_right, insort
from typing import Any

from headrace.features.aggregations import Aggregation

FRONT = 64
CHUNK = 64
_STALE: Any = object()  # in place of a fold that must be made before it is used


class Folds:
    """Entries in the order of their keys, and the fold of their states. Keys are ints or tuples of them."""

    __slots__ = ("_agg", "_chunks", "_first", "_folds", "_front", "_rest", "_states", "_suffixes", "_total")

    def __init__(self, agg: Aggregation) -> None:
        self._agg = agg
        self._states: dict[Any, Any] = {}
        self._front: list[Any] = []  # keys, in order; those before `_first` have left
        self._suffixes: list[Any] = []
        self._first = 0
        self._chunks: list[list[Any]] = []  # keys, in order; none is empty
        self._folds: list[Any] = []
        self._rest: Any = _STALE
        self._total: Any = _STALE

    def __len__(self) -> int:
        return len(self._states)

    def items(self) -> list[tuple[Any, Any]]:
        """Keys and states, in the order of keys."""
        return [(key, self._states[key]) for key in sorted(self._states)]

    def update(self, key: Any, value: Any, te: int, position: int) -> None:
        """Fold an event into the entry `key`, which is made if it is not there."""
        agg = self._agg
        if key not in self._states:
            self.put(key, agg.update(agg.init(), value, te, position))
            return
        self._states[key] = agg.update(self._states[key], value, te, position)
        if self._in_front(key):
            for at in range(self._first, bisect_left(self._front, key, self._first) + 1):
                self._suffixes[at] = agg.update(self._suffixes[at], value, te, position)
        else:
            self._folds[self._chunk_of(key)] = _STALE
            if self._rest is not _STALE:
                self._rest = agg.update(self._rest, value, te, position)
        if self._total is not _STALE:
            self._total = agg.update(self._total, value, te, position)

    def put(self, key: Any, state: Any) -> None:
        """A new entry; its state belongs to the folds from now on."""
        merge = self._agg.merge
        self._states[key] = state
        if self._in_front(key):
            at = bisect_left(self._front, key, self._first)
            suffix = merge(merge(self._agg.init(), state), self._suffixes[at])
            for before in range(self._first, at):
                self._suffixes[before] = merge(self._suffixes[before], state)
            self._front.insert(at, key)
            self._suffixes.insert(at, suffix)
            if len(self._front) - self._first > 2 * FRONT:
                self._turn_back()
        else:
            self._put_behind(key)
            if self._rest is not _STALE:
                self._rest = merge(self._rest, state)
        if self._total is not _STALE:
            self._total = merge(self._total, state)

    def drop_before(self, key: Any) -> None:
        """The entries before `key` leave."""
        while True:
            if self._first < len(self._front):
                if self._front[self._first] >= key:
                    return
                self._leave()
            elif not self._chunks or self._chunks[0][0] >= key:
                return
            elif self._chunks[0][-1] >= key:
                self._turn()
            else:
                for old in self._chunks[0]:
                    del self._states[old]
                del self._chunks[0], self._folds[0]
                self._rest = self._total = _STALE

    def drop_oldest(self) -> None:
        """The oldest entry leaves; there must be one."""
        if self._first == len(self._front):
            self._turn()
        self._leave()

    def total(self) -> Any:
        """The fold of all entries; not to be changed, and good until the next change."""
        if len(self._states) == 1:  # a lifetime's only tile, say: nothing else is kept of it
            (state,) = self._states.values()
            return state
        if self._total is _STALE:
            total = self._agg.init()
            if self._first < len(self._front):
                total = self._agg.merge(total, self._suffixes[self._first])
            if self._chunks:
                total = self._agg.merge(total, self._fold_of_rest())
            self._total = total
        return self._total

    def _in_front(self, key: Any) -> bool:
        return self._first < len(self._front) and bool(key <= self._front[-1])

    def _chunk_of(self, key: Any) -> int:
        return max(0, bisect_right(self._chunks, key, key=_oldest) - 1)

    def _put_behind(self, key: Any) -> None:
        if not self._chunks:
            self._chunks, self._folds = [[key]], [_STALE]
            return
        at = self._chunk_of(key)
        chunk = self._chunks[at]
        insort(chunk, key)
        self._folds[at] = _STALE
        if len(chunk) > 2 * CHUNK:
            self._chunks[at : at + 1] = [chunk[:CHUNK], chunk[CHUNK:]]
            self._folds[at : at + 1] = [_STALE, _STALE]

    def _leave(self) -> None:
        del self._states[self._front[self._first]]
        self._suffixes[self._first] = None
        self._first += 1
        self._total = _STALE

    def _turn(self) -> None:
        """The front is empty: the oldest entries of the first chunk become the next one."""
        chunk = self._chunks[0]
        count = min(FRONT, (len(self._states) + 1) // 2, len(chunk))
        self._front, left = chunk[:count], chunk[count:]
        self._first = 0
        if left:
            self._chunks[0] = left
            self._folds[0] = _STALE
        else:
            del self._chunks[0], self._folds[0]
        self._rest = _STALE
        suffix = self._agg.init()
        suffixes = []
        for key in reversed(self._front):
            suffix = self._agg.merge(self._agg.merge(self._agg.init(), self._states[key]), suffix)
            suffixes.append(suffix)
        self._suffixes = suffixes[::-1]

    def _turn_back(self) -> None:
        """Many late entries have come into the front: begin it anew."""
        self._chunks.insert(0, self._front[self._first :])
        self._folds.insert(0, _STALE)
        self._turn()

    def _fold_of_rest(self) -> Any:
        if self._rest is _STALE:
            rest = self._agg.init()
            for at in range(len(self._chunks) - 1):
                if self._folds[at] is _STALE:
                    self._folds[at] = self._folded(self._agg.init(), self._chunks[at])
                rest = self._agg.merge(rest, self._folds[at])
            # The last chunk gets the events: a fold of its own would be stale at once.
            self._rest = self._folded(rest, self._chunks[-1])
        return self._rest

    def _folded(self, fold: Any, keys: list[Any]) -> Any:
        for key in keys:
            fold = self._agg.merge(fold, self._states[key])
        return fold


def _oldest(chunk: list[Any]) -> Any:
    return chunk[0]
