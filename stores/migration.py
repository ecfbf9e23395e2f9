"""A view that changed, in a log that holds rows of what it was before.

Features may be added and removed: rows written before read as null in the columns that came later, and what was removed
stays in the old files unread. A feature that is computed in another way would make one column mean two things, so it is
refused; removed first and added again later, it is a new one, whose old values nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.stores.errors import SchemaMismatchError
from headrace.stores.layout import RowLayout, check_same, same
from headrace.stores.manifest import ViewLog

REMEDY = (
    "Go on with what is unchanged by starting the flow with --on-change start or backfill (OfflineLog.migrate_view), "
    "write this definition to another folder, or remove the folder and replay into it."
)

READ_REMEDY = (
    "Read with the definition that the flow runs, or start the flow with this one: --on-change start or backfill goes "
    "on with what is unchanged."
)


def changed_layout(versions: Sequence[RowLayout], asked: RowLayout, place: str) -> tuple[list[str], RowLayout | None]:
    """What changes from the newest of `versions` to `asked`, in words, and the layout to add, if any.

    Raises:
        SchemaMismatchError: keys, the time column or the meaning of a feature changed.
    """
    stored = versions[-1]
    if same(stored, asked):
        return [], None
    conflicts = stored.conflicts(asked)
    if conflicts:
        raise SchemaMismatchError(
            f"{place} cannot go on with view '{asked.view}': {'; '.join(conflicts)}. Rows written before and after "
            "would mean different things in one column. Give the feature another name; or remove it, run the flow once "
            "and add it again, then its old values read as null; or write to another folder."
        )
    return stored.differences(asked), asked


def check_written(stored: RowLayout, asked: RowLayout, place: str) -> None:
    """Refuse to write rows of another definition than the newest one of the part. Raises SchemaMismatchError."""
    check_same(stored, asked, place, REMEDY)


def check_read(log: ViewLog, asked: RowLayout, place: str) -> None:
    """Refuse to read with a definition that no part of the log is written by, or that one has left for another.

    While the parts of a log change one after the other, the new definition reads them all.

    Raises:
        SchemaMismatchError: names the differences.
    """
    if not any(same(log.layouts[version], asked) for version in log.current):
        check_same(log.layouts[log.current[-1]], asked, place, READ_REMEDY)
    if any(same(log.layouts[version], asked) for version in log.left):
        newer = next(log.layouts[version] for version in log.current if not same(log.layouts[version], asked))
        check_same(newer, asked, place, READ_REMEDY)


def readable(stored: RowLayout, asked: RowLayout) -> list[str]:
    """Features of `asked` that rows of `stored` hold with the same meaning; the others read as null."""
    had = {name: (dtype, how) for (name, dtype), how in zip(stored.features, stored.meaning, strict=True)}
    return [
        name for (name, dtype), how in zip(asked.features, asked.meaning, strict=True) if had.get(name) == (dtype, how)
    ]
