"""A server over an empty store, which every test must leave able to answer; and the same as users run it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving.compat import views
from tests.serving.compat.hostile import GOOD, LIMITS
from tests.serving.compat.serving import Address, Served
from tests.serving.live.process import LookupServer

from headrace.stores.memory import MemoryStore


@pytest.fixture(scope="session", params=["the application", "headrace serve"])
def a_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    if request.param == "the application":
        with Served(MemoryStore(), views.KNOWN, LIMITS) as made:
            yield made
        return
    online = f"redis://127.0.0.1:{request.getfixturevalue('redis_port')}/0"
    settings: dict[str, object] = {
        "body_bytes": LIMITS.body_bytes,
        "entities": LIMITS.entities,
        "features": LIMITS.features,
    }
    settings |= {"timeout": f"{LIMITS.timeout_s:g}s"}
    server = LookupServer(
        tmp_path_factory.mktemp("serve"),
        online,
        settings={name: str(value) for name, value in settings.items()},
        views=Path(views.__file__),
    )
    server.start()
    yield Address(server.port)
    server.stop()


@pytest.fixture
def bounded_server(a_server: Address) -> Iterator[Address]:
    yield a_server
    assert a_server.ask(GOOD).status == 200
