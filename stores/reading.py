"""Which files a question reads, and what happens when one goes away while it is asked.

A file stays some minutes after the last commit that names it (`OfflineLog(keep_s=)`). A question that takes longer,
over a log that is written meanwhile, can find a small file merged away; it is asked again, and then on copies of the
files that could go, so that it comes to an end however long it takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from headrace.stores.errors import CorruptError
from headrace.stores.layout import RowLayout
from headrace.stores.manifest import ViewLog
from headrace.stores.merging import TIERS
from headrace.stores.places import Place
from headrace.stores.sql import connect, rows_of_versions

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """Files of one view: paths under the log by version of their layout, and those of them that a merge may take."""

    layout: RowLayout
    stored: tuple[RowLayout, ...]
    paths: tuple[tuple[int, tuple[str, ...]], ...]
    passing: frozenset[str]

    @property
    def all_paths(self) -> list[str]:
        return [path for _, paths in self.paths for path in paths]

    def source(self, where: Callable[[str], str]) -> str:
        """The SQL of a table of the rows; `where` says how DuckDB names a path."""
        return rows_of_versions(
            self.layout, [(self.stored[version], [where(path) for path in paths]) for version, paths in self.paths]
        )


def asked_files(log: ViewLog, layout: RowLayout, from_us: int | None, to_us: int | None, tail: bool) -> Asked:
    """The files that can hold rows of (from_us, to_us]."""
    paths: dict[int, list[str]] = {}
    passing = set()
    for file in log.files:
        if (from_us is None or file.last_us > from_us) and (to_us is None or file.first_us <= to_us):
            paths.setdefault(file.version, []).append(file.place)
            if file.at or file.rows < TIERS[-1]:
                passing.add(file.place)
    for each in log.tails if tail else ():
        paths.setdefault(each.version, []).append(each.path)
        passing.add(each.path)
    by_version = tuple((version, tuple(found)) for version, found in sorted(paths.items()))
    return Asked(layout, log.layouts, by_version, frozenset(passing))


def ask(
    place: Place,
    choose: Callable[[], Sequence[Asked]],
    work: Callable[[duckdb.DuckDBPyConnection, dict[str, str]], T],
) -> T:
    """`work(connection, sources)` on the files that `choose` says, which is asked again when some are gone.

    Raises:
        CorruptError: the newest commit names a file that is not there, or one that is there cannot be read.
    """
    asked = choose()
    try:
        return _work_on(place, asked, place.url, work)
    except _UnreadableError as error:
        _check_gone(place, asked, choose(), error)
    while True:
        asked = choose()
        with TemporaryDirectory(prefix="headrace-") as folder:
            try:
                where = _copied(place, asked, Path(folder))
            except FileNotFoundError as error:
                _check_gone(place, asked, choose(), error)
                continue
            try:
                return _work_on(place, asked, where, work)
            except _UnreadableError as error:  # not because a file has gone: those that could are copied
                raise _damaged(place, error) from error


class _UnreadableError(Exception):
    """DuckDB could not read a file; the message is its own."""


def _work_on(
    place: Place,
    asked: Sequence[Asked],
    where: Callable[[str], str],
    work: Callable[[duckdb.DuckDBPyConnection, dict[str, str]], T],
) -> T:
    import duckdb

    sources = {each.layout.view: each.source(where) for each in asked}
    try:
        with connect(place) as connection:
            return work(connection, sources)
    except (duckdb.IOException, OSError) as error:
        raise _UnreadableError(str(error)) from error
    except duckdb.InvalidInputException as error:
        files = re.findall(r"'([^']+)'", str(error))
        if any(file in source for file in files for source in sources.values()):  # a file that is no Parquet
            raise _UnreadableError(str(error)) from error
        raise


def _check_gone(place: Place, asked: Sequence[Asked], newer: Sequence[Asked], error: Exception) -> None:
    """Raise unless a file of `asked` is gone that `newer`, chosen since, does without."""
    gone = {path for each in asked for path in each.all_paths if not place.exists(path)}
    named = {path for each in newer for path in each.all_paths}
    if not gone or gone & named:
        raise _damaged(place, error) from error


def _damaged(place: Place, error: Exception) -> CorruptError:
    return CorruptError(
        f"The log at {place} lacks a file that its manifest names, or the file is damaged or out of reach: {error}. "
        "Restore it from a backup, or replay into another folder."
    )


def _copied(place: Place, asked: Sequence[Asked], folder: Path) -> Callable[[str], str]:
    """Copies of the files that a merge may take; how DuckDB names a path, copied or not."""
    copies: dict[str, str] = {}
    for each in asked:
        for path in sorted(each.passing):
            copy = folder / f"{len(copies)}.parquet"
            copy.write_bytes(place.read(path))
            copies[path] = str(copy)
    return lambda path: copies.get(path) or place.url(path)
