"""Windows over aggregations whose state is a Python object: lists, sets, sketches, maps, the user's own.

The kernels keep the time of these windows and say at which instants a row is due; this module keeps the states and
answers for one slot at one instant. It takes the windows from the formulas of contract C2 directly, and the fold of
the tiles that the formula names from folds.py.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from headrace.features.aggregations import Aggregation
from headrace.features.windows import Hopping, LastN, Lifetime, Session, Sliding, Tumbling, Window
from headrace.flows.folds import Folds

Event = tuple[int, int, Any]  # event time, source position, value
FEW = 32  # so many updates cost no more than the merges that a longer window needs for an event


class ObjectWindow:
    """One entity's windows for one feature: events in, value at an instant out. Instants never go back."""

    def __init__(self, agg: Aggregation, window: Window) -> None:
        self._agg = agg
        self._contents = _contents(agg, window)
        self._delay = window.ending_us
        self._waiting: list[Event] = []

    def add(self, te: int, position: int, value: Any, effective: int) -> None:
        """An event the feature takes; `value` is None where its column is missing, which counts for the window only."""
        entered = effective - self._delay
        if te > entered:
            insort(self._waiting, (te, position, value), key=_place)
        else:
            self._contents.add(te, position, value, entered)

    def at(self, instant: int, steady: int) -> Any:
        """The aggregation's state of the window asked at `instant`. Before `steady` no event can come any more."""
        local = instant - self._delay
        if self._waiting:
            due = bisect_left(self._waiting, (local + 1,), key=_time)
            for te, position, value in self._waiting[:due]:
                self._contents.add(te, position, value, te)
            del self._waiting[:due]
        return self._contents.at(local, steady - self._delay)

    def save(self) -> list[Any]:
        """State as MessagePack types."""
        return [[list(e) for e in self._waiting], self._contents.save()]

    def load(self, saved: list[Any]) -> None:
        """Take over what `save` gave."""
        self._waiting = [(te, position, value) for te, position, value in saved[0]]
        self._contents.load(saved[1])


def _place(event: Event) -> tuple[int, int]:
    return event[0], event[1]


def _time(event: Event) -> tuple[int]:
    return (event[0],)


class _Tiles:
    """States per tile, and the fold of the tiles that the window covers."""

    def __init__(self, agg: Aggregation, hop: int, covered: Callable[[int], tuple[int, int | None]]) -> None:
        self._agg = agg
        self._hop = hop
        self._covered = covered  # local time -> first tile covered, first tile not covered any more (None: all newer)
        self._folds = Folds(agg)
        self._ahead: dict[int, Any] = {}  # tiles that the window does not cover yet
        self._bounds: tuple[int, int | None] | None = None

    def add(self, te: int, position: int, value: Any, entered: int) -> None:
        if value is None:
            return
        k = (te - 1) // self._hop if self._hop else 0
        if self._bounds is None or not _before(k, self._bounds[1]):
            state = self._ahead[k] if k in self._ahead else self._agg.init()
            self._ahead[k] = self._agg.update(state, value, te, position)
        elif k >= self._bounds[0]:
            self._folds.update(k, value, te, position)

    def at(self, local: int, steady: int) -> Any:
        bounds = self._covered(local)
        if bounds != self._bounds:
            self._bounds = bounds
            self._folds.drop_before(bounds[0])
            if self._ahead:
                for k in sorted(k for k in self._ahead if _before(k, bounds[1])):
                    state = self._ahead.pop(k)
                    if k >= bounds[0]:
                        self._folds.put(k, state)
        return self._folds.total()

    def save(self) -> Any:
        return [[k, self._agg.encode(state)] for k, state in (*self._folds.items(), *sorted(self._ahead.items()))]

    def load(self, saved: Any) -> None:
        self._folds = Folds(self._agg)
        self._ahead = {k: self._agg.decode(data) for k, data in saved}
        self._bounds = None


def _before(k: int, end: int | None) -> bool:
    return end is None or k < end


class _Newest:
    """The n newest events, few enough to be folded for every question."""

    def __init__(self, agg: Aggregation, n: int) -> None:
        self._agg = agg
        self._n = n
        self._events: list[Event] = []

    def add(self, te: int, position: int, value: Any, entered: int) -> None:
        insort(self._events, (te, position, value), key=_place)
        if len(self._events) > self._n:
            del self._events[0]

    def at(self, local: int, steady: int) -> Any:
        state = self._agg.init()
        for te, position, value in self._events:
            if value is not None:
                state = self._agg.update(state, value, te, position)
        return state

    def save(self) -> Any:
        return [list(e) for e in self._events]

    def load(self, saved: Any) -> None:
        self._events = [(te, position, value) for te, position, value in saved]


class _NewestOfMany:
    """The n newest events, folded."""

    def __init__(self, agg: Aggregation, n: int) -> None:
        self._agg = agg
        self._n = n
        self._folds = Folds(agg)

    def add(self, te: int, position: int, value: Any, entered: int) -> None:
        state = self._agg.init()
        if value is not None:
            state = self._agg.update(state, value, te, position)
        self._folds.put((te, position), state)
        if len(self._folds) > self._n:
            self._folds.drop_oldest()

    def at(self, local: int, steady: int) -> Any:
        return self._folds.total()

    def save(self) -> Any:
        return [[*place, self._agg.encode(state)] for place, state in self._folds.items()]

    def load(self, saved: Any) -> None:
        self._folds = Folds(self._agg)
        for te, position, data in saved:
            self._folds.put((te, position), self._agg.decode(data))


