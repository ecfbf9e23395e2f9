"""What a client does when its store fails, answers late or is asked too often: budgets, partial answers, the cache."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tests.servers.redis import RedisServer

from headrace.features import Entity, FeatureService, FeatureView, Request, derived
from headrace.features.errors import DataError
from headrace.serving import Client, RetryBudget, RowCache
from headrace.stores.errors import SchemaMismatchError, UnreachableError
from headrace.stores.lookups import Ask, Looked
from headrace.stores.memory import MemoryStore
from headrace.stores.online import StoredRow
from headrace.stores.redis import RedisStore
from headrace.stores.testing import AT, VISITS, Visit, Visits, row, rows_of

SECOND = 1_000_000


class Recent(FeatureView, source=VISITS, entity=Entity("user", key="user"), ttl="10s"):
    seen = Visit.count(last="1h")


class Changed(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="recent", ttl="10s"):
    seen = Visit.count(last="2h")


class Failing(MemoryStore):
    """A store that fails so many times, and counts how often and for how many entities it is asked."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.failures, self.calls, self.entities = failures, 0, 0
        self.write(Visits, rows_of(Visits, [({"user": "a"}, row(0, visits=1)), ({"user": "b"}, row(0, visits=2))]))
        self.write(Recent, rows_of(Recent, [({"user": "a"}, StoredRow({"seen": 5}, AT, AT))]))
        self.set_clock(AT, "stream")

    def look_up(self, asks: Sequence[Ask]) -> Looked:
        self.calls += 1
        self.entities += sum(len(ask.keys) for ask in asks)
        if self.failures:
            self.failures -= 1
            raise UnreachableError("It does not answer.")
        return super().look_up(asks)


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_a_budget_allows_a_share_of_the_calls() -> None:
    clock = Time()
    budget = RetryBudget(0.1, at_least=2, window_s=10, now=clock)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    for _ in range(50):
        budget.called()
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    clock.at += 11
    assert [budget.take() for _ in range(3)] == [True, True, False]
    with pytest.raises(DataError, match=r"share is 2, expected 0 to 1"):
        RetryBudget(2)


def test_calls_are_made_again_within_the_budget() -> None:
    store = Failing(2)
    client = Client(store, [Visits], retries=RetryBudget(0.0, at_least=2))
    assert client.features(["visits"], {"user": ["a"]}).rows == [(1, 1.0)]
    assert store.calls == 3
    store.failures = 1
    with pytest.raises(UnreachableError):
        client.features(["visits"], {"user": ["a"]})
    with pytest.raises(UnreachableError):
        Client(Failing(1), [Visits]).features(["visits"], {"user": ["a"]})


def test_a_partial_answer_says_what_failed() -> None:
    service = FeatureService(
        "s",
        [Visits["visits"], Changed],
        derived={"x": derived(Changed["seen"] * Request("k", int)), "y": derived(Visits["visits"] + 1)},
    )
    store = Failing()
    with pytest.raises(SchemaMismatchError):
        Client(store).features(service, {"user": ["a"]}, request={"k": [2]})
    table = Client(store, on_failure="partial").features(service, {"user": ["a", "new"]}, request={"k": [2, 3]})
    assert table.rows == [(1, None, None, None), (0, None, None, None)]
    assert table.statuses[:3] == (("PRESENT", "NOT_FOUND"), ("FAILED", "FAILED"), ("FAILED", "FAILED"))
    assert list(table.failures) == ["recent"]
    assert np.isnan(table.to_numpy()[:, 1]).all()
    store.failures = 1
    gone = Client(store, on_failure="partial").features([Visits, Recent], {"user": ["a"]})
    assert (set(gone.failures), gone.rows) == ({"visits", "recent"}, [(None, None, None)])


def test_cached_rows_are_never_older_than_said() -> None:
    store, clock = Failing(), Time()
    cache = RowCache("2s", entries=3, now=clock)
    client = Client(store, [Visits, Recent], cache=cache)

    def ask(*users: str) -> list[Any]:
        return [values[0] for values in client.features(["visits:visits"], {"user": list(users)}).rows]

    assert ask("a", "b") == [1, 2]
    store.write(Visits, rows_of(Visits, [({"user": "a"}, row(1, visits=9))]))
    clock.at += 1.9
    assert ask("a", "b", "c") == [1, 2, 0]
    assert (store.calls, store.entities, cache.hits, cache.misses) == (2, 3, 2, 3)
    clock.at += 0.1
    assert ask("a") == [9]
    ask("d", "e")
    assert len(cache._rows) == 3
    entities = store.entities
    assert ask("a") == [9]
    assert store.entities == entities


def test_max_age_holds_for_cached_rows() -> None:
    store = Failing()
    client = Client(store, [Visits, Recent], cache=RowCache("1h"))
    first = client.features(["recent"], {"user": ["a"]})
    assert (first.rows, first.statuses) == ([(5,)], (("PRESENT",),))
    store.set_clock(AT + 10 * SECOND, "stream")
    client.features(["visits"], {"user": ["a"]})  # brings the clock on
    table = client.features(["recent"], {"user": ["a"]})
    assert (table.rows, table.statuses) == ([(0,)], (("OUTSIDE_MAX_AGE",),))


def test_threads_share_a_client_while_the_server_is_killed(new_redis: Callable[..., RedisServer]) -> None:
    """8 threads ask while the server dies and comes back with its data: an answer is right, or an error."""
    server = new_redis(persist=True)
    store = RedisStore(server.url, timeout_s=1.0, connections=4)
    users = [f"u{at}" for at in range(100)]
    store.write(Visits, rows_of(Visits, [({"user": user}, row(0, visits=at)) for at, user in enumerate(users)]))
    client, stop = Client(store, [Visits]), threading.Event()
    right, wrong, failed = [0] * 8, [], [0] * 8

    def ask(seed: int) -> None:
        at = seed
        while not stop.is_set():
            at = (at * 31 + 7) % 100
            places = [(at + step) % 100 for step in range(seed + 1)]
            try:
                table = client.features(["visits:visits"], {"user": [users[place] for place in places]})
            except UnreachableError:
                failed[seed] += 1
                continue
            right[seed] += 1
            if [values[0] for values in table.rows] != places:
                wrong.append(table.rows)

    threads = [threading.Thread(target=ask, args=(seed,), daemon=True) for seed in range(8)]
    for thread in threads:
        thread.start()
    server.restart()
    enough = sum(right) + 100
    while sum(right) < enough:
        stop.wait(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    store.close()
    assert wrong == []
