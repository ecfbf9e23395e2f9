"""What breaks while a flow runs, and that nothing is lost, doubled or seen out of order for it (contract C13-C15).

After each fault the load ends, and then everything is compared: what is served with the oracle, the log with the
oracle's for some entities and with that of an undisturbed run for all, the dead letters one by one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.live.scene import Scene, scene
from tests.servers.fixtures import RedisAddress
from tests.servers.kafka import Kafka, KafkaServer
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("LIVE_KILLS", "20"))  # each costs a start; fifty and more by hand


def kill_one_by_one(live: Scene) -> None:
    """A worker dies at any moment, and another takes its place, again and again."""
    for _ in range(KILLS):
        live.go_on(live.rng.choice((0.2, 0.5, 1.0, 2.0, 2.5, 3.0)))
        live.rng.choice(live.flow.running()).kill()
        live.flow.start()


def kill_all(live: Scene) -> None:
    """The whole flow dies and is started again."""
    for _ in range(3):
        live.go_on(live.rng.uniform(0.5, 4))
        for worker in live.flow.running():
            worker.kill()
        live.flow.start(2)


def come_and_go(live: Scene) -> None:
    """Workers are added, and others leave in good order: each time partitions move with their state."""
    for _ in range(3):
        live.flow.start(live.rng.choice((1, 2)))
        live.go_on(live.rng.uniform(1, 3))
        live.rng.choice(live.flow.running()).stop()


def one_name(live: Scene) -> None:
    """Two processes with the name of one that runs."""
    live.flow.start(2, name=live.flow.running()[0].name)
    live.go_on(4)
    live.flow.running()[0].kill()
    live.go_on(3)


def zombie(live: Scene) -> None:
    """A worker stands still until its partitions have moved, and then goes on as though nothing had been."""
    for _ in range(2):
        sleeper = live.rng.choice(live.flow.running())
        sleeper.pause()
        live.go_on(5)
        sleeper.resume()
        live.go_on(3)


FAULTS: dict[str, Callable[[Scene], None]] = {
    "the whole flow killed": kill_all,
    "workers come and go": come_and_go,
    "two of one name": one_name,
    "a zombie": zombie,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_workers(kafka: Kafka, redis_server: RedisAddress, tmp_path: Path, fault: str) -> None:
    with scene(kafka, tmp_path, redis_server.url, seed=list(FAULTS).index(fault)) as live:
        FAULTS[fault](live)
        live.go_on(2)
        live.check(tmp_path / "again")


def test_workers_of_one_command(kafka: Kafka, redis_server: RedisAddress, tmp_path: Path) -> None:
    """`headrace run --workers 4`: its processes die one by one and are started again; it ends well when asked."""
    with scene(kafka, tmp_path, redis_server.url, seed=4, workers=1, supervised=4) as live:
        (command,) = live.flow.running()
        for _ in range(3):
            live.go_on(2)
            os.kill(live.rng.choice(command.children()), signal.SIGKILL)
        live.go_on(1)
        live.flow.until(lambda: len(command.children()) >= 4, "four workers again")
        live.check(tmp_path / "again")


@pytest.mark.timeout(480)
def test_killed_at_many_moments(kafka: Kafka, redis_server: RedisAddress, tmp_path: Path) -> None:
    with scene(kafka, tmp_path, redis_server.url, seed=50, rate=240) as live:
        kill_one_by_one(live)
        live.check(tmp_path / "again")


@pytest.mark.parametrize("what", ["restarted empty", "restarted with its data", "stalled"])
def test_redis(kafka: Kafka, new_redis: Callable[..., RedisServer], tmp_path: Path, what: str) -> None:
    server = new_redis(persist=what == "restarted with its data")
    with scene(kafka, tmp_path, server.url, seed=len(what)) as live:
        live.go_on(2)
        if what == "stalled":
            server.pause()
            live.go_on(5)
            server.resume()
        else:
            for _ in range(2):
                server.kill()
                live.go_on(1.5)
                if not server.persist:
                    live.watch.forget()  # while nobody can look
                server.start()
                live.go_on(2.5)
        live.check(tmp_path / "again")


@pytest.mark.parametrize("how", ["stopped", "killed", "stalled"])
def test_kafka(new_kafka: Callable[..., KafkaServer], redis_server: RedisAddress, tmp_path: Path, how: str) -> None:
    server = new_kafka()
    with scene(Kafka(server.bootstrap), tmp_path, redis_server.url, seed=len(how)) as live:
        live.go_on(2)
        if how == "stalled":
            server.pause()
            live.go_on(5)
            server.resume()
        else:
            server.restart(kill=how == "killed")
        live.go_on(4)
        live.check(tmp_path / "again")


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system in memory, mounted at `folder`; skips where we may not mount."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "headrace-test", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("A small file system needs the right to mount: run as root with CAP_SYS_ADMIN.")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk(kafka: Kafka, redis_server: RedisAddress, tmp_path: Path) -> None:
    """Rows stay served while nothing can be committed, and all is there once there is room again."""
    with (
        small_disk(tmp_path / "disk", 64) as disk,
        scene(kafka, tmp_path, redis_server.url, seed=64, data=disk / "data") as live,
    ):
        live.go_on(2)
        for _ in range(2):
            with open(disk / "filler", "wb", buffering=0) as filler, suppress(OSError):
                while True:
                    filler.write(bytes(1 << 16))
            live.go_on(4)
            (disk / "filler").unlink()
            live.go_on(3)
        live.check(tmp_path / "again")


def test_the_clock_jumps(kafka: Kafka, redis_server: RedisAddress, tmp_path: Path) -> None:
    """The host's clock is wrong by two hours for some seconds, forward and back: no window falls for it."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    environment = {"HEADRACE_TEST_CLOCK": str(offset)}
    with scene(kafka, tmp_path, redis_server.url, seed=3600, environment=environment) as live:
        for seconds in (7200, -7200):
            live.go_on(2)
            offset.write_text(str(seconds))
            live.go_on(3)
            offset.write_text("0")
        live.go_on(2)
        live.check(tmp_path / "again")


def test_stopped_by_signal(kafka: Kafka, redis_server: RedisAddress, tmp_path: Path) -> None:
    """SIGTERM and Ctrl-C end a worker well; who goes on finds everything."""
    with scene(kafka, tmp_path, redis_server.url, seed=15) as live:
        for number in (signal.SIGTERM, signal.SIGINT):
            live.go_on(1.5)
            some = live.flow.running()
            for worker in some:
                worker.ask(number)
            for worker in some:
                worker.ended()
            live.flow.start(2)
        live.go_on(3)
        live.check(tmp_path / "again")
