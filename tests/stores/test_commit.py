"""A log survives a crash at any step of writing: readers see one commit or the next, a restarted writer goes on."""

import builtins
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.stores.logs import DAY, instants, private_files, visits

from headrace.stores.checkpoints import read_checkpoint
from headrace.stores.deadletters import dead_letter_table, read_dead_letters
from headrace.stores.errors import CorruptError, StoreError
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock
from headrace.stores.testing import AT, Visits


class Crash(BaseException):
    """The process ends here."""


@contextmanager
def crash_at(step: int) -> Iterator[list[str]]:
    """Let the process end instead of its `step`-th change of the disk. Yields the changes that were made."""
    made: list[str] = []
    patch = pytest.MonkeyPatch()

    def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if len(made) == step:
                raise Crash
            made.append(name)
            return real(*args, **kwargs)

        return call

    for place, names in ((os, ("fsync", "replace", "rename", "unlink", "mkdir", "link")), (pq, ("ParquetWriter",))):
        for name in names:
            patch.setattr(place, name, guarded(name, getattr(place, name)))
    real_open = builtins.open
    guarded_open = guarded("open", real_open)
    patch.setattr(builtins, "open", lambda *a, **k: (guarded_open if "w" in str(a[1:]) else real_open)(*a, **k))
    try:
        yield made
    finally:
        patch.undo()


def died(log: OfflineLog) -> None:
    """What the system does when a process has died: its lock is free. Nothing else is tidied."""
    if log._writer is not None:
        log._writer._unlock()


def write(log: OfflineLog, commit: int) -> None:
    """The `commit`-th commit: two dates, a tail, a snapshot, a dead letter."""
    log.append(Visits, visits(10 * commit, 10 * commit + 1))
    log.append(Visits, visits(DAY * (commit + 1)) if commit == 9 else visits(10 * commit + 2))
    log.tail(Visits, visits(DAY * 100 + commit))
    letter = {"reason": "late", "detail": "", "source": "s", "partition": 0, "offset": commit, "payload": ""}
    log.dead_letters(dead_letter_table([letter | {"event_time_us": None}]))
    log.commit(
        settled_us={"visits": AT + 10 * commit + 3},
        snapshots={"flow": b"state %d" % commit},
        offsets={"s": {0: commit}},
        clock=Clock(AT + commit, "stream"),
    )


def check(root: Path, commits: int) -> None:
    """The log is as after `commits` commits, for its readers; and plain readers see no row that does not count."""
    log = OfflineLog(root)
    checkpoint = read_checkpoint(root)
    if not commits:
        assert checkpoint is None
        assert log.views() == []
    else:
        assert checkpoint is not None
        last = commits - 1
        settled = [at for n in range(commits) for at in (10 * n, 10 * n + 1, DAY * 10 if n == 9 else 10 * n + 2)]
        assert instants(log, tail=False) == sorted(settled)
        assert instants(log)[len(settled) :] == [DAY * 100 + last]
        assert (checkpoint.snapshots, checkpoint.offsets) == ({"flow": (b"state %d" % last,)}, {"s": {0: last}})
        assert (checkpoint.clock, checkpoint.settled_us) == ((AT + last, "stream"), {"visits": AT + 10 * last + 3})
        assert read_dead_letters(log).column("offset").to_pylist() == list(range(commits))
    if list(root.glob("view=visits/*/*.parquet")):
        sql = f"SELECT count(DISTINCT event_timestamp) FROM read_parquet('{root}/view=visits/*/*.parquet')"
        assert duckdb.sql(sql).fetchall()[0][0] <= 3 * commits


@pytest.mark.parametrize("commits", [0, 7, 8])  # the first, one with a merge, one after it
def test_a_crash_at_any_step_leaves_one_commit_or_the_next(tmp_path: Path, commits: int) -> None:
    with OfflineLog(tmp_path / "before", keep_s=0) as log:
        for commit in range(commits):
            write(log, commit)
    step, outcomes = 0, set()
    while True:
        root = tmp_path / f"{step}"
        if commits:
            shutil.copytree(tmp_path / "before", root)
        log = OfflineLog(root, keep_s=0)
        try:
            with crash_at(step) as made:
                write(log, commits)
        except Crash:
            died(log)
        else:
            assert len(made) == step
            break
        found = OfflineLog(root).manifest().sequence
        assert found in (commits, commits + 1)
        outcomes.add(found)
        check(root, found)
        with OfflineLog(root, keep_s=0) as again:  # the restarted flow goes on from the checkpoint
            for commit in range(found, commits + 2):
                write(again, commit)
        check(root, commits + 2)
        assert private_files(root) <= OfflineLog(root).manifest().parts[""].paths()
        assert sorted(root.glob("view=visits/*/*")) == sorted(OfflineLog(root).files(Visits))
        shutil.rmtree(root)
        step += 1
    assert outcomes == {commits, commits + 1}
    assert step > 20


