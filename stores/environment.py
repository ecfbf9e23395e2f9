"""LMDB environments: one per file and process, grown on demand, safe across fork.

LMDB forbids opening a file twice in one process, so a flow and a lookup client of one process share an environment
here, counted by reference. A process made by fork opens its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from headrace.stores.durable import make_folder
from headrace.stores.errors import CorruptError, MissingStoreError, StoreError

T = TypeVar("T")

FIRST_MAP_BYTES = 1 << 34
"""Address space taken at first, 16 GiB: not memory, not disk. Doubled when the rows outgrow it."""

PATIENCE_S = 10
LOOK_EVERY_S = 0.5
"""How often a reader looks whether the folder was removed and made anew, as `headrace run --fresh` does."""
FILE = "data.mdb"
WHOLE_BYTES = 2 * 4096
"""A file of this size has both of its heads: it was made."""
DEAD_READERS_EVERY = 1000

_lock = threading.RLock()
_open: dict[tuple[int, str], Environment] = {}


class Environment:
    """A shared LMDB environment. Obtained by `open_environment`, given back by `release`."""

    def __init__(self, path: Path, writable: bool, durable: bool, map_bytes: int) -> None:
        self.path = path
        self.writable = writable
        self.durable = durable
        self.map_bytes = map_bytes
        self.users = 0
        self.pid = os.getpid()
        self._idle = threading.Condition()
        self._running = 0
        self._writes = 0
        self._looked = time.monotonic()
        self._env = _open_lmdb(self)
        self._file = _identity(self.path)

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[Any]:
        with self._idle:
            self._running += 1
        try:
            with self._env.begin(write=write, buffers=True) as txn:
                yield txn
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _while_idle(self, work: Callable[[], None]) -> None:
        # LMDB resizes and closes only while no transaction of this process runs.
        with self._idle:
            if not self._idle.wait_for(lambda: self._running == 0, timeout=PATIENCE_S):
                raise StoreError(
                    f"The online store at {self.path} must grow or be opened for writing, but this process has been "
                    f"reading it for {PATIENCE_S} s. Finish the iterations over scan() first."
                )
            work()

    def _resize(self, size: int) -> None:
        self._while_idle(lambda: self._env.set_mapsize(size))

    def make_writable(self, durable: bool, map_bytes: int) -> None:
        """Open anew for writing, when it was open for reading until now."""

        def work() -> None:
            self._env.close()
            self.writable, self.durable, self.map_bytes = True, durable, map_bytes
            self._env = _open_lmdb(self)

        self._while_idle(work)

    def _follow(self) -> None:
        """Reads the file that is at the path now. LMDB would go on with one that was removed, and never tell."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        there = _identity(self.path)
        if there is None or there == self._file:  # what was removed is read until there is another
            return

        with self._idle:
            if self._running == 0:  # else at a later look: what reads just now goes on
                self._env.close()
                self._env = _open_lmdb(self)
                self._file = there

    def of_this_process(self) -> Environment:
        """This environment, or after a fork the child's own."""
        if self.pid == os.getpid():
            return self
        return open_environment(self.path, self.writable, self.durable, self.map_bytes)

    def run(self, work: Callable[[Any], T], write: bool = False) -> T:
        """`work(transaction)`: all it reads is of one moment, all it writes is seen at once or not at all.

        It is called again from the start when the file outgrew the map, so it must not leave traces before it is done.
        """
        import lmdb

        if not self.writable:
            self._follow()
        while True:
            try:
                with self._transaction(write) as txn:
                    result = work(txn)
                break
            except lmdb.MapFullError:
                self._resize(2 * self._env.info()["map_size"])
            except lmdb.MapResizedError:  # another process made it larger
                self._resize(0)
            except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError) as error:
                raise _corrupt(self.path, error) from error
            except lmdb.Error as error:
                verb = "written" if write else "read"
                raise StoreError(f"The online store at {self.path} cannot be {verb}: {error}.") from error
        self._writes += write
        if write and self._writes % DEAD_READERS_EVERY == 0:
            self.forget_dead_readers()
        return result

    def stream(self, work: Callable[[Any], Iterator[T]]) -> Iterator[T]:
        """What `work(transaction)` yields, all of one moment; the transaction ends with the iteration."""
        if not self.writable:
            self._follow()
        with self._transaction(write=False) as txn:
            yield from work(txn)

    def sync(self) -> None:
        """Flush what was written to the disk."""
        self._env.sync(True)

    def forget_dead_readers(self) -> int:
        """Free what readers held that were killed in the middle of a read; returns how many there were."""
        found: int = self._env.reader_check()
        return found

    def close(self) -> None:
        self._env.close()


def open_environment(path: Path, writable: bool, durable: bool = True, map_bytes: int = FIRST_MAP_BYTES) -> Environment:
    """The environment of the folder `path`, opened or shared.

    Raises:
        MissingStoreError: it is not there and `writable` is False.
        CorruptError: its file is no LMDB database or a torn one.
    """
    name = os.path.realpath(path)
    with _lock:
        for other in [key for key in _open if key[0] != os.getpid()]:
            _open.pop(other).close()  # inherited through fork: lmdb forgets it here, the parent's stays open
        found = _open.get((os.getpid(), name))
        if found is None:
            if writable:
                make_folder(path)
            elif not (path / "data.mdb").exists():
                raise MissingStoreError(
                    f"There is no online store at {path}. Run a flow that writes it first, or check the path."
                )
            found = _open[os.getpid(), name] = Environment(path, writable, durable, map_bytes)
        elif writable and not found.writable:
            found.make_writable(durable, map_bytes)
        elif writable and found.durable != durable:
            raise StoreError(
                f"The online store at {path} is open with durable={found.durable} in this process. Open it alike."
            )
        found.users += 1
        return found


def release(environment: Environment) -> None:
    """Give back what `open_environment` returned; the last one closes it."""
    with _lock:
        environment.users -= 1
        if environment.users == 0 and environment.pid == os.getpid():
            _open.pop((environment.pid, os.path.realpath(environment.path)), None)
            environment.close()


def _open_lmdb(environment: Environment) -> Any:
    path = environment.path
    try:
        import lmdb
    except ImportError as error:
        raise StoreError(
            "The embedded online store needs the package lmdb: pip install 'headrace[embedded]'."
        ) from error
    try:
        env = lmdb.open(
            str(path),
            map_size=environment.map_bytes,
            readonly=not environment.writable,
            create=environment.writable,
            subdir=True,
            max_readers=1024,
            # One flush per transaction in place of two: a power loss can undo the last batch, never tear the file.
            sync=environment.durable,
            metasync=False,
        )
    except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
        raise _corrupt(path, error) from error
    except lmdb.Error as error:
        raise StoreError(f"The online store at {path} cannot be opened: {error}.") from error
    env.reader_check()
    return env


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the environment's file; None while there is none that is whole."""
    try:
        found = os.stat(path / FILE)
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino) if found.st_size >= WHOLE_BYTES else None


def _corrupt(path: Path, error: Exception) -> CorruptError:
    return CorruptError(
        f"The online store at {path} is damaged: {error}. Remove the folder and fill it again from the log "
        "(headrace.materialize.online.sync) or by a replay."
    )
