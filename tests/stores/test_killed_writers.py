"""Real processes write parts of one log and are killed, or stopped and replaced: every row counts once."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
from tests.stores.committing import FENCED

from headrace.stores.checkpoints import read_checkpoint
from headrace.stores.offline import OfflineLog
from headrace.stores.testing import Visits

ROOT = Path(__file__).parents[2]


def start(log: Path, part: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.stores.committing", str(log), part]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": "src"}
    )


def wait_for(process: "subprocess.Popen[str]", commits: int) -> int:
    """The offset after so many more commits."""
    assert process.stdout is not None
    at = 0
    while commits:
        word, *figures = process.stdout.readline().split()
        at = int(figures[-1])
        commits -= word == "committed"
    return at


def rest(process: "subprocess.Popen[str]") -> int:
    """The offset of the last commit told, by a process that has ended; 0 if none was."""
    assert process.stdout is not None
    told = [line.split() for line in process.stdout.read().splitlines() if line.endswith(tuple("0123456789"))]
    process.wait()
    process.stdout.close()
    return max((int(words[-1]) for words in told if words[0] == "committed"), default=0)


def check(root: Path, part: str, told: int) -> None:
    """What was told counts, once, and nothing is there in part."""
    rows = OfflineLog(root).scan(Visits, columns=["user", "visits"], tail=False).to_pydict()
    seen = [at for user, at in zip(rows["user"], rows["visits"], strict=True) if user == part]
    assert seen == list(range(len(seen)))
    assert len(seen) >= told
    checkpoint = read_checkpoint(root, part)
    assert checkpoint is not None
    assert checkpoint.offsets["s"][0] == len(seen)
    chain = b"".join(checkpoint.snapshots["flow"]).decode().rstrip(";").split(";")
    assert int(chain[-1]) == len(seen)


def test_kill_9_in_the_middle_of_commits(tmp_path: Path) -> None:
    chance = random.Random(3)
    root, parts = tmp_path / "log", ("rides-0000", "rides-0001")
    told = dict.fromkeys(parts, 0)
    for _ in range(4):
        processes = {part: start(root, part) for part in parts}
        for part, process in processes.items():
            told[part] = max(told[part], wait_for(process, 2))
        for part, process in processes.items():
            time.sleep(chance.random() * 0.1)
            process.kill()
            told[part] = max(told[part], rest(process))
        for part in parts:
            check(root, part, told[part])
    for part in parts:  # what was left by the killed goes with the next claim and commit
        with OfflineLog(root, part, keep_s=0) as log:
            assert log.claim(steal=True) == 5
            log.commit()
            log.commit()
            named = log.manifest().parts[part]
            left = {path for path in log.place.walk(f"_headrace/parts/{part}") if not path.endswith("/lock")}
            assert left <= named.paths()
    public = {path.relative_to(root).as_posix() for path in root.glob("view=visits/*/*")}
    # A merged file takes the public place of smaller ones a while after its commit, and until then those stay: whoever
    # reads what is public has every committed row, and no other.
    assert public >= {file.path for file in OfflineLog(root).manifest().views["visits"].files if not file.at}
    rows = OfflineLog(root).scan(Visits, columns=["user", "visits"], tail=False)
    seen = duckdb.sql(f"SELECT DISTINCT user, visits FROM read_parquet('{root}/view=visits/*/*.parquet')").fetchall()
    assert sorted(seen) == sorted(zip(*rows.to_pydict().values(), strict=True))


def test_a_process_that_was_stopped_and_replaced_is_fenced(tmp_path: Path) -> None:
    root, part = tmp_path / "log", "rides-0000"
    zombie = start(root, part)
    wait_for(zombie, 3)
    zombie.send_signal(signal.SIGSTOP)
    heir = start(root, part)
    wait_for(heir, 30)
    zombie.send_signal(signal.SIGCONT)
    told = rest(zombie)
    assert zombie.returncode == FENCED
    told = max(told, wait_for(heir, 3))
    heir.kill()
    check(root, part, max(told, rest(heir)))
