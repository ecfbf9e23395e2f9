"""Logs to fill stores from, and stores that fail on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.stores.filling import filling
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock
from headrace.stores.testing import AT, Visits, row, rows_of

Rows = Sequence[tuple[int, int, int]]
"""User, microseconds after AT, visits."""


def table(rows: Rows) -> Any:
    return rows_of(Visits, [({"user": f"u{user}"}, row(at, visits)) for user, at, visits in rows])


def commit(
    log: OfflineLog, rows: Rows = (), tail: Rows = (), *, settled: int | None = None, clock: int | None = None
) -> None:
    """Settled rows, provisional ones, and up to where it is final (by default right after the last settled row)."""
    log.append(Visits, table(rows))
    log.tail(Visits, table(tail))
    last = max([at for _, at, _ in (*rows, *tail)], default=0)
    upto = max([at for _, at, _ in rows], default=-1) + 1 if settled is None else settled
    log.commit(settled_us={"visits": AT + upto}, clock=Clock(AT + (last if clock is None else clock), "stream"))


def a_log(folder: Path, users: int = 10, rows: int = 50) -> OfflineLog:
    """Row number n is user n % users at instant n, with n visits."""
    log = OfflineLog(folder)
    commit(log, [(n % users, n, n) for n in range(rows)])
    return log


def content(store: Any) -> dict[str, tuple[int, int]]:
    """User -> instant of the row after AT, visits."""
    return {key["user"]: (found.event_timestamp_us - AT, found.values["visits"]) for key, found in store.scan(Visits)}


@dataclass
class Hindered:
    """A store in which something happens before a batch is written: `at` is its number, from 0; -1: nothing.

    Attributes:
        writes: rows of each batch that came through.
    """

    store: Any
    at: int
    happens: Callable[[], None]
    writes: list[int] = field(default_factory=list)
    calls: int = 0

    def filling(self, view: Any) -> Any:
        return HinderedRows(self, filling(self.store, view))

    def hinder(self) -> None:
        self.calls += 1
        if self.calls == self.at + 1:
            self.happens()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@dataclass
class HinderedRows:
    """The rows of a hindered store on their way."""

    owner: Hindered
    rows: Any

    def write(self, rows: Any) -> None:
        self.owner.hinder()
        self.rows.write(rows)
        self.owner.writes.append(rows.num_rows)

    def flush(self) -> int:
        found: int = self.rows.flush()
        return found

    def __enter__(self) -> HinderedRows:
        self.rows.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.rows.__exit__(*error)
