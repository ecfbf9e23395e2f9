"""Commits: numbered files, created only where none is there yet. Whoever creates number n + 1 is the writer.

    _headrace/commits/rides-0003.000000000012.json      part "rides-0003"
    _headrace/commits/000000000012.json                 part ""

A writer that was taken for dead (a "zombie") finds its next number taken by the claim of its successor, and learns so
that it is fenced. Old commits are deleted, so a zombie that slept for long may create a number that was there before:
it looks at the listing afterwards, finds a higher one, and has changed nothing, since the highest number alone counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from headrace.features.errors import DataError
from headrace.stores.errors import CorruptError, FencedError
from headrace.stores.layout import RowLayout
from headrace.stores.manifest import (
    FORMAT,
    PRIVATE,
    Commit,
    LogFile,
    Manifest,
    SnapshotFile,
    TailFile,
    ViewLog,
    by_time,
    union,
)
from headrace.stores.online import Clock
from headrace.stores.places import Place, Root, open_place

COMMITS = f"{PRIVATE}/commits"
LEGACY = f"{PRIVATE}/manifest.json"
KEPT = 3
"""The newest commits of a part that stay, so that a reader that has listed them can read one."""

_NAME = re.compile(r"(?:(.+)\.)?(\d{12})\.json")
_PART = re.compile(r"[A-Za-z0-9_][\w.-]*|")


def check_part(part: str) -> str:
    """`part`, if it can be a part's name. Raises DataError."""
    if not _PART.fullmatch(part) or not part.isascii():
        raise DataError(
            f"A part is named {part!r}; use letters, digits, '.', '-' and '_', not beginning with '.' or '-'."
        )
    return part


def private_folder(part: str) -> str:
    """Where a part keeps what only Headrace reads.

    >>> private_folder("rides-0003"), private_folder("")
    ('_headrace/parts/rides-0003', '_headrace')
    """
    return f"{PRIVATE}/parts/{part}" if part else PRIVATE


def commit_path(part: str, number: int) -> str:
    """The file of a commit.

    >>> commit_path("rides-0003", 12), commit_path("", 12)
    ('_headrace/commits/rides-0003.000000000012.json', '_headrace/commits/000000000012.json')
    """
    return f"{COMMITS}/{part}.{number:012d}.json" if part else f"{COMMITS}/{number:012d}.json"


def numbers(place: Place) -> dict[str, list[int]]:
    """The numbers of the commits that are there, by part, ascending."""
    found: dict[str, list[int]] = {}
    for name in place.names(COMMITS):
        match = _NAME.fullmatch(name)
        if match:
            found.setdefault(match[1] or "", []).append(int(match[2]))
    return {part: sorted(all_of) for part, all_of in found.items()}


def newest_commits(place: Place, part: str | None = None) -> dict[str, Commit]:
    """The newest commit of each part, or of one part; a part without any is left out.

    Raises:
        CorruptError: a commit is no commit, or of a newer version of Headrace.
    """
    while True:
        legacy = _legacy(place) if part in (None, "") else None  # looked at first: numbered commits take its place
        newest = {name: all_of[-1] for name, all_of in numbers(place).items() if part is None or name == part}
        paths = {name: commit_path(name, number) for name, number in newest.items()}
        read = place.read_many(list(paths.values()))
        if len(read) < len(paths):  # newer commits meanwhile deleted it
            continue
        found = {name: _decoded(place, path, read[path]) for name, path in paths.items()}
        if legacy is not None:
            found.setdefault("", legacy)
        return found


def create_commit(place: Place, commit: Commit) -> bool:
    """Make `commit` the newest of its part; False when its number is taken.

    Raises:
        FencedError: the part has a higher number already.
    """
    path = commit_path(commit.part, commit.number)
    data = msgspec.json.format(msgspec.json.encode(commit), indent=1)
    beside = f"{private_folder(commit.part)}/staged/{commit.token}.commit"
    if not place.create(path, data, beside):
        there = place.read_many([path]).get(path)
        if there is None or _decoded(place, path, there).token != commit.token:
            return False
        # Ours: the store took it, and its answer to the first try was lost.
    if numbers(place).get(commit.part, [commit.number])[-1] > commit.number:
        raise fenced(place, commit.part)
    return True


def delete_old_commits(place: Place, commit: Commit) -> None:
    """Delete the commits before the newest `KEPT` of the part."""
    old = [number for number in numbers(place).get(commit.part, []) if number <= commit.number - KEPT]
    place.delete([commit_path(commit.part, number) for number in old])


def fenced(place: Place, part: str) -> FencedError:
    which = f"part '{part}' of the log" if part else "the log"
    return FencedError(
        f"Another process has taken over {which} at {place} and goes on from its checkpoint; this one commits nothing "
        "more. Stop it: nothing is lost."
    )


