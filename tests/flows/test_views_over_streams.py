"""Views over what steps give: equal to the oracle over the rows of a list program, however the run is cut or killed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.definitions import Happening, definition_of
from tests.oracle.described import Clock, Feature, Sent, View, Where
from tests.oracle.folders import Stopped, check_folder, stopping
from tests.oracle.judging import check_log, check_reading, settled_before
from tests.oracle.naive import FAR, Judged, Oracle, Taken, holds, judge
from tests.oracle.operator import cut, rows_of
from tests.oracle.ran import source_of, writable
from tests.oracle.replayed import Replayed
from tests.oracle.strategies import MINUTE, cases, cuts, questions

import headrace
from headrace.features import Flow, Stream
from headrace.features.stream_source import StreamSource
from headrace.testing import replay

LARGE = Where(">", ("units", 1))
FEW = settings(max_examples=max(5, settings.default.max_examples // 12))


def copies(row: Any) -> list[dict[str, Any]]:
    units = 1 if row.units is None else row.units % 3
    return [{**vars(row), "units": each} for each in range(units)]


def renamed(row: Any) -> dict[str, Any]:
    return {**vars(row), "who": row.who + str(row.where_from)}


def counted(state: int | None, row: Any) -> tuple[int, list[dict[str, Any]]]:
    count = (state or 0) + 1
    return count, [{**vars(row), "units": count}] * (count % 3)


def batched(state: Any, rows: Any) -> tuple[Any, Any]:
    count = rows.groupby("who").cumcount() + 1 + rows.who.map(state.n)
    state["n"] += rows.groupby("who").size()
    return state, rows.assign(units=count)[count % 3 > 0]


STEPS: dict[str, Callable[[Stream], Stream]] = {
    "condition": lambda stream: stream.filter(Happening.units > 1),
    "function": lambda stream: stream.filter(lambda row: row.paid),
    "copies": lambda stream: stream.flat_map(copies),
    "renamed": lambda stream: stream.map_rows(renamed),
    "counted": lambda stream: stream.key_by("who").stateful(counted),
    "batched": lambda stream: stream.key_by("who").stateful_batches(batched, state={"n": 0}, every="1m"),
}
AT_ONCE = ("condition", "function", "copies", "renamed")


def chains(view: View) -> st.SearchStrategy[list[str]]:
    """Steps before a view. Rows of spans count late, and then objects over sessions are refused."""
    sessions = any(
        isinstance(f, Feature) and f.kind == "stateful" and f.window.kind == "session" for f in view.features
    )
    return st.lists(st.sampled_from([each for each in sorted(STEPS) if each != "batched" or not sessions]), max_size=3)


class Row:
    """The columns of an event as attributes, as functions take them."""

    def __init__(self, columns: dict[str, Any]) -> None:
        vars(self).update(columns)


def listed(taken: Sequence[Taken], steps: Sequence[str]) -> tuple[Taken, ...]:
    """The rows that the steps give, by lists alone; each has its place among them as offset."""
    rows = [(dict(each.event.columns), each.event.time, each.since) for each in taken]
    newest = max((each.since for each in taken), default=0)
    for step in steps:
        if step == "condition":
            rows = [each for each in rows if holds(LARGE, each[0])]
        elif step == "function":
            rows = [each for each in rows if each[0]["paid"]]
        elif step == "batched":
            counts: dict[str, int] = {}
            made = []
            for columns, time, since in sorted(rows, key=lambda each: (each[2], each[1])):
                counts[columns["who"]] = n = counts.get(columns["who"], 0) + 1
                if n % 3:
                    made.append(({**columns, "units": n}, time, min(-(-since // MINUTE) * MINUTE, newest)))
            rows = made
        elif step == "counted":
            states: dict[str, int] = {}
            made = []
            for columns, time, since in sorted(rows, key=lambda each: each[2]):
                states[columns["who"]], given = counted(states.get(columns["who"]), Row(columns))
                made += [(each, time, since) for each in given]
            rows = made
        else:
            function = {"copies": copies, "renamed": lambda row: [renamed(row)]}[step]
            rows = [(each, time, since) for columns, time, since in rows for each in function(Row(columns))]
    return tuple(Taken(Sent(time, columns, 0, i), since) for i, (columns, time, since) in enumerate(rows))


def oracle_of(view: View, events: Sequence[Sent | Clock], steps: Sequence[str]) -> Oracle:
    judged = judge(view.stream, events)
    taken = listed(judged.taken, steps)
    return Oracle(view, (), Judged(taken, (), 0, judged.watermark, judged.clock))


def over(view: View, events: Sequence[Sent], steps: Sequence[str], folder: Path, name: str = "judged") -> Any:
    """The view over the last stream of a new flow."""
    stream = Flow("steps").read(source_of("rows", events, folder, view.stream))
    for step in steps:
        stream = STEPS[step](stream)
    return definition_of(view, name, StreamSource(stream))


@FEW
@given(st.data())
def test_a_view_over_a_stream_is_that_over_the_rows_of_a_list_program(data: st.DataObject) -> None:
    """In any batches, and killed at any of them, with a checkpoint after each or none."""
    unit, view, script = data.draw(cases())
    events = writable([step for step in script if isinstance(step, Sent)], "rows")
    steps = data.draw(chains(view))
    size, every = data.draw(st.integers(1, 9)), data.draw(st.sampled_from((0.0, 10.0)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for stop in data.draw(st.lists(st.integers(0, 8), max_size=2)):
            with suppress(Stopped):
                headrace.run(
                    [over(view, events, steps, root)],
                    root / "data",
                    batch_size=size,
                    checkpoint_every_s=every,
                    progress=stopping(stop),
                )
                break
        else:
            headrace.run([over(view, events, steps, root)], root / "data", batch_size=size)
        definition = over(view, events, steps, root)
        check_folder(
            root / "data", oracle_of(view, events, steps), definition, data.draw(questions(unit, list(events)))
        )


@FEW
@given(st.data())
def test_a_source_that_has_grown(data: st.DataObject) -> None:
    unit, view, script = data.draw(cases())
    events = writable([step for step in script if isinstance(step, Sent)], "rows")
    steps = data.draw(st.lists(st.sampled_from(AT_ONCE), max_size=3))
    first = data.draw(st.integers(0, len(events)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for some in (events[:first], events):
            definition = over(view, some, steps, root)
            headrace.run([definition], root / "data", batch_size=data.draw(st.integers(1, 9)))
        check_folder(
            root / "data", oracle_of(view, events, steps), definition, data.draw(questions(unit, list(events)))
        )


@FEW
@given(st.data())
def test_a_filter_as_a_step_is_a_where_in_the_view(data: st.DataObject) -> None:
    """Row for row and in the same order, online, in the log and in its tail."""
    _, view, script = data.draw(cases(derived=False))
    events = writable([step for step in script if isinstance(step, Sent)], "rows")
    where = replace(view, features=tuple(replace(f, where=LARGE) for f in view.features if isinstance(f, Feature)))
    plain = replace(view, features=tuple(replace(f, where=None) for f in where.features))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ways = {
            "where": definition_of(where, source=source_of("rows", events, root, view.stream)),
            "step": over(plain, events, ["condition"], root),
        }
        found = {}
        for way, definition in ways.items():
            headrace.run([definition], root / way, batch_size=data.draw(st.integers(1, 9)))
            log = headrace.OfflineLog(root / way / "log")
            keys = sorted(
                {tuple(each.event.columns[k] for k in view.keys) for each in judge(view.stream, events).taken}
            )
            with headrace.EmbeddedStore(root / way / "online", read_only=True) as store:
                read = store.read(definition, [dict(zip(view.keys, key, strict=True)) for key in keys])
            online = [row and (row.values, row.newest_event_us) for row in read]
            found[way] = [repr(rows_of(log.scan(definition, tail=tail))) for tail in (False, True)] + [repr(online)]
        assert found["step"] == found["where"]


class Streamed(Replayed):
    """A view over a stream under `headrace.testing.replay`."""

    def __init__(self, view: View, definition: Any) -> None:
        self.view, self.definition, self.t = view, definition, replay(definition)


@FEW
@given(st.data())
def test_a_replay_takes_rows_of_the_source(data: st.DataObject) -> None:
    """With a clock of its own and restarts. Steps that look at one row only show it at once."""
    unit, view, script = data.draw(cases())
    offset = count()
    script = [replace(e, partition=0, offset=next(offset)) if isinstance(e, Sent) else e for e in script]
    steps = data.draw(chains(view))
    restarts = data.draw(st.frozensets(st.integers(0, 4), max_size=2))
    with tempfile.TemporaryDirectory() as folder, Streamed(view, over(view, [], steps, Path(folder))) as replayed:
        done: list[Sent | Clock] = []
        for number, some in enumerate(cut(script, data.draw(cuts))):
            if number in restarts:
                replayed.t.restart()
            replayed.take(some)
            done += some
            oracle = oracle_of(view, done, steps)
            if not {"counted", "batched"} & set(steps) and oracle.judged.clock > -FAR:
                for key in oracle.entities:
                    check_reading(oracle, key, oracle.judged.clock, replayed.read(key, oracle.judged.clock))
        replayed.t.end()
        oracle, judged = oracle_of(view, script, steps), judge(view.stream, script)
        assert [(each.offset, each.reason) for each in replayed.t.dead] == [(e.offset, why) for e, why in judged.dead]
        assert replayed.t.duplicates == judged.duplicates
        if judged.taken:
            check_log(oracle, replayed.log(), settled_before(oracle))
            check_log(oracle, replayed.log(tail=True), None)
        for t in data.draw(questions(unit, script)):
            if t >= oracle.judged.clock:
                replayed.take([Clock(t)])
                for key in oracle.entities:
                    check_reading(oracle, key, t, replayed.read(key, t))
