"""The behaviour that every online store has, as a test suite: subclass it, say how to open one, and run pytest.

class TestMemoryStore(OnlineStoreSuite):
    def open(self, place):
        return MemoryStore()
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource, Lifetime, derived
from headrace.features.errors import DataError
from headrace.stores.errors import FencedError, SchemaMismatchError, StoreError
from headrace.stores.layout import arrow_schema, row_layout
from headrace.stores.lookups import Ask
from headrace.stores.online import OnlineStore, Portion, PositionedStore, Reached, StoredRow, filling_prefix
from headrace.stores.rows import table_of

AT = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z in microseconds."""


class Visit(Event):
    """An event with a column of each type."""

    user: str
    shop: int
    token: bytes
    amount: float | None
    times: int | None
    city: str | None
    paid: bool | None
    raw: bytes | None
    seen: datetime | None
    at: EventTime


VISITS = IterableSource([], Visit)


class EveryType(FeatureView, source=VISITS, entity=Entity("visitor", keys=["user", "shop", "token"])):
    """A view with keys and features of every type, a hidden feature among the stored ones."""

    visits = Visit.count(last="1h")
    total = Visit.amount.sum(last="1h")
    most = Visit.times.max(last="1h")
    city = Visit.city.last(over=Lifetime())
    cities = Visit.city.last_n(3, over=Lifetime())
    paid = Visit.paid.last(over=Lifetime())
    raw = Visit.raw.last(over=Lifetime())
    raws = Visit.raw.first_n(2, over=Lifetime())
    seen = Visit.seen.last(over=Lifetime())
    seens = Visit.seen.last_n(2, over=Lifetime())
    by_city = Visit.count(last="1h", by=Visit.city)
    by_shop = Visit.amount.mean(last="1h", by=Visit.shop)
    by_paid = Visit.seen.last_n(2, over=Lifetime(), by=Visit.paid)
    fading = derived(Visit.amount.decayed_sum("1h", over=Lifetime()) * 2)


class Visits(FeatureView, source=VISITS, entity=Entity("user", key="user")):
    visits = Visit.count(last="1h")
    total = Visit.amount.sum(last="1h")


class ByShop(FeatureView, source=VISITS, entity=Entity("shop", key="shop")):
    visits = Visit.count(last="1h")


def row(at: int, visits: int = 1, total: float = 1.0) -> StoredRow:
    """A row of `Visits` as of `at` microseconds after AT."""
    return StoredRow({"visits": visits, "total": total}, AT + at, AT + at)


def rows_of(view: Any, pairs: list[tuple[dict[str, Any], StoredRow]]) -> pa.Table:
    """A table of rows of `view` from keys and rows."""
    return table_of(row_layout(view), [key for key, _ in pairs], [each for _, each in pairs])


HIDDEN = next(name for name in row_layout(EveryType).feature_names if name.startswith("_"))
NULLS: dict[str, Any] = dict.fromkeys(row_layout(EveryType).feature_names)
FULL: dict[str, Any] = {
    "visits": 2**53 + 1,
    "total": float("inf"),
    "most": -(2**63),
    "city": "Zürich \x00 ☃",
    "cities": ["", None, "ab"],
    "paid": False,
    "raw": b"\x00\xff",
    "raws": [b"", b"\x80"],
    "seen": AT + 1,
    "seens": [-1, AT],
    "by_city": {"b": 2**62, "a": 1},
    "by_shop": {7: 0.1, -7: None, 2**53 + 1: float("-inf")},
    "by_paid": {True: [AT, None], False: []},
    "fading": 5e-324,
    HIDDEN: 1e300,
}


