"""A view that changes while its stream goes on: what each feature may have seen, and the operator taken from one
definition to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from headrace.features.reading import read_at
from headrace.flows.shard import ShardOperator
from tests.oracle.definitions import definition_of
from tests.oracle.described import Clock, Feature, Sent, View
from tests.oracle.judging import check_reading
from tests.oracle.naive import FAR, Judged, Key, Oracle, Reading, Taken, holds, judge
from tests.oracle.operator import batch_of, cut, rows_of


def computed(feature: Feature) -> Any:
    """What a feature computes, whatever its name and default."""
    plain = replace(feature, name="", default=None, params={})
    return repr((plain, sorted(feature.params.items())))


class Grown(Oracle):
    """Answers about a view whose features began one after the other.

    began: by `computed`, the number of the first event that the feature may have seen. concerned: the numbers of the
    events that some feature took when they came.
    """

    def __init__(self, view: View, judged: Judged, began: dict[Any, int], concerned: set[int]) -> None:
        super().__init__(view, (), judged)
        self._number = {id(one): i for i, one in enumerate(judged.taken)}
        self._began = {f.name: began[computed(f)] for f in self.features}
        self._events = {}
        for one in sorted(judged.taken, key=lambda e: (e.event.time, e.event.partition, e.event.offset)):
            if self._number[id(one)] in concerned:
                self._events.setdefault(self.key(one.event), []).append(one)

    def content(self, feature: Feature, key: Key, t: int) -> list[Sent]:
        all_events = self._events
        first = self._began[feature.name]
        self._events = {key: [e for e in all_events.get(key, ()) if self._number[id(e)] >= first]}
        try:
            return super().content(feature, key, t)
        finally:
            self._events = all_events


@dataclass
class Changing:
    """An operator whose view changes; rows are kept as a store and a log would, each with the view that wrote it."""

    view: View
    shard: ShardOperator
    began: dict[Any, int]
    concerned: set[int] = field(default_factory=set)
    online: dict[Key, tuple[View, dict[str, Any]]] = field(default_factory=dict)
    log: list[tuple[View, dict[str, Any]]] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    sent: list[tuple[Sequence[Taken], int, int]] = field(default_factory=list)
    forgotten: set[Key] = field(default_factory=set)  # entities that nothing is asked of

    @classmethod
    def of(cls, view: View) -> Changing:
        return cls(view, ShardOperator(definition_of(view)), {computed(f): 0 for f in features(view)})

    def send(self, taken: Sequence[Taken], clock: int, watermark: int) -> None:
        for one in taken:
            if any(holds(f.where, one.event.columns) for f in features(self.view)):
                self.concerned.add(len(self.taken))
            self.taken.append(one)
        self.sent.append((taken, clock, watermark))
        self.write(self.shard.process(batch_of(taken), clock))
        self.log += [(self.view, row) for row in rows_of(self.shard.settle(watermark))]

    def write(self, table: Any) -> None:
        for row in rows_of(table):
            self.online[tuple(row[name] for name in self.view.keys)] = (self.view, row)

    def change(self, view: View, how: Literal["start", "backfill"]) -> None:
        """Restart with another definition, from a chain of checkpoints."""
        chain = [self.shard.save(full=True).data]
        part = self.shard.save()
        chain = [*chain, part.data] if part.delta else [part.data]
        self.began = {computed(f): self.began.get(computed(f), len(self.taken)) for f in features(view)}
        self.view = self.view if view == self.view else view
        self.shard = ShardOperator(definition_of(view))
        self.shard.load(chain, how)

    def graft(self) -> None:
        """Feed the history to another operator and take from it what is new.

        An entity that it does not hold any more may still be here, for the sake of features that are gone.
        """
        other = ShardOperator(definition_of(self.view))
        for taken, clock, watermark in self.sent:
            other.process(batch_of(taken), clock)
            other.settle(watermark)
        mine = {tuple(row[name] for name in self.view.keys) for row in rows_of(self.shard.rows(-FAR))}
        known = {tuple(row[name] for name in self.view.keys) for row in rows_of(other.rows(-FAR))}
        self.forgotten = mine - known
        self.shard.graft(other)
        self.began = dict.fromkeys(self.began, 0)
        self.concerned = {
            i for i, e in enumerate(self.taken) if any(holds(f.where, e.event.columns) for f in features(self.view))
        }

    def restart(self) -> None:
        saved = self.shard.save(full=True).data
        self.shard = ShardOperator(definition_of(self.view))
        self.shard.load([saved])
        again = self.shard.save(full=True).data
        assert again == saved

    def oracle(self, judged: Judged) -> Grown:
        return Grown(self.view, judged, self.began, self.concerned)


def features(view: View) -> list[Feature]:
    return [f for f in view.features if isinstance(f, Feature)]


def reading(view: View, row: dict[str, Any], t: int) -> Reading:
    as_of, newest = row["event_timestamp"], row["newest_event"]
    values, statuses = read_at(definition_of(view), row, as_of, newest, t)
    return Reading(values, {name: str(status) for name, status in statuses.items()}, newest)


def check_row(oracle: Oracle, key: Key, t: int, found: tuple[View, dict[str, Any]] | None) -> None:
    """A row says at `t` what the oracle says. There may be none of the present view where all windows are empty."""
    if found is not None and found[0] is oracle.view:
        check_reading(oracle, key, t, reading(*found, t))
        return
    for f in oracle.features:
        assert not oracle.content(f, key, t), f"{key} at {t}: {f.name} holds events, but no row of the view tells"


def as_of(log: Sequence[tuple[View, dict[str, Any]]], key: Key, view: View, t: int) -> tuple[View, Any] | None:
    found = None
    for one in log:
        if one[1]["event_timestamp"] <= t and tuple(one[1][name] for name in view.keys) == key:
            found = one
    return found


def drive(
    views: Sequence[View],
    script: list[Sent | Clock],
    cuts: list[int],
    at: list[int],
    asked: list[int],
    how: Literal["start", "backfill"] = "start",
) -> None:
    """Run the script in batches, the view changing before the batches named; check online rows and the log."""
    changing = Changing.of(views[0])
    following = list(zip(sorted(at), views[1:], strict=True))
    done: list[Sent | Clock] = []
    changed_at = -FAR
    judged = judge(views[0].stream, done)
    for number, steps in enumerate(cut(script, cuts)):
        while following and following[0][0] <= number and judged.clock > -FAR:
            changing.change(following.pop(0)[1], how)
            if how == "backfill":
                changing.graft()
            changing.write(changing.shard.rows(judged.clock))
            changed_at = judged.watermark
            check_online(changing, judged, judged.clock)
            if number % 2:
                changing.restart()
        already = len(judged.taken)
        done += steps
        judged = judge(views[0].stream, done)
        if judged.clock > -FAR:
            changing.send(judged.taken[already:], judged.clock, judged.watermark)
            check_online(changing, judged, judged.clock)
    if judged.clock == -FAR:
        return
    oracle = changing.oracle(judged)
    log = changing.log + [(changing.view, row) for row in rows_of(changing.shard.tail())]
    check_as_of(oracle, log, changed_at, asked, changing.forgotten)
    for t in asked:
        if t >= judged.clock:
            changing.write(changing.shard.advance(t))
            check_online(changing, judged, t)


def check_online(changing: Changing, judged: Judged, t: int) -> None:
    oracle = changing.oracle(judged)
    for key in oracle.entities:
        if key not in changing.forgotten:
            check_row(oracle, key, t, changing.online.get(key))


def check_as_of(
    oracle: Oracle, log: Sequence[tuple[View, dict[str, Any]]], since: int, asked: Sequence[int], forgotten: set[Key]
) -> None:
    """At every instant from `since` on, the newest row of the log says what the oracle says."""
    times = [row["event_timestamp"] for _, row in log]
    assert times == sorted(times), times
    keyed = [(tuple(row[name] for name in oracle.view.keys), row["event_timestamp"]) for _, row in log]
    assert len(set(keyed)) == len(keyed), "two rows of one instant"
    for key in set(oracle.entities) - forgotten:
        for t in sorted({t + d for t in (*times, *asked) for d in (0, 1)}):
            if t >= since and oracle.newest(key, t) is not None:
                check_row(oracle, key, t, as_of(log, key, oracle.view, t))
