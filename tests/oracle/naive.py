"""The naive oracle: answers every question by re-reading every event.

It follows the text of contract C2-C11 and C18 and shares no code with the product. Nothing is kept between questions
but a memory of windows already folded, keyed by their very content.

The steps: `judge` walks the script in arrival order and says which events count and from which instant; `Oracle.value`
selects a window's rows among them and aggregates them; `Oracle.instants` lists when an entity writes a row;
`Oracle.read` answers as a reader sees it, with ttl and statuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.oracle.described import MISSING, Clock, Derived, Feature, Sent, Stream, View, Where, Window
from tests.oracle.exact import INT64, aggregate, empty, missing

FAR = 2**62
HOUR = 3_600_000_000
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


def judge(stream: Stream, script: Iterable[Sent | Clock], live: bool = False) -> Judged:
    """Walk the script in arrival order (C7-C10). `live`: only its clock steps say what is far ahead, and where the
    stream sets no `max_ahead` that is an hour; else the events move the clock as well.

    An event is late if it is older than the newest accepted event of its partition by more than `lateness`. The flow's
    watermark is the least over the partitions with an accepted event and never falls; what a partition that speaks up
    afterwards sends behind it is refused, as the log has settled there. Ids are remembered as long as the first event
    with the id could still come in time.
    """
    newest: dict[int, int] = {}
    known: dict[Any, int] = {}
    taken: list[Taken] = []
    dead: list[tuple[Sent, str]] = []
    duplicates = 0
    watermark = clock = told = -FAR
    max_ahead = HOUR if live and stream.max_ahead is None else stream.max_ahead
    for step in script:
        if isinstance(step, Clock):
            told, clock = max(told, step.time), max(clock, step.time)
            continue
        own = newest.get(step.partition, -FAR) - stream.lateness
        bound = max(own, watermark)
        identity = None if stream.dedup is None else step.columns[stream.dedup]
        if identity is not None and known.get(identity, -FAR) >= bound > -FAR:
            duplicates += 1
            continue
        ahead_of = told if live else clock
        if max_ahead is not None and ahead_of > -FAR and step.time > ahead_of + max_ahead:
            dead.append((step, "ahead"))
            continue
        if step.time < bound and stream.late != "count":
            dead.append((step, "late" if step.time < own else "behind settled log"))
            continue
        since = max(step.time, bound)
        known[identity] = since
        taken.append(Taken(step, since))
        if step.time < bound:
            continue
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


def running_session(window: Window, taken: Sequence[Taken], t: int) -> list[Sent]:
    """The session at instant `t` where late events count: what had closed when one came to count stays closed (C7).

    An event comes to its window at its time, or if it is late at the instant from which it counts, less `ending`. Of
    events in time this gives what `covered` gives.
    """
    arrivals = [(max(e.event.time, e.since - window.ending), i, e.event) for i, e in enumerate(taken)]
    sessions: list[list[Sent]] = []
    for now, _, event in sorted(arrivals, key=lambda arrival: arrival[:2]):
        if now > t - window.ending:
            break
        still = [s for s in sessions if s[-1].time > now - window.width]
        near = [s for s in still if s[0].time - window.width < event.time < s[-1].time + window.width]
        joined = sorted([event, *(e for s in near for e in s)], key=lambda e: (e.time, e.partition, e.offset))
        sessions = [*(s for s in still if s not in near), joined]
    newest = max(sessions, key=lambda s: s[-1].time, default=[])
    return newest if newest and newest[-1].time > t - window.ending - window.width else []


def turning_points(window: Window, since: int, time: int) -> set[int]:
    """Every instant at which one event can enter or leave the window (a superset of the instants at which it does).

    An event that counts from `since` enters no earlier than then.
    """
    w, h = window.width, window.hop
    late: list[int] = []
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
    return {since} | {max(since, point + window.ending) for point in (time, *late)}


ROUNDED = {"var", "std", "decayed_sum", "decayed_mean", "quantile"}
WHOLE = {"units", "more"}


def differs(a: Any, b: Any) -> bool:
    """Whether two values are not the same; the order of a map counts."""
    return bool(a != b) or (isinstance(a, dict) and list(a) != list(b))


def nearly(a: Any, b: Any, relative: float) -> bool:
    """Whether two values differ by rounding at most."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(nearly(a[key], b[key], relative) for key in a)
    return not differs(a, b) or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=relative))


@dataclass(frozen=True)
class Reading:
    """What a reader gets: values and statuses by feature, and the two instants of the row (None before any event)."""

    values: dict[str, Any]
    statuses: dict[str, str]
    newest: int | None


