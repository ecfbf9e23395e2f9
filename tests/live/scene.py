"""A live flow under constant load with readers that watch it: the scene in which something is broken.

Three topics: one keyed by the entity, one not, and one of a single partition. The flow runs by the wall's clock.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.live.definitions import LiveSource
from tests.live.flow import LiveFlow
from tests.live.load import Load
from tests.live.outcome import by_instant, check_dead, check_offline, check_online, outcome_of
from tests.live.settling import until_settled
from tests.live.streams import Habits, Message, Topic, Traffic
from tests.live.watching import Watch
from tests.oracle.described import Derived, Feature, Stream, View, Where, Window
from tests.servers.kafka import Kafka

SECOND = 1_000_000
LATENESS = 2 * SECOND
PEOPLE = 200
STREAM = Stream(lateness=LATENESS, dedup="id")
HABITS = Habits(
    1000,
    delays=(0, 0, 0, 0, SECOND // 10, SECOND, SECOND, 9 * SECOND),
    jumps=0.0,
    poison=0.005,
    tombstones=0.002,
    people=PEOPLE,
)
RECENT = Window("sliding", 10 * SECOND, 2 * SECOND)
VIEW = View(
    (
        Feature("rows", "count", RECENT),
        Feature("paid", "count", RECENT, where=Where("==", ("paid", True))),
        Feature("total", "sum", Window("sliding", 20 * SECOND, 5 * SECOND), "amount"),
        Feature("spread", "std", RECENT, "amount"),
        Feature("least", "min", Window("hopping", 6 * SECOND, 3 * SECOND), "amount"),
        Feature("newest", "last_n", Window("last", n=3), "city", params={"n": 3}),
        Feature("visit", "count", Window("session", SECOND)),
        Feature("ever", "count", Window("lifetime")),
        Feature("cities", "distinct", Window("sliding", 8 * SECOND, 2 * SECOND), "city"),
        Derived("share", "/", "paid", "rows", default=-1.0),
    ),
    stream=STREAM,
)
LEAN = View(
    (
        Feature("before", "mean", Window("sliding", 10 * SECOND, 2 * SECOND, ending=4 * SECOND), "amount"),
        Feature("ever", "sum", Window("lifetime"), "amount"),
        Feature("highest", "max", Window("tumbling", 5 * SECOND), "amount"),
    ),
    keys=("who", "where_from"),
    stream=STREAM,
)


@dataclass
class Scene:
    """What a test of one fault works with."""

    kafka: Kafka
    flow: LiveFlow
    loads: list[Load]
    watch: Watch
    rng: random.Random
    messages: list[Message]

    def go_on(self, seconds: float) -> None:
        """Let the load go on for a while; a worker that fails meanwhile fails the test."""
        until = time.monotonic() + seconds
        self.flow.until(lambda: time.monotonic() > until, "time to pass")

    def end_load(self) -> list[Message]:
        """Stop producing, and have everything settle by one more event for each partition."""
        for load in self.loads:
            self.messages += load.end()
            last = load.traffic.end(max(0, time.time_ns() // 1000 - load.traffic.now) + LATENESS + SECOND)
            load.put(last)
            self.messages += last
        return self.messages

    def check(self, folder: Path, *, sample: int = 8, most_mb: int = 700) -> None:
        """All of the proof: after the load has ended everything is as though nothing had happened."""
        messages = self.end_load()
        until_settled(self.flow, self.kafka, messages)
        people = {f"e{n}" for n in self.rng.sample(range(PEOPLE), sample)}
        self._check_online(messages, people)
        self.flow.stop()
        self.watch.check(most_mb=most_mb)
        check_dead(self.flow, messages)
        check_offline(self.flow, messages, tail=False, people=people)
        self._check_uninterrupted(folder)

    def _check_online(self, messages: list[Message], people: set[str]) -> None:
        """A busy machine may be late for once; a value that was forgotten stays wrong."""
        for last in (False, False, False, False, True):
            try:
                return check_online(self.flow, messages, lag_us=2 * SECOND, people=people)
            except AssertionError:
                if last:
                    raise
                time.sleep(2)

    def _check_uninterrupted(self, folder: Path) -> None:
        """The log of everybody is that of another flow over the same topics that nobody disturbed."""
        name = f"{self.flow.name}-again"
        with LiveFlow(
            folder, self.flow.bootstrap, self.flow.sources, name=name, clock="stream", until_end=True
        ) as again:
            again.start()
            again.ended()
            got, expected = outcome_of(self.flow), outcome_of(again)
        assert got.dead == expected.dead
        for view, rows in expected.log.items():
            assert rows, view
            assert _ordered(got.log[view]) == _ordered(rows), f"{view}: not the rows of an uninterrupted run"


def _ordered(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(map(repr, by_instant(rows)))


def sources_on(kafka: Kafka) -> list[LiveSource]:
    """The scene's topics, made anew, with their views."""
    keyed = Topic(kafka.new_topic(4, "keyed"), 4, ("who",))
    loose = Topic(kafka.new_topic(3, "loose"), 3)
    single = Topic(kafka.new_topic(1, "single"), 1)
    return [
        LiveSource([keyed], {"keyed": VIEW, "keyed_lean": LEAN}, STREAM),
        LiveSource([loose], {"loose": VIEW}, STREAM),
        LiveSource([single], {"single": LEAN}, STREAM),
    ]


@contextmanager
def scene(
    kafka: Kafka,
    folder: Path,
    online: str | None,
    *,
    seed: int = 1,
    workers: int = 2,
    supervised: int = 0,
    rate: int = 300,
    **settings: Any,
) -> Iterator[Scene]:
    """A flow of `workers` under load of `rate` messages a second, once rows are seen in its online store.

    supervised: each of them is a `headrace run --workers` of so many processes.
    """
    sources = sources_on(kafka)
    with ExitStack() as stack:
        flow = stack.enter_context(LiveFlow(folder / "flow", kafka.bootstrap, sources, online=online, **settings))
        now = time.time_ns() // 1000
        loads = [
            stack.enter_context(Load(kafka.bootstrap, Traffic(s.topics, HABITS, seed + n, now), rate // len(sources)))
            for n, s in enumerate(sources)
        ]
        flow.start(workers, supervised=supervised)
        watch = stack.enter_context(Watch(flow))
        flow.until(lambda: watch.looks["online"] > 0 and watch.looks["log"] > 0, "rows online and in the log")
        yield Scene(kafka, flow, loads, watch, random.Random(seed), [])
