"""What a log holds, as data: the commit of one part, and the manifest that readers make of the commits of all parts.

    root/
      view=driver_activity/date=2026-05-01/...parquet   settled rows, by the UTC date of event_timestamp
      dead_letters/00000012.parquet                      events that could not be taken
      _headrace/commits/rides-0003.000000000012.json     the 12th commit of the part "rides-0003"
      _headrace/parts/rides-0003/snapshots/ tail/ staged/    operator state; provisional rows; files on their way
      _headrace/commits/000000000012.json                the same of the part "", whose folders are _headrace/...

A part has one writer, a log any number of parts. The newest commit of a part says all that the part holds: a file that
no commit names does not exist, and what one names stays until readers had time to look at a newer one (tidying.py).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from headrace.stores.layout import RowLayout
from headrace.stores.online import Clock

FORMAT = 2
PRIVATE = "_headrace"


class LogFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One Parquet file of settled rows, ordered by event_timestamp, or of dead letters.

    Attributes:
        path: its name for every reader, under the log's folder, with forward slashes.
        rows: how many.
        first_us, last_us: event_timestamp of the first and the last row; 0 for dead letters.
        version: which of the view's layouts its rows have.
        at: where it is as long as it has not its name yet; "" once it has.
        replaces: files for every reader whose rows it holds; they go when it gets its name.
        due_us: it gets its name from this instant of the wall's clock on.
    """

    path: str
    rows: int
    first_us: int = 0
    last_us: int = 0
    version: int = 0
    at: str = ""
    replaces: tuple[str, ...] = ()
    due_us: int = 0

    @property
    def date(self) -> str:
        """The partition, such as "date=2026-05-01"."""
        return self.path.split("/")[1]

    @property
    def place(self) -> str:
        """Where it is now."""
        return self.at or self.path


class TailFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """Provisional rows of a view: what would follow the settled ones if no further event came."""

    path: str
    rows: int
    version: int = 0


class Dropped(msgspec.Struct, frozen=True):
    """A file that commits name no more, and since when (microseconds of the wall's clock)."""

    path: str
    since_us: int