class Oracle:
    """All answers about one view and one script; `judged` is what became of it, where partitions keep no order."""

    def __init__(self, view: View, script: Iterable[Sent | Clock], judged: Judged | None = None) -> None:
        self.view = view
        self.judged = judge(view.stream, script) if judged is None else judged
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

    def taken(self, key: Key) -> list[Taken]:
        """The entity's events that a feature takes, in order of time."""
        return self._events.get(key, [])

    def newest(self, key: Key, t: int) -> int | None:
        """When the newest event of the entity came to count, at or before `t`: its time, unless it was late."""
        return max((e.since for e in self._events.get(key, ()) if e.since <= t), default=None)

    def content(self, feature: Feature, key: Key, t: int) -> list[Sent]:
        """The rows that `feature` covers at `t`: its window asked at t - ending, of the events that count by t."""
        taken = [e for e in self._events.get(key, ()) if e.since <= t and holds(feature.where, e.event.columns)]
        if feature.kind == "stateful" and feature.window.kind == "lifetime":
            order = sorted(taken, key=lambda e: (e.since, e.event.time, e.event.partition, e.event.offset))
            return [e.event for e in order]
        if feature.window.kind == "session" and any(e.since > e.event.time for e in taken):
            return running_session(feature.window, taken, t)
        return covered(feature.window, [e.event for e in taken], t - feature.window.ending)

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
        return {name: value for name, value in out.items() if not name.startswith("_")}

    def instants(self, key: Key) -> dict[int, bool]:
        """Instants at which the entity writes a log row if nothing else comes (C18), in order, and whether it must.

        It must at each instant of an event, and at each other instant at which a value changed by something entering or
        leaving a window. What a decaying value does between two such instants writes nothing. It may at an instant at
        which a row, taken or not, entered or left a window, and no value changed but by rounding (`ROUNDED`) or decay.
        """
        events = self._events[key]
        out = dict.fromkeys((e.since for e in events), True)
        points = {p for f in self.features for e in events for p in turning_points(f.window, e.since, e.event.time)}
        for t in points:
            turned = t not in out and t > min(e.since for e in events) and self._turned(key, t)
            if turned:
                out[t] = turned == "changed"
        return dict(sorted(out.items()))

    def _turned(self, key: Key, t: int) -> str | None:
        """Whether values at `t` differ from those of the windows a microsecond before: "changed", "perhaps", None."""
        now, before = {}, {}
        for f in self.features:
            content, was = self.content(f, key, t), self.content(f, key, t - 1)
            now[f.name] = self.value(f, key, t)
            before[f.name] = now[f.name] if was == content else aggregate(f, was, t - f.window.ending)
        # A mean of integers beyond 2**53 is rounded twice: as a sum, and as a quotient.
        rounded = {f.name for f in self.features if f.kind in ROUNDED or (f.kind == "mean" and f.column in WHOLE)}
        rounded |= {f.name for f in self.view.features if isinstance(f, Derived) and rounded & {f.left, f.right}}
        values, others = self._with_derived(now), self._with_derived(before)
        # Two quantiles within twice their error of each other may fall into one bucket.
        error = {f.name: 2 * f.params["error"] for f in self.features if f.kind == "quantile"}
        for n in values:
            if differs(values[n], others[n]) and not (
                n in rounded and nearly(values[n], others[n], error.get(n, 1e-9))
            ):
                return "changed"
        return "perhaps" if rounded else None

    def read(self, key: Key, t: int) -> Reading:
        """What serving gives at instant `t` with every event up to then known (C11), ttl and statuses included."""
        newest = self.newest(key, t)
        expired = newest is not None and self.view.ttl is not None and newest <= t - self.view.ttl
        if newest is None or expired:
            values = self._with_derived({f.name: empty(f) for f in self.features})
            return Reading(values, dict.fromkeys(values, "NOT_FOUND" if newest is None else "OUTSIDE_MAX_AGE"), newest)
        values = self.values(key, t)
        defaults = {f.name: f.default for f in self.view.features}
        statuses = {n: "NULL" if v is None else "DEFAULT" if v == defaults[n] else "PRESENT" for n, v in values.items()}
        return Reading(values, statuses, newest)


def derive(derived: Derived, plain: Mapping[str, Any]) -> Any:
    """Null if an operand is null, for a division by zero, for an integer beyond 64 bits; then the default, if any."""
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
    if missing(result) or (isinstance(result, int) and result not in INT64):
        return None if derived.default is MISSING else derived.default
    return result
