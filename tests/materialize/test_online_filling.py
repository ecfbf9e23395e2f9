"""A store filled from the log goes on where the last run came to, and ends as one that was filled at once."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.materialize.filling import Hindered, Rows, a_log, commit, content, table
from tests.servers.fixtures import RedisAddress

from headrace.features import Entity, FeatureView
from headrace.features.errors import DataError
from headrace.materialize.marks import Mark
from headrace.materialize.online import Step, fill, plan_fill, sync
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.errors import FencedError, MissingStoreError, UnreachableError
from headrace.stores.memory import MemoryStore
from headrace.stores.offline import OfflineLog, remove_log
from headrace.stores.online import Clock
from headrace.stores.redis import RedisStore
from headrace.stores.testing import AT, VISITS, Visit, Visits

Open = Callable[[], Any]


@pytest.fixture(params=["embedded", "feast", "packed"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same store anew at each call."""
    made: list[Any] = []

    def open_one() -> Any:
        if request.param == "embedded":
            made.append(EmbeddedStore(tmp_path / "online"))
        else:
            server: RedisAddress = request.getfixturevalue("redis_server")
            made.append(RedisStore(server.url, layout=request.param, expire=False))
        return made[-1]

    yield open_one
    for store in made:
        store.close()


def at_once(log: OfflineLog, to_us: int | None = None) -> dict[str, tuple[int, int]]:
    """What a store holds that was filled at once and did not exist before."""
    store = MemoryStore()
    sync(store, Visits, log=log, at_us=to_us)
    return content(store)


@pytest.mark.parametrize("batch", [1, 3, 50_000])
def test_a_store_is_filled_as_at_once(opened: Open, tmp_path: Path, batch: int) -> None:
    log, store = a_log(tmp_path / "log"), opened()
    (filled,) = fill(store, Visits, log=log, batch_rows=batch)
    assert content(store) == at_once(log) == {f"u{n}": (40 + n, 40 + n) for n in range(10)}
    assert store.clock() == Clock(AT + 49, "stream")
    assert (filled.entities, filled.written, filled.after_us, filled.went_on) == (10, 10, None, False)


def test_a_log_on_an_object_store_of_several_parts(tmp_path: Path) -> None:
    root = f"memory://{tmp_path.name}/log"
    for part, user in (("rides-0", 1), ("rides-1", 2)):
        with OfflineLog(root, part) as log:
            commit(log, [(user, 10 * user, user), (user, 10 * user + 1, user)], clock=30)
    store = MemoryStore()
    assert fill(store, Visits, log=OfflineLog(root))[0].entities == 2
    assert content(store) == {"u1": (11, 1), "u2": (21, 2)}
    (planned,) = plan_fill(store, Visits, log=OfflineLog(root))
    assert (planned.after_us, planned.settled_us) == (AT + 11, AT + 12)  # of the part that is further behind


def test_the_next_run_writes_what_changed_since_the_last(opened: Open, tmp_path: Path) -> None:
    log = a_log(tmp_path / "log")
    fill(opened(), Visits, log=log)
    commit(log, [(3, 60, 60), (11, 61, 61), (3, 62, 62)])
    seen = Hindered(opened(), -1, lambda: None)
    (filled,) = fill(seen, Visits, log=log)
    assert (filled.entities, filled.written, filled.went_on, seen.writes) == (2, 2, True, [2])
    assert content(seen) == at_once(log)
    (filled,) = fill(seen, Visits, log=log)
    assert (filled.entities, seen.writes) == (0, [2])


