"""kill -9 while a store is filled, again and again: it ends as one that was filled at once, and no run begins anew."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.materialize.filling import a_log, content
from tests.materialize.killed import BATCH
from tests.servers.fixtures import RedisAddress

from headrace.materialize.online import MARK_EVERY, fill, sync
from headrace.stores.memory import MemoryStore
from headrace.stores.opening import open_online
from headrace.stores.testing import Visits

ROOT = Path(__file__).parents[2]
USERS = 3000


def start(log: Path, place: str, moment: str = "never", number: int = 0) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.materialize.killed", str(log), place, moment, str(number)]
    environment = {**os.environ, "PYTHONPATH": "src"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=environment)


def steps(process: "subprocess.Popen[str]") -> list[int]:
    """Rows done as it told them, until it died of kill -9."""
    out, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    return [int(line.split()[1]) for line in out.splitlines()]


@pytest.mark.parametrize("kind", ["embedded", "redis"])
def test_kill_9_at_several_moments_and_then_to_the_end(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    log = a_log(tmp_path / "log", users=USERS, rows=USERS + 500)
    log.close()
    if kind == "embedded":
        place = str(tmp_path / "online")
    else:
        server: RedisAddress = request.getfixturevalue("redis_server")
        place = server.url

    done = [steps(start(tmp_path / "log", place, "before", 10))[-1]]
    done.append(steps(start(tmp_path / "log", place, "after", 11))[-1])
    process = start(tmp_path / "log", place)
    assert process.stdout is not None
    told = [int(process.stdout.readline().split()[1]) for _ in range(3)]
    process.kill()  # wherever it is now, perhaps at the end
    done.append(max([*told, *steps(process)]))
    assert done[:2] == [9 * BATCH, 10 * BATCH]

    store = open_online(place, expire=False)
    (filled,) = fill(store, Visits, log=log, batch_rows=BATCH)
    # What is written again is what came after the last mark before each kill, and the row at the edge of what it says.
    assert filled.went_on
    assert filled.entities <= USERS - sum(done) + 3 * (MARK_EVERY * BATCH + 1) < USERS
    whole = MemoryStore()
    sync(whole, Visits, log=log)
    assert content(store) == content(whole)
    assert store.clock() == whole.clock()
    store.close()
