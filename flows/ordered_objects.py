"""Stateful features of one reading: an object per entity that gets its events in order, one after the other.

There is one object that has learned from exactly what has settled. The online reading follows it: it keeps the events
that wait, in their order, and a second object that has learned from those too. An event that comes in order is learned
at once; one that comes out of order makes the second object anew, as a copy of the settled one that learns from all
that waits. So both readings give what one object gives that sees all events in order, and only the settled one is in
a snapshot.
"""

from bisect import insort
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from headrace.features.aggregations import Aggregation
from headrace.features.windows import Session, Window
from headrace.flows.objects import ObjectFeature

Key = tuple[int, int, int]  # effective instant, event time, source position
Waiting = tuple[Key, Any]


class Learned:
    """An entity's object. last: its newest event, microseconds. packed: the state as it was saved, until it is used."""

    __slots__ = ("last", "packed", "state")

    def __init__(self, state: Any = None, last: int | None = None, packed: bytes | None = None) -> None:
        self.state = state
        self.last = last
        self.packed = packed


class OrderedFeature(ObjectFeature):
    """All entities' objects of one stateful feature, by slot.

    Args:
        base: the feature that this one follows: it begins with that one's state, which it never changes.
    """

    def __init__(
        self, agg: Aggregation, window: Window, default: Any, has_default: bool, base: "OrderedFeature | None" = None
    ) -> None:
        super().__init__(agg, window, default, has_default)
        self._gap = window.gap_us if isinstance(window, Session) else None
        self._base = base
        self._follower: OrderedFeature | None = None
        self._learned: dict[int, Learned] = {}
        self._waiting: dict[int, list[Waiting]] = {}

    def followed(self) -> "OrderedFeature":
        """One that follows this feature while both go on: what is added to one is added to the other later."""
        self._follower = self.copy(())
        return self._follower

    def copy(self, slots: Iterable[int]) -> "OrderedFeature":
        """The same state, to go on apart from this one, which must not change meanwhile."""
        made = OrderedFeature(self._agg, self._window, self._default, self._has_default, self)
        made._last = dict(self._last)
        return made

    def add(self, slot: int, te: int, position: int, value: Any, effective: int) -> None:
        """An event of `slot` that the feature takes; `value` is None where something of it is missing."""
        key = effective, te, position
        if self._base is None:
            learned = self._learned.get(slot)
            if learned is None:
                learned = self._learned[slot] = Learned()
            self._learn(learned, key, value)
            if self._follower is not None:
                self._follower._has_settled(slot, key)
            return
        waiting = self._waiting.setdefault(slot, [])
        if waiting and key < waiting[-1][0]:
            insort(waiting, (key, value), key=_key)
            self._learned.pop(slot, None)
            return
        waiting.append((key, value))
        if slot in self._learned:
            self._learn(self._learned[slot], key, value)

    def value(self, slot: int, instant: int, steady: int) -> Any:
        """The feature's value for `slot` at `instant`."""
        learned = self._now(slot)
        if learned is not None and self._closed(learned, instant):
            if self._base is None or slot not in self._waiting:
                self._learned.pop(slot, None)
            learned = None
        state = None if learned is None else self._opened(learned).state
        if state is None or self._agg.is_empty(state):
            return self._default if self._has_default else self._agg.empty
        value = self._agg.finish(state, instant)
        return self._default if value is None and self._has_default else value

    def keep(self, slots: Iterable[int]) -> None:
        """Keep only these slots, which take the numbers 0, 1, ... in the order given."""
        kept = list(slots)
        super().keep(kept)
        self._learned = {new: self._learned[old] for new, old in enumerate(kept) if old in self._learned}
        self._waiting = {new: self._waiting[old] for new, old in enumerate(kept) if old in self._waiting}

    def save(self, slots: Iterable[int]) -> tuple[list[bytes], list[bytes]]:
        """MessagePack of the slots' objects and of their last values; nothing where there are none."""
        chosen = list(slots)
        _, last = super().save(chosen)
        return [self._packed(self._now(slot)) for slot in chosen], last

    def load(self, windows: Sequence[bytes], last: Sequence[bytes]) -> None:
        """Take over what `save` gave of slots 0, 1, ..."""
        super().load([], last)
        self._learned = {slot: Learned(packed=data) for slot, data in enumerate(windows) if data}
        self._waiting = {}

    def _now(self, slot: int) -> Learned | None:
        """What the object of a slot has come to, all that waits included."""
        if self._base is None:
            return self._learned.get(slot)
        waiting = self._waiting.get(slot)
        if slot not in self._learned:
            settled = self._base._now(slot)
            if waiting is None:
                return settled
            learned = self._learned[slot] = self._base._copied(settled)
            for key, value in waiting:
                self._learn(learned, key, value)
        return self._learned[slot]

    def _copied(self, learned: Learned | None) -> Learned:
        if learned is None:
            return Learned()
        opened = self._opened(learned)
        state = None if opened.state is None else self._agg.decode(self._agg.encode(opened.state))
        return Learned(state, opened.last)

    def _has_settled(self, slot: int, key: Key) -> None:
        """The feature that this one follows has learned from an event: it does not wait any more."""
        waiting = self._waiting.get(slot, [])
        at = next((at for at, (each, _) in enumerate(waiting) if each == key), None)
        if at is None:
            return
        if at:
            self._learned.pop(slot, None)  # it came earlier to that object than to this one
        del waiting[at]
        if not waiting:
            del self._waiting[slot]

    def _learn(self, learned: Learned, key: Key, value: Any) -> None:
        self._opened(learned)
        _, te, position = key
        if self._gap is not None:
            if learned.last is not None and te - learned.last >= self._gap:
                learned.state = None
            learned.last = te
        if value is not None:
            state = self._agg.init() if learned.state is None else learned.state
            learned.state = self._agg.update(state, value, te, position)

    def _closed(self, learned: Learned, instant: int) -> bool:
        """Whether the session that the object learns from is over."""
        if self._gap is None:
            return False
        last = self._opened(learned).last
        return last is not None and last + self._gap <= instant

    def _opened(self, learned: Learned) -> Learned:
        if learned.packed is not None:
            learned.last, state = msgspec.msgpack.decode(learned.packed)
            learned.state = None if state is None else self._agg.decode(state)
            learned.packed = None
        return learned

    def _packed(self, learned: Learned | None) -> bytes:
        if learned is None:
            return b""
        if learned.packed is not None:
            return learned.packed
        state = None if learned.state is None else self._agg.encode(learned.state)
        return msgspec.msgpack.encode([learned.last, state])


def _key(event: Waiting) -> Key:
    return event[0]
