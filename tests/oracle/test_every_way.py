"""One definition, every way: live, run, backfilled, tested, served and asked for a training set, the values are the
oracle's, and so each other's.

The same events go through a live flow whose clock is told (cut into turns, with checkpoints, restarts and crashes),
through a replay that is interrupted and goes on, and through a backfill that is interrupted and goes on; training sets
come from each of their logs and from the events themselves; two views at once, of which each is judged by itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headrace
from headrace import FrameSource
from headrace.flows.backfill import backfill, portions
from headrace.stores.redis import RedisStore
from tests.oracle.closeness import close
from tests.oracle.definitions import definition_of, judging
from tests.oracle.described import Sent, View
from tests.oracle.folders import Stopped, check_folder, check_served, check_training, stopping
from tests.oracle.lived import Arriving, Lived, Turn, script_of
from tests.oracle.naive import FAR, Oracle, judge
from tests.oracle.operator import rows_of
from tests.oracle.ran import FORMS, source_of, table_of, writable
from tests.oracle.strategies import UNITS, questions, scripts, stateful, streams, views
from tests.servers.fixtures import RedisAddress

EXAMPLES = max(3, settings.default.max_examples // 16)


@st.composite
def many_views(draw: st.DrawFn, unit: int) -> list[View]:
    """One or two views over one stream; at times one more feature, of an object that learns."""
    stream = draw(streams(unit))
    each = draw(st.lists(views(unit, stream=stream), min_size=1, max_size=2))
    if draw(st.integers(0, 3)) == 0:
        each[-1] = replace(each[-1], features=(*each[-1].features, draw(stateful("learned", unit, stream))))
    return each


@st.composite
def turns(draw: st.DrawFn, unit: int, events: Sequence[Sent]) -> list[Turn]:
    """The wall's clock never goes back; it is beside the events, behind them, or long after."""
    out: list[Turn] = []
    wall, first = -FAR, 0
    while first < len(events) or len(out) < 2:
        count = draw(st.integers(0, 6)) if first < len(events) else 0
        some = events[first : first + count] or events[max(0, first - 1) : first + 1]
        near = [event.time for event in some] or [0]
        wall = max(wall, draw(st.sampled_from(near)) + draw(st.sampled_from((-2, 0, 0, 0, 1, 3))) * unit)
        then = draw(st.sampled_from(("go on", "go on", "checkpoint", "restart", "crash")))
        out.append(Turn(wall, len(some) if count else 0, then))
        first += count
    return out


def live(
    source: Any, definitions: Sequence[Any], each: Sequence[View], events: list[Sent], plan: Sequence[Turn], data: Path,
    stores: Sequence[Any] = (),
) -> list[tuple[int, int]]:  # fmt: skip
    """Run live as planned, holding what is online against the oracle after each turn; the turns that count in the end,
    as wall clocks and numbers of events."""
    lived = Lived(source, definitions, data, stores)
    counted: list[tuple[int, int]] = []
    kept = most = 0
    reached = -FAR
    stream = each[0].stream
    with headrace.EmbeddedStore(data / "online", read_only=True) as store:
        client = headrace.Client(store)
        for turn in [*plan, Turn(plan[-1].wall, len(events), "checkpoint")]:
            lived.take(turn.wall, min(turn.events, len(events) - lived.offset))
            counted.append((turn.wall, lived.offset - sum(count for _, count in counted)))
            judged = judge(stream, script_of(counted, events), live=True)
            again = lived.offset < most or judged.clock < reached  # after a crash; what is online is ahead of us
            most, reached = max(most, lived.offset), max(reached, judged.clock)
            for view, definition in zip(each, definitions, strict=True):
                if judged.taken and not again:
                    check_served(Oracle(view, (), judged), definition, client, judged.clock)
            # What is refused for being ahead of the clock may be taken by a clock that has moved on.
            if turn.then == "crash" and not any(reason == "ahead" for _, reason in judged.dead):
                lived.crash()
                del counted[kept:]
            elif turn.then != "go on":
                lived.checkpoint()
                kept = len(counted)
                if turn.then == "restart":
                    lived.crash()
    lived.end()
    return counted