def read_manifest(root: Root) -> Manifest:
    """The newest commits of all parts, as readers see them; sequence 0 when there is none.

    Raises:
        CorruptError: a commit is no commit, or of a newer version of Headrace.
    """
    return manifest_at(open_place(root))


def manifest_at(place: Place) -> Manifest:
    """As `read_manifest`."""
    while True:
        commits = newest_commits(place)
        try:
            return union(with_archive(place, commit) for commit in commits.values())
        except FileNotFoundError as error:
            if newest_commits(place) == commits:
                raise CorruptError(f"The log at {place} lacks a list of its files: {error}.") from error


def parts(root: Root) -> list[str]:
    """Names of the parts of a log, sorted; a log with one writer has the part ""."""
    return sorted(newest_commits(open_place(root)))


# Lists of files that change no more


def write_archive(place: Place, path: str, files: dict[str, tuple[LogFile, ...]]) -> None:
    """Write the list of files by view."""
    place.write(path, msgspec.json.encode(files))


def read_archive(place: Place, path: str) -> dict[str, tuple[LogFile, ...]]:
    """What `write_archive` wrote. Raises FileNotFoundError."""
    return _archive(place.url(path), place.read(path)) if path else {}


def with_archive(place: Place, commit: Commit) -> Commit:
    """`commit` with all files of its views."""
    if not commit.archive:
        return commit
    old = read_archive(place, commit.archive)
    views = {
        name: msgspec.structs.replace(view, files=tuple(sorted((*old.get(name, ()), *view.files), key=by_time)))
        for name, view in commit.views.items()
    }
    return msgspec.structs.replace(commit, views=views)


@lru_cache(maxsize=128)
def _archive(_: str, data: bytes) -> dict[str, tuple[LogFile, ...]]:
    return msgspec.json.decode(data, type=dict[str, tuple[LogFile, ...]])


def _decoded(place: Place, path: str, data: bytes) -> Commit:
    try:
        commit = msgspec.json.decode(data, type=Commit)
    except msgspec.MsgspecError as error:
        raise _unreadable(place, path, error) from error
    _check_format(place, path, commit.format, FORMAT)
    return commit


def _unreadable(place: Place, path: str, error: Exception) -> CorruptError:
    return CorruptError(f"The commit {path} of the log at {place} cannot be read: {error}. Restore it from a backup.")


def _check_format(place: Place, path: str, found: int, known: int) -> None:
    if found != known:
        raise CorruptError(
            f"The commit {path} of the log at {place} has format {found}, this version of Headrace reads {known}. "
            "Upgrade Headrace."
        )


# Folders of version 0.1: one manifest.json, replaced by each commit


class _View1(msgspec.Struct):
    layout: RowLayout
    settled_us: int | None = None
    files: tuple[LogFile, ...] = ()
    tail: LogFile | None = None


class _Manifest1(msgspec.Struct):
    sequence: int = 0
    views: dict[str, _View1] = {}
    snapshots: dict[str, SnapshotFile] = {}
    offsets: dict[str, dict[int, int]] = {}
    clock: Clock | None = None
    dead_letters: Sequence[LogFile] = ()
    format: int = 1


def _legacy(place: Place) -> Commit | None:
    """The manifest of a folder of version 0.1 as the commit before the first; its next writer commits in numbers."""
    data = place.read_many([LEGACY]).get(LEGACY)
    if data is None:
        return None
    try:
        old = msgspec.json.decode(data, type=_Manifest1)
    except msgspec.MsgspecError as error:
        raise _unreadable(place, LEGACY, error) from error
    _check_format(place, LEGACY, old.format, 1)
    views = {}
    for name, view in old.views.items():
        files = tuple(_found(place, view.files))
        tails = () if view.tail is None else (TailFile(view.tail.path, view.tail.rows),)
        newest = max((file.last_us for file in files), default=None)
        views[name] = ViewLog((view.layout,), view.settled_us, files, tails, newest)
    return Commit(
        sequence=old.sequence,
        views=views,
        snapshots={name: (file,) for name, file in old.snapshots.items()},
        offsets=old.offsets,
        clock=old.clock,
        dead_letters=tuple(_found(place, old.dead_letters)),
    )


def _found(place: Place, files: Iterable[LogFile]) -> Iterable[LogFile]:
    """Files in their places, or, where a crash came between commit and renaming, still waiting for it."""
    for file in files:
        waiting = f"{PRIVATE}/staged/{file.path.replace('/', '+')}.staged"
        yield file if place.exists(file.path) else msgspec.structs.replace(file, at=waiting)
