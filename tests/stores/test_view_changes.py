"""A view that changes under a log: features come and go, old rows stay, and no column means two things."""

from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.stores.logs import DAY

from headrace.features import Entity, FeatureView, derived
from headrace.stores.errors import SchemaMismatchError
from headrace.stores.offline import OfflineLog
from headrace.stores.online import StoredRow
from headrace.stores.testing import AT, VISITS, Visit, rows_of

USER = Entity("user", key="user")


class One(FeatureView, source=VISITS, entity=USER, name="visits"):
    count = Visit.count(last="1h")
    total = Visit.amount.sum(last="1h")


class Two(FeatureView, source=VISITS, entity=USER, name="visits"):
    """`total` is gone, `city` is new."""

    count = Visit.count(last="1h")
    city = Visit.city.last(last="1d")


class Three(FeatureView, source=VISITS, entity=USER, name="visits"):
    """`total` is back, and computed in another way."""

    total = Visit.amount.sum(last="2h")
    count = Visit.count(last="1h")
    city = Visit.city.last(last="1d")


class Altered(FeatureView, source=VISITS, entity=USER, name="visits"):
    count = Visit.count(last="2h")
    total = Visit.amount.sum(last="1h")


class OtherKeys(FeatureView, source=VISITS, entity=Entity("shop", key="shop"), name="visits"):
    count = Visit.count(last="1h")
    total = Visit.amount.sum(last="1h")


def rows(view: Any, at: int, user: str = "a", **values: Any) -> Any:
    return rows_of(view, [({"user": user}, StoredRow(values, AT + at, AT + at))])


def read(log: OfflineLog, view: Any, *features: str) -> list[tuple[Any, ...]]:
    found = log.scan(view, columns=features).to_pydict()
    return list(zip(*found.values(), strict=True))


def test_features_come_and_go(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    log.append(One, rows(One, 1, count=1, total=1.5))
    log.commit()
    with pytest.raises(SchemaMismatchError, match=r"'city' is new; 'total' is gone\. Go on .* --on-change start"):
        log.append(Two, rows(Two, 2, count=2, city="x"))
    log.close()
    assert log.migrate_view(Two) == ["'city' is new", "'total' is gone"]
    log.append(Two, rows(Two, 2, count=2, city="x"))
    log.tail(Two, rows(Two, 9, count=9, city="y"))
    assert read(OfflineLog(tmp_path), One, "count", "total") == [(1, 1.5)]  # not committed yet
    log.commit()
    reader = OfflineLog(tmp_path)
    assert read(reader, Two, "count", "city") == [(1, None), (2, "x"), (9, "y")]
    with pytest.raises(
        SchemaMismatchError, match=r"'total' is new; 'city' is gone\. Read with the definition that the"
    ):
        reader.scan(One)
    assert log.migrate_view(Two) == []
    assert log.migrate_view(Three) == ["'total' is new"]
    log.append(Three, rows(Three, 3, count=3, city="z", total=3.5))
    log.commit()
    assert read(reader, Three, "total", "count", "city") == [(None, 1, None), (None, 2, "x"), (3.5, 3, "z")]
    assert reader.latest(Three).column("total").to_pylist() == [3.5]
    log.close()
    log.append(Three, rows(Three, 4, count=4, city=None, total=None))
    log.commit()
    assert read(reader, Three, "count") == [(1,), (2,), (3,), (4,)]


def test_what_cannot_go_on(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    log.append(One, rows(One, 1, count=1, total=1.5))
    log.commit()
    said = r"cannot go on with view 'visits': 'count' is computed in another way\. .* another name; or remove it, run"
    with pytest.raises(SchemaMismatchError, match=said):
        log.migrate_view(Altered)
    log.close()
    with pytest.raises(SchemaMismatchError, match=r"keys were user \(string\), now shop \(int64\)"):
        log.migrate_view(OtherKeys)
    log.close()
    assert read(log, One, "count") == [(1,)]


def test_a_change_alone_is_a_commit_and_one_not_committed_is_none(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    log.append(One, rows(One, 1, count=1, total=1.5))
    log.commit(settled_us={"visits": AT + 2})
    log.migrate_view(Two)
    log.close()
    assert read(log, One, "count") == [(1,)]
    log.migrate_view(Two)
    log.commit()
    assert read(log, Two, "count", "city") == [(1, None)]
    assert log.settled_us(Two) == AT + 2


def test_rows_of_both_definitions_in_one_commit(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path)
    log.append(One, rows(One, 1, count=1, total=1.5))
    log.tail(One, rows(One, 5, count=5, total=5.5))
    log.migrate_view(Two)
    log.append(Two, rows(Two, 2, count=2, city="x"))
    log.commit()
    assert read(log, Two, "count", "city") == [(1, None), (2, "x")]


def test_small_files_of_two_definitions_are_merged_apart(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path, keep_s=0)
    expected: list[tuple[Any, ...]] = []
    for at in range(20):
        view, values = (One, {"total": 0.5}) if at < 10 else (Two, {"city": "x"})
        if at == 10:
            log.migrate_view(Two)
        log.append(view, rows(view, at, count=at, **values))
        log.commit()
        expected.append((at, None if at < 10 else "x"))
    log.append(Two, rows(Two, DAY, count=20, city="y"))
    log.commit()
    log.append(Two, rows(Two, DAY + 1, count=21, city="y"))
    log.commit()
    assert read(log, Two, "count", "city") == [*expected, (20, "y"), (21, "y")]
    assert len(log.files(Two)) <= 5
    sql = f"SELECT count, total, city FROM read_parquet('{tmp_path}/view=visits/*/*.parquet', union_by_name = true)"
    found = duckdb.sql(sql + " ORDER BY event_timestamp").fetchall()
    assert found == [(at, 0.5 if at < 10 else None, city) for at, city in [*expected, (20, "y"), (21, "y")]]


def test_parts_change_one_after_the_other(tmp_path: Path) -> None:
    logs = [OfflineLog(tmp_path, part) for part in ("p", "q")]
    for at, log in enumerate(logs):
        log.append(One, rows(One, at, user=log.part, count=at, total=0.5))
        log.commit()
    reader = OfflineLog(tmp_path)
    with pytest.raises(SchemaMismatchError, match="'city' is new"):
        reader.scan(Two)  # nobody writes it
    logs[0].migrate_view(Two)
    logs[0].append(Two, rows(Two, 2, user="p", count=2, city="x"))
    logs[0].commit()
    assert read(reader, Two, "count", "city") == [(0, None), (1, None), (2, "x")]
    with pytest.raises(SchemaMismatchError, match="'total' is new; 'city' is gone"):
        reader.scan(One)  # 'total' would be null from now on
    logs[1].migrate_view(Two)
    logs[1].commit()
    assert read(reader, Two, "count") == [(0,), (1,), (2,)]
    with pytest.raises(SchemaMismatchError):
        reader.scan(One)


def test_a_derived_feature_means_its_hidden_inputs_too(tmp_path: Path) -> None:
    def view(last: str) -> Any:
        class Rate(FeatureView, source=VISITS, entity=USER, name="rate"):
            _few = Visit.count(last=last)
            total = Visit.amount.sum(last="1h")
            rate = derived(total / _few)

        return Rate

    log = OfflineLog(tmp_path)
    log.append(view("1h"), rows(view("1h"), 1, total=1.5, rate=0.5))
    log.commit()
    with pytest.raises(SchemaMismatchError, match="'rate' is computed in another way"):
        log.migrate_view(view("2h"))