def test_provisional_rows_are_written_again_until_they_have_settled(opened: Open, tmp_path: Path) -> None:
    log = OfflineLog(tmp_path / "log")
    commit(log, [(1, 10, 1), (2, 11, 1)], [(1, 20, 0), (2, 90, 0)], clock=30)
    fill(opened(), Visits, log=log)
    assert content(opened()) == {"u1": (20, 0), "u2": (11, 1)}
    commit(log, [(1, 19, 5), (1, 20, 4)], clock=30)  # an event that came late, within the lateness
    (filled,) = fill(opened(), Visits, log=log)
    assert content(opened()) == {"u1": (20, 4), "u2": (11, 1)}
    assert (filled.after_us, filled.entities) == (AT + 11, 1)
    commit(log, settled=31, clock=40)
    assert fill(opened(), Visits, log=log)[0].entities == 0


def test_without_a_settled_instant_everything_is_written_each_time(opened: Open, tmp_path: Path) -> None:
    log = OfflineLog(tmp_path / "log")
    log.append(Visits, table([(1, 10, 1)]))
    log.commit(clock=Clock(AT + 10, "stream"))
    assert [fill(opened(), Visits, log=log)[0].entities for _ in range(2)] == [1, 1]


def test_a_range_that_leaves_a_gap_leaves_the_mark_alone(opened: Open, tmp_path: Path) -> None:
    log, store = a_log(tmp_path / "log"), opened()
    assert fill(store, Visits, log=log, from_us=AT + 45)[0].entities == 4  # 46 to 49
    assert plan_fill(store, Visits, log=log)[0].after_us is None
    fill(store, Visits, log=log, to_us=AT + 20)
    assert plan_fill(store, Visits, log=log)[0].after_us == AT + 20
    fill(store, Visits, log=log, from_us=AT + 21, to_us=AT + 30)
    assert plan_fill(store, Visits, log=log)[0].after_us == AT + 20
    fill(store, Visits, log=log, from_us=AT + 20, to_us=AT + 30)
    assert plan_fill(store, Visits, log=log)[0].after_us == AT + 30
    fill(store, Visits, log=log, to_us=AT + 5)
    assert plan_fill(store, Visits, log=log)[0].after_us == AT + 30
    fill(store, Visits, log=log)
    assert content(store) == at_once(log)


def test_a_plan_writes_nothing_and_takes_nothing_over(opened: Open, tmp_path: Path) -> None:
    log, store = a_log(tmp_path / "log"), opened()
    mark = Mark(store, Visits, log.manifest())
    (planned,) = plan_fill(opened(), Visits, log=log, to_us=AT + 12)
    assert (planned.entities, planned.written, planned.to_us, planned.settled_us) == (10, 0, AT + 12, AT + 50)
    assert store.views() == []
    mark.move(AT + 30)  # still the one that may
    assert plan_fill(opened(), Visits, log=log)[0].entities == 10
    assert plan_fill(opened(), Visits, log=log, everything=True)[0].after_us is None
    assert plan_fill(opened(), Visits, log=log, from_us=AT + 45)[0].entities == 4


