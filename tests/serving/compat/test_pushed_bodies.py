"""Whatever is pushed is taken or refused with its field, never a failure; and what was refused changed nothing."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import SLOW_IS_FINE
from tests.serving.compat.hostile import JSONS
from tests.serving.compat.serving import Served
from tests.serving.compat.views import VIEWS

from headrace.serving.http.pushing import Pushing
from headrace.stores.memory import MemoryStore

ROW: dict[str, Any] = {"user": "a", "shop": 1, "event_timestamp": "2026-01-01T00:00:00Z", "visits": 3, "paid": True}


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(scope="module")
def server(store: MemoryStore) -> Iterator[Served]:
    pushes = Pushing(store, VIEWS, most=50)
    with Served(store, VIEWS, pushes=pushes) as made:
        yield made
    pushes.close()


NAMES = st.sampled_from(["pairs", "drivers", "visits", "nothing"]) | JSONS
RIGHT = {name: [value] for name, value in ROW.items()}
FRAMES = (
    st.just(RIGHT)
    | st.dictionaries(
        st.sampled_from([*RIGHT, "created", "newest_event", "other"]), st.lists(JSONS, max_size=2) | JSONS
    )
    | st.dictionaries(st.sampled_from([*RIGHT]), st.lists(JSONS, min_size=1, max_size=1)).map(lambda odd: RIGHT | odd)
    | JSONS
)
FIELDS = {
    "push_source_name": NAMES,
    "feature_view_name": NAMES,
    "df": FRAMES,
    "events": JSONS,
    "to": st.sampled_from(["online", "offline", "online_and_offline"]) | JSONS,
    "unit": st.sampled_from(["s", "ms", "us"]) | JSONS,
    "zone": JSONS,
    "missing": st.sampled_from(["null", "refuse"]) | JSONS,
}
PUSHED = st.fixed_dictionaries({}, optional=FIELDS) | st.fixed_dictionaries(  # type: ignore[arg-type]
    {"push_source_name": st.just("pairs"), "feature_view_name": st.just("pairs"), "df": FRAMES}
)


@settings(max_examples=200, suppress_health_check=[*SLOW_IS_FINE, HealthCheck.function_scoped_fixture])
@given(body=PUSHED.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=40))
@pytest.mark.parametrize("path", ["/push", "/write-to-online-store"])
def test_any_body_is_taken_or_refused(server: Served, store: MemoryStore, path: str, body: bytes) -> None:
    before = list(map(repr, store.scan(VIEWS[2])))
    reply = server.ask(body, path)
    assert reply.status in (200, 400, 404, 422), (reply.status, reply.body)
    if reply.status != 200:
        assert len(reply.json["detail"]) > 10
        assert list(map(repr, store.scan(VIEWS[2]))) == before
