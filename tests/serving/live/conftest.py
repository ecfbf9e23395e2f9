"""Fixtures: lookup servers as processes, over a Redis that the test may break."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving.live.process import LookupServer
from tests.serving.live.rows import write
from tests.serving.live.views import ByShop

from headrace.features import FeatureView
from headrace.stores.redis import RedisStore


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., LookupServer]]:
    """Fills a Redis and starts a server over it: `new_server(url, workers=2, settings={"timeout": "1s"})`.

    `shops_by=` is the view by which the rows of shops are written.
    """
    made: list[LookupServer] = []

    def start(url: str, shops_by: type[FeatureView] = ByShop, **options: Any) -> LookupServer:
        with RedisStore(url) as store:
            write(store, shops_by)
        made.append(LookupServer(tmp_path / f"serve-{len(made)}", url, **options))
        made[-1].start()
        return made[-1]

    yield start
    for server in made:
        server.stop()