def test_all_that_makes_former_rows_count_no_more_begins_anew(opened: Open, tmp_path: Path) -> None:
    class Changed(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits"):
        visits = Visit.count(last="1h")
        total = Visit.amount.sum(last="1h")
        mean = Visit.amount.mean(last="1h")

    log, store = a_log(tmp_path / "log"), opened()

    def entities(view: Any = Visits, **how: Any) -> int:
        return fill(store, view, log=log, **how)[0].entities

    assert (entities(), entities(), entities(everything=True), entities()) == (10, 0, 10, 0)
    store.drop("visits")
    assert (entities(), entities()) == (10, 0)
    log.close()
    remove_log(tmp_path / "log")
    shutil.rmtree(tmp_path / "log")
    log = a_log(tmp_path / "log", users=7)
    assert (entities(), entities()) == (7, 0)
    with OfflineLog(tmp_path / "log", "another") as part:
        commit(part, [(99, 5, 5)])
    assert (entities(to_us=AT + 60), entities(to_us=AT + 60)) == (8, 7)  # the new part has settled up to 6
    log.migrate_view(Changed)
    log.commit(clock=Clock(AT + 50, "stream"))
    store.migrate_view(Changed)
    assert entities(Changed, to_us=AT + 60) == 8


def test_newer_rows_of_the_store_stay(opened: Open, tmp_path: Path) -> None:
    log, store = a_log(tmp_path / "log"), opened()
    store.write(Visits, table([(1, 1000, 1), (2, 42, 7)]))
    (filled,) = fill(store, Visits, log=log)
    assert (filled.entities, filled.written) == (10, 9)
    assert content(store) == {**at_once(log), "u1": (1000, 1)}


def test_a_flow_may_write_meanwhile(opened: Open, tmp_path: Path) -> None:
    log, flow = a_log(tmp_path / "log"), opened()
    ahead = [(user, 1000 + user, 7) for user in range(0, 10, 3)]
    store = Hindered(opened(), 2, lambda: flow.write(Visits, table(ahead)))
    (filled,) = fill(store, Visits, log=log, batch_rows=2)
    assert content(flow) == {**at_once(log), **{f"u{user}": (at, value) for user, at, value in ahead}}
    # The first four rows went before, and in Redis are perhaps still on their way when the flow writes.
    assert 10 - len(ahead) <= filled.written <= 10 - sum(user >= 4 for user, _, _ in ahead)


def test_a_store_that_loses_its_rows_in_the_middle_is_filled_again(redis_server: RedisAddress, tmp_path: Path) -> None:
    def lose() -> None:
        with redis_server.client() as client:
            client.flushdb()

    log = a_log(tmp_path / "log")
    with RedisStore(redis_server.url, expire=False) as store:
        (filled,) = fill(Hindered(store, 3, lose), Visits, log=log, batch_rows=2)
        assert content(store) == at_once(log)
        assert (filled.entities, filled.after_us) == (10, None)

        class Losing(Hindered):
            def hinder(self) -> None:
                lose()

        with pytest.raises(UnreachableError, match="lost rows of view 'visits' while it was filled, 3 times in a row"):
            fill(Losing(store, -1, lose), Visits, log=log, batch_rows=2, everything=True)


def test_the_later_of_two_runs_goes_on(opened: Open, tmp_path: Path) -> None:
    log = a_log(tmp_path / "log")
    later: list[Any] = []
    first = Hindered(opened(), 4, lambda: later.extend(fill(opened(), Visits, log=log)))
    with pytest.raises(FencedError, match=r"View 'visits': another run fills .* from the same log since"):
        fill(first, Visits, log=log, batch_rows=2)
    assert later[0].entities < 10  # it went on from the first one's mark
    assert content(opened()) == at_once(log)


def test_a_clock_that_went_back_is_told_and_got_over(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, store = a_log(tmp_path / "log"), opened()
    fill(store, Visits, log=log)
    monkeypatch.setattr("headrace.materialize.marks.time", SimpleNamespace(time_ns=lambda: 1_000_000_000_000))
    with pytest.raises(
        FencedError, match=r"was filled by a run that began later than now, .* `headrace materialize --all`"
    ):
        fill(store, Visits, log=log)
    assert fill(store, Visits, log=log, everything=True)[0].entities == 10
    assert fill(store, Visits, log=log)[0].entities == 0


def test_everything_anew_goes_on_from_its_own_mark_after_a_kill(opened: Open, tmp_path: Path) -> None:
    log, store = a_log(tmp_path / "log"), opened()
    fill(store, Visits, log=log)
    store.delete(Visits, [{"user": f"u{n}"} for n in range(10)])

    def fail() -> None:
        raise UnreachableError("gone")

    with pytest.raises(UnreachableError):
        fill(Hindered(store, 4, fail), Visits, log=log, batch_rows=2, everything=True)
    (filled,) = fill(store, Visits, log=log)
    assert filled.went_on
    assert content(store) == at_once(log)


def test_what_the_store_says_is_not_taken_for_the_log(opened: Open, tmp_path: Path) -> None:
    """A lost connection is an OSError, as a file that has gone is."""
    log = a_log(tmp_path / "log")

    def fail() -> None:
        raise UnreachableError("gone")

    with pytest.raises(UnreachableError, match=r"^gone$"):
        fill(Hindered(opened(), 4, fail), Visits, log=log, batch_rows=2)
    (filled,) = fill(opened(), Visits, log=log, batch_rows=2)
    assert filled.went_on
    assert content(opened()) == at_once(log)


def test_a_log_that_is_asked_again_counts_once(tmp_path: Path) -> None:
    """As it is when files were merged away while they were read."""

    class Again(OfflineLog):
        def query(self, views: Any, work: Any, **how: Any) -> Any:
            super().query(views, work, **how)
            return super().query(views, work, **how)

    a_log(tmp_path / "log")
    store, steps = Hindered(MemoryStore(), -1, lambda: None), list[Step]()
    (filled,) = fill(store, Visits, log=Again(tmp_path / "log"), batch_rows=4, progress=steps.append)
    assert (filled.entities, filled.written, store.writes) == (10, 10, [4, 4, 2] * 2)
    assert [step.done for step in steps] == [0, 4, 8, 10] * 2
    assert content(store) == at_once(OfflineLog(tmp_path / "log"))


def test_how_far_it_is_is_told(tmp_path: Path) -> None:
    log, steps = a_log(tmp_path / "log"), list[Step]()
    fill(MemoryStore(), Visits, log=log, batch_rows=4, progress=steps.append)
    assert steps == [
        Step("visits", 0, 10, None),
        Step("visits", 4, 10, AT + 43),
        Step("visits", 8, 10, AT + 47),
        Step("visits", 10, 10, AT + 49),
    ]


def test_what_cannot_be_filled_is_told(tmp_path: Path) -> None:
    log, store = OfflineLog(tmp_path / "log"), MemoryStore()
    with pytest.raises(DataError, match=r"Say as of when to fill the store: fill\(..., to_us=...\)"):
        fill(store, Visits, log=log)
    with pytest.raises(MissingStoreError, match="has nothing of view 'visits'"):
        fill(store, Visits, log=log, to_us=AT)
    with pytest.raises(DataError, match=r"from 2026-01-01T00:00:00.000009Z to 2026-01-01T00:00:00.000008Z"):
        fill(store, Visits, log=a_log(tmp_path / "other"), from_us=AT + 9, to_us=AT + 8)
    assert store.clock() is None


class Stopped(Exception):
    """The process dies."""


HISTORY = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=20)
"""Changes of a user, so many instants after the one before, and how far off its provisional value was."""

EPISODES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4), st.none() | st.integers(0, 4)), max_size=4)
"""Rows that settle; rows per batch of the fill that follows; before which write it is killed."""


@given(HISTORY, EPISODES)
def test_however_it_is_interrupted_it_ends_as_filled_at_once(
    tmp_path_factory: pytest.TempPathFactory, history: Any, episodes: Any
) -> None:
    """Rows settle little by little, with provisional ones behind them that turn out otherwise; fills come between, some
    are killed. In the end the store holds what one that is filled at once holds."""
    rows, at = [], 0
    for user, after, off in history:
        at += after
        rows.append((user, at, at, off))
    log, store, start = OfflineLog(tmp_path_factory.mktemp("log")), MemoryStore(), 0
    for count, batch, killed in [*episodes, (len(rows), 3, None)]:
        settled, tail = rows[start : start + count], rows[start + count :]
        start += len(settled)
        commit(log, _plain(settled), [(user, at, value + off) for user, at, value, off in tail], clock=at)

        def die() -> None:
            raise Stopped

        seen = Hindered(store, -1 if killed is None else killed, die)
        try:
            fill(seen, Visits, log=log, batch_rows=batch)
        except Stopped:
            continue
        assert content(store) == at_once(log)
    log.close()


def _plain(rows: Any) -> Rows:
    return [(user, at, value) for user, at, value, _ in rows]
