"""Writing a part of a log: files are staged, one commit makes them count, tidying shows them (contract C13).

    1 close the staged files, merge small ones, write tail, dead letters and snapshots    nobody looks at them yet
    2 create the commit, whose number nobody has taken                                    the commit, at one instant
    3 give files their names for every reader, delete what counts no more                 tidying.py

A crash before 2 leaves the commit before it, and the next writer deletes what was staged. A crash after 2 leaves the
new one, and the next writer does 3 again. A claim is a commit too: it changes nothing but the epoch, and takes the
number that any earlier writer would have used next.
"""

from __future__ import annotations

import os
import re
import secrets
import time
import weakref
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from headrace.stores.care import Care
from headrace.stores.checkpoints import SnapshotPart
from headrace.stores.commits import (
    LEGACY,
    check_part,
    create_commit,
    delete_old_commits,
    fenced,
    newest_commits,
    private_folder,
    read_archive,
    write_archive,
)
from headrace.stores.deadletters import conform_letters, dead_letter_schema
from headrace.stores.errors import LockedError, StoreError
from headrace.stores.layout import RowLayout, arrow_schema, conform
from headrace.stores.manifest import Commit, Dropped, LogFile, SnapshotFile, TailFile, ViewLog, check_offsets
from headrace.stores.merging import Merging, merge_letters, merge_rows, unchanging
from headrace.stores.migration import changed_layout, check_written
from headrace.stores.online import Clock
from headrace.stores.parquet import write_parquet
from headrace.stores.places import Place
from headrace.stores.staging import StagedView, file_name
from headrace.stores.tidying import publish, sweep

if TYPE_CHECKING:
    import pyarrow as pa

ARCHIVED = 128
"""A commit lists up to so many files that change no more; beyond, they go to a list of their own."""

_FOLDERS = ("staged", "tail", "snapshots", "archive")
_OURS = re.compile(r"view=[^/]+/date=[^/]+/\d{6}\.\d{6}-\d{6}\.\d{6}-\d+\.parquet")


