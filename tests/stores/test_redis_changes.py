"""A view changes while its rows lie in Redis and others write: nobody reads a value that another definition made."""

from typing import Any

import pytest
from tests.servers.fixtures import RedisAddress

from headrace.features import Entity, FeatureView, Lifetime
from headrace.stores.errors import SchemaMismatchError, UnreachableError
from headrace.stores.online import Portion, StoredRow
from headrace.stores.redis import RedisStore
from headrace.stores.testing import AT, VISITS, Visit, rows_of

KEY = {"user": "a"}
LAYOUTS = ("feast", "packed")


class Former(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="seen"):
    visits = Visit.count(last="1h")
    seen = Visit.seen.last_n(2, over=Lifetime())


class Latter(FeatureView, source=VISITS, entity=Entity("user", key="user"), name="seen"):
    visits = Visit.count(last="1h")
    seen = Visit.seen.last_n(3, over=Lifetime())


OLD = StoredRow({"visits": 3, "seen": [AT + 1, None]}, AT, AT)
NEW = StoredRow({"visits": 4, "seen": [AT + 1, None, AT + 7]}, AT + 1, AT)
CARRIED = StoredRow({"visits": 3, "seen": None}, AT, AT)


def table(view: Any, stored: StoredRow) -> Any:
    return rows_of(view, [(KEY, stored)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_noted_beside_feasts_types_goes_with_the_feature(redis_server: RedisAddress, layout: Any) -> None:
    with RedisStore(redis_server.url, layout=layout) as store:
        store.write(Former, table(Former, OLD))
        store.migrate_view(Latter)
        assert store.read(Latter, [KEY]) == [CARRIED]
        store.write(Latter, table(Latter, NEW))
        assert store.read(Latter, [KEY]) == [NEW]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_who_still_has_the_former_definition_writes_no_more(redis_server: RedisAddress, layout: Any) -> None:
    with RedisStore(redis_server.url, layout=layout) as old, RedisStore(redis_server.url, layout=layout) as new:
        old.take_over("w", 1)
        old.write(Former, table(Former, OLD))
        new.migrate_view(Latter)
        for call in (
            lambda: old.write(Former, table(Former, OLD)),
            lambda: old.write_portions([Portion("w", 1, 2, AT, [(Former, table(Former, OLD))])]),
            lambda: old.read(Former, [KEY]),
        ):
            with pytest.raises(SchemaMismatchError, match="'seen' is computed in another way"):
                call()
        assert new.read(Latter, [KEY]) == [CARRIED]


def test_a_change_that_was_cut_short_is_finished_by_the_next(
    redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisStore(redis_server.url) as killed, RedisStore(redis_server.url) as store:
        killed.write(Former, table(Former, OLD))

        def dies(*_: Any) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(killed._views, "_cleared", dies)
        with pytest.raises(KeyboardInterrupt):
            killed.migrate_view(Latter)
        with pytest.raises(UnreachableError, match="the definition of view 'seen' is being changed"):
            store.write(Latter, table(Latter, NEW))
        assert store.migrate_view(Latter) == []
        assert store.read(Latter, [KEY]) == [CARRIED]
        store.write(Latter, table(Latter, NEW))
        assert store.read(Latter, [KEY]) == [NEW]


def test_one_that_changes_a_view_more_slowly_removes_nothing_new(
    redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks of a flow change the view at once; the first is done and writes before the second has looked."""
    with RedisStore(redis_server.url) as slow, RedisStore(redis_server.url) as fast:
        slow.write(Former, table(Former, OLD))
        really = slow._views._cleared

        def overtaken(*arguments: Any) -> bool:
            monkeypatch.setattr(slow._views, "_cleared", really)
            fast.migrate_view(Latter)
            fast.write(Latter, table(Latter, NEW))
            return really(*arguments)

        monkeypatch.setattr(slow._views, "_cleared", overtaken)
        assert slow.migrate_view(Latter) == ["'seen' is computed in another way"]
        assert slow.read(Latter, [KEY]) == [NEW]
