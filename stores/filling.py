"""Filling an online store with many rows of a view, where time matters and not that each batch appears as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace.stores.online import OnlineStore, View


class Filling(Protocol):
    """Rows of one view on their way into a store: never older over newer ones, but a reader may see half a batch."""

    def write(self, rows: pa.Table) -> None:
        """Send rows; they may be on their way when it returns. Raises as `OnlineStore.write`."""
        ...

    def flush(self) -> int:
        """Wait until all are in the store; how many were not older than what was there, since last asked."""
        ...

    def close(self) -> None:
        """End it; what was not flushed may be written or not."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def filling(store: OnlineStore, view: View) -> Filling:
    """The store's own way of taking many rows where it has one (`RedisStore.filling`), else `OnlineStore.write`.

    >>> with filling(store, Activity) as rows:  # doctest: +SKIP
    ...     rows.write(table)
    ...     written = rows.flush()
    """
    own = getattr(store, "filling", None)
    if own is not None:
        found: Filling = own(view)
        return found
    return Writing(store, view)


class Writing:
    """A store that is written batch by batch."""

    def __init__(self, store: OnlineStore, view: View) -> None:
        self._store, self._view = store, view
        self._written = 0

    def write(self, rows: pa.Table) -> None:
        self._written += self._store.write(self._view, rows)

    def flush(self) -> int:
        written, self._written = self._written, 0
        return written

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
