"""The naive oracle: answers every question by re-reading every event.

It follows the text of contract C2-C11 and C18 and shares no code with the product. Nothing is kept between questions
but a memory of windows already folded, keyed by their very content.

The steps: `judge` walks the script in arrival order and says which events count and from which instant; `Oracle.value`
selects a window's rows among them and aggregates them; `Oracle.rows` lists the instants at which an entity writes a
row; `Oracle.read` answers as a reader sees it, with ttl and statuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.oracle.described import MISSING, Clock, Derived, Feature, Sent, Stream, View, Where, Window
from tests.oracle.exact import aggregate, empty, missing

FAR = 2**62
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Taken:
    """An accepted event and the instant from which it counts: its time, or the watermark for a late one."""

    event: Sent
    since: int


@dataclass(frozen=True)
class Judged:
    """What became of a script: the events that count, the others with their reason, and where the stream stands."""

    taken: tuple[Taken, ...]
    dead: tuple[tuple[Sent, str], ...]
    duplicates: int
    watermark: int  # -FAR before the first event
    clock: int  # the newest accepted event time or the newest clock step, -FAR before either


def judge(stream: Stream, script: Iterable[Sent | Clock]) -> Judged:
    """Walk the script in arrival order (C7-C10).

    An event is late if it is older than the newest accepted event of its partition by more than `lateness`. The flow's
    watermark is the least over the partitions seen so far and never falls; what a partition that speaks up afterwards
    sends behind it is refused, as the log has settled there.
    """
    newest: dict[int, int] = {}
    known: dict[Any, int] = {}
    taken: list[Taken] = []
    dead: list[tuple[Sent, str]] = []
    duplicates = 0
    watermark = clock = -FAR
    for step in script:
        if isinstance(step, Clock):
            clock = max(clock, step.time)
            continue
        own = newest.get(step.partition, -FAR) - stream.lateness
        if stream.max_ahead is not None and clock > -FAR and step.time > clock + stream.max_ahead:
            dead.append((step, "ahead"))
            continue
        since = step.time
        if step.time < own:
            if stream.late != "count":
                dead.append((step, "late"))
                continue
            since = own
        elif step.time < watermark:
            if stream.late != "count":
                dead.append((step, "behind settled log"))
                continue
            since = watermark
        identity = None if stream.dedup is None else step.columns[stream.dedup]
        if identity is not None:
            if identity in known:
                duplicates += 1
                continue
            known[identity] = step.time
        taken.append(Taken(step, since))
        newest[step.partition] = max(newest.get(step.partition, -FAR), step.time)
        watermark = max(watermark, min(newest.values()) - stream.lateness)
        clock = max(clock, step.time)
    return Judged(tuple(taken), tuple(dead), duplicates, watermark, clock)


def holds(where: Where | None, columns: Mapping[str, Any]) -> bool:
    """Whether a row passes: the predicate is true, not null."""
    return where is None or _truth(where, columns) is True


def _truth(where: Where, columns: Mapping[str, Any]) -> bool | None:
    """Three-valued: a comparison with null is null, and `and`, `or`, `not` are Kleene's."""
    if where.op == "not":
        inner = _truth(where.args[0], columns)
        return None if inner is None else not inner
    if where.op in ("and", "or"):
        settling = where.op == "or"
        sides = [_truth(side, columns) for side in where.args]
        if settling in sides:
            return settling
        return None if None in sides else not settling
    value = columns[where.args[0]]
    if where.op == "null":
        return missing(value)
    if missing(value):
        return None
    literal = where.args[1]
    if where.op == "in":
        return value in literal
    return {
        "==": value == literal,
        "!=": value != literal,
        "<": value < literal,
        "<=": value <= literal,
        ">": value > literal,
        ">=": value >= literal,
    }[where.op]


