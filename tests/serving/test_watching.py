"""Watchers of a client are told of every call and never spoil one; a client opens and closes a store by its address."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress

from headrace.features import FeatureService, Request, derived
from headrace.features.errors import DataError, DefinitionError
from headrace.serving import Answer, AsyncClient, Client, RetryBudget
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.errors import MissingStoreError, StoreError, UnreachableError
from headrace.stores.lookups import Ask, Looked
from headrace.stores.memory import MemoryStore
from headrace.stores.redis import RedisStore
from headrace.stores.testing import AT, Visits, row, rows_of

SERVICE = FeatureService("s", [Visits], derived={"x": derived(Visits["visits"] * Request("k", int))}, version=3)


class Notes:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.failures: list[tuple[Any, ...]] = []
        self.retries = 0

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)

    def failed(self, shown: str, error: Exception, seconds: float, trace: str | None) -> None:
        self.failures.append((shown, type(error), seconds >= 0, trace))

    def retried(self) -> None:
        self.retries += 1


class Broken(Notes):
    def answered(self, answer: Answer) -> None:
        raise RuntimeError("full")

    def failed(self, shown: str, error: Exception, seconds: float, trace: str | None) -> None:
        raise RuntimeError("full")


class Failing(MemoryStore):
    """A store that fails so many times."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures
        self.write(Visits, rows_of(Visits, [({"user": "a"}, row(0, visits=4))]))
        self.set_clock(AT, "stream")

    def look_up(self, asks: Sequence[Ask]) -> Looked:
        if self.failures:
            self.failures -= 1
            raise UnreachableError("It does not answer.")
        return super().look_up(asks)


class Threads:
    """`Client` by the names that both clients share here."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.client = Client(*arguments, **options)

    def features(self, *arguments: Any, **options: Any) -> Any:
        return self.client.features(*arguments, **options)


class Tasks(Threads):
    """`AsyncClient`, each call in a loop of its own: the store is read in place."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.client: Any = AsyncClient(*arguments, **options)

    def features(self, *arguments: Any, **options: Any) -> Any:
        return asyncio.run(self.client.features(*arguments, **options))


@pytest.mark.parametrize("kind", [Threads, Tasks])
class TestBothClients:
    def test_a_watcher_is_told_of_answers_failures_and_retries(self, kind: type[Threads]) -> None:
        notes, store = Notes(), Failing(1)
        client = kind(store, [SERVICE], watchers=[notes], retries=RetryBudget(0.0, at_least=1))
        table = client.features("s", {"user": ["a"]}, request={"k": [2]}, trace="t1")
        (answer,) = notes.answers
        assert answer.table is table
        assert (answer.service, answer.plan.shown, answer.trace) == (SERVICE, "Service 's' version 3", "t1")
        assert (answer.request, answer.table.entities, answer.table.rows) == (
            {"k": [2]},
            {"user": ["a"]},
            [(4, 1.0, 8)],
        )
        assert [each.name for each in answer.plan.columns] == ["visits", "total", "x"]
        assert answer.seconds > 0
        assert notes.retries == 1
        client.features([Visits], {"user": ["a"]})
        assert (notes.answers[1].service, notes.answers[1].trace) == (None, None)
        store.failures = 1
        with pytest.raises(UnreachableError):
            client.features("s", {"user": ["a"]}, request={"k": [2]}, trace="t2")
        with pytest.raises(DataError):
            client.features("s", {"user": ["a"]})
        with pytest.raises(DefinitionError):
            client.features("other", {"user": ["a"]})
        assert notes.failures == [
            ("Service 's' version 3", UnreachableError, True, "t2"),
            ("Service 's' version 3", DataError, True, None),
            ("A lookup", DefinitionError, True, None),
        ]
        assert len(notes.answers) == 2

    def test_a_watcher_that_fails_spoils_nothing(self, kind: type[Threads], caplog: pytest.LogCaptureFixture) -> None:
        notes = Notes()
        client = kind(Failing(), [SERVICE], watchers=[Broken(), notes])
        with caplog.at_level(logging.ERROR, "headrace.serving"):
            for _ in range(3):
                assert client.features([Visits], {"user": ["a"]}).rows == [(4, 1.0)]
            with pytest.raises(DefinitionError):
                client.features("other", {"user": ["a"]})
        assert (client.client.watcher_failures, len(notes.answers), len(notes.failures)) == (4, 3, 1)
        (record,) = caplog.records
        assert "A watcher of lookups failed" in record.message
        assert record.exc_info is not None

    def test_a_plan_may_be_asked_for(self, kind: type[Threads]) -> None:
        client = kind(Failing(), [SERVICE])
        plan = client.client.catalog.plan("s")
        assert client.features(plan, {"user": ["a"]}, request={"k": [3]}).rows == [(4, 1.0, 12)]

    def test_project_and_layout_are_for_addresses(self, kind: type[Threads], tmp_path: Path) -> None:
        with pytest.raises(DataError, match="project= and layout= are for a store given by its address"):
            kind(MemoryStore(), project="p")
        with pytest.raises(MissingStoreError):
            kind(tmp_path / "none")
        with pytest.raises(StoreError, match="No online store is known for addresses like http://"):
            kind("http://localhost")


def test_a_folder_by_its_path(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store:
        store.write(Visits, rows_of(Visits, [({"user": "a"}, row(0, visits=4))]))
    with Client(tmp_path, [Visits]) as client:
        assert client.get("visits", user="a")["visits"] == 4

    async def ask() -> int:
        async with AsyncClient(str(tmp_path), [Visits]) as tasks:
            visits: int = (await tasks.get("visits", user="a"))["visits"]
            return visits

    assert asyncio.run(ask()) == 4


def test_redis_by_its_url_is_closed_by_who_opened_it(redis_server: RedisAddress) -> None:
    with RedisStore(redis_server.url, project="p", layout="packed") as store:
        store.write(Visits, rows_of(Visits, [({"user": "a"}, row(0, visits=4))]))
        client = Client(redis_server.url, [Visits], project="p", layout="packed")
        assert client.get("visits", user="a")["visits"] == 4
        client.close()
        with pytest.raises(StoreError, match="is closed"):
            client.get("visits", user="a")
        with Client(store, [Visits]) as of_store:
            assert of_store.get("visits", user="a")["visits"] == 4
        assert store.read(Visits, [{"user": "a"}]) != [None]
