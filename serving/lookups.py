"""What the clients of threads and of asyncio have in common: a store, what is known by name, how calls may fail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Literal

from headrace.features.errors import DataError
from headrace.serving.caching import RowCache
from headrace.serving.catalog import Catalog, Known
from headrace.serving.failing import RetryBudget, worth_another_try
from headrace.serving.watching import Watcher, Watchers
from headrace.stores.online import OnlineStore

if TYPE_CHECKING:
    from headrace.stores.opening import Layout


class Lookups:
    """Arguments and state of both clients.

    Args:
        store: an online store, such as `EmbeddedStore(path, read_only=True)`; or its address, a folder or a URL as
            `open_online` takes it: the client then opens it for reading and `close` closes it.
        known: views and feature services that may be asked by name; one that is given as it is needs no mention here.
        on_failure: what `features` does when a view's rows cannot be had: "raise", or "partial": its values are null
            with status FAILED, and `FeatureTable.failures` says why.
        retries: how many failed calls may be made again; by default none beyond a dead connection's.
        cache: rows that are kept in this process for a while; by default none.
        watchers: told of every call of `features`; see watching.py.
        project, layout: of a store that is given by its address; "headrace" and "feast" when left out.

    Raises:
        DataError: `project` or `layout` beside a store that is open already.
        StoreError: the address is of no known form.
        MissingStoreError: there is no such folder.
    """

    def __init__(
        self,
        store: OnlineStore | str | PathLike[str],
        known: Known | Iterable[Known] = (),
        *,
        on_failure: Literal["raise", "partial"] = "raise",
        retries: RetryBudget | None = None,
        cache: RowCache | None = None,
        watchers: Sequence[Watcher] = (),
        project: str | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.catalog = Catalog(known)
        self.on_failure, self.retries, self.cache = on_failure, retries, cache
        self._watchers = Watchers(watchers)
        self._opened = isinstance(store, (str, PathLike))
        if isinstance(store, (str, PathLike)):
            from headrace.stores.opening import open_online

            store = open_online(store, project=project or "headrace", layout=layout or "feast", read_only=True)
        elif project is not None or layout is not None:
            raise DataError(
                f"{type(self).__name__}: project= and layout= are for a store given by its address; {store!r} is open "
                "already. Give them to the store."
            )
        self.store: OnlineStore = store

    @property
    def watcher_failures(self) -> int:
        """How often a watcher raised an error."""
        return self._watchers.failures

    def _again(self, error: Exception) -> bool:
        """Whether a call that failed may be made again; counted and told when it may."""
        if self.retries is None or not worth_another_try(error) or not self.retries.take():
            return False
        self._watchers.retried()
        return True

    def _close_store(self) -> None:
        if self._opened:
            self.store.close()
