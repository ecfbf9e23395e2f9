"""A log on an object store, through fsspec: s3://, gs://, abfs://, memory:// and whatever else it knows.

Objects are whole once they are there. Creation of one that must not be there yet is the store's own conditional write
where fsspec passes it on and the store heeds it (S3, Google Cloud Storage, Azure, memory). For the others the name is
looked at before and the content read back after: two that claim a part within the same few milliseconds could then both
take themselves for its writer until the next commit of one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from headrace.stores.places import shown_root

P = ParamSpec("P")
T = TypeVar("T")


def _as_os_error(call: Callable[P, T]) -> Callable[P, T]:
    """Errors of a store's own client become OSError, so that callers know what failed wherever the log lives."""

    @wraps(call)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error

    return run


class RemotePlace:
    """Objects under a URL.

    Credentials and endpoint come from where the file system's library looks: variables such as AWS_ACCESS_KEY_ID and
    AWS_ENDPOINT_URL, roles of the machine, or fsspec's configuration.

    Raises:
        ImportError: the library for this protocol is not installed. ValueError: there is no such protocol.
    """

    def __init__(self, root: str, fs: Any = None) -> None:
        import fsspec

        # A listing must be of now: whoever is the writer is told by it.
        self.fs: Any = fsspec.url_to_fs(root, use_listings_cache=False)[0] if fs is None else fs
        self._base = str(self.fs._strip_protocol(root))
        self._root = root

    def _at(self, path: str) -> str:
        return f"{self._base}/{path}"

    @_as_os_error
    def read(self, path: str) -> bytes:
        data: bytes = self.fs.cat_file(self._at(path))
        return data

    @_as_os_error
    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        if not paths:
            return {}
        got = self.fs.cat([self._at(path) for path in paths], on_error="return")
        if isinstance(got, bytes | Exception):  # a single path may come back bare
            got = {self._at(paths[0]): got}
        found = {}
        for path in paths:
            data = got[self._at(path)]
            if isinstance(data, bytes):
                found[path] = data
            elif not isinstance(data, FileNotFoundError):
                raise data
        return found

    @_as_os_error
    def write(self, path: str, data: bytes) -> None:
        self.fs.pipe_file(self._at(path), data)

    def put(self, path: str, data: bytes) -> None:
        """As `write`: an object is seen whole."""
        self.write(path, data)

    @_as_os_error
    def create(self, path: str, data: bytes, beside: str) -> bool:
        at = self._at(path)
        if self.fs.exists(at):
            return False
        try:
            self.fs.pipe_file(at, data, mode="create")
        except FileExistsError:
            return False
        return bool(self.fs.cat_file(at) == data)

    @_as_os_error
    def sink(self, path: str) -> Any:
        return self.fs.open(self._at(path), "wb")

    @_as_os_error
    def finish(self, path: str, sink: Any) -> None:
        sink.close()

    @_as_os_error
    def drop(self, path: str, sink: Any) -> None:
        from fsspec.spec import AbstractBufferedFile

        if isinstance(sink, AbstractBufferedFile):  # an open one would be uploaded whenever it is collected
            sink.discard()
            sink.closed = True
        else:
            sink.close()
        self.delete([path])

    @contextmanager
    def source(self, path: str) -> Iterator[Any]:
        with self.fs.open(self._at(path), "rb") as file:
            yield file

    @_as_os_error
    def share(self, path: str, other: str) -> None:
        self.fs.cp_file(self._at(path), self._at(other))

    @_as_os_error
    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            with suppress(FileNotFoundError):
                self.fs.rm_file(self._at(path))

    @_as_os_error
    def names(self, folder: str) -> list[str]:
        try:
            found = self.fs.ls(self._at(folder), detail=True)
        except FileNotFoundError:
            return []
        return [each["name"].rpartition("/")[2] for each in found if each["type"] == "file"]

    @_as_os_error
    def walk(self, folder: str) -> list[str]:
        below = self._at(folder).strip("/")
        return [f"{folder}/{found.strip('/')[len(below) + 1 :]}" for found in self.fs.find(self._at(folder))]

    @_as_os_error
    def exists(self, path: str) -> bool:
        return bool(self.fs.exists(self._at(path)))

    def prepare(self, folders: Sequence[str]) -> None:
        """Nothing to do: objects have no folders."""

    def sync(self, folders: Iterable[str]) -> None:
        """Nothing to do: what an object store has taken is durable."""

    def lock(self, path: str) -> int | None:
        """None: an object store has no locks."""
        return None

    def url(self, path: str) -> str:
        return str(self.fs.unstrip_protocol(self._at(path)))

    def file(self, path: str) -> Path | str:
        return f"{shown_root(self._root)}/{path}"

    def register(self, connection: Any) -> None:
        connection.register_filesystem(self.fs)

    def __str__(self) -> str:
        return shown_root(self._root)
