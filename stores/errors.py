"""Errors of stores.

HeadraceError
└── StoreError                       a store cannot do what it was asked
    ├── SchemaMismatchError (ValueError)   rows were written by another definition of the view
    ├── LockedError                        another process writes there already
    ├── MissingStoreError (FileNotFoundError)  there is nothing at the path
    ├── CorruptError                       what was read is not what was written
    ├── FencedError                        a later run has taken this writer over
    ├── UnreachableError (ConnectionError)     the server cannot be reached or cannot write just now: try again
    └── OutOfOrderError (ValueError)       rows at instants that the log has settled already
"""

from __future__ import annotations

from headrace.features.errors import HeadraceError


class StoreError(HeadraceError):
    """A store cannot do what it was asked; the message names the store and the next move."""


class SchemaMismatchError(StoreError, ValueError):
    """Rows meet a definition of their view that did not make them; reading them could give wrong values."""


class LockedError(StoreError):
    """Another process holds the place for writing."""


class MissingStoreError(StoreError, FileNotFoundError):
    """Nothing was written there yet, or the path is wrong."""


class CorruptError(StoreError):
    """A file is torn or altered: its checksum or form is not what was written."""


class OutOfOrderError(StoreError, ValueError):
    """Rows at or before an instant that the log has settled: settled rows are final (contract C18)."""


class FencedError(StoreError):
    """A later run has taken the writer over (its epoch is higher): this run must stop."""


class UnreachableError(StoreError, ConnectionError):
    """A server does not answer, or says that it cannot write just now (loading, failing over, out of memory).

    Whether the call had its effect is not known; every call of a store may be made again.
    """