class _Chains:
    """Session segments [first instant, last instant, state], in time order; the newest is the one that may be open."""

    def __init__(self, agg: Aggregation, gap: int) -> None:
        self._agg = agg
        self._gap = gap
        self._segments: list[list[Any]] = []

    def add(self, te: int, position: int, value: Any, entered: int) -> None:
        state = self._agg.init()
        if value is not None:
            state = self._agg.update(state, value, te, position)
        joined = [te, te, state]
        apart = []
        for first, last, other in self._segments:
            if te - last < self._gap and first - te < self._gap and last + self._gap > entered:
                joined = [min(joined[0], first), max(joined[1], last), self._agg.merge(joined[2], other)]
            else:
                apart.append([first, last, other])
        self._segments = sorted([*apart, joined], key=lambda segment: int(segment[0]))

    def at(self, local: int, steady: int) -> Any:
        over = min(local, steady)
        self._segments = [s for s in self._segments if s[1] + self._gap > over]
        if self._segments and self._segments[-1][1] + self._gap > local:
            return self._segments[-1][2]
        return self._agg.init()

    def save(self) -> Any:
        return [[first, last, self._agg.encode(state)] for first, last, state in self._segments]

    def load(self, saved: Any) -> None:
        self._segments = [[first, last, self._agg.decode(data)] for first, last, data in saved]


def _contents(agg: Aggregation, window: Window) -> _Tiles | _Newest | _NewestOfMany | _Chains:
    if isinstance(window, LastN):
        return _Newest(agg, window.n) if window.n <= FEW else _NewestOfMany(agg, window.n)
    if isinstance(window, Session):
        return _Chains(agg, window.gap_us)
    if isinstance(window, Lifetime):
        return _Tiles(agg, 0, lambda local: (0, None))
    if isinstance(window, Sliding):
        width, hop = window.width_us, window.hop_us
        return _Tiles(agg, hop, lambda local: ((local - width) // hop, None))
    if isinstance(window, Tumbling) and window.current:
        width = window.width_us
        return _Tiles(agg, width, lambda local: (local // width, None))
    if isinstance(window, Hopping):
        width, hop = window.width_us, window.hop_us
    else:
        width = hop = window.width_us
    return _Tiles(agg, hop, lambda local: (local // hop - width // hop, local // hop))


class ObjectFeature:
    """All entities' windows of one object feature, by slot."""

    def __init__(self, agg: Aggregation, window: Window, default: Any, has_default: bool) -> None:
        self._agg = agg
        self._window = window
        self._default = default
        self._has_default = has_default
        # Readers carry a decayed sum on by time, so the same number later is another value.
        self._decays = agg.kind == "decayed_sum"
        self._windows: dict[int, ObjectWindow] = {}
        self._last: dict[int, Any] = {}

    def add(self, slot: int, te: int, position: int, value: Any, effective: int) -> None:
        """An event of `slot` that the feature takes, effective from that instant."""
        window = self._windows.get(slot)
        if window is None:
            window = self._windows[slot] = ObjectWindow(self._agg, self._window)
        window.add(te, position, value, effective)

    def value(self, slot: int, instant: int, steady: int) -> Any:
        """The feature's value for `slot` at `instant`."""
        window = self._windows.get(slot)
        state = self._agg.init() if window is None else window.at(instant, steady)
        if self._agg.is_empty(state):
            return self._default if self._has_default else self._agg.empty
        value = self._agg.finish(state, instant - self._window.ending_us)
        return self._default if value is None and self._has_default else value

    def changed(self, slot: int, value: Any) -> bool:
        """Whether `value` differs from the last one given here for `slot`."""
        # The order of a map means something, so maps are compared as pairs: as lists, which is how a snapshot gives
        # them.
        seen = [list(pair) for pair in value.items()] if isinstance(value, dict) else value
        if slot in self._last and self._last[slot] == seen and not (seen and self._decays):
            return False
        self._last[slot] = seen
        return True

    def keep(self, slots: Iterable[int]) -> None:
        """Keep only these slots, which take the numbers 0, 1, ... in the order given."""
        kept = list(slots)
        self._windows = {new: self._windows[old] for new, old in enumerate(kept) if old in self._windows}
        self._last = {new: self._last[old] for new, old in enumerate(kept) if old in self._last}

    def copy(self, slots: Iterable[int]) -> "ObjectFeature":
        """The same state of the slots in memory of its own."""
        made = ObjectFeature(self._agg, self._window, self._default, self._has_default)
        made.load(*self.save(slots))
        return made

    def followed(self) -> "ObjectFeature":
        """One that goes on from the same state, see ordered_objects.py; others do so on their own."""
        return self.copy(range(1 + max((*self._windows, *self._last), default=-1)))

    def save(self, slots: Iterable[int]) -> tuple[list[bytes], list[bytes]]:
        """MessagePack of the slots' windows and of their last values; nothing where there are none."""
        encode = msgspec.msgpack.encode
        chosen = list(slots)
        windows, last = self._windows, self._last
        return (
            [encode(windows[slot].save()) if slot in windows else b"" for slot in chosen],
            [encode(last[slot]) if slot in last else b"" for slot in chosen],
        )

    def load(self, windows: Sequence[bytes], last: Sequence[bytes]) -> None:
        """Take over what `save` gave of slots 0, 1, ..."""
        self._windows = {}
        for slot, data in enumerate(windows):
            if data:
                window = self._windows[slot] = ObjectWindow(self._agg, self._window)
                window.load(msgspec.msgpack.decode(data, strict=False))
        self._last = {slot: msgspec.msgpack.decode(data, strict=False) for slot, data in enumerate(last) if data}
