"""A log whose writers die between any two operations on the storage, are taken over while they live, and come back.

The machine runs on a folder and on an object store (fsspec's memory), with the same rules: readers see exactly what was
committed, each row once, whatever was under way.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.stores.logs import DAY, visits

from headrace.stores import logwriter
from headrace.stores.checkpoints import read_checkpoint
from headrace.stores.commits import manifest_at, newest_commits
from headrace.stores.errors import FencedError
from headrace.stores.offline import OfflineLog
from headrace.stores.places import Place, open_place
from headrace.stores.testing import Visits

CHANGES = {"write", "create", "sink", "finish", "drop", "share", "prepare", "sync"}
PARTS = ("", "p")
USERS = {"": "a", "p": "b"}


class Crash(BaseException):
    """The process ends here."""


class DyingPlace:
    """A place at which the process dies before the operation number `left`; deletions are operations one by one."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.left: int | None = None
        self.made = 0

    def step(self) -> None:
        if self.left is not None and self.made >= self.left:
            raise Crash
        self.made += 1

    def delete(self, paths: Any) -> None:
        for path in paths:
            self.step()
            self.place.delete([path])

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.place, name)
        if name not in CHANGES:
            return real

        def guarded(*args: Any) -> Any:
            self.step()
            return real(*args)

        return guarded

    def __str__(self) -> str:
        return str(self.place)


class Writer:
    """One process that writes a part, and what it has staged."""

    def __init__(self, root: str, part: str) -> None:
        self.log = OfflineLog(root, part, keep_s=300)
        self.place = DyingPlace(self.log.place)
        self.log.place = self.place  # type: ignore[assignment]
        self.staged: list[int] = []
        self.tail: list[int] = []


