"""A server over an empty store, which every test must leave able to answer."""

from collections.abc import Iterator

import pytest
from tests.serving.compat.hostile import GOOD, LIMITS
from tests.serving.compat.serving import Served
from tests.serving.compat.views import PLAIN, PRICING, VIEWS

from headrace.stores.memory import MemoryStore
from headrace.stores.testing import EveryType


@pytest.fixture(scope="session")
def a_server() -> Iterator[Served]:
    with Served(MemoryStore(), [*VIEWS, EveryType, PLAIN, PRICING], LIMITS) as made:
        yield made


@pytest.fixture
def bounded_server(a_server: Served) -> Iterator[Served]:
    yield a_server
    assert a_server.ask(GOOD).status == 200