def covered(window: Window, rows: Sequence[Sent], s: int) -> list[Sent]:
    """The rows that `window` covers at instant `s`, of rows in order of (time, partition, offset) (C2)."""
    seen = [row for row in rows if row.time <= s]
    w, h = window.width, window.hop
    if window.kind == "sliding":
        opens = (s - w) // h * h
        return [row for row in seen if opens < row.time]
    if window.kind == "hopping":
        closes = s // h * h
        return [row for row in seen if closes - w < row.time <= closes]
    if window.kind == "tumbling":
        closes = s // w * w
        return [row for row in seen if closes - w < row.time <= closes]
    if window.kind == "current":
        return [row for row in seen if s // w * w < row.time]
    if window.kind == "last":
        return seen[-window.n :]
    if window.kind == "lifetime":
        return seen
    assert window.kind == "session", window
    if not seen or seen[-1].time <= s - w:
        return []
    chain = [seen[-1]]
    for row in reversed(seen[:-1]):
        if chain[-1].time - row.time >= w:
            break
        chain.append(row)
    return chain[::-1]


def turning_points(window: Window, since: int, time: int) -> set[int]:
    """Every instant at which one event can enter or leave the window (a superset of the instants at which it does).

    An event that counts from `since` enters no earlier than then, asked `ending` later.
    """
    points = {since}
    w, h, late = window.width, window.hop, []
    if window.kind == "sliding":
        late = [-(-time // h) * h + w]
    elif window.kind == "hopping":
        closes = -(-time // h) * h
        late = [closes, closes + w]
    elif window.kind == "tumbling":
        closes = -(-time // w) * w
        late = [closes, closes + w]
    elif window.kind == "current":
        late = [-(-time // w) * w]
    elif window.kind == "session":
        late = [time + w]
    return {point + window.ending for point in points | {x for x in late if x >= since}}


@dataclass(frozen=True)
class Reading:
    """What a reader gets: values and statuses by feature, and the two instants of the row (None before any event)."""

    values: dict[str, Any]
    statuses: dict[str, str]
    newest: int | None


class Oracle:
    """All answers about one view and one script."""

    def __init__(self, view: View, script: Iterable[Sent | Clock]) -> None:
        self.view = view
        self.judged = judge(view.stream, script)
        self.features = [f for f in view.features if isinstance(f, Feature)]
        self._events: dict[Key, list[Taken]] = {}
        for one in sorted(self.judged.taken, key=lambda e: (e.event.time, e.event.partition, e.event.offset)):
            if any(holds(f.where, one.event.columns) for f in self.features):
                self._events.setdefault(self.key(one.event), []).append(one)
        self._folded: dict[Any, Any] = {}

    def key(self, event: Sent) -> Key:
        return tuple(event.columns[name] for name in self.view.keys)

    @property
    def entities(self) -> list[Key]:
        """Entities with at least one event that a feature takes."""
        return list(self._events)

    def newest(self, key: Key, t: int) -> int | None:
        """The entity's newest event at instant `t`."""
        return max((e.event.time for e in self._events.get(key, ()) if e.since <= t), default=None)

    def content(self, feature: Feature, key: Key, t: int) -> list[Sent]:
        """The rows that `feature` covers at instant `t`."""
        s = t - feature.window.ending
        rows = [e.event for e in self._events.get(key, ()) if e.since <= s and holds(feature.where, e.event.columns)]
        return covered(feature.window, rows, s)

    def value(self, feature: Feature, key: Key, t: int) -> Any:
        rows = self.content(feature, key, t)
        asked = t - feature.window.ending
        memo = (feature.name, tuple((r.partition, r.offset) for r in rows), feature.kind == "decayed_sum" and asked)
        if memo not in self._folded:
            self._folded[memo] = aggregate(feature, rows, asked)
        return self._folded[memo]

    def values(self, key: Key, t: int) -> dict[str, Any]:
        """Every feature of the view at instant `t`, derived ones included, with no regard to ttl."""
        return self._with_derived({f.name: self.value(f, key, t) for f in self.features})

    def _with_derived(self, plain: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for f in self.view.features:
            out[f.name] = plain[f.name] if isinstance(f, Feature) else derive(f, plain)
        return out

    def rows(self, key: Key) -> list[tuple[int, int, dict[str, Any]]]:
        """(instant, newest event, values) of every log row the entity ever writes if nothing else comes (C18).

        A row for each instant of an event, and for each other instant at which a value changed by something entering
        or leaving a window. What a decaying value does between two such instants writes nothing.
        """
        events = self._events[key]
        instants = {e.since for e in events}
        turning = {
            p for f in self.features for e in events for p in turning_points(f.window, e.since, e.event.time)
        } - instants
        turning = {t for t in turning if t > min(instants) and self._turned(key, t)}
        out = [(t, self.newest(key, t), self.values(key, t)) for t in sorted(instants | turning)]
        if self.view.log_every is None:
            return out
        last = {(t - 1) // self.view.log_every: (t, newest, values) for t, newest, values in out}
        return list(last.values())

    def _turned(self, key: Key, t: int) -> bool:
        """Whether a value differs from what the rows covered one microsecond earlier would give at `t`."""
        now, before = {}, {}
        for f in self.features:
            s = t - f.window.ending
            now[f.name] = self.value(f, key, t)
            before[f.name] = aggregate(f, self.content(f, key, t - 1), s)
        return self._with_derived(now) != self._with_derived(before)

    def read(self, key: Key, t: int) -> Reading:
        """What serving gives at instant `t` with every event up to then known (C11), ttl and statuses included."""
        newest = self.newest(key, t)
        expired = newest is not None and self.view.ttl is not None and newest <= t - self.view.ttl
        if newest is None or expired:
            values = self._with_derived({f.name: empty(f) for f in self.features})
            return Reading(values, dict.fromkeys(values, "NOT_FOUND" if newest is None else "OUTSIDE_MAX_AGE"), newest)
        values = self.values(key, t)
        return Reading(values, {n: "NULL" if v is None else "PRESENT" for n, v in values.items()}, newest)


def derive(derived: Derived, plain: Mapping[str, Any]) -> Any:
    """Null if an operand is null, or for a division by zero; then the default, if there is one."""
    left, right = plain[derived.left], plain[derived.right]
    result: Any = None
    if not missing(left) and not missing(right):
        if derived.op == "+":
            result = left + right
        elif derived.op == "-":
            result = left - right
        elif derived.op == "*":
            result = left * right
        elif right != 0:
            result = left / right
    if missing(result):
        return None if derived.default is MISSING else derived.default
    return result
