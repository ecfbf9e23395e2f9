"""Rows for tests of the log: one entity per letter, instants as small numbers after AT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.stores.offline import OfflineLog
from headrace.stores.testing import AT, Visits, row, rows_of

DAY = 86_400_000_000


def visits(*instants: int, user: str = "a") -> Any:
    """A table of rows of `Visits`, one per instant; the value tells the instant."""
    return rows_of(Visits, [({"user": user}, row(at, visits=at)) for at in instants])


def instants(log: OfflineLog, **options: Any) -> list[int]:
    """The instants of the rows that a reader sees."""
    rows = log.scan(Visits, columns=["event_timestamp", "visits"], **options).to_pydict()
    found = [round(at.timestamp() * 1_000_000) - AT for at in rows["event_timestamp"]]
    assert found == rows["visits"]
    return found


def private_files(root: Path, part: str = "") -> set[str]:
    """What lies in a part's own folders, without its lock."""
    private = root / "_headrace" / (f"parts/{part}" if part else "")
    folders = ("staged", "tail", "snapshots", "archive")
    return {file.relative_to(root).as_posix() for name in folders for file in (private / name).iterdir()}
