"""Worker processes under a supervisor: started, restarted, stopped, and never left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from headrace.ops.errors import DONE, FAILED, GAVE_UP, INTERRUPTED, WRONG_CONFIGURATION
from headrace.ops.supervising import Policy, Supervisor, Worker

# A worker that notes its starts and its end in a folder, tells its status, and stops when it is asked.
WORKER = """
import os, signal, sys, threading, time
from pathlib import Path
from headrace.ops.lifeline import Lifeline

folder, name = Path(sys.argv[1]), sys.argv[2]
stop = threading.Event()
signals = []
def asked(number, frame):
    signals.append(number)
    if len(signals) > 1:
        os._exit(128 + number)
    stop.set()
signal.signal(signal.SIGTERM, asked)
with (folder / name).open("a") as notes:
    notes.write(f"{os.getpid()}\\n")
starts = len((folder / name).read_text().splitlines())
lifeline = Lifeline.inherited(lambda: {"lag": starts}, stop.set)
with lifeline:
    lifeline.tell(lifeline._status())
    BODY
    lifeline.tell({"result": {"name": name, "starts": starts}})
(folder / f"{name}.ended").touch()
"""
QUICK = Policy(restarts=3, first_s=0.01, longest_s=0.05, stop_within_s=20.0)


class Scene:
    """A folder in which workers note what they do, and a supervisor over them."""

    def __init__(self, folder: Path, body: str) -> None:
        self.folder = folder
        self.script = folder / "worker.py"
        self.script.write_text(WORKER.replace("BODY", body))

    def supervisor(self, policy: Policy = QUICK, count: int = 2, show: Callable[..., None] | None = None) -> Supervisor:
        names = [f"w-{number}" for number in range(count)]
        return Supervisor(names, lambda number: self.command(names[number]), policy, show=show, seed=1)

    def command(self, name: str) -> list[str]:
        return [sys.executable, str(self.script), str(self.folder), name]

    def pids(self, name: str) -> list[int]:
        notes = self.folder / name
        return [int(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def once(condition: Callable[[Sequence[Worker]], bool], act: Callable[[Sequence[Worker]], None]) -> Callable[..., None]:
    """For `show`: acts the first time the condition holds."""
    done = []

    def show(workers: Sequence[Worker]) -> None:
        if not done and condition(workers):
            done.append(True)
            act(workers)

    return show


def all_running(workers: Sequence[Worker]) -> bool:
    return all(worker.state == "running" for worker in workers)


def signal_me(*numbers: int) -> Callable[[object], None]:
    return lambda _: [os.kill(os.getpid(), number) for number in numbers] and None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, DONE), (signal.SIGINT, INTERRUPTED)])
def test_a_signal_is_passed_on_and_every_worker_ends_its_way(tmp_path: Path, number: int, code: int) -> None:
    scene = Scene(tmp_path, "stop.wait()")
    seen: list[object] = []

    def look(workers: Sequence[Worker]) -> None:
        seen.extend(dict(worker.status) for worker in workers)
        os.kill(os.getpid(), number)

    supervisor = scene.supervisor(show=once(all_running, look))
    assert supervisor.run() == code
    assert seen == [{"lag": 1}, {"lag": 1}]
    assert [worker.result for worker in supervisor.workers] == [
        {"name": "w-0", "starts": 1},
        {"name": "w-1", "starts": 1},
    ]
    assert (tmp_path / "w-0.ended").exists()
    assert (tmp_path / "w-1.ended").exists()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "stop.wait(); time.sleep(60)")
    supervisor = scene.supervisor(show=once(all_running, signal_me(signal.SIGTERM, signal.SIGTERM)))
    began = time.monotonic()
    supervisor.run()
    assert time.monotonic() - began < 15
    assert not (tmp_path / "w-0.ended").exists()


def test_workers_that_do_not_stop_are_killed(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "stop.wait(); time.sleep(60)")
    policy = Policy(stop_within_s=0.5)
    assert scene.supervisor(policy, show=once(all_running, signal_me(signal.SIGTERM))).run() == FAILED
    assert not any(is_there(pid) for pid in scene.pids("w-0") + scene.pids("w-1"))


def test_a_worker_that_dies_is_started_again_and_the_other_stays(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "stop.wait()")

    def watch(workers: Sequence[Worker]) -> None:
        first, _ = workers
        if all_running(workers) and first.starts == 1 and first.process is not None:
            first.process.kill()
        elif all_running(workers) and first.starts == 2 and not stopped:
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    stopped: list[bool] = []
    assert scene.supervisor(show=watch).run() == DONE
    assert len(scene.pids("w-0")) == 2
    assert len(scene.pids("w-1")) == 1


def test_one_that_dies_again_and_again_ends_the_flow(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "stop.wait() if name == 'w-1' else sys.exit(1)")
    supervisor = scene.supervisor()
    assert supervisor.run() == GAVE_UP
    assert len(scene.pids("w-0")) == 1 + QUICK.restarts
    assert (tmp_path / "w-1.ended").exists()


def test_a_wrong_configuration_stops_all_at_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "stop.wait() if name == 'w-1' else sys.exit(78)")
    assert scene.supervisor().run() == WRONG_CONFIGURATION
    assert len(scene.pids("w-0")) == 1


def test_restarts_come_later_each_time_with_jitter(tmp_path: Path) -> None:
    waits = []
    supervisor = Supervisor(["w"], lambda _: [sys.executable, "-c", "raise SystemExit(1)"], QUICK, seed=1)
    for _ in range(3):
        before = time.monotonic()
        supervisor._died(supervisor.workers[0], 1)
        waits.append(supervisor.workers[0].due - before)
    for wait, longest in zip(waits, (0.01, 0.02, 0.04), strict=True):
        assert longest / 2 <= wait <= longest + 0.005


def test_a_bounded_flow_is_done_when_its_workers_are(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "pass")
    assert scene.supervisor(Policy(ends=True)).run() == DONE
    assert len(scene.pids("w-0")) == 1


def test_a_live_worker_that_somebody_stopped_is_started_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "stop.wait() if starts > 1 else None")
    again = once(lambda workers: all_running(workers) and workers[0].starts == 2, signal_me(signal.SIGTERM))
    assert scene.supervisor(show=again, count=1).run() == DONE
    assert len(scene.pids("w-0")) == 2


SUPERVISOR = """
import sys
from headrace.ops.supervising import Supervisor
names = ["w-0", "w-1"]
Supervisor(names, lambda number: [sys.executable, sys.argv[1], sys.argv[2], names[number]]).run()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_workers_do_not_outlive_a_killed_supervisor(tmp_path: Path, number: int) -> None:
    scene = Scene(tmp_path, "stop.wait()")
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(scene.script), str(tmp_path)], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: bool(scene.pids("w-0") and scene.pids("w-1")))
        time.sleep(0.3)  # until they hold the lifeline
        supervisor.send_signal(number)
        supervisor.wait(10)
        wait_for(lambda: (tmp_path / "w-0.ended").exists() and (tmp_path / "w-1.ended").exists())
        wait_for(lambda: not any(is_there(pid) for pid in scene.pids("w-0") + scene.pids("w-1")))
    finally:
        supervisor.kill()
        supervisor.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        threading.Event().wait(0.05)


def test_what_workers_print_is_handed_over_to_the_last_line(tmp_path: Path) -> None:
    printed: list[bytes] = []
    code = "import sys; print('out'); sys.stdout.flush(); print('last words', file=sys.stderr)"
    supervisor = Supervisor(
        ["w"], lambda _: [sys.executable, "-c", code], Policy(ends=True), output=printed.append, seed=1
    )
    assert supervisor.run() == DONE
    assert b"".join(printed) == b"out\nlast words\n"
