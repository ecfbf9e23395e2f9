"""The manifest: the one file that says what a log holds. Replacing it is the commit.

    root/
      view=driver_activity/date=2026-05-01/...parquet   settled rows, by the UTC date of event_timestamp
      dead_letters/00000012.parquet                      events that could not be taken
      _headrace/manifest.json                            which of all files count, offsets, clock
      _headrace/snapshots/ tail/ staged/ lock            operator state; provisional rows; files on their way

It is small JSON, written beside, flushed and renamed: whoever reads it sees one commit as a whole (contract C13). A
file that it does not name does not exist.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from headrace.stores.durable import write_durably
from headrace.stores.errors import CorruptError
from headrace.stores.layout import RowLayout
from headrace.stores.online import Clock

FORMAT = 1
PRIVATE = "_headrace"


class LogFile(msgspec.Struct, frozen=True):
    """One Parquet file of settled rows, ordered by event_timestamp.

    Attributes:
        path: under the log's folder, with forward slashes.
        rows: how many.
        first_us, last_us: event_timestamp of the first and the last row.
    """

    path: str
    rows: int
    first_us: int
    last_us: int

    @property
    def date(self) -> str:
        """The partition, such as "date=2026-05-01"."""
        return self.path.split("/")[1]


class TailFile(msgspec.Struct, frozen=True):
    """Provisional rows of a view: what would follow the settled ones if no further event came."""

    path: str
    rows: int


class ViewLog(msgspec.Struct, frozen=True):
    """What the log holds of one view.

    Attributes:
        layout: columns of the rows, and which definition made them.
        settled_us: every instant before it is final (contract C18); None before the first commit that said so.
        files: settled rows, ordered by time.
        tail: provisional rows of this commit, if any.
    """

    layout: RowLayout
    settled_us: int | None = None
    files: tuple[LogFile, ...] = ()
    tail: TailFile | None = None


class SnapshotFile(msgspec.Struct, frozen=True):
    """State of a flow as of the commit; `crc32` guards against torn and altered files."""

    path: str
    size: int
    crc32: int

    @classmethod
    def of(cls, path: str, data: bytes) -> SnapshotFile:
        return cls(path, len(data), zlib.crc32(data))


class Manifest(msgspec.Struct, frozen=True):
    """One commit.

    Attributes:
        sequence: 1 for the first commit, then counting.
        views: what the log holds of each view, by name.
        snapshots: state files by the name the flow gave them.
        offsets: next offset to read, by source name and partition.
        clock: the flow's clock.
        dead_letters: files of events that could not be taken, in order.
        format: version of this form.
    """

    sequence: int = 0
    views: dict[str, ViewLog] = {}
    snapshots: dict[str, SnapshotFile] = {}
    offsets: dict[str, dict[int, int]] = {}
    clock: Clock | None = None
    dead_letters: tuple[TailFile, ...] = ()
    format: int = FORMAT

    def paths(self) -> set[str]:
        """Every file that counts, under the log's folder."""
        found = {file.path for view in self.views.values() for file in view.files}
        found |= {view.tail.path for view in self.views.values() if view.tail is not None}
        found |= {file.path for file in self.dead_letters}
        return found | {file.path for file in self.snapshots.values()}


def read_manifest(root: Path) -> Manifest:
    """The newest commit; sequence 0 when there is none.

    Raises:
        CorruptError: the manifest is no manifest, or of a newer version of Headrace.
    """
    path = root / PRIVATE / "manifest.json"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Manifest()
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise CorruptError(
            f"The manifest {path} cannot be read: {error}. Restore it from a backup of the folder."
        ) from error
    if manifest.format != FORMAT:
        raise CorruptError(
            f"The manifest {path} has format {manifest.format}, this version of Headrace reads {FORMAT}. Upgrade "
            "Headrace."
        )
    return manifest


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Make `manifest` the newest commit, durably and at once."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    write_durably(root / PRIVATE / "manifest.json", data)


def check_offsets(offsets: Mapping[str, Mapping[int, int]]) -> dict[str, dict[int, int]]:
    """Offsets as plain integers. Raises TypeError for anything else."""
    plain: dict[str, dict[int, Any]] = {name: dict(partitions) for name, partitions in offsets.items()}
    return msgspec.convert(plain, dict[str, dict[int, int]])