def check_known(view: View, definition: Any, events: list[Sent], counted: Sequence[tuple[int, int]]) -> None:
    """Values as known then are those that the live flow served at each turn of its clock."""
    arrivals = [wall for wall, count in counted for _ in range(count)]
    arrived = pa.array(arrivals, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    known = FrameSource(table_of(events).append_column("arrived", arrived), Arriving, **judging(view.stream))
    by_wall = {wall: number for number, (wall, _) in enumerate(counted, 1)}  # of turns at one instant, all
    for wall, number in by_wall.items():
        oracle = Oracle(view, (), judge(view.stream, script_of(counted[:number], events), live=True))
        keys = [key for key in oracle.entities if all(one.since <= wall for one in oracle.taken(key))]
        how = {"events": known, "arrival": "arrived", "as_known": "only"}
        check_training(oracle, definition, [wall], partial(headrace.training_set, **how), keys)


def interrupted(way: Any, definitions: Sequence[Any], data: Path, stops: Sequence[int], **how: Any) -> None:
    """A run or a backfill that is stopped after so many steps, as often as is said, and then goes on to its end."""
    for stop in stops:
        with suppress(Stopped):
            way(definitions, data, progress=stopping(stop), **how)
            return
    way(definitions, data, **how)


def check_alike(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> None:
    """Two logs have the same rows in the same order."""
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            same = value == theirs[name] or close(value, theirs[name], 1e-12, relative=1e-7)
            assert same, f"{name}: {mine} beside {theirs}"


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_every_way(data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(UNITS))
    each = data.draw(many_views(unit))
    form = data.draw(st.sampled_from(sorted(FORMS)))
    script = data.draw(scripts(unit, each[0].stream, clocks=False))
    events = writable([step for step in script if isinstance(step, Sent)], form)
    times = data.draw(questions(unit, list(events)))
    plan = data.draw(turns(unit, events))
    size = data.draw(st.integers(1, 9))
    stops = data.draw(st.lists(st.integers(0, 12), max_size=2))
    often = data.draw(st.sampled_from((0.0, 1e9)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = source_of(form, events, root, each[0].stream)
        definitions = [definition_of(view, f"judged{i}", source) for i, view in enumerate(each)]
        interrupted(headrace.run, definitions, root / "run", stops, batch_size=size, checkpoint_every_s=often)
        with patch.object(portions, "PORTION", data.draw(st.sampled_from((1, 3, portions.PORTION)))):
            interrupted(backfill, definitions, root / "backfill", stops, batch_size=size)
        counted = live(source, definitions, each, events, plan, root / "live")
        told, wall = judge(each[0].stream, script_of(counted, events), live=True), plan[-1].wall
        judged = judge(each[0].stream, events)
        alike = told.taken == judged.taken
        for view, definition in zip(each, definitions, strict=True):
            oracle = Oracle(view, (), judged)
            check_folder(root / "run", oracle, definition, times)
            check_folder(root / "backfill", oracle, definition, times)
            check_folder(root / "live", Oracle(view, (), told), definition, times, max(wall, told.clock))
            check_training(oracle, definition, times, headrace.training_set)
            check_known(view, definition, events, counted)
            if judged.taken and told.taken:
                logs = [headrace.OfflineLog(root / way / "log") for way in ("run", "backfill", "live")]
                run, filled, lived = (rows_of(log.scan(definition)) for log in logs)
                check_alike(run, filled)
                if alike:
                    check_alike(run, lived)


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_live_by_redis(redis_server: RedisAddress, data: st.DataObject) -> None:
    """What a live flow writes to Redis is served as what it writes to the embedded store."""
    layout: Literal["feast", "packed"] = data.draw(st.sampled_from(("feast", "packed")))
    unit = data.draw(st.sampled_from(UNITS))
    each = data.draw(many_views(unit))
    script = data.draw(scripts(unit, each[0].stream, clocks=False))
    events = writable([step for step in script if isinstance(step, Sent)], "rows")
    plan = data.draw(turns(unit, events))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = source_of("rows", events, root, each[0].stream)
        definitions = [definition_of(view, f"judged{i}", source) for i, view in enumerate(each)]
        with redis_server.client() as client:
            client.flushdb()
        with RedisStore(redis_server.url, layout=layout, expire=False) as store:
            counted = live(source, definitions, each, events, plan, root / "live", [store])
            told, wall = judge(each[0].stream, script_of(counted, events), live=True), plan[-1].wall
            served = headrace.Client(store)
            for view, definition in zip(each, definitions, strict=True):
                if told.taken:
                    check_served(Oracle(view, (), told), definition, served, max(wall, told.clock))
