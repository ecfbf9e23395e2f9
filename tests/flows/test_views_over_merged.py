"""Views over rows of two sources, of windows that close, and of instants still to come: equal to the oracle."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.flows.test_views_over_streams import STEPS, Row, counted
from tests.oracle.definitions import Happening, definition_of, judging, us
from tests.oracle.described import Sent, Stream
from tests.oracle.folders import Stopped, check_served, check_training, stopping
from tests.oracle.judging import check_log
from tests.oracle.naive import Judged, Oracle, Taken, judge
from tests.oracle.operator import rows_of
from tests.oracle.ran import source_of, writable
from tests.oracle.replayed import instant
from tests.oracle.strategies import cases, questions, scripts

import headrace
from headrace.features import Flow, IterableSource, Tumbling
from headrace.features.sources import Source
from headrace.features.stream_source import StreamSource

FEW = settings(max_examples=max(5, settings.default.max_examples // 12))


def check(root: Path, oracle: Oracle, definition: Any, times: Sequence[int]) -> None:
    """As `check_folder`, but for how far the log has settled: that depends on which source ended when."""
    with headrace.EmbeddedStore(root / "online", read_only=True) as store:
        check_served(oracle, definition, headrace.Client(store))
    if not oracle.judged.taken:
        return
    log = headrace.OfflineLog(root / "log")
    rows = rows_of(log.scan(definition))
    check_log(oracle, rows, None)
    if oracle.view.log_every is None:
        settled = rows_of(log.scan(definition, tail=False))
        assert settled == rows[: len(settled)]
        check_training(oracle, definition, times, lambda spine, **how: headrace.training_set(spine, **how, log=log))


def rows(events: Sequence[Sent], name: str, stream: Stream) -> Source:
    return IterableSource(
        [{**e.columns, "at": instant(e.time)} for e in events], Happening, name=name, **judging(stream)
    )


def run_with_crashes(data: st.DataObject, made: Any, folder: Path) -> None:
    size, every = data.draw(st.integers(1, 9)), data.draw(st.sampled_from((0.0, 10.0)))
    for stop in data.draw(st.lists(st.integers(0, 8), max_size=2)):
        with suppress(Stopped):
            headrace.run([made()], folder, batch_size=size, checkpoint_every_s=every, progress=stopping(stop))
            return
    headrace.run([made()], folder, batch_size=size)


@FEW
@given(st.data())
def test_two_sources(data: st.DataObject) -> None:
    """Merged, each row let in by its own source; then as they come, or counted in order of event time."""
    unit, view, first = data.draw(cases())
    sent = [first, data.draw(scripts(unit, view.stream))]
    events = [writable([e for e in script if isinstance(e, Sent)], "rows") for script in sent]
    lateness = [view.stream.lateness, data.draw(st.sampled_from((0, 3))) * unit]
    streams = [replace(view.stream, lateness=each, max_ahead=None) for each in lateness]
    ordered = data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)

        def made() -> Any:
            flow = Flow("two")
            one, other = (flow.read(rows(events[i], "ab"[i], streams[i])) for i in (0, 1))
            stream = one.merge(other)
            return definition_of(view, source=StreamSource(STEPS["counted"](stream) if ordered else stream))

        run_with_crashes(data, made, root / "data")
        judged = [judge(stream, its) for stream, its in zip(streams, events, strict=True)]
        taken = tuple(
            Taken(replace(each.event, partition=side), each.since) for side in (0, 1) for each in judged[side].taken
        )
        if ordered:
            states: dict[str, int] = {}
            made_of = []
            for each in sorted(taken, key=lambda e: (e.since, e.event.partition, e.event.offset)):
                who = each.event.columns["who"]
                states[who], given_ = counted(states.get(who), Row(dict(each.event.columns)))
                made_of += [Taken(replace(each.event, columns=columns), each.since) for columns in given_]
            taken = tuple(Taken(replace(e.event, offset=i), e.since) for i, e in enumerate(made_of))
        clock = max(each.clock for each in judged)
        oracle = Oracle(view, (), Judged(taken, (), 0, min(each.watermark for each in judged), clock))
        check(root / "data", oracle, made(), data.draw(questions(unit, [*events[0], *events[1]])))


@FEW
@given(st.data())
def test_windows_that_close(data: st.DataObject) -> None:
    """The rows of a fold have the instants of their windows' ends, some of which the source has not reached."""
    unit, view, script = data.draw(cases())
    view = replace(view, stream=replace(view.stream, late="dead_letter", max_ahead=None))
    width = data.draw(st.sampled_from((1, 2, 5))) * unit
    events = writable([step for step in script if isinstance(step, Sent)], "rows")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)

        def made() -> Any:
            stream = Flow("closing").read(source_of("rows", events, root, view.stream))
            closed = stream.key_by("who").fold(
                lambda kept, row: {**vars(row), "units": (kept or {"units": 0})["units"] + 1},
                Tumbling(us(width)),
                initial=lambda: None,
                finish=lambda kept: {name: value for name, value in kept.items() if name != "at"},
            )
            return definition_of(view, source=StreamSource(closed))

        run_with_crashes(data, made, root / "data")
        judged = judge(view.stream, events)
        windows: dict[tuple[int, str], dict[str, Any]] = {}
        for each in sorted(judged.taken, key=lambda e: (e.since, e.event.offset)):
            columns, end = dict(each.event.columns), -(-each.event.time // width) * width
            kept = windows.get((end, columns["who"]))
            windows[end, columns["who"]] = {**columns, "units": 1 if kept is None else kept["units"] + 1}
        number = count()
        taken = tuple(
            Taken(Sent(end, columns, 0, next(number)), end)
            for (end, _), columns in sorted(windows.items(), key=lambda each: each[0][0])
            if end <= judged.clock
        )
        oracle = Oracle(view, (), Judged(taken, (), 0, judged.watermark, judged.clock))
        check(root / "data", oracle, made(), data.draw(questions(unit, list(events))))
