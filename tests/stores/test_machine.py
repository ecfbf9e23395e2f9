"""Online stores against a plain dict, over random writes, deletes and crashes."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.servers.redis import RedisServer

from headrace.stores.embedded import EmbeddedStore
from headrace.stores.memory import MemoryStore
from headrace.stores.online import OnlineStore, StoredRow
from headrace.stores.redis import RedisStore
from headrace.stores.testing import AT, EveryType, Visits, row_layout, rows_of

KEYS = {
    Visits: st.sampled_from([{"user": name} for name in ("", "a", "b", "1", "k" * 600, "ü")]),
    EveryType: st.fixed_dictionaries(
        {
            "user": st.sampled_from(["a", "ab"]),
            "shop": st.sampled_from([0, 1, -1]),
            "token": st.sampled_from([b"", b"b"]),
        }
    ),
}
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT = st.floats(allow_nan=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = {
    "int64": INT64,
    "float64": FLOAT,
    "string": TEXT,
    "bool": st.booleans(),
    "bytes": st.binary(max_size=5),
    "timestamp": INT64,
    "list<string>": st.lists(st.none() | TEXT, max_size=3),
    "list<bytes>": st.lists(st.none() | st.binary(max_size=3), max_size=3),
    "list<timestamp>": st.lists(st.none() | INT64, max_size=3),
    "map<string,int64>": st.dictionaries(TEXT, st.none() | INT64, max_size=3),
    "map<int64,float64>": st.dictionaries(INT64, st.none() | FLOAT, max_size=3),
    "map<bool,list<timestamp>>": st.dictionaries(st.booleans(), st.none() | st.lists(INT64, max_size=2), max_size=2),
}


def rows(view: Any) -> st.SearchStrategy[StoredRow]:
    values = {name: st.none() | VALUES[dtype] for name, dtype in row_layout(view).features}
    times = st.integers(AT - 3, AT + 3)  # few instants, so that ties are common
    return st.builds(StoredRow, st.fixed_dictionaries(values), times, times)


def identity(key: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(key.items()))


WRITES = {view: st.lists(st.tuples(KEYS[view], rows(view)), max_size=6) for view in KEYS}


class StoreMachine(RuleBasedStateMachine):
    """Writes by the rule "not older", everything else as a dict does it."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.model: dict[Any, dict[Any, StoredRow]] = {view: {} for view in KEYS}
        self.stream: int | None = None

    def open(self) -> OnlineStore:
        raise TypeError("open is the subclass's")

    @initialize()
    def start(self) -> None:
        self.store = self.open()

    def write(self, view: Any, pairs: list[tuple[dict[str, Any], StoredRow]]) -> None:
        for key, each in pairs:
            there = self.model[view].get(identity(key))
            if there is None or there.event_timestamp_us <= each.event_timestamp_us:
                self.model[view][identity(key)] = each
        written = self.store.write(view, rows_of(view, pairs))
        assert written <= len(pairs)

    @rule(pairs=WRITES[Visits])
    def write_visits(self, pairs: list[tuple[dict[str, Any], StoredRow]]) -> None:
        self.write(Visits, pairs)

    @rule(pairs=WRITES[EveryType])
    def write_every_type(self, pairs: list[tuple[dict[str, Any], StoredRow]]) -> None:
        self.write(EveryType, pairs)

    @rule(keys=st.lists(KEYS[Visits], max_size=3))
    def delete(self, keys: list[dict[str, Any]]) -> None:
        gone = [self.model[Visits].pop(identity(key), None) for key in keys]
        assert self.store.delete(Visits, keys) == sum(each is not None for each in gone)

    @rule(keys=st.lists(KEYS[EveryType], max_size=4))
    def read(self, keys: list[dict[str, Any]]) -> None:
        expected = [self.model[EveryType].get(identity(key)) for key in keys]
        assert self.store.read(EveryType, keys) == expected

    @rule()
    def drop(self) -> None:
        self.store.drop("visits")
        self.model[Visits] = {}

    @rule(us=st.integers(AT - 3, AT + 3))
    def set_clock(self, us: int) -> None:
        self.store.set_clock(us, "stream")
        self.stream = us if self.stream is None else max(self.stream, us)

    @invariant()
    def same_as_the_dict(self) -> None:
        for view, rows in self.model.items():
            assert {identity(key): each for key, each in self.store.scan(view)} == rows
        clock = self.store.clock()
        assert (None if clock is None else clock.us) == self.stream

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        shutil.rmtree(self.place)


class MemoryMachine(StoreMachine):
    def open(self) -> OnlineStore:
        return MemoryStore()


class EmbeddedMachine(StoreMachine):
    def open(self) -> OnlineStore:
        return EmbeddedStore(self.place / "store", durable=False, map_bytes=1 << 16)

    @rule()
    def crash_and_reopen(self) -> None:
        # What kill -9 leaves is the file as the last transaction left it: take a copy of it, and go on from the copy.
        copy = self.place / "copy"
        shutil.copytree(self.place / "store", copy)
        self.store.close()
        shutil.rmtree(self.place / "store")
        copy.rename(self.place / "store")
        self.store = self.open()


PACE = settings(max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))


def test_the_memory_store_is_a_dict() -> None:
    run_state_machine_as_test(MemoryMachine, settings=PACE)


def test_the_embedded_store_is_a_dict_that_survives() -> None:
    run_state_machine_as_test(EmbeddedMachine, settings=PACE)


class RedisMachine(StoreMachine):
    """A server that writes every command to its disk, killed and started again in between."""

    server: RedisServer
    layout: Literal["feast", "packed"]

    def open(self) -> OnlineStore:
        with self.server.client() as client:
            client.flushall()
        return RedisStore(self.server.url, layout=self.layout)

    @rule()
    def crash_and_restart(self) -> None:
        self.server.restart()

    @rule()
    def go_on_in_another_process(self) -> None:
        self.store.close()
        self.store = RedisStore(self.server.url, layout=self.layout)


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_the_redis_store_is_a_dict_that_survives(
    layout: Literal["feast", "packed"], new_redis: Callable[..., RedisServer]
) -> None:
    RedisMachine.server, RedisMachine.layout = new_redis(persist=True), layout
    run_state_machine_as_test(RedisMachine, settings=settings(PACE, max_examples=15))