def test_a_full_disk_is_said_and_nothing_half_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = OfflineLog(tmp_path)
    write(log, 0)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"cannot be written: .*No space left.*goes on from its checkpoint"):
            write(log, 1)
    with pytest.raises(StoreError, match="failed to write before and takes no more"):
        log.commit()
    log.close()
    check(tmp_path, 1)
    write(log, 1)
    check(tmp_path, 2)
    log.close()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    with OfflineLog(tmp_path) as log:
        write(log, 0)
    note = tmp_path / "view=visits" / "date=2026-01-01" / "notes.parquet"
    note.write_text("mine")
    with OfflineLog(tmp_path) as log:
        write(log, 1)
    assert note.read_text() == "mine"


def test_what_is_damaged_is_not_used(tmp_path: Path) -> None:
    with OfflineLog(tmp_path) as log:
        write(log, 0)
    snapshot = next((tmp_path / "_headrace" / "snapshots").iterdir())
    snapshot.write_bytes(b"state X")
    with pytest.raises(CorruptError, match="Snapshot 'flow' is not what was written"):
        read_checkpoint(tmp_path)
    snapshot.unlink()
    with pytest.raises(CorruptError, match="Snapshot 'flow' is missing"):
        read_checkpoint(tmp_path)
    (tmp_path / OfflineLog(tmp_path).manifest().views["visits"].files[0].place).unlink()
    with pytest.raises(CorruptError, match="lacks a file that its manifest names"):
        instants(OfflineLog(tmp_path))
    commit = max((tmp_path / "_headrace" / "commits").iterdir())
    commit.write_text(commit.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(CorruptError, match="has format 3, this version of Headrace reads 2"):
        OfflineLog(tmp_path).views()
    commit.write_text(commit.read_text()[:100])
    with pytest.raises(CorruptError, match="cannot be read"):
        read_checkpoint(tmp_path)


class LogMachine(RuleBasedStateMachine):
    """A log against lists: what was committed, what was staged, and what a crash takes away."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.log = OfflineLog(self.root)
        self.now = 0
        self.committed: list[int] = []
        self.tail: list[int] = []
        self.staged: list[int] = []
        self.staged_tail: list[int] | None = None

    @rule(steps=st.lists(st.integers(1, DAY // 2), min_size=1, max_size=4))
    def append(self, steps: list[int]) -> None:
        rows = []
        for step in steps:
            self.now += step
            rows.append(self.now)
        self.log.append(Visits, visits(*rows))
        self.staged += rows

    @rule(ahead=st.lists(st.integers(1, 5), max_size=3))
    def provisional(self, ahead: list[int]) -> None:
        self.staged_tail = (self.staged_tail or []) + [self.now + 10 * DAY + each for each in ahead]
        self.log.tail(Visits, visits(*[self.now + 10 * DAY + each for each in ahead]))

    @rule()
    @precondition(lambda self: self.now < 9 * DAY)
    def commit(self) -> None:
        self.log.commit(snapshots={"flow": str(self.now).encode()})
        self.committed += self.staged
        self.tail = sorted(self.staged_tail or [])
        self.staged, self.staged_tail = [], None

    @rule()
    def crash(self) -> None:
        died(self.log)
        self.log = OfflineLog(self.root)
        self.now = self.committed[-1] if self.committed else 0
        self.staged, self.staged_tail = [], None

    @invariant()
    def a_reader_sees_what_was_committed(self) -> None:
        reader = OfflineLog(self.root)
        if reader.views():
            assert instants(reader) == self.committed + self.tail
            assert instants(reader, tail=False) == self.committed
        else:
            assert (self.committed, self.tail) == ([], [])

    def teardown(self) -> None:
        self.log.close()
        shutil.rmtree(self.root)


def test_the_log_is_a_list() -> None:
    pace = settings(max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(LogMachine, settings=pace)
