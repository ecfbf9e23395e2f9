"""Steps after steps: what they give does not depend on batches and restarts."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.features import Event, EventTime, IterableSource, Tumbling
from headrace.features.columns import Column
from headrace.features.streams import Flow
from headrace.testing import replay_flow


class Reading(Event):
    key: Column[str]
    n: Column[int]
    at: EventTime


STEPS = ("mixed", "several", "again", "whole", "by_number", "windows", "after_windows")


def mix(state: int | None, row: Any) -> tuple[int, Any]:
    """A state that tells every order of rows from every other."""
    state = (state or 0) * 31 % 1_000_003 + row.n + 1
    if state % 3:
        return state, [{"key": row.key, "n": state % 97}, {"key": row.key, "n": state % 89}]
    return state, {"key": "c", "n": state % 7}


def chained(late: str, lateness: int, dedup: str | None) -> Flow:
    flow = Flow("chained")
    source = IterableSource([], Reading, name="readings", lateness=f"{lateness}s", late=late, dedup=dedup)
    mixed = flow.read(source).key_by("key").stateful(mix, name="mixed")
    several = mixed.flat_map(lambda row: [vars(row)] * (row.n % 3), name="several")
    high, low = several.branch(Reading.n > 40)
    high.key_by("key").stateful(mix, name="again")
    low.map_batches(lambda table: table, as_="arrow", name="whole").key_by("n").stateful(mix, name="by_number")
    windows = mixed.key_by("key").fold(
        lambda total, row: total + row.n, Tumbling("5s"), initial=int, finish=lambda total: {"n": total},
        gives=Reading, name="windows",
    )  # fmt: skip
    windows.key_by("key").stateful(mix, name="after_windows")
    return flow


def given_by(flow: Flow, rows: list[dict[str, Any]], sizes: list[int], restarts: list[bool]) -> Any:
    with replay_flow(flow) as t:
        at = step = 0
        while at < len(rows):
            size = sizes[step % len(sizes)]
            t.send(rows[at : at + size])
            if restarts[step % len(restarts)]:
                t.restart()
            at, step = at + size, step + 1
        t.end()
        return {name: t.rows(name) for name in STEPS}, sorted(map(str, t.dead))


@settings(deadline=None)
@given(
    rows=st.lists(
        st.builds(
            lambda key, n, second: {"key": key, "n": n, "at": f"2026-01-01T00:00:{second:02}Z"},
            st.sampled_from("ab"),
            st.integers(0, 49),
            st.integers(0, 39),
        ),
        max_size=40,
    ),
    late=st.sampled_from(["count", "dead_letter"]),
    lateness=st.sampled_from([0, 2, 10]),
    dedup=st.sampled_from([None, "n"]),
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    restarts=st.lists(st.booleans(), min_size=1, max_size=5),
)
def test_what_steps_give_does_not_depend_on_batches_and_restarts(
    rows: list[dict[str, Any]], late: str, lateness: int, dedup: str | None, sizes: list[int], restarts: list[bool]
) -> None:
    whole = given_by(chained(late, lateness, dedup), rows, [len(rows) + 1], [False])
    assert given_by(chained(late, lateness, dedup), rows, sizes, restarts) == whole


def test_ties_after_a_merge_are_taken_in_one_order_whatever_the_batches() -> None:
    def merged() -> Flow:
        flow = Flow("merged")
        read = flow.read(IterableSource([], Reading, name="readings"))
        high, low = read.branch(Reading.n > 4)
        high.merge(low).flat_map(lambda row: [vars(row)] * 2).key_by("key").stateful(mix, name="after_flat_map")
        last = read.key_by("key").fold(
            lambda _, row: row.n, Tumbling("1s"), initial=int, finish=lambda n: {"n": n}, gives=Reading
        )
        high.merge(last).key_by("key").stateful(mix, name="after_windows")
        return flow

    rows = [
        {"key": "a", "n": n, "at": f"2026-01-01T00:00:0{second}Z"}
        for second, n in [(1, 1), (1, 9), (1, 2), (1, 8), (2, 3), (3, 7), (3, 4), (3, 6), (4, 5)]
    ]

    def after(sizes: list[int]) -> list[Any]:
        at = 0
        with replay_flow(merged()) as t:
            for size in sizes:
                t.send(rows[at : at + size])
                at += size
            t.end()
            return [t.rows("after_flat_map"), t.rows("after_windows")]

    assert after([9]) == after([1] * 9) == after([2, 3, 4])
