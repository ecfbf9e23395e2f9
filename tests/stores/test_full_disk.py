"""A full disk under a log: it is said, nothing half counts, and after room is made a new writer goes on."""

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.stores.logs import instants, visits

from headrace.stores.checkpoints import read_checkpoint
from headrace.stores.deadletters import dead_letter_table, read_dead_letters
from headrace.stores.errors import StoreError
from headrace.stores.offline import OfflineLog
from headrace.stores.testing import Visits, row, rows_of

SIZE = 4 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB; needs the rights to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "headrace-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root; test_a_limit_on_the_size_of_files covers the words without it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fill the disk but for `leave` bytes; the file that does it."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with open(ballast, "wb") as file:
        file.write(b"\0" * max(0, free - leave))
    return ballast


def noise(first: int, count: int) -> Any:
    """Rows that do not compress."""
    users = np.random.default_rng(first).integers(0, 2**62, count)
    return rows_of(Visits, [({"user": f"{user:x}"}, row(first + i, visits=first + i)) for i, user in enumerate(users)])


def write(log: OfflineLog, number: int) -> None:
    log.append(Visits, visits(10 * number))
    log.tail(Visits, visits(10 * number + 5))
    letter = {"reason": "late", "detail": "", "source": "s", "partition": 0, "offset": number, "payload": ""}
    log.dead_letters(dead_letter_table([letter | {"event_time_us": None}]))
    log.commit(snapshots={"flow": b"%d" % number * 3000}, offsets={"s": {0: number}})


def check(root: Path, number: int) -> None:
    assert instants(OfflineLog(root)) == [*(10 * each for each in range(number + 1)), 10 * number + 5]
    checkpoint = read_checkpoint(root, "p")
    assert checkpoint is not None
    assert checkpoint.offsets == {"s": {0: number}}
    assert checkpoint.snapshots == {"flow": (b"%d" % number * 3000,)}
    assert read_dead_letters(OfflineLog(root)).column("offset").to_pylist() == list(range(number + 1))


@pytest.mark.parametrize("pages", range(12))
def test_the_disk_fills_up_at_any_step_of_a_commit(small_disk: Path, pages: int) -> None:
    root = small_disk / "log"
    log = OfflineLog(root, "p", keep_s=0)
    write(log, 0)
    ballast = fill(small_disk, pages * 4096)
    said = r"log at .* cannot be written: .*No space left on device.*make room .*goes on from its checkpoint"
    with pytest.raises(StoreError, match=said):
        write_in_a_block(log)
    committed = OfflineLog(root).manifest().sequence - 1
    check(root, committed)
    ballast.unlink()
    with OfflineLog(root, "p", keep_s=0) as again:
        assert again.claim(steal=True) == 2
        write(again, committed + 1)
        write(again, committed + 2)
        check(root, committed + 2)
    names = {file.name for file in root.glob("view=visits/*/*")}
    assert names == {Path(file.path).name for file in OfflineLog(root).manifest().views["visits"].files}


def write_in_a_block(log: OfflineLog) -> None:
    """A `with` whose end does not hide the error from within."""
    with log:
        for number in range(1, 100):
            write(log, number)


def test_many_rows_do_not_fit(small_disk: Path) -> None:
    root = small_disk / "log"
    with OfflineLog(root, "p") as log:
        write(log, 0)
    log.claim(steal=True)

    def append() -> None:
        for first in range(1000, 2_000_000, 140_000):
            log.append(Visits, noise(first, 140_000))

    with pytest.raises(StoreError, match=r"No space left on device"):
        append()
    log.close()  # the file that could not be written is given up without another error
    check(root, 0)
    with OfflineLog(root, "p") as again:  # its claim deletes what was staged, which makes room
        write(again, 1)
        check(root, 1)


def test_a_full_disk_refuses_a_claim_too(small_disk: Path) -> None:
    root = small_disk / "log"
    with OfflineLog(root, "p") as log:
        write(log, 0)
    ballast = fill(small_disk, 0)
    with pytest.raises(StoreError, match="cannot be written"):
        log.claim(steal=True)
    check(root, 0)
    ballast.unlink()
    assert log.claim(steal=True) > 1
    write(log, 1)
    check(root, 1)


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path, "p")
    write(log, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StoreError, match="File too large"):
            log.append(Visits, noise(1000, 140_000))
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check(tmp_path, 0)
    with OfflineLog(tmp_path, "p") as again:
        write(again, 1)
        check(tmp_path, 1)