class OnlineStoreSuite:
    """Rules of `OnlineStore`; `open` gives an empty store at a new place."""

    def open(self, place: Path) -> OnlineStore:
        """A store at `place`, made if it is not there."""
        raise TypeError(f"{type(self).__name__} does not say how to open its store")

    @pytest.fixture
    def store(self, tmp_path: Path) -> Any:
        store = self.open(tmp_path / "online")
        yield store
        store.close()

    def put(self, store: OnlineStore, key: dict[str, Any], *rows: StoredRow, view: Any = Visits) -> int:
        return store.write(view, rows_of(view, [(key, each) for each in rows]))

    def get(self, store: OnlineStore, user: str) -> StoredRow | None:
        return store.read(Visits, [{"user": user}])[0]

    # Values

    def test_a_lookup_asks_for_some_features_of_several_views_at_once(self, store: Any) -> None:
        self.put(store, {"user": "a"}, row(1, visits=3, total=1.5))
        key = {"user": "a", "shop": 1, "token": b"t"}
        store.write(EveryType, rows_of(EveryType, [(key, StoredRow(FULL, AT + 2, AT))]))
        names = tuple(reversed(row_layout(EveryType).feature_names))
        users, visitors = [("new",), ("a",), ("a",)], [("a", 1, b"t"), ("a", 2, b"t")]
        asks = [
            Ask(row_layout(Visits), ("total",), users),
            Ask(row_layout(EveryType), names, visitors),
            Ask(row_layout(Visits), ("visits", "total"), users),
            Ask(row_layout(Visits), (), []),
        ]
        assert store.look_up(asks).clock is None
        store.set_clock(AT + 9, "stream")
        clock, rows = store.look_up(asks)
        assert clock == (AT + 9, "stream")
        assert rows[0] == [None, ((1.5,), AT + 1, AT + 1), ((1.5,), AT + 1, AT + 1)]
        assert rows[1] == [(tuple(FULL[name] for name in names), AT + 2, AT), None]
        assert rows[2] == [None, ((3, 1.5), AT + 1, AT + 1), ((3, 1.5), AT + 1, AT + 1)]
        assert rows[3] == []
        assert store.look_up([]).rows == []

    def test_every_type_comes_back_as_it_went_in(self, store: OnlineStore) -> None:
        full, nulls = {"user": "ü", "shop": -(2**63), "token": b"\x00"}, {"user": "", "shop": 0, "token": b""}
        written = [(full, StoredRow(FULL, AT + 1, AT)), (nulls, StoredRow(NULLS, -5, -6))]
        assert store.write(EveryType, rows_of(EveryType, written)) == 2
        assert store.read(EveryType, [nulls, full]) == [StoredRow(NULLS, -5, -6), StoredRow(FULL, AT + 1, AT)]
        found = store.read(EveryType, [full])[0]
        assert found is not None
        assert list(found.values) == list(row_layout(EveryType).feature_names)
        for name, value in FULL.items():
            assert type(found.values[name]) is type(value), name
        assert list(found.values["by_city"]) == ["b", "a"]
        assert {type(key) for key in found.values["by_paid"]} == {bool}

    def test_a_row_read_is_the_readers_own(self, store: OnlineStore) -> None:
        key = {"user": "a", "shop": 1, "token": b"t"}
        store.write(EveryType, rows_of(EveryType, [(key, StoredRow(FULL, AT, AT))]))
        first = store.read(EveryType, [key])[0]
        assert first is not None
        first.values["cities"].append("changed")
        first.values["by_city"].clear()
        assert store.read(EveryType, [key]) == [StoredRow(FULL, AT, AT)]

    def test_columns_are_taken_by_name_and_an_empty_table_is_fine(self, store: OnlineStore) -> None:
        table = rows_of(Visits, [({"user": "a"}, row(1))])
        assert store.write(Visits, table.select(table.column_names[::-1])) == 1
        assert store.write(Visits, arrow_schema(row_layout(Visits)).empty_table()) == 0
        assert self.get(store, "a") == row(1)

    # Keys

    def test_what_is_not_there_is_none_in_its_place(self, store: OnlineStore) -> None:
        assert store.read(Visits, [{"user": "a"}]) == [None]
        self.put(store, {"user": "b"}, row(1))
        asked = [{"user": user} for user in "abab"]
        assert store.read(Visits, asked) == [None, row(1), None, row(1)]
        assert store.read(Visits, []) == []

    def test_keys_that_look_alike_are_different(self, store: OnlineStore) -> None:
        keys = ["1", "01", "1 ", "", "\x00", "a\x00b", "\u00c9", "E\u0301", "k" * 500, "k" * 501, "x" * 5000]
        for at, key in enumerate(keys):
            self.put(store, {"user": key}, row(at, visits=at))
        self.put(store, {"shop": 1}, StoredRow({"visits": 99}, AT, AT), view=ByShop)
        found = store.read(Visits, [{"user": key} for key in keys])
        assert [each and each.values["visits"] for each in found] == list(range(len(keys)))
        assert {key["user"] for key, _ in store.scan(Visits)} == set(keys)
        assert store.read(ByShop, [{"shop": 1}])[0] == StoredRow({"visits": 99}, AT, AT)

    def test_a_key_of_another_type_is_refused(self, store: OnlineStore) -> None:
        with pytest.raises(DataError, match=r"View 'visits': key 'user' is 1 \(int\), expected string. Give user='1'."):
            store.read(Visits, [{"user": 1}])
        with pytest.raises(DataError, match="key 'shop' is True"):
            store.read(ByShop, [{"shop": True}])
        with pytest.raises(DataError, match=r"got the key columns \['id'\], expected exactly user \(string\)"):
            store.read(Visits, [{"id": "a"}])
        with pytest.raises(DataError, match="key 'user' is None"):
            store.delete(Visits, [{"user": None}])

    # Order

    def test_never_an_older_row_over_a_newer(self, store: OnlineStore) -> None:
        assert self.put(store, {"user": "a"}, row(10)) == 1
        assert self.put(store, {"user": "a"}, row(9, visits=9)) == 0
        assert self.get(store, "a") == row(10)
        assert self.put(store, {"user": "a"}, row(11, visits=11)) == 1
        assert self.get(store, "a") == row(11, visits=11)

    def test_an_equally_new_row_overwrites(self, store: OnlineStore) -> None:
        self.put(store, {"user": "a"}, row(10, visits=1))
        assert self.put(store, {"user": "a"}, row(10, visits=2)) == 1
        assert self.get(store, "a") == row(10, visits=2)

    def test_instants_before_1970_are_ordered_too(self, store: OnlineStore) -> None:
        self.put(store, {"user": "a"}, row(-AT - 5))
        assert self.put(store, {"user": "a"}, row(-AT - 6)) == 0
        assert self.put(store, {"user": "a"}, row(-AT + 5)) == 1

    def test_within_a_batch_the_newest_and_of_equals_the_last_stays(self, store: OnlineStore) -> None:
        self.put(store, {"user": "a"}, row(2, 1), row(3, 2), row(3, 3), row(1, 4))
        assert self.get(store, "a") == row(3, 3)

    # Scan, delete, drop

    def test_scan_gives_every_entity_once(self, store: OnlineStore) -> None:
        assert list(store.scan(Visits)) == []
        for name in "cab":
            self.put(store, {"user": name}, row(1), row(2))
        self.put(store, {"shop": 5}, StoredRow({"visits": 1}, AT, AT), view=ByShop)
        assert list(store.scan(Visits)) == [({"user": name}, row(2)) for name in "abc"]

    def test_delete_forgets_some(self, store: OnlineStore) -> None:
        assert store.delete(Visits, [{"user": "a"}]) == 0
        for name in "ab":
            self.put(store, {"user": name}, row(9))
        assert store.delete(Visits, [{"user": "a"}, {"user": "x"}]) == 1
        assert store.read(Visits, [{"user": "a"}, {"user": "b"}]) == [None, row(9)]
        assert self.put(store, {"user": "a"}, row(1)) == 1

    def test_views_and_drop(self, store: OnlineStore) -> None:
        self.put(store, {"user": "a"}, row(1))
        self.put(store, {"user": "k" * 900}, row(1))
        self.put(store, {"shop": 1}, StoredRow({"visits": 1}, AT, AT), view=ByShop)
        assert store.views() == ["by_shop", "visits"]
        store.drop("visits")
        store.drop("never there")
        assert store.views() == ["by_shop"]
        assert list(store.scan(Visits)) == []
        assert len(list(store.scan(ByShop))) == 1

    # Definitions

    def test_rows_of_another_definition_are_refused(self, store: OnlineStore) -> None:
        self.put(store, {"user": "a"}, row(1))

        class Other(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits"):
            visits = Visit.count(last="2h")
            mean = Visit.amount.mean(last="1h")

        said = "another definition made: 'mean' is new; 'visits' is computed in another way; 'total' is gone"
        with pytest.raises(SchemaMismatchError, match=said):
            store.read(Other, [{"user": "a"}])
        with pytest.raises(SchemaMismatchError, match=said):
            list(store.scan(Other))
        with pytest.raises(SchemaMismatchError, match=r"store.drop\('visits'\)"):
            store.write(Other, arrow_schema(row_layout(Other)).empty_table())
        assert self.get(store, "a") == row(1)
        store.drop("visits")
        assert store.read(Other, [{"user": "a"}]) == [None]

    def test_what_readers_apply_and_the_order_of_features_may_change(self, store: OnlineStore) -> None:
        self.put(store, {"user": "a"}, row(1, visits=3, total=4.0))

        class Same(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits", ttl="1d"):
            total = Visit.amount.sum(last="1h")
            visits = Visit.count(last="1h")

        found = store.read(Same, [{"user": "a"}])[0]
        assert found is not None
        assert list(found.values.items()) == [("total", 4.0), ("visits", 3)]
        store.write(Same, rows_of(Same, [({"user": "a"}, row(2, visits=5, total=6.0))]))
        assert self.get(store, "a") == row(2, visits=5, total=6.0)

    def test_rows_that_do_not_fit_are_refused(self, store: OnlineStore) -> None:
        table = rows_of(Visits, [({"user": "a"}, row(1))])
        with pytest.raises(SchemaMismatchError, match="View 'visits': got rows without total"):
            store.write(Visits, table.drop_columns(["total"]))
        with pytest.raises(SchemaMismatchError, match="with the unknown extra"):
            store.write(Visits, table.append_column("extra", pa.array([1])))
        with pytest.raises(SchemaMismatchError, match="column 'user' has null rows"):
            store.write(Visits, table.set_column(0, "user", pa.array([None], pa.string())))
        with pytest.raises(SchemaMismatchError, match="rows do not fit its columns"):
            store.write(Visits, table.set_column(3, "visits", pa.array(["many"])))
        assert list(store.scan(Visits)) == []

    # Clock

    def test_the_clock_never_goes_back_within_a_kind(self, store: OnlineStore) -> None:
        assert store.clock() is None
        store.set_clock(10, "stream")
        store.set_clock(9, "stream")
        assert store.clock() == (10, "stream")
        store.set_clock(5, "wall")
        assert store.clock() == (5, "wall")
        with pytest.raises(DataError, match="kind is 'event'"):
            store.set_clock(1, "event")

    # Threads

    def test_a_reader_in_another_thread_sees_whole_batches(self, store: OnlineStore) -> None:
        """The writer gives all users the same number in one batch; a reader of all of them never sees two numbers."""
        users = [{"user": f"u{i}"} for i in range(50)]
        store.write(Visits, rows_of(Visits, [(user, row(0, visits=0)) for user in users]))
        torn: list[set[Any]] = []
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                seen = {each and each.values["visits"] for each in store.read(Visits, users)}
                if len(seen) != 1:
                    torn.append(seen)

        reader = threading.Thread(target=look, daemon=True)
        reader.start()
        try:
            for i in range(1, 60):
                store.write(Visits, rows_of(Visits, [(user, row(i, visits=i)) for user in users]))
        finally:
            done.set()
            reader.join()
        assert torn == []


class PositionedStoreSuite(OnlineStoreSuite):
    """Rules of `PositionedStore`; `forget` is the back door by which a store loses its data."""

    def open(self, place: Path) -> PositionedStore:
        raise TypeError(f"{type(self).__name__} does not say how to open its store")

    def forget(self, store: Any) -> None:
        """Lose everything, as a server does that restarts without persistence."""
        raise TypeError(f"{type(self).__name__} does not say how its store loses its data")

    def portion(self, position: int, *rows: tuple[str, StoredRow], epoch: int = 1, writer: str = "w") -> Portion:
        table = rows_of(Visits, [({"user": user}, each) for user, each in rows])
        clock = max([each.event_timestamp_us for _, each in rows], default=AT)
        return Portion(writer, epoch, position, clock, [(Visits, table)] if rows else [])

    def test_a_writer_finds_the_position_it_had_reached(self, store: Any) -> None:
        assert store.take_over("w", 1) is None
        assert store.take_over("other", 9) is None
        assert store.write_portions([self.portion(10, ("a", row(1)), ("b", row(1)))]) == ["written"]
        assert store.write_portions([self.portion(12, ("a", row(2))), self.portion(15)]) == ["written", "written"]
        assert self.get(store, "a") == row(2)
        assert self.get(store, "b") == row(1)
        assert store.take_over("w", 1) == Reached(15, AT + 2)
        assert store.take_over("w", 2) == Reached(15, AT + 2)
        assert store.take_over("other", 9) is None
        assert store.write_portions([]) == []

    def test_portions_of_several_writers_and_views_are_written_at_once(self, store: Any) -> None:
        store.take_over("w", 1)
        store.take_over("v", 7)
        shops = rows_of(ByShop, [({"shop": 1}, StoredRow({"visits": 3}, AT, AT))])
        both = Portion("v", 7, 4, AT + 1, [(Visits, rows_of(Visits, [({"user": "b"}, row(1))])), (ByShop, shops)])
        assert store.write_portions([self.portion(1, ("a", row(1))), both]) == ["written", "written"]
        assert store.read(Visits, [{"user": "a"}, {"user": "b"}]) == [row(1), row(1)]
        assert store.read(ByShop, [{"shop": 1}]) == [StoredRow({"visits": 3}, AT, AT)]
        assert (store.take_over("w", 2), store.take_over("v", 8)) == (Reached(1, AT + 1), Reached(4, AT + 1))

    def test_portions_keep_the_rule_of_order(self, store: Any) -> None:
        store.take_over("w", 1)
        self.put(store, {"user": "a"}, row(10))
        assert store.write_portions([self.portion(1, ("a", row(9, 9)), ("b", row(9, 9)))]) == ["written"]
        assert (self.get(store, "a"), self.get(store, "b")) == (row(10), row(9, 9))
        assert store.write_portions([self.portion(2, ("a", row(10, 5)))]) == ["written"]
        assert self.get(store, "a") == row(10, 5)

    def test_a_later_epoch_fences_the_one_before(self, store: Any) -> None:
        store.take_over("w", 1)
        store.write_portions([self.portion(3, ("a", row(1)))])
        other = self.again(store)
        assert other.take_over("w", 2) == Reached(3, AT + 1)
        assert store.write_portions([self.portion(99, ("a", row(9, 9)), ("b", row(9)))]) == ["fenced"]
        assert store.write_portions([self.portion(99)]) == ["fenced"]
        assert self.get(store, "a") == row(1)
        assert self.get(store, "b") is None
        with pytest.raises(FencedError, match="writer 'w' was taken over by epoch 2, this run has epoch 1"):
            store.take_over("w", 1)
        assert other.write_portions([self.portion(4, ("a", row(2)), epoch=2)]) == ["written"]
        assert self.get(store, "a") == row(2)
        assert other.take_over("w", 3) == Reached(4, AT + 2)

    def test_one_that_is_fenced_does_not_hinder_the_others_of_a_call(self, store: Any) -> None:
        store.take_over("w", 1)
        store.take_over("v", 1)
        self.again(store).take_over("w", 2)
        portions = [self.portion(1, ("a", row(1))), self.portion(1, ("b", row(1)), writer="v")]
        assert store.write_portions(portions) == ["fenced", "written"]
        assert store.read(Visits, [{"user": "a"}, {"user": "b"}]) == [None, row(1)]

    def test_lost_data_is_noticed_before_anything_is_written(self, store: Any) -> None:
        store.take_over("w", 1)
        store.write_portions([self.portion(3, ("a", row(1)), ("b", row(1)))])
        self.forget(store)
        assert store.write_portions([self.portion(4, ("a", row(2)))]) == ["lost"]
        assert store.write_portions([self.portion(4)]) == ["lost"]
        assert store.read(Visits, [{"user": "a"}, {"user": "b"}]) == [None, None]
        assert store.take_over("w", 1) is None
        assert store.write_portions([self.portion(4, ("a", row(2)), ("b", row(1)))]) == ["written"]
        assert self.get(store, "a") == row(2)
        assert store.take_over("w", 1) == Reached(4, AT + 2)

    def test_loss_before_the_first_portion_is_noticed_too(self, store: Any) -> None:
        store.take_over("w", 1)
        self.forget(store)
        assert store.write_portions([self.portion(4, ("a", row(2)))]) == ["lost"]

    def test_who_did_not_take_over_may_not_write(self, store: Any) -> None:
        with pytest.raises(
            StoreError, match=r"writer 'w' was not taken over with epoch 1. Call take_over\('w', 1\) first"
        ):
            store.write_portions([self.portion(1)])
        store.take_over("w", 1)
        with pytest.raises(StoreError, match="not taken over with epoch 2"):
            store.write_portions([self.portion(1, epoch=2)])

    def test_rows_of_another_definition_are_refused_in_portions_too(self, store: Any) -> None:
        self.put(store, {"user": "a"}, row(1))
        store.take_over("w", 1)

        class Other(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits"):
            visits = Visit.count(last="2h")

        rows = rows_of(Other, [({"user": "a"}, StoredRow({"visits": 1}, AT + 5, AT))])
        with pytest.raises(SchemaMismatchError, match="another definition made"):
            store.write_portions([Portion("w", 1, 1, AT + 5, [(Other, rows)])])
        assert self.get(store, "a") == row(1)

    def test_writers_are_forgotten_by_the_beginning_of_their_names(self, store: Any) -> None:
        for name in ("rides/0", "rides/1", "cards/0", "rides*/0"):
            store.take_over(name, 3)
        assert store.forget_writers("rides/") == 2
        assert store.forget_writers("rides/") == 0
        assert store.write_portions([self.portion(1, writer="rides/0", epoch=3)]) == ["lost"]
        assert store.write_portions([self.portion(1, writer="cards/0", epoch=3)]) == ["written"]
        assert self.again(store).take_over("rides/1", 1) is None
        assert store.forget_writers("rides*") == 1

    def test_how_far_a_writer_has_come_can_be_asked_without_taking_it_over(self, store: Any) -> None:
        assert store.reached("w") is None
        store.take_over("w", 1)
        assert store.reached("w") is None
        store.write_portions([self.portion(3, ("a", row(1)))])
        assert self.again(store).reached("w") == Reached(3, AT + 1)
        assert store.write_portions([self.portion(-4)]) == ["written"]
        assert store.reached("w") == Reached(-4, AT + 1)
        self.forget(store)
        assert store.reached("w") is None

    def test_a_dropped_view_takes_with_it_how_far_it_was_filled(self, store: Any) -> None:
        mine, others = filling_prefix("visits") + "x", filling_prefix("visits_2") + "x"
        for writer in (mine, others):
            store.take_over(writer, 1)
            store.write_portions([self.portion(3, ("a", row(1)), writer=writer)])
        store.drop("visits")
        assert (store.reached(mine), store.reached(others)) == (None, Reached(3, AT + 1))

    # Changed definitions

    def test_a_changed_view_keeps_what_means_the_same(self, store: Any) -> None:
        class Changed(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits"):
            mean = Visit.amount.mean(last="1h")
            visits = Visit.count(last="1h")

        assert store.migrate_view(Changed) == []  # nothing is there
        self.put(store, {"user": "a"}, row(5, visits=3))
        self.put(store, {"user": "k" * 600}, row(5, visits=4))
        assert store.migrate_view(Changed) == ["'mean' is new", "'total' is gone"]
        assert self.again(store).migrate_view(Changed) == []
        assert list(store.scan(Changed)) == [
            ({"user": "a"}, StoredRow({"mean": None, "visits": 3}, AT + 5, AT + 5)),
            ({"user": "k" * 600}, StoredRow({"mean": None, "visits": 4}, AT + 5, AT + 5)),
        ]
        with pytest.raises(SchemaMismatchError, match="'total' is new"):
            self.get(store, "a")
        older, newer = (StoredRow({"mean": 2.0, "visits": 9}, AT + at, AT) for at in (4, 6))
        assert self.put(store, {"user": "a"}, older, newer, view=Changed) == 1
        assert store.read(Changed, [{"user": "a"}]) == [newer]
        assert store.views() == ["visits"]

    def test_who_still_has_the_former_definition_reads_what_it_knows(self, store: Any) -> None:
        class More(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits"):
            seen = Visit.seen.last_n(2, over=Lifetime())
            total = Visit.amount.sum(last="1h")
            mean = Visit.amount.mean(last="1h")
            visits = Visit.count(last="1h")

        self.put(store, {"user": "a"}, row(5, visits=3, total=4.0))
        store.migrate_view(More)
        assert self.get(store, "a") == row(5, visits=3, total=4.0)
        whole = StoredRow({"seen": [AT, None], "total": 6.0, "mean": 3.0, "visits": 2}, AT + 6, AT + 6)
        self.put(store, {"user": "b"}, whole, view=More)
        known = [row(5, visits=3, total=4.0), row(6, visits=2, total=6.0)]
        reader = self.again(store)
        assert reader.read(Visits, [{"user": "a"}, {"user": "b"}]) == known
        assert [found for _, found in reader.scan(Visits)] == known
        layout = row_layout(Visits)
        (looked,) = reader.look_up([Ask(layout, ("total",), [("a",), ("b",)])]).rows
        assert [found[0] for found in looked if found is not None] == [(4.0,), (6.0,)]
        with pytest.raises(SchemaMismatchError, match="'mean' is gone"):
            self.put(store, {"user": "a"}, row(9))
        with pytest.raises(SchemaMismatchError, match="'mean' is gone"):
            store.delete(Visits, [{"user": "a"}])

    def test_a_feature_computed_in_another_way_is_null_until_it_is_written_anew(self, store: Any) -> None:
        class Changed(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits"):
            visits = Visit.count(last="2h")
            total = Visit.amount.sum(last="1h")

        class Back(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="visits"):
            total = Visit.amount.sum(last="1h")
            visits = Visit.count(last="1h")
            seen = Visit.seen.last_n(2, over=Lifetime())

        self.put(store, {"user": "a"}, row(5, visits=3, total=4.0))
        assert store.migrate_view(Changed) == ["'visits' is computed in another way"]
        assert store.read(Changed, [{"user": "a"}]) == [StoredRow({"visits": None, "total": 4.0}, AT + 5, AT + 5)]
        self.put(store, {"user": "b"}, row(6, visits=7), view=Changed)
        assert store.migrate_view(Back) == ["'seen' is new", "'visits' is computed in another way"]
        first, second = store.read(Back, [{"user": "a"}, {"user": "b"}])
        assert first.values["visits"] in (None, 3)  # a store may know that the row was made under this definition
        assert first == StoredRow({"total": 4.0, "visits": first.values["visits"], "seen": None}, AT + 5, AT + 5)
        assert second == StoredRow({"total": 1.0, "visits": None, "seen": None}, AT + 6, AT + 6)
        full = StoredRow({"total": 5.0, "visits": 1, "seen": [AT + 1, None]}, AT + 7, AT)
        self.put(store, {"user": "a"}, full, view=Back)
        assert store.read(Back, [{"user": "a"}]) == [full]

    def test_a_view_of_another_entity_does_not_take_ones_place(self, store: Any) -> None:
        class Moved(FeatureView, source=VISITS, entity=Entity("shop", key="shop"), name="visits"):
            visits = Visit.count(last="1h")

        self.put(store, {"user": "a"}, row(5))
        with pytest.raises(SchemaMismatchError, match=r"keys were user \(string\), now shop \(int64\)"):
            store.migrate_view(Moved)
        assert self.get(store, "a") == row(5)

    def again(self, store: Any) -> Any:
        """Another object on the same store, as another process has it; the same one where only this process can have
        it."""
        return store


class LastingStoreSuite(OnlineStoreSuite):
    """Further rules of a store whose rows outlive its process; `open` at the same place finds them again."""

    def test_rows_layouts_and_clock_are_there_after_reopening(self, tmp_path: Path) -> None:
        store = self.open(tmp_path / "online")
        self.put(store, {"user": "a"}, row(1))
        store.set_clock(AT, "stream")
        store.close()
        again = self.open(tmp_path / "online")
        assert self.get(again, "a") == row(1)
        assert again.clock() == (AT, "stream")
        assert again.views() == ["visits"]
        assert self.put(again, {"user": "a"}, row(0)) == 0
        again.close()

    def test_two_stores_at_one_place_are_the_same_rows(self, tmp_path: Path) -> None:
        one, two = self.open(tmp_path / "online"), self.open(tmp_path / "online")
        self.put(one, {"user": "a"}, row(1))
        assert self.get(two, "a") == row(1)
        one.close()
        self.put(two, {"user": "a"}, row(2))
        assert self.get(two, "a") == row(2)
        two.close()


def instant(us: int) -> datetime:
    """`us` microseconds after AT as a datetime."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


__all__ = [
    "AT",
    "EveryType",
    "LastingStoreSuite",
    "OnlineStoreSuite",
    "PositionedStoreSuite",
    "Visit",
    "Visits",
    "instant",
    "row",
    "rows_of",
]
