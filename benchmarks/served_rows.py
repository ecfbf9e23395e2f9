"""Rows of `served_views.Fifty` in a Redis of their own, and the questions that benchmarks of lookups ask."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from tests.servers.install import missing_redis
from tests.servers.redis import RedisServer

from benchmarks.served_views import NAMES, PROJECT, Fifty
from headrace.stores.layout import arrow_schema, row_layout
from headrace.stores.redis import RedisStore

ENTITIES = 20_000
ROOT = Path(__file__).parents[1]
FEAST = ROOT / ".peers" / "feast" / "bin"

Layout = Literal["feast", "packed"]


@dataclass(frozen=True)
class Case:
    """How much is asked at once."""

    entities: int
    features: int

    @property
    def name(self) -> str:
        return f"{self.entities}x{self.features}"

    @property
    def references(self) -> list[str]:
        return [f"fv:{name}" for name in NAMES[: self.features]]

    @property
    def values(self) -> int:
        return self.entities * self.features


CASES = (Case(1, 10), Case(1, 50), Case(100, 10), Case(100, 50))


def users(case: Case, count: int, seed: int) -> list[list[int]]:
    """The entities of `count` questions; the same for the same seed."""
    draw = random.Random(seed)
    return [draw.choices(range(ENTITIES), k=case.entities) for _ in range(count)]


@contextmanager
def filled_redis(layouts: tuple[Layout, ...]) -> Iterator[tuple[RedisServer, dict[Layout, str]]]:
    """A Redis with the rows, one database per layout; and the address of each.

    Raises:
        SystemExit: Redis is not installed; code 1 with CI=true, else 0.
    """
    trouble = missing_redis()
    if trouble is not None:
        print(f"Left out, because it needs a real server. {trouble}", file=sys.stderr)
        sys.exit(1 if os.environ.get("CI") else 0)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        server = RedisServer(Path(name))
        server.start()
        try:
            urls = {layout: f"redis://127.0.0.1:{server.port}/{at}" for at, layout in enumerate(layouts)}
            for layout, url in urls.items():
                with RedisStore(url, project=PROJECT, layout=layout) as store:
                    store.write(Fifty, _rows())
            yield server, urls
        finally:
            server.kill()


def _rows() -> pa.Table:
    draw = np.random.default_rng(1)
    layout = row_layout(Fifty)
    newest = time.time_ns() // 1000 - draw.integers(0, 60_000_000, ENTITIES)
    instants = pa.array(newest).cast(pa.timestamp("us", tz="UTC"))
    columns = {"user_id": pa.array(np.arange(ENTITIES)), "event_timestamp": instants, "newest_event": instants}
    for name, dtype in layout.features:
        columns[name] = pa.array(
            draw.integers(0, 1_000_000, ENTITIES) if dtype == "int64" else draw.normal(size=ENTITIES)
        )
    return pa.table(columns).cast(arrow_schema(layout))


def feast_repository(folder: Path, port: int) -> Path | None:
    """Where the same rows are described to Feast; None when it is not installed (`make bench-peers`)."""
    if not (FEAST / "feast").exists():
        print("  feast is not installed in .peers/feast: left out (make bench-peers)", file=sys.stderr)
        return None
    folder.mkdir(parents=True)
    program = shutil.copy(ROOT / "benchmarks" / "peers" / "feast_repository.py", folder)
    subprocess.run([FEAST / "python", program, folder, str(port)], check=True, stdout=sys.stderr)
    return folder
