"""Answers in Feast's columns: values, statuses, event timestamps."""

import random
from datetime import datetime
from typing import Any

import pytest
from tests.serving.http.asgi import Answered, look_up

from headrace.features.reading import Status
from headrace.serving import Client, FeatureTable
from headrace.serving.http.feast_wire import WORDS
from headrace.stores.memory import MemoryStore
from headrace.stores.testing import FULL

EPOCH = "1970-01-01T00:00:00Z"
AT0, AT1, AT2, AT3 = "2026-01-01T00:00:00Z", *(f"2026-01-01T00:00:00.00000{each}Z" for each in (1, 2, 3))
USERS = ["a", "n", "d", "o", "new"]
FADING = {"features": ["fading:mean", "fading:visits"], "entities": {"user": USERS}}
VISITOR = {"user": ["full", "null", "new"], "shop": [1, 1, 1], "token": ["dA=="] * 3}


def columns(answer: Answered) -> dict[str, tuple[list[Any], list[str], list[str]]]:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    said = answer.json
    names = said["metadata"]["feature_names"]
    assert len(names) == len(said["results"])
    return {
        name: (each["values"], each["statuses"], each["event_timestamps"])
        for name, each in zip(names, said["results"], strict=True)
    }


def test_keys_come_first_and_every_value_has_its_status_and_time(app: Any) -> None:
    answer = look_up(app, FADING)
    found = columns(answer)
    assert list(found) == ["user", "mean", "visits"]
    assert found["user"] == (USERS, ["PRESENT"] * 5, [EPOCH] * 5)
    times = [AT0, AT1, AT2, AT0, EPOCH]
    words = ["PRESENT", "NULL_VALUE", "PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert found["mean"] == ([4.0, None, -1.0, -1.0, -1.0], words, times)
    words = ["PRESENT", "PRESENT", "PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert found["visits"] == ([1, 2, 0, 0, 0], words, times)
    assert answer.json["metadata"] == {"feature_names": ["user", "mean", "visits"], "defaults": {"mean": [2]}}


def test_feasts_statuses_say_present_of_what_was_never_there(app: Any, app_with: Any) -> None:
    said = columns(look_up(app, FADING | {"feast_statuses": True}))
    assert said["mean"] == ([4.0, None, -1.0, None, None], ["PRESENT"] * 5, [AT0, AT1, AT2, AT0, EPOCH])
    assert said["visits"][:2] == ([1, 2, 0, None, None], ["PRESENT"] * 5)
    assert columns(look_up(app, FADING, x_feast_statuses="true")) == said
    from headrace.serving.http import ServerSettings

    feast = app_with(ServerSettings(statuses="feast"))
    assert columns(look_up(feast, FADING)) == said
    assert columns(look_up(feast, FADING | {"feast_statuses": False})) == columns(look_up(app, FADING))
    assert columns(look_up(feast, FADING, x_feast_statuses="false")) == columns(look_up(app, FADING))


def test_every_status_has_a_word_that_feasts_clients_know() -> None:
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    assert set(WORDS) == set(Status)
    assert set(WORDS.values()) <= set(FieldStatus.keys())


def test_a_service_with_request_data_in_either_place(app: Any) -> None:
    body = {"feature_service": "pricing", "entities": {"user": ["a", "new"], "shop": [1, 2]}}
    beside = look_up(app, body | {"request": {"amount": [12, None]}})
    among = look_up(app, {**body, "entities": {**body["entities"], "amount": [12, None]}})  # type: ignore[dict-item]
    assert beside.body == among.body
    found = columns(beside)
    assert list(found) == ["user", "shop", "mean", "fading__visits", "by_shop__visits", "to_mean"]
    assert found["to_mean"][:2] == ([3.0, 1.0], ["PRESENT", "PRESENT"])
    assert found["by_shop__visits"] == ([9, 0], ["PRESENT", "NOT_FOUND"], [AT3, EPOCH])
    assert beside.json["metadata"]["defaults"] == {"to_mean": [1]}
    full = columns(look_up(app, body | {"request": {"amount": [1, 1]}, "full_feature_names": True}))
    assert list(full) == ["user", "shop", "fading__mean", "fading__visits", "by_shop__visits", "to_mean"]


def test_full_names_of_a_list(app: Any) -> None:
    asked = {"features": ["visits:total", "visits:visits"], "entities": {"user": ["a"]}, "full_feature_names": True}
    assert list(columns(look_up(app, asked))) == ["user", "visits__total", "visits__visits"]


def test_a_view_by_its_name_is_all_of_it(app: Any) -> None:
    assert list(columns(look_up(app, {"features": ["visits"], "entities": {"user": []}}))) == [
        "user",
        "visits",
        "total",
    ]


def test_no_entities_give_empty_columns(app: Any) -> None:
    found = columns(look_up(app, {"features": ["visits:total", "fading:mean"], "entities": {"user": []}}))
    assert found == {name: ([], [], []) for name in ("user", "total", "mean")}


def test_values_of_every_type(app: Any) -> None:
    found = columns(look_up(app, {"features": ["every_type"], "entities": VISITOR}))
    values = {name: column[0] for name, column in found.items()}
    assert values["token"] == ["dA=="] * 3
    assert values["visits"][:1] == [2**53 + 1]
    assert values["total"] == ["Infinity", None, 0.0]
    assert values["most"] == [-(2**63), None, None]
    assert values["city"] == [FULL["city"], None, None]
    assert values["cities"][0] == ["", None, "ab"]
    assert values["raw"] == ["AP8=", None, None]
    assert values["seen"][0] == AT1
    assert values["seens"][0] == ["1969-12-31T23:59:59.999999Z", AT0]
    assert list(values["by_city"][0]) == ["b", "a"]
    assert values["by_shop"][0] == {"7": 0.1, "-7": None, str(2**53 + 1): "-Infinity"}
    assert values["by_paid"][0] == {"true": [AT0, None], "false": []}
    assert found["total"][1] == ["PRESENT", "NULL_VALUE", "NOT_FOUND"]


def test_feast_writes_instants_as_seconds(app: Any) -> None:
    found = columns(look_up(app, {"features": ["every_type"], "entities": VISITOR, "feast_statuses": True}))
    assert found["seen"][0] == [1_767_225_600, None, None]
    assert found["seens"][0][0] == [-1, 1_767_225_600]
    assert found["by_paid"][0][0] == {"true": [1_767_225_600, None], "false": []}


@pytest.mark.parametrize("n", [0, 1, 2, 1025])
@pytest.mark.parametrize("asked", [["visits"], ["fading"], ["visits:total", "fading:mean"]])
def test_it_says_what_the_client_of_python_says(app: Any, store: MemoryStore, n: int, asked: list[str]) -> None:
    """Columns are written together, one by one, or with what they share; the answer does not tell which."""
    from tests.serving.http.conftest import known

    users = (USERS * (n // 5 + 1))[:n]
    table = Client(store, known).features(asked, {"user": users})
    found = columns(look_up(app, {"features": asked, "entities": {"user": users}}))
    assert list(found) == ["user", *table.names]
    for name in table.names:
        _same(found[name], table, name)


def test_any_mixture_of_entities_is_told_apart(app: Any, store: MemoryStore) -> None:
    """Nulls of their own beside nulls of entities that were never seen, in whatever numbers."""
    from tests.serving.http.conftest import known

    draw = random.Random(7)
    for _ in range(100):
        users = draw.choices(["null", "full", "new", "other"], k=draw.randint(1, 6))
        entities = {"user": users, "shop": [1] * len(users), "token": ["dA=="] * len(users)}
        asked = ["every_type:visits", "every_type:most", "every_type:city", "every_type:paid"]
        table = Client(store, known).features(asked, entities | {"token": [b"t"] * len(users)})
        found = columns(look_up(app, {"features": asked, "entities": entities}))
        for name in table.names:
            _same(found[name], table, name)


def _same(found: tuple[list[Any], list[str], list[str]], table: FeatureTable, name: str) -> None:
    values, words, times = found
    assert values == list(table[name])
    assert [type(each) for each in values] == [type(each) for each in table[name]]
    assert words == [WORDS[each] for each in table.status(name)]
    told = [None if each == EPOCH else datetime.fromisoformat(each) for each in times]
    assert told == list(table.event_times[table.names.index(name)])


def test_views_versions_are_told_when_feast_asks_for_them(app: Any) -> None:
    said = look_up(app, FADING | {"include_feature_view_version_metadata": True}).json
    assert said["metadata"]["feature_view_metadata"] == [{"name": "fading", "version": 0}]


def test_fields_of_later_feast_clients_are_passed_over(app: Any) -> None:
    assert look_up(app, FADING | {"some_new_field": {"a": 1}}).body == look_up(app, FADING).body


def test_an_instant_is_asked(app: Any) -> None:
    body = {"features": ["visits:total"], "entities": {"user": ["a"]}}
    assert look_up(app, body | {"at": "2026-01-01T01:00:00.000010+01:00"}).status == 200