class ViewLog(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a log, or one part of it, holds of one view.

    Attributes:
        layouts: columns of the rows, and which definition made them: one per version of the view, oldest first.
        settled_us: every instant before it is final (contract C18); None before the first commit that said so.
        files: settled rows, ordered by time.
        tails: provisional rows of the newest commits.
        newest_us: the newest settled row; None without one.
        current: which layouts the newest commits have; two for a while when parts change one after the other.
        left: of a log of several parts, those that one of them had and has no more.
    """

    layouts: tuple[RowLayout, ...]
    settled_us: int | None = None
    files: tuple[LogFile, ...] = ()
    tails: tuple[TailFile, ...] = ()
    newest_us: int | None = None
    current: tuple[int, ...] = (0,)
    left: tuple[int, ...] = ()

    @property
    def layout(self) -> RowLayout:
        """The newest layout."""
        return self.layouts[-1]


class SnapshotFile(msgspec.Struct, frozen=True):
    """State of a flow as of the commit; `crc32` guards against torn and altered files."""

    path: str
    size: int
    crc32: int

    @classmethod
    def of(cls, path: str, data: bytes) -> SnapshotFile:
        return cls(path, len(data), zlib.crc32(data))


class Commit(msgspec.Struct, frozen=True):
    """All that one part holds.

    Attributes:
        part: its name; "" is the part of a log that has one writer.
        number: of the file; every claim and every commit takes the next one.
        sequence: 1 for the first commit, then counting.
        epoch: how often the part was claimed; a writer of an earlier epoch commits nothing.
        token: who made it, by chance.
        born: mark, by chance, of the part's first claim: a part that was deleted and made anew has another one. "" in
            parts that only earlier versions wrote.
        at_us: when, by the wall's clock.
        views: what the part holds of each view, by name; without what `archive` lists.
        archive: file with the lists of files that change no more, or "".
        snapshots: state files by the name the flow gave them: a full one, then what changed since.
        offsets: next offset to read, by source name and partition.
        clock: the flow's clock.
        dead_letters: files of events that could not be taken, in order.
        dropped: files that go once readers had time.
        format: version of this form.
    """

    part: str = ""
    number: int = 0
    sequence: int = 0
    epoch: int = 0
    token: str = ""
    born: str = ""
    at_us: int = 0
    views: dict[str, ViewLog] = {}
    archive: str = ""
    snapshots: dict[str, tuple[SnapshotFile, ...]] = {}
    offsets: dict[str, dict[int, int]] = {}
    clock: Clock | None = None
    dead_letters: tuple[LogFile, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    format: int = FORMAT

    def paths(self) -> set[str]:
        """Every file that must be there for this commit, under the log's folder; without those that `archive` lists."""
        found = {file.place for view in self.views.values() for file in view.files}
        found |= {tail.path for view in self.views.values() for tail in view.tails}
        found |= {file.place for file in self.dead_letters}
        found |= {self.archive} if self.archive else set()
        return found | {file.path for chain in self.snapshots.values() for file in chain}


class Manifest(msgspec.Struct, frozen=True):
    """All parts of a log together, as readers see it.

    Attributes:
        sequence: commits of all parts; greater whenever anything changed.
        views: what the log holds of each view, by name: files of all parts ordered by time, the least of their settled
            instants.
        dead_letters: files of events that could not be taken, part by part.
        clock: of the part whose clock is furthest behind.
        parts: the commit of each part.
    """

    sequence: int = 0
    views: dict[str, ViewLog] = {}
    dead_letters: tuple[LogFile, ...] = ()
    clock: Clock | None = None
    parts: dict[str, Commit] = {}


def union(commits: Iterable[Commit]) -> Manifest:
    """What readers see of these commits, one per part."""
    parts = {commit.part: commit for commit in sorted(commits, key=lambda commit: commit.part)}
    names = sorted({name for commit in parts.values() for name in commit.views})
    return Manifest(
        sequence=sum(commit.sequence for commit in parts.values()),
        views={name: _joined([c.views[name] for c in parts.values() if name in c.views]) for name in names},
        dead_letters=tuple(file for commit in parts.values() for file in commit.dead_letters),
        clock=min((commit.clock for commit in parts.values() if commit.clock is not None), default=None),
        parts=parts,
    )


def by_time(file: LogFile) -> tuple[int, int, str]:
    """The order of files."""
    return (file.first_us, file.last_us, file.path)


def _joined(logs: list[ViewLog]) -> ViewLog:
    if len(logs) == 1:
        return logs[0]
    layouts: list[RowLayout] = []
    current: list[int] = []
    left: set[int] = set()
    files: list[LogFile] = []
    tails: list[TailFile] = []
    for log in logs:
        layouts += [layout for layout in log.layouts if layout not in layouts]
        places = [layouts.index(layout) for layout in log.layouts]
        current += [places[version] for version in log.current if places[version] not in current]
        left |= set(places) - {places[version] for version in log.current}
        files += [_of_version(file, places[file.version]) for file in log.files]
        tails += [_of_version(tail, places[tail.version]) for tail in log.tails]
    settled = [log.settled_us for log in logs]
    known = [us for us in settled if us is not None]
    newest = [log.newest_us for log in logs if log.newest_us is not None]
    return ViewLog(
        layouts=tuple(layouts),
        settled_us=min(known) if len(known) == len(settled) else None,
        files=tuple(sorted(files, key=by_time)),
        tails=tuple(tails),
        newest_us=max(newest, default=None),
        current=tuple(current),
        left=tuple(sorted(left)),
    )


F = TypeVar("F", LogFile, TailFile)


def _of_version(file: F, version: int) -> F:
    return file if file.version == version else msgspec.structs.replace(file, version=version)


def check_offsets(offsets: Mapping[str, Mapping[int, int]]) -> dict[str, dict[int, int]]:
    """Offsets as plain integers. Raises TypeError for anything else."""
    plain: dict[str, dict[int, Any]] = {name: dict(partitions) for name, partitions in offsets.items()}
    return msgspec.convert(plain, dict[str, dict[int, int]])