class LogWriter:
    """The one writer of a part of a log; made by `OfflineLog` at the claim or the first write.

    Args:
        part: its name. steal: take the part over from whoever has it; otherwise hold a lock on its folder until
            closed, on a file system that has locks. keep_us: how long files stay that newer commits name no more.

    Raises:
        LockedError: another writer holds the folder, and `steal` was not asked for.
        FencedError: another process claimed the part at the same moment.
    """

    def __init__(self, place: Place, part: str, steal: bool, keep_us: int) -> None:
        self.place = place
        self.part = check_part(part)
        self._keep_us = keep_us
        self._token = secrets.token_hex(8)
        self._private = private_folder(part)
        self._names = count()
        self._staged: dict[str, StagedView] = {}
        self._layouts: dict[str, tuple[RowLayout, ...]] = {}
        self._tails: dict[str, list[pa.Table]] = {}
        self._dead: list[pa.Table] = []
        self.newest = Commit(part=self.part)  # until the claim
        self._care = Care(place, self.part, lambda: self.newest.number or None)
        self._unlock: Callable[[], object] = lambda: None
        with self._care:
            place.prepare([f"{self._private}/{name}" for name in _FOLDERS] + ["_headrace/commits"])
            if not steal:
                self._lock()
            try:
                self.newest = self._claim()
                self._clean()
                self._tidy(self.newest)
            except BaseException:
                self._unlock()
                raise

    @property
    def epoch(self) -> int:
        return self.newest.epoch

    def append(self, layout: RowLayout, rows: pa.Table) -> None:
        """Stage settled rows; see `OfflineLog.append`."""
        with self._care:
            self._staged_view(layout).append(rows)

    def tail(self, layout: RowLayout, rows: pa.Table) -> None:
        """Stage provisional rows; see `OfflineLog.tail`."""
        with self._care:
            rows = conform(self._staged_view(layout).layout, rows)
            self._tails.setdefault(layout.view, []).append(rows)

    def dead_letters(self, rows: pa.Table) -> None:
        """Stage events that could not be taken, in the form of deadletters.py."""
        if rows.num_rows:
            self._dead.append(conform_letters(rows))

    def migrate(self, layout: RowLayout) -> list[str]:
        """Stage a change of a view; see `OfflineLog.migrate_view`."""
        with self._care:
            before = self._versions(layout)
            changes, changed = changed_layout(before, layout, f"The log at {self.place}")
            if changed is not None:
                self._layouts[layout.view] = (*before, changed)
                self._tails.pop(layout.view, None)
                if layout.view in self._staged:
                    self._staged[layout.view].change(changed, len(before))
                else:
                    self._staged_view(layout)
            return changes

    def commit(
        self,
        settled_us: Mapping[str, int],
        snapshots: Mapping[str, SnapshotPart | bytes] | None,
        offsets: Mapping[str, Mapping[int, int]] | None,
        clock: Clock | None,
    ) -> Commit:
        """Make everything staged count, at once; see `OfflineLog.commit`."""
        with self._care:
            before, now_us = self.newest, _now_us()
            dropped: list[str] = []
            views = self._views(before, settled_us, now_us, dropped)
            views, archive = self._archived(before, views, dropped)
            commit = Commit(
                part=self.part,
                number=before.number + 1,
                sequence=before.sequence + 1,
                epoch=before.epoch,
                token=self._token,
                born=before.born,
                at_us=now_us,
                views=views,
                archive=archive,
                snapshots=before.snapshots if snapshots is None else self._snapshots(before, snapshots),
                offsets=before.offsets if offsets is None else check_offsets(offsets),
                clock=clock,
                dead_letters=self._letters(before, now_us, dropped),
                dropped=(*before.dropped, *(Dropped(path, now_us) for path in dropped)),
            )
            self.place.sync(f"{self._private}/{name}" for name in _FOLDERS)
            if not create_commit(self.place, commit):
                raise fenced(self.place, self.part)
            self.newest = commit
            self._staged, self._tails, self._dead, self._layouts = {}, {}, [], {}
            self._tidy(before)
            return commit

    def close(self) -> None:
        """Give up what was not committed and free the folder."""
        for staged in self._staged.values():
            staged.abandon()
        self._staged = {}
        self._unlock()

    # The claim

    def _lock(self) -> None:
        try:
            handle = self.place.lock(f"{self._private}/lock")
        except BlockingIOError:
            which = f"part '{self.part}' of the log" if self.part else "the log"
            raise LockedError(
                f"Another flow writes {which} at {self.place}. Stop it first, or write to another folder."
            ) from None
        if handle is not None:
            self._unlock = weakref.finalize(self, os.close, handle)

    def _claim(self) -> Commit:
        while True:
            before = newest_commits(self.place, self.part).get(self.part, Commit(part=self.part))
            claim = msgspec.structs.replace(
                before,
                number=before.number + 1,
                epoch=before.epoch + 1,
                token=self._token,
                born=before.born or self._token,
                at_us=_now_us(),
            )
            if create_commit(self.place, claim):
                return claim

    def _clean(self) -> None:
        """Delete what a crash left in the part's own folders."""
        known = self.newest.paths() | {each.path for each in self.newest.dropped}
        found = {path for name in _FOLDERS for path in self.place.walk(f"{self._private}/{name}")}
        self.place.delete(sorted(found - known))
        if not self.part and self.place.exists(LEGACY):  # a folder of version 0.1, now in numbered commits
            counted = {file.path for view in self.newest.views.values() for file in view.files}
            for view in self.newest.views:
                ours = {path for path in self.place.walk(f"view={view}") if _OURS.fullmatch(path)}
                self.place.delete(sorted(ours - counted))
            self.place.delete([LEGACY])

    def _tidy(self, before: Commit) -> None:
        """What follows a commit, or is done again after a claim."""
        now_us, newest = _now_us(), self.newest
        shown = publish(self.place, newest, now_us)
        self.newest = sweep(self.place, shown, newest, now_us, self._keep_us)
        stay = _snapshot_paths(newest)
        self.place.delete(sorted(_snapshot_paths(before) - stay))
        delete_old_commits(self.place, newest)

    # The pieces of a commit

    def _name(self, folder: str, name: str, suffix: str) -> str:
        """A name in the part's own folder that no other writer, and this one never again, gives."""
        return f"{self._private}/{folder}/{name}-{self.epoch:06d}-{next(self._names):06d}{suffix}"

    def _versions(self, layout: RowLayout) -> tuple[RowLayout, ...]:
        """The layouts that the part's rows of a view have had, this one among the first."""
        if layout.view not in self._layouts:
            before = self.newest.views.get(layout.view)
            self._layouts[layout.view] = (layout,) if before is None else before.layouts
        return self._layouts[layout.view]

    def _staged_view(self, layout: RowLayout) -> StagedView:
        name = layout.view
        versions = self._versions(layout)
        check_written(versions[-1], layout, f"The log at {self.place}")
        if name not in self._staged:
            before = self.newest.views.get(name)
            self._staged[name] = StagedView(
                self.place,
                self.part,
                versions[-1],
                len(versions) - 1,
                None if before is None else before.newest_us,
                lambda: self._name("staged", name, ".staged"),
            )
        return self._staged[name]

    def _views(
        self, before: Commit, settled_us: Mapping[str, int], now_us: int, dropped: list[str]
    ) -> dict[str, ViewLog]:
        views = {}
        for name in sorted({*before.views, *self._staged}):
            staged = self._staged.get(name)
            old = before.views.get(name) or ViewLog(self._layouts[name])
            settled = max((t for t in (old.settled_us, settled_us.get(name)) if t is not None), default=None)
            dropped += [tail.path for tail in old.tails]
            if staged is None:
                views[name] = msgspec.structs.replace(old, settled_us=settled, tails=())
                continue
            layouts = self._layouts[name]
            merging = self._merging(name, now_us, dropped)
            files = merge_rows(merging, name, [arrow_schema(each) for each in layouts], old.files)
            views[name] = ViewLog(
                layouts=layouts,
                settled_us=settled,
                files=(*files, *staged.finish()),
                tails=self._write_tail(staged),
                newest_us=staged.newest_us,
                current=(len(layouts) - 1,),
            )
        return views

    def _merging(self, name: str, now_us: int, dropped: list[str]) -> Merging:
        return Merging(
            self.place, self.part, lambda: self._name("staged", name, ".staged"), now_us + self._keep_us, dropped
        )

    def _archived(
        self, before: Commit, views: dict[str, ViewLog], dropped: list[str]
    ) -> tuple[dict[str, ViewLog], str]:
        """Views without the files that change no more, if those are many, and the list that has them."""
        final: dict[str, tuple[LogFile, ...]] = {}
        for name, view in views.items():
            final[name] = unchanging(view.files)
        if sum(map(len, final.values())) < ARCHIVED:
            return views, before.archive
        old = read_archive(self.place, before.archive)
        path = self._name("archive", "files", ".json")
        write_archive(self.place, path, {name: (*old.get(name, ()), *final.get(name, ())) for name in {*old, *final}})
        dropped += [before.archive] if before.archive else []
        kept = {
            name: msgspec.structs.replace(view, files=tuple(file for file in view.files if file not in final[name]))
            for name, view in views.items()
        }
        return kept, path

    def _write_tail(self, staged: StagedView) -> tuple[TailFile, ...]:
        import pyarrow as pa

        name = staged.layout.view
        rows = pa.concat_tables(self._tails[name]) if name in self._tails else None
        if rows is None or not rows.num_rows:
            return ()
        staged.check_tail(rows)
        path = self._name("tail", name, ".rows")
        write_parquet(self.place, path, rows)
        return (TailFile(path, rows.num_rows, staged.version),)

    def _letters(self, before: Commit, now_us: int, dropped: list[str]) -> tuple[LogFile, ...]:
        if not self._dead:
            return before.dead_letters
        import pyarrow as pa

        number = before.sequence + 1
        merging = self._merging("dead_letters", now_us, dropped)
        path = f"dead_letters/{file_name(self.part, f'{number:08d}-merged.parquet')}"
        files = merge_letters(merging, dead_letter_schema(), conform_letters, before.dead_letters, path)
        rows = pa.concat_tables(self._dead)
        at = self._name("staged", "dead_letters", ".staged")
        write_parquet(self.place, at, rows)
        fresh = f"dead_letters/{file_name(self.part, f'{number:08d}.parquet')}"
        return (*files, LogFile(fresh, rows.num_rows, at=at))

    def _snapshots(
        self, before: Commit, snapshots: Mapping[str, SnapshotPart | bytes]
    ) -> dict[str, tuple[SnapshotFile, ...]]:
        found = {}
        for name, given in snapshots.items():
            if not re.fullmatch(r"[\w.-]+", name):
                raise StoreError(f"A snapshot is named {name!r}; use letters, digits, '.', '-' and '_'.")
            each = given if isinstance(given, SnapshotPart) else SnapshotPart(given)
            chain = before.snapshots.get(name, ()) if each.delta else ()
            if each.delta and not chain:
                raise StoreError(
                    f"Snapshot '{name}' says what changed since the commit before, which has none of that name. Give "
                    "the whole state first."
                )
            path = self._name("snapshots", name, "")
            self.place.write(path, each.data)
            found[name] = (*chain, SnapshotFile.of(path, each.data))
        return found


def _snapshot_paths(commit: Commit) -> set[str]:
    return {file.path for chain in commit.snapshots.values() for file in chain}


def _now_us() -> int:
    return time.time_ns() // 1000
