"""Writing a log: files are staged, one manifest makes them count, renames show them (contract C13).

    1 close and flush the staged files, merge small ones, write tail, dead letters and snapshots    nobody looks at them
    yet 2 replace the manifest                                                                      the commit, at one
    instant 3 move the staged files to their places, delete what no longer counts                           tidying

A crash before 2 leaves the commit before it, and the next writer deletes what was staged. A crash after 2 leaves the
new one: readers look for a file in its place and then where it was staged, and the next writer finishes 3.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.stores.durable import make_folder, sync_file, sync_folder
from headrace.stores.errors import LockedError, StoreError
from headrace.stores.layout import RowLayout, check_same, conform
from headrace.stores.manifest import (
    PRIVATE,
    Manifest,
    SnapshotFile,
    TailFile,
    ViewLog,
    check_offsets,
    read_manifest,
    write_manifest,
)
from headrace.stores.merging import merge_small, resolve
from headrace.stores.online import Clock
from headrace.stores.staging import StagedView, parquet_writer, staged_path

if TYPE_CHECKING:
    import pyarrow as pa

_OURS = re.compile(r"\d{6}\.\d{6}-\d{6}\.\d{6}-\d+\.parquet")
REMEDY = "Write this definition to another folder, or remove the folder and replay into it."


class LogWriter:
    """The one writer of a log's folder; made by `OfflineLog` at the first write. Holds the folder's lock until closed.

    Raises:
        LockedError: another writer holds the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("staged", "tail", "snapshots"):
            make_folder(root / PRIVATE / name)
        self._unlock = weakref.finalize(self, os.close, _locked(root))
        self.manifest = read_manifest(root)
        self._staged: dict[str, StagedView] = {}
        self._tails: dict[str, list[pa.Table]] = {}
        self._dead: list[pa.Table] = []
        self._broken = False
        self._publish(self.manifest)
        self._clean()

    def append(self, layout: RowLayout, rows: pa.Table) -> None:
        """Stage settled rows; see `OfflineLog.append`."""
        with _Care(self):
            self._staged_view(layout).append(rows)

    def tail(self, layout: RowLayout, rows: pa.Table) -> None:
        """Stage provisional rows; see `OfflineLog.tail`."""
        with _Care(self):
            rows = conform(self._staged_view(layout).layout, rows)
            self._tails.setdefault(layout.view, []).append(rows)

    def dead_letters(self, rows: pa.Table) -> None:
        """Stage events that could not be taken, in the form of deadletters.py."""
        if rows.num_rows:
            self._dead.append(rows)

    def commit(
        self,
        settled_us: Mapping[str, int],
        snapshots: Mapping[str, bytes],
        offsets: Mapping[str, Mapping[int, int]],
        clock: Clock | None,
    ) -> Manifest:
        """Make everything staged count, at once; see `OfflineLog.commit`."""
        with _Care(self):
            before, sequence = self.manifest, self.manifest.sequence + 1
            manifest = Manifest(
                sequence=sequence,
                views=self._views(before, sequence, settled_us),
                snapshots={name: self._snapshot(name, sequence, data) for name, data in snapshots.items()},
                offsets=check_offsets(offsets),
                clock=clock,
                dead_letters=(*before.dead_letters, *self._write_dead(sequence)),
            )
            for name in ("staged", "tail", "snapshots"):
                sync_folder(self.root / PRIVATE / name)
            write_manifest(self.root, manifest)
            self.manifest = manifest
            self._staged, self._tails, self._dead = {}, {}, []
            self._publish(manifest)
            merged = {f"{PRIVATE}/staged/{file.name}" for file in (self.root / PRIVATE / "staged").iterdir()}
            _remove(self.root, (before.paths() - manifest.paths()) | merged)
            return manifest

    def close(self) -> None:
        """Give up what was not committed and free the folder."""
        for staged in self._staged.values():
            staged.abandon()
        self._staged = {}
        self._unlock()

    def _stored(self, layout: RowLayout) -> RowLayout:
        """The layout under which the view's rows are kept; refuses another definition's."""
        before = self.manifest.views.get(layout.view)
        if before is None:
            return layout
        check_same(before.layout, layout, f"The log at {self.root}", REMEDY)
        return before.layout

    def _staged_view(self, layout: RowLayout) -> StagedView:
        if layout.view not in self._staged:
            stored = self._stored(layout)
            before = self.manifest.views.get(layout.view, ViewLog(stored))
            self._staged[layout.view] = StagedView(self.root, stored, before)
        return self._staged[layout.view]

    def _views(self, before: Manifest, sequence: int, settled_us: Mapping[str, int]) -> dict[str, ViewLog]:
        views = {}
        for name in sorted({*before.views, *self._staged}):
            staged = self._staged.get(name)
            old = before.views.get(name)
            layout = staged.layout if staged is not None else old.layout  # type: ignore[union-attr]
            files = () if old is None else old.files
            settled = None if old is None else old.settled_us
            tail = None
            if staged is not None:
                fresh = staged.finish()
                files = tuple(merge_small(self.root, layout, files, fresh))
                tail = self._write_tail(staged, sequence)
            newest = max((t for t in (settled, settled_us.get(name)) if t is not None), default=None)
            views[name] = ViewLog(layout, newest, files, tail)
        return views

    def _write_tail(self, staged: StagedView, sequence: int) -> TailFile | None:
        import pyarrow as pa

        name = staged.layout.view
        rows = pa.concat_tables(self._tails[name]) if name in self._tails else None
        if rows is None or not rows.num_rows:
            return None
        staged.check_tail(rows)
        path = f"{PRIVATE}/tail/{name}-{sequence:08d}.rows"
        self._write_table(self.root / path, rows)
        return TailFile(path, rows.num_rows)

    def _write_dead(self, sequence: int) -> list[TailFile]:
        if not self._dead:
            return []
        import pyarrow as pa

        rows = pa.concat_tables(self._dead)
        path = f"dead_letters/{sequence:08d}.parquet"
        self._write_table(staged_path(self.root, path), rows)
        return [TailFile(path, rows.num_rows)]

    def _write_table(self, place: Path, rows: pa.Table) -> None:
        with parquet_writer(place, rows.schema) as writer:
            writer.write_table(rows)
        sync_file(place)

    def _snapshot(self, name: str, sequence: int, data: bytes) -> SnapshotFile:
        if not re.fullmatch(r"[\w.-]+", name):
            raise StoreError(f"A snapshot is named {name!r}; use letters, digits, '.', '-' and '_'.")
        path = f"{PRIVATE}/snapshots/{name}-{sequence:08d}"
        with open(self.root / path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return SnapshotFile.of(path, data)

    def _publish(self, manifest: Manifest) -> None:
        """Move what counts and still waits to its place."""
        folders = set()
        for path in manifest.paths():
            waiting = staged_path(self.root, path)
            if waiting.exists():
                final = self.root / path
                make_folder(final.parent)
                waiting.replace(final)
                folders.add(final.parent)
        for folder in folders:
            sync_folder(folder)

    def _clean(self) -> None:
        """Delete what a crash left: everything staged, and files of ours that do not count."""
        counted = self.manifest.paths()
        private = self.root / PRIVATE
        ours = [*private.glob("staged/*"), *private.glob("tail/*"), *private.glob("snapshots/*")]
        ours += [file for file in self.root.glob("view=*/date=*/*.parquet") if _OURS.fullmatch(file.name)]
        ours += self.root.glob("dead_letters/*.parquet")
        _remove(self.root, {file.relative_to(self.root).as_posix() for file in ours} - counted)


class _Care:
    """Marks the writer as broken when a step fails: some rows may be staged in part, so nothing may be committed after
    it."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer

    def __enter__(self) -> None:
        if self._writer._broken:
            raise StoreError(
                f"The log at {self._writer.root} failed to write before and takes no more. Start the flow again: it "
                "goes on "
                "from its checkpoint."
            )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        self._writer._broken = True
        if isinstance(error, OSError):
            raise StoreError(
                f"The log at {self._writer.root} cannot be written: {error}. Nothing of what was committed is lost; "
                "make "
                "room or mend the folder, then start the flow again: it goes on from its checkpoint."
            ) from error


def _locked(root: Path) -> int:
    """The open lock file. The lock goes with the process, however it ends."""
    import fcntl

    file = os.open(root / PRIVATE / "lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise LockedError(
            f"Another flow writes the log at {root}. Stop it first, or write to another folder."
        ) from None
    return file


def _remove(root: Path, paths: set[str]) -> None:
    for path in paths:
        (root / path).unlink(missing_ok=True)


__all__ = ["LogWriter", "resolve"]