class PartsMachine(RuleBasedStateMachine):
    """Two parts against lists."""

    def place_of_run(self) -> str:
        raise TypeError("the subclass says where")

    def __init__(self) -> None:
        super().__init__()
        self.root = self.place_of_run()
        self.place = open_place(self.root)
        self.clock_us = 1_000_000_000_000_000
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(logwriter, "_now_us", lambda: self.clock_us)
        self.now = dict.fromkeys(PARTS, 0)
        self.committed: dict[str, list[int]] = {part: [] for part in PARTS}
        self.tails: dict[str, list[int]] = {part: [] for part in PARTS}
        self.writers: dict[str, Writer | None] = dict.fromkeys(PARTS)
        self.zombies: list[Writer] = []
        self.tidy = dict.fromkeys(PARTS, True)

    def writer(self, part: str) -> Writer:
        found = self.writers[part]
        if found is None:
            found = self.writers[part] = Writer(self.root, part)
            found.log.claim(steal=True)
            self.tidy[part] = True
            self.now[part] = self.committed[part][-1] if self.committed[part] else 0
        return found

    @rule(part=st.sampled_from(PARTS), steps=st.lists(st.integers(1, DAY // 2), min_size=1, max_size=3))
    def append(self, part: str, steps: list[int]) -> None:
        writer = self.writer(part)
        rows = []
        for step in steps:
            self.now[part] += step
            rows.append(self.now[part])
        writer.log.append(Visits, visits(*rows, user=USERS[part]))
        writer.staged += rows

    @rule(part=st.sampled_from(PARTS))
    def provisional(self, part: str) -> None:
        writer = self.writer(part)
        writer.tail.append(self.now[part] + 400 * DAY + len(writer.tail))
        writer.log.tail(Visits, visits(writer.tail[-1], user=USERS[part]))

    @rule(part=st.sampled_from(PARTS), times=st.integers(1, 9))
    def commit(self, part: str, times: int) -> None:
        for _ in range(times):
            self.append(part, [1])
            self.commit_now(part)

    def commit_now(self, part: str) -> None:
        writer = self.writer(part)
        rows = writer.log.commit(snapshots={"flow": str(self.now[part]).encode()}, offsets={"s": {0: self.now[part]}})
        assert rows.part == part
        self.counted(part, writer)

    def counted(self, part: str, writer: Writer) -> None:
        self.committed[part] += writer.staged
        self.tails[part] = writer.tail
        writer.staged, writer.tail = [], []

    @rule(part=st.sampled_from(PARTS), step=st.integers(0, 30), claim=st.booleans())
    def dies(self, part: str, step: int, claim: bool) -> None:
        """The process dies in the middle of a commit, or of a claim; another one goes on."""
        if claim:
            self.writers[part] = None
            writer = Writer(self.root, part)
            writer.place.left = step
            try:
                writer.log.claim(steal=True)
            except Crash:
                self.tidy[part] = False
                return
            writer.place.left = None
            self.tidy[part] = True
            self.writers[part] = writer
            self.now[part] = self.committed[part][-1] if self.committed[part] else 0
            return
        self.append(part, [1])
        writer = self.writer(part)
        writer.place.left = writer.place.made + step
        before = newest_commits(self.place, part)[part].sequence
        try:
            self.commit_now(part)
        except Crash:
            self.tidy[part] = False
            if newest_commits(self.place, part)[part].sequence > before:
                self.counted(part, writer)
            self.writers[part] = None
        else:
            writer.place.left = None

    @rule(part=st.sampled_from(PARTS))
    def is_taken_for_dead(self, part: str) -> None:
        """Another process claims the part while its writer lives on."""
        found = self.writers[part]
        if found is not None:
            self.zombies.append(found)
        self.writers[part] = None
        self.writer(part)

    @rule(rows=st.booleans())
    def comes_back(self, rows: bool) -> None:
        if self.zombies:
            zombie = self.zombies.pop(0)
            with pytest.raises(FencedError):
                self.go_on(zombie, rows)

    def go_on(self, zombie: Writer, rows: bool) -> None:
        if rows and not zombie.tail:
            zombie.log.append(Visits, visits(10**15, user=USERS[zombie.log.part]))
        zombie.log.commit(snapshots={"flow": b"zombie"})

    @rule(seconds=st.sampled_from([1, 10, 301]))
    def time_passes(self, seconds: int) -> None:
        self.clock_us += seconds * 1_000_000

    @invariant()
    def readers_see_what_was_committed(self) -> None:
        manifest = manifest_at(self.place)
        view = manifest.views.get("visits")
        expected = sorted((at, USERS[part]) for part in PARTS for at in self.committed[part])
        if view is None:
            assert expected == []
            return
        assert sorted(row for file in view.files for row in self.rows(file.place)) == expected
        tails = sorted((at, USERS[part]) for part in PARTS for at in self.tails[part])
        assert sorted(row for tail in view.tails for row in self.rows(tail.path)) == tails
        for part in PARTS:
            checkpoint = read_checkpoint(self.root, part)
            if checkpoint is not None:
                (state,) = checkpoint.snapshots["flow"]
                assert int(state) == checkpoint.offsets["s"][0] == self.committed[part][-1]
        if all(self.tidy.values()):
            public = [path for path in self.place.walk("view=visits") if path.endswith(".parquet")]
            assert sorted(row for path in public for row in self.rows(path)) == expected

    def rows(self, path: str) -> list[tuple[int, str]]:
        with self.place.source(path) as source, pq.ParquetFile(source) as file:
            rows = file.read(["visits", "user"]).to_pydict()
        return list(zip(rows["visits"], rows["user"], strict=True))

    def teardown(self) -> None:
        self.patch.undo()
        self.throw_away()

    def throw_away(self) -> None:
        """Remove everything."""


class FolderMachine(PartsMachine):
    def place_of_run(self) -> str:
        return tempfile.mkdtemp()

    def throw_away(self) -> None:
        shutil.rmtree(self.root)


class MemoryMachine(PartsMachine):
    runs = 0

    def place_of_run(self) -> str:
        MemoryMachine.runs += 1
        return f"memory://faults/{MemoryMachine.runs}"

    def throw_away(self) -> None:
        memory = fsspec.filesystem("memory")
        for path in [path for path in memory.store if path.startswith("/faults/")]:
            memory.rm_file(path)


@pytest.mark.parametrize("machine", [FolderMachine, MemoryMachine])
def test_the_parts_are_lists_whatever_dies(machine: Callable[[], PartsMachine]) -> None:
    pace = settings(max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=pace)


# The first commit, one that merges, one after it; test_commit.py does it in a folder for each call of the system.
@pytest.mark.parametrize(("kind", "commits"), [("folder", 8), ("memory", 0), ("memory", 8), ("memory", 9)])
def test_a_death_between_any_two_operations(tmp_path: Path, kind: str, commits: int) -> None:
    outcomes, step = set(), 0
    while True:
        root = str(tmp_path / str(step)) if kind == "folder" else f"memory://deaths/{commits}/{step}"
        with OfflineLog(root, "p", keep_s=0) as log:
            for at in range(commits):
                log.append(Visits, visits(at))
                log.commit(snapshots={"flow": b"%d" % at})
        writer = Writer(root, "p")
        writer.log._keep_us = 0
        writer.place.left = step
        try:
            writer.log.claim(steal=True)
            writer.log.append(Visits, visits(commits))
            writer.log.tail(Visits, visits(DAY))
            writer.log.commit(snapshots={"flow": b"%d" % commits})
        except Crash:
            pass
        else:
            break
        place = open_place(root)
        found = manifest_at(place).sequence
        outcomes.add(found - commits)
        with OfflineLog(root, "p", keep_s=0) as again:
            again.claim(steal=True)
            for at in range(found, commits + 2):
                again.append(Visits, visits(at))
                again.commit(snapshots={"flow": b"%d" % at})
            rows = again.scan(Visits, columns=["visits"], tail=False).column(0).to_pylist()
            assert rows == list(range(commits + 2))
            public = [path for path in place.walk("view=visits") if path.endswith(".parquet")]
            named = {file.path for file in again.manifest().views["visits"].files}
            assert set(public) == named
            left = {path for path in place.walk("_headrace/parts/p") if not path.endswith("/lock")}
            assert left <= again.manifest().parts["p"].paths()
        step += 1
    assert outcomes == {0, 1}
    assert step >= 12
    if kind == "memory":
        fsspec.filesystem("memory").rm("/deaths", recursive=True)
