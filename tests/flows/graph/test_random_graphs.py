"""Random graphs of steps over one or two sources, against plain list programs: any batches, interleaving, restarts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flows.graph.list_programs import (
    Row,
    Rows,
    changed,
    folded,
    framed,
    mix,
    pair,
    run_fold,
    run_frames,
    run_join,
    run_lookup,
    run_sessions,
    run_spans,
    run_stateful,
    several,
    spanned,
)

from headrace.features import Event, EventTime, Hopping, IterableSource, Session, Tumbling
from headrace.features.columns import Column
from headrace.features.streams import Flow, Stream
from headrace.testing import replay_flow

START = datetime(2026, 1, 1, tzinfo=UTC)


class Reading(Event):
    key: Column[str | None]
    n: Column[int]
    at: EventTime


@dataclass
class Graph:
    """A flow and what its steps ought to give.

    steps: streams with their rows, in the order in which they come where `ordered` says so. letters: by reason and
    step.
    """

    flow: Flow
    end: int
    steps: dict[str, tuple[Stream, Rows]] = field(default_factory=dict)
    ordered: set[str] = field(default_factory=set)
    letters: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, stream: Stream, rows: Rows, ordered: bool = False) -> None:
        self.steps[stream.step.name] = (stream, rows)
        if ordered:
            self.ordered.add(stream.step.name)

    def letter(self, stream: Stream, n: int, reason: str = "failed") -> None:
        if n:
            self.letters[reason, stream.step.name] += n


# Drawing of graphs.


def one_by_one(graph: Graph, data: st.DataObject, stream: Stream, rows: Rows) -> None:
    kind = data.draw(st.sampled_from(["filter", "function", "branch", "map_rows", "map_batches", "inspect"]))
    if kind == "filter":
        graph.add(stream.filter(Reading.n > 20), [row for row in rows if row.n > 20])
    elif kind == "function":
        graph.add(stream.filter(lambda row: row.n % 2 == 0), [row for row in rows if row.n % 2 == 0])
    elif kind == "branch":
        high, low = stream.branch(Reading.n > 25)
        graph.add(high, [row for row in rows if row.n > 25])
        graph.add(low, [row for row in rows if row.n <= 25])
    elif kind == "map_rows":
        given = stream.map_rows(changed)
        graph.add(given, [row._replace(n=changed(row)["n"]) for row in rows if row.n != 13])
        graph.letter(given, sum(row.n == 13 for row in rows))
    elif kind == "map_batches":
        graph.add(stream.map_batches(lambda columns: columns | {"n": columns["n"] + 1}, as_="numpy"), [
            row._replace(n=row.n + 1) for row in rows
        ])  # fmt: skip
    else:
        graph.add(stream.inspect(lambda row: None), rows)


def flat(graph: Graph, data: st.DataObject, stream: Stream, rows: Rows) -> None:
    made: Rows = []
    for sides in {row.sides for row in rows}:  # each of the merged streams by itself
        its = sorted((row for row in rows if row.sides == sides), key=lambda row: row.number)
        each_made = [row._replace(n=each["n"]) for row in its for each in several(row)]
        made += [row._replace(number=i) for i, row in enumerate(each_made)]
    graph.add(stream.flat_map(several), made)


def keyed(graph: Graph, data: st.DataObject, stream: Stream, rows: Rows) -> None:
    kind = data.draw(st.sampled_from(["stateful", "fold", "session", "frame", "span"]))
    by, late = stream.key_by("key"), 0
    if kind == "stateful":
        given, made = by.stateful(mix), run_stateful(rows, graph.end)
    elif kind == "frame":
        over = data.draw(st.integers(1, 5))
        given = by.stateful_frame(framed, over=f"{over}s", as_="numpy", gives=Reading)
        made = run_frames(rows, over, graph.end)
    elif kind == "span":
        every = data.draw(st.integers(1, 5))
        given = by.stateful_batches(spanned, state={"total": 0}, every=f"{every}s", gives=Reading)
        made = run_spans(rows, every, graph.end)
    else:
        width, hop = data.draw(st.sampled_from([(3, 3), (4, 2), (1, 1)]))
        window: Any = Tumbling(f"{width}s") if width == hop else Hopping(f"{width}s", hop=f"{hop}s")
        if kind == "session":
            window = Session(f"{width}s")
        given = by.fold(folded, window, initial=int, finish=lambda state: {"n": state % 50}, gives=Reading)
        made, late = (
            run_sessions(rows, width, graph.end) if kind == "session" else run_fold(rows, width, hop, graph.end)
        )
    graph.add(given, made, ordered=True)
    graph.letter(given, late, "late")
    graph.letter(given, sum(row.key is None for row in rows))


def of_two(graph: Graph, data: st.DataObject, stream: Stream, rows: Rows) -> None:
    other, others = graph.steps[data.draw(st.sampled_from(sorted(graph.steps)))]
    kind = data.draw(st.sampled_from(["merge", "merge", "join", "lookup"]))
    if kind == "merge":
        sides = [row._replace(sides=(*row.sides, side)) for side, its in enumerate((rows, others)) for row in its]
        graph.add(stream.merge(other), sides)
        return
    left, right = stream.key_by("key"), other.key_by("key")
    if kind == "join":
        within, how = data.draw(st.integers(0, 4)), data.draw(st.sampled_from(["inner", "left"]))
        given = left.join(right, pair, within=f"{within}s", how=how)
        made = run_join(rows, others, within, how == "left", graph.end)
    else:
        given, made = left.lookup(right, pair), run_lookup(rows, others, graph.end)
    graph.add(given, made, ordered=True)
    graph.letter(given, sum(row.key is None for row in [*rows, *others]))


DRAWN: dict[str, Callable[[Graph, st.DataObject, Stream, Rows], None]] = {
    "one_by_one": one_by_one, "flat_map": flat, "keyed": keyed, "of_two": of_two,
}  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """What a source sends."""

    name: str
    rows: tuple[tuple[str | None, int, int], ...]
    lateness: int
    late: str

    def let_in(self, partition: int) -> tuple[Rows, int]:
        taken: Rows = []
        newest: int | None = None
        dead = 0
        for at, (key, n, second) in enumerate(self.rows):
            mark = second if newest is None else newest - self.lateness
            if second < mark and self.late == "dead_letter":
                dead += 1
                continue
            taken.append(Row(key, n, second, max(second, mark), partition, at))
            newest = second if newest is None else max(newest, second)
        return taken, dead


ROW = st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 49), st.integers(0, 12))
SOURCE = st.builds(
    Sent, st.just(""), st.lists(ROW, max_size=12).map(tuple), st.sampled_from([0, 2, 20]),
    st.sampled_from(["count", "dead_letter"]),
)  # fmt: skip


def drawn(data: st.DataObject) -> tuple[Graph, list[Sent]]:
    sources = [
        replace(each, name=name)
        for name, each in zip(("one", "two"), data.draw(st.lists(SOURCE, min_size=1, max_size=2)), strict=False)
    ]
    let_in = [each.let_in(i << 12) for i, each in enumerate(sources)]
    end = max((row.time for rows, _ in let_in for row in rows), default=0)
    graph = Graph(Flow("random"), end)
    for each, (rows, dead) in zip(sources, let_in, strict=True):
        source = IterableSource([], Reading, name=each.name, lateness=f"{each.lateness}s", late=each.late)
        graph.add(graph.flow.read(source), rows)
        if dead:
            graph.letters["late", ""] += dead
    for _ in range(data.draw(st.integers(1, 7))):
        small = sorted(name for name, (_, rows) in graph.steps.items() if len(rows) < 60)
        stream, rows = graph.steps[data.draw(st.sampled_from(small))]
        DRAWN[data.draw(st.sampled_from(sorted(DRAWN)))](graph, data, stream, rows)
    return graph, sources


def step_of(detail: str) -> str:
    return detail.split("'")[1] if detail.startswith("step '") else ""


@settings(deadline=None)
@given(st.data())
def test_any_graph_gives_what_list_programs_give(data: st.DataObject) -> None:
    graph, sources = drawn(data)
    at = dict.fromkeys([each.name for each in sources], 0)
    with replay_flow(graph.flow) as t:
        while left := [each for each in sources if at[each.name] < len(each.rows)]:
            source = data.draw(st.sampled_from(left))
            part = source.rows[at[source.name] : at[source.name] + data.draw(st.integers(1, 5))]
            at[source.name] += len(part)
            rows = [{"key": key, "n": n, "at": START + timedelta(seconds=second)} for key, n, second in part]
            t.send(rows, source.name)
            if data.draw(st.booleans()):
                t.restart()
        t.end()
        for name, (_, expected) in graph.steps.items():
            given = [(row["key"], row["n"], (row["at"] - START) // timedelta(seconds=1)) for row in t.rows(name)]
            wanted = [(row.key, row.n, row.time) for row in expected]
            assert (given if name in graph.ordered else Counter(given)) == (
                wanted if name in graph.ordered else Counter(wanted)
            ), name
        assert Counter((letter.reason, step_of(letter.detail)) for letter in t.dead) == graph.letters
