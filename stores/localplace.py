"""A log in a folder of this machine, or of a file system that is mounted here."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headrace.stores.durable import make_folder, sync_file, sync_folder, write_durably

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class LocalPlace:
    """Files of a folder; flushed to the disk, named twice by hard links."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        found = {}
        for path in paths:
            with suppress(FileNotFoundError):  # left out, as promised
                found[path] = (self.root / path).read_bytes()
        return found

    def write(self, path: str, data: bytes) -> None:
        with open(self.root / path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def put(self, path: str, data: bytes) -> None:
        write_durably(self.root / path, data)

    def create(self, path: str, data: bytes, beside: str) -> bool:
        """Written beside and then linked to its name: unlike a file opened with O_EXCL it is never seen in part."""
        self.write(beside, data)
        try:
            os.link(self.root / beside, self.root / path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise OSError(
                error.errno,
                "this file system has no hard links, which a log needs to commit; put it on another, or on an object "
                "store",
            ) from error
        finally:
            self.delete([beside])
        sync_folder((self.root / path).parent)
        return True

    def sink(self, path: str) -> Path:
        return self.root / path

    def finish(self, path: str, sink: Any) -> None:
        sync_file(self.root / path)

    def drop(self, path: str, sink: Any) -> None:
        self.delete([path])

    @contextmanager
    def source(self, path: str) -> Iterator[Path]:
        yield self.root / path

    def share(self, path: str, other: str) -> None:
        place = self.root / other
        make_folder(place.parent)
        try:
            os.link(self.root / path, place)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            beside = place.with_name(f".{place.name}.new")
            shutil.copyfile(self.root / path, beside)
            sync_file(beside)
            os.replace(beside, place)

    def delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            (self.root / path).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        try:
            return os.listdir(self.root / folder)
        except FileNotFoundError:
            return []

    def walk(self, folder: str) -> list[str]:
        found = []
        for at, _, files in os.walk(self.root / folder):
            found += [(Path(at) / name).relative_to(self.root).as_posix() for name in files]
        return found

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def prepare(self, folders: Sequence[str]) -> None:
        for folder in folders:
            make_folder(self.root / folder)

    def sync(self, folders: Iterable[str]) -> None:
        for folder in folders:
            sync_folder(self.root / folder)

    def lock(self, path: str) -> int | None:
        import fcntl

        file = os.open(self.root / path, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise
        return file

    def url(self, path: str) -> str:
        return str(self.root / path)

    def file(self, path: str) -> Path | str:
        return self.root / path

    def register(self, connection: Any) -> None:
        """Nothing to do: DuckDB reads folders itself."""

    def __str__(self) -> str:
        return str(self.root)
