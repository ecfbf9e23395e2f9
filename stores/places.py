"""Where a log lives: a folder of this machine, or a bucket of an object store through fsspec.

The protocol of commits (commits.py) asks for little, so that both can give it: files that are whole once they are
there, creation of a file that must not be there yet, a second name for a file's content, deletion, and listing. There
is no renaming and no flushing on an object store; what it has written is durable.

Paths are under the log's root, with forward slashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from headrace.features.errors import DataError
from headrace.stores.errors import StoreError

Root = str | PathLike[str]
"""A path, or a URL such as s3://bucket/log."""


class Place(Protocol):
    """Files under one root. Every operation raises OSError when the disk or the network fails."""

    def read(self, path: str) -> bytes:
        """The whole content. Raises FileNotFoundError."""

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """The content of each; those that are not there are left out."""

    def write(self, path: str, data: bytes) -> None:
        """A new file, whole and durable when this returns (its name once `sync` has flushed the folder)."""

    def put(self, path: str, data: bytes) -> None:
        """A file that readers see whole or not at all; durable when this returns. Its folder must be there."""

    def create(self, path: str, data: bytes, beside: str) -> bool:
        """Put if absent: False when `path` is there already, of which nothing is then changed.

        Whoever sees the file sees all of it, durably. `beside`: a name nobody else uses, for a file on its way.
        """

    def sink(self, path: str) -> Any:
        """What a Parquet writer writes a new file to; `finish` or `drop` follows."""

    def finish(self, path: str, sink: Any) -> None:
        """Make what was written to `sink` durable."""

    def drop(self, path: str, sink: Any) -> None:
        """Give up what was written to `sink`."""

    def source(self, path: str) -> Any:
        """What a Parquet reader reads; a context. Raises FileNotFoundError."""

    def share(self, path: str, other: str) -> None:
        """Give the content of `path` the second name `other`, unless it has it. Raises FileNotFoundError."""

    def delete(self, paths: Iterable[str]) -> None:
        """Delete these; one that is not there is no error."""

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a folder; none when there is no such folder."""

    def walk(self, folder: str) -> list[str]:
        """Paths of all files under a folder."""

    def exists(self, path: str) -> bool:
        """Whether a file is there."""

    def prepare(self, folders: Sequence[str]) -> None:
        """Make folders, where there are such things."""

    def sync(self, folders: Iterable[str]) -> None:
        """Make the names in these folders durable."""

    def lock(self, path: str) -> int | None:
        """The handle of a lock that this process holds until it ends; None where there are no locks.

        Raises BlockingIOError when another process holds it.
        """

    def url(self, path: str) -> str:
        """How DuckDB names the file."""

    def file(self, path: str) -> Path | str:
        """The file for users: a path, or a URL."""

    def register(self, connection: Any) -> None:
        """Let a DuckDB connection read this place."""


def is_url(root: Root) -> bool:
    """Whether `root` is a URL.

    >>> is_url("s3://bucket/log"), is_url("features/log"), is_url(Path("/log"))
    (True, False, False)
    """
    return "://" in fspath(root)


def plain_root(root: Root) -> Path | str:
    """`root` as a path of this machine or as a URL.

    >>> plain_root("file:///srv/log") == Path("/srv/log")
    True

    Raises:
        DataError: a URL that lost a slash, as `Path("s3://bucket/log")` makes it.
    """
    text = fspath(root)
    if re.match(r"[A-Za-z][\w+.-]+:/(?!/)", text):
        raise DataError(f"{text!r} is neither a path nor a URL. Write a URL as text, with two slashes, not as a Path.")
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    return text.rstrip("/") if is_url(text) else Path(root)


def shown_root(root: Path | str) -> str:
    """`root` for messages and logs: without user, password and options, which may be secret.

    >>> shown_root("s3://key:secret@bucket/log?token=1")
    's3://bucket/log'
    """
    if isinstance(root, Path):
        return str(root)
    parts = urlsplit(root)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def open_place(root: Root) -> Place:
    """The place at a path or URL. Nothing is made or asked yet.

    Raises:
        StoreError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    plain = plain_root(root)
    if isinstance(plain, Path):
        from headrace.stores.localplace import LocalPlace

        return LocalPlace(plain)
    try:
        from headrace.stores.remoteplace import RemotePlace

        return RemotePlace(plain)
    except (ImportError, ValueError) as error:
        raise StoreError(
            f"Cannot reach {shown_root(plain)}: {error}. Install what reads it: pip install 'headrace[remote]', and "
            "s3fs for s3://, gcsfs for gs://, adlfs for abfs://."
        ) from error
