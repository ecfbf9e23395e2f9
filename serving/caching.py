"""A local cache of rows: fewer round trips for entities that are asked for again and again, with a stated staleness."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from headrace.features.time import duration_us
from headrace.serving.asking import Part
from headrace.stores.lookups import Ask, FoundRow
from headrace.stores.online import Clock

_Mark = tuple[Any, ...]


class RowCache:
    """Rows that were read lately. A row that comes from here was in the store at most `staleness` ago; its ttl and its
    decay are applied as of now, as for any row. Also that an entity has no row is kept. Thread-safe; of one client.

    Args:
        staleness: how long a row is kept, such as "1s".
        entries: the most rows; those that were not asked for the longest go first.
        now: clock in seconds, for tests.
    """

    def __init__(
        self, staleness: str | timedelta, *, entries: int = 100_000, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.staleness_s = duration_us(staleness, "RowCache: staleness") / 1e6
        self.entries, self._now = entries, now
        self._lock = threading.Lock()
        self._rows: OrderedDict[_Mark, tuple[float, FoundRow | None]] = OrderedDict()
        self._clock: tuple[float, Clock | None] | None = None
        self.hits = self.misses = 0

    def kept(self, asks: Sequence[Ask]) -> CachedLookup:
        """What of these asks is kept, and what is missing."""
        at = self._now()
        oldest = at - self.staleness_s
        rows: list[Part] = []
        missing: list[Ask] = []
        places: list[tuple[int, list[int]]] = []
        shared: dict[tuple[int, tuple[int, ...]], list[tuple[Any, ...]]] = {}
        with self._lock:
            known = self._clock is not None and self._clock[0] > oldest
            clock = self._clock[1] if known and self._clock is not None else None
            for number, ask in enumerate(asks):
                head = (ask.layout.view, ask.layout.identity, ask.features)
                mine: list[FoundRow | None] = []
                absent: list[int] = []
                for place, key in enumerate(ask.keys):
                    found = self._rows.get((*head, key)) if known else None
                    if found is None or found[0] <= oldest:
                        absent.append(place)
                        mine.append(None)
                    else:
                        self._rows.move_to_end((*head, key))
                        mine.append(found[1])
                rows.append(mine)
                self.hits += len(mine) - len(absent)
                self.misses += len(absent)
                if absent:
                    same = (id(ask.keys), tuple(absent))
                    keys = shared.setdefault(same, [ask.keys[place] for place in absent])
                    missing.append(Ask(ask.layout, ask.features, keys))
                    places.append((number, absent))
        return CachedLookup(self, at, clock, rows, missing, places)

    def _keep(self, at: float, clock: Clock | None, ask: Ask, found: Sequence[FoundRow | None]) -> None:
        head = (ask.layout.view, ask.layout.identity, ask.features)
        with self._lock:
            self._clock = at, clock
            for key, row in zip(ask.keys, found, strict=True):
                self._rows[(*head, key)] = at, row
                self._rows.move_to_end((*head, key))
            while len(self._rows) > self.entries:
                self._rows.popitem(last=False)


@dataclass
class CachedLookup:
    """One lookup through a cache.

    Attributes:
        at: before anything was asked, so that a row's age is never told too young. missing: what to ask the store for.
    """

    cache: RowCache
    at: float
    clock: Clock | None
    rows: list[Part]
    missing: list[Ask]
    places: list[tuple[int, list[int]]]

    def take(self, clock: Clock | None, found: Sequence[Part]) -> None:
        """What the store answered to `missing`; a view that failed is not answered from the cache either."""
        self.clock = clock
        for ask, (number, absent), part in zip(self.missing, self.places, found, strict=True):
            mine = self.rows[number]
            if isinstance(part, Exception):
                self.rows[number] = part
                continue
            assert not isinstance(mine, Exception)
            for place, row in zip(absent, part, strict=True):
                mine[place] = row
            self.cache._keep(self.at, clock, ask, part)
