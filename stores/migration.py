"""A view that changed, in a log that holds rows of what it was before.

Features may be added and removed: rows written before read as null in the columns that came later, and what was removed
stays in the old files unread. A feature that is computed in another way would make one column mean two things, so it is
refused; removed first and added again later, it is a new one, whose old values nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.stores.errors import SchemaMismatchError
from headrace.stores.layout import RowLayout, check_same, same

REMEDY = (
    "Go on with what is unchanged by starting the flow with --on-change start or backfill (OfflineLog.migrate_view), "
    "write this definition to another folder, or remove the folder and replay into it."
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


def check_read(versions: Sequence[RowLayout], current: Sequence[int], asked: RowLayout, place: str) -> None:
    """Refuse to read with a definition that no part of the log is written by now. Raises SchemaMismatchError."""
    if not any(same(versions[version], asked) for version in current):
        check_same(versions[current[-1]], asked, place, REMEDY)


def readable(stored: RowLayout, asked: RowLayout) -> list[str]:
    """Features of `asked` that rows of `stored` hold with the same meaning; the others read as null."""
    had = {name: (dtype, how) for (name, dtype), how in zip(stored.features, stored.meaning, strict=True)}
    return [
        name for (name, dtype), how in zip(asked.features, asked.meaning, strict=True) if had.get(name) == (dtype, how)
    ]
