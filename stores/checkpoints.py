"""Checkpoints: where a flow goes on after a restart. State, offsets and log of one commit, or none of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from headrace.stores.commits import newest_commits
from headrace.stores.errors import CorruptError
from headrace.stores.manifest import SnapshotFile
from headrace.stores.online import Clock
from headrace.stores.places import Place, Root, open_place


class SnapshotPart:
    """One named part of a flow's state, as a commit takes it.

    Args:
        data: its bytes, or what makes them: called once, at the first look at `data`, which may be in another thread,
            so that the flow does not wait for packing and compression.
        delta: it continues the part of that name in the commit before; otherwise it stands alone.
    """

    __slots__ = ("_made", "delta")

    def __init__(self, data: bytes | Callable[[], bytes], delta: bool = False) -> None:
        self._made = data
        self.delta = delta

    @property
    def data(self) -> bytes:
        """The bytes to store."""
        if not isinstance(self._made, bytes):
            self._made = self._made()
        return self._made

    def __repr__(self) -> str:
        size = f"{len(self._made):,} bytes" if isinstance(self._made, bytes) else "not packed yet"
        return f"SnapshotPart({size}{', delta' if self.delta else ''})"


@dataclass(frozen=True)
class Checkpoint:
    """What `OfflineLog.commit` made durable together with the log's rows.

    Attributes:
        sequence: number of the commit.
        epoch: of the claim under which it was made, or which came after it.
        snapshots: the flow's state by name of its parts: a full one, then what changed since, oldest first.
        offsets: by source name and partition, the next offset to read.
        clock: the flow's clock.
        settled_us: by view name, the instant before which the log is final.
    """

    sequence: int
    epoch: int
    snapshots: dict[str, tuple[bytes, ...]]
    offsets: dict[str, dict[int, int]]
    clock: Clock | None
    settled_us: dict[str, int]


def read_checkpoint(root: Root, part: str = "") -> Checkpoint | None:
    """The newest checkpoint of a part of the log at `root`; None when nothing was committed.

    Raises:
        CorruptError: a snapshot is missing or not what was written.
    """
    place = open_place(root)
    commit = newest_commits(place, part).get(part)
    while True:
        if commit is None or not commit.sequence:
            return None
        try:
            snapshots = {
                name: tuple(_read(place, name, file) for file in chain) for name, chain in commit.snapshots.items()
            }
            break
        except CorruptError:
            before, commit = commit, newest_commits(place, part).get(part)
            if commit is not None and commit.number == before.number:  # else a commit meanwhile replaced it
                raise
    return Checkpoint(
        sequence=commit.sequence,
        epoch=commit.epoch,
        snapshots=snapshots,
        offsets=commit.offsets,
        clock=commit.clock,
        settled_us={name: view.settled_us for name, view in commit.views.items() if view.settled_us is not None},
    )


def _read(place: Place, name: str, file: SnapshotFile) -> bytes:
    data = place.read_many([file.path]).get(file.path)
    if data is None or len(data) != file.size or zlib.crc32(data) != file.crc32:
        what = "is missing" if data is None else "is not what was written"
        raise CorruptError(
            f"Snapshot '{name}' {what}: {file.path} of the log at {place}. Restore it from a backup, or replay from "
            "the beginning into another folder."
        )
    return data
