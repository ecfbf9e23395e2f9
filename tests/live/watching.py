"""Readers that look all the time while a flow runs and things break, and what they must never see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from headrace.features.errors import HeadraceError
from headrace.flows.recording import LOG
from headrace.stores.errors import UnreachableError
from headrace.stores.offline import OfflineLog
from tests.live.flow import LiveFlow
from tests.live.outcome import online_store
from tests.oracle.operator import rows_of

Place = tuple[str, tuple[Any, ...]]


class Watch:
    """Polls the online store, the log and the workers' memory, each in a thread; `check` says what was wrong.

    An online row never goes back in time (contract C14). A settled row is there once, and stays as it is (C13, C18).

    Attributes:
        looks: how often each has looked. most: the most memory that a worker had, bytes.
    """

    def __init__(self, flow: LiveFlow, *, online_s: float = 0.02, log_s: float = 1.0) -> None:
        self.flow = flow
        self.views = {n: v for source in flow.sources for n, v in source.definitions(flow.bootstrap).items()}
        self.wrong: list[str] = []
        self.looks = {"online": 0, "log": 0, "unreachable": 0}
        self.most = 0
        self._seen: dict[Place, tuple[int, int]] = {}
        self._final: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._stop = threading.Event()
        self._forgets = threading.Event()
        self._store: Any = None
        self._threads = [
            threading.Thread(target=self._repeat, args=(look, every), name=look.__name__, daemon=True)
            for look, every in ((self._online, online_s), (self._log, log_s), (self._memory, 0.2))
        ]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        if self._store is not None:
            self._store.close()

    def forget(self) -> None:
        """The online store is about to lose its rows: what was seen before binds nobody."""
        self._forgets.set()

    def check(self, *, most_mb: int = 700) -> None:
        """Nothing wrong was seen, and the readers did look."""
        assert not self.wrong, f"{len(self.wrong)} wrong looks: {self.wrong[:5]}"
        assert self.looks["online"] > 10, self.looks
        assert self.looks["log"] > 0, self.looks
        assert self.most < most_mb << 20, f"a worker took {self.most >> 20} MB"

    def _repeat(self, look: Callable[[], None], every_s: float) -> None:
        while not self._stop.wait(every_s):
            try:
                look()
            except Exception as error:
                self.wrong.append(f"{look.__name__}: {type(error).__name__}: {error}")
                time.sleep(0.5)

    def _online(self) -> None:
        try:
            self._store = self._store or online_store(self.flow)
            rows = {name: list(self._store.scan(view)) for name, view in self.views.items()}
        except UnreachableError:
            self.looks["unreachable"] += 1
            return
        except HeadraceError:
            if self.looks["online"]:
                raise
            return  # nothing was written yet
        if self._forgets.is_set():
            self._seen.clear()
            self._forgets.clear()
        for name, some in rows.items():
            for key, row in some:
                place = (name, tuple(key.values()))
                now = (row.event_timestamp_us, row.newest_event_us)
                before = self._seen.get(place, now)
                if now[0] < before[0] or now[1] < before[1]:
                    self.wrong.append(f"{place} went back from {before} to {now} (as of, newest event)")
                self._seen[place] = now
        self.looks["online"] += bool(any(rows.values()))

    def _log(self) -> None:
        log = OfflineLog(self.flow.data / LOG)
        for name in log.views():
            view = self.views[name]
            rows = {}
            for row in rows_of(log.scan(view, tail=False)):
                place = (name, *(row[key] for key in view.entity.keys), row["event_timestamp"])
                if place in rows:
                    self.wrong.append(f"settled row {place} is there twice")
                rows[place] = row
            gone = [p for p in self._final if p[0] == name and p not in rows]
            if gone:
                self.wrong.append(f"settled rows have gone: {len(gone)}, such as {gone[0]}")
            other = [p for p, row in rows.items() if repr(self._final.get(p, row)) != repr(row)]
            if other:
                self.wrong.append(f"settled rows have changed: {len(other)}, such as {other[0]}")
            self._final.update(rows)
            self.looks["log"] += bool(rows)

    def _memory(self) -> None:
        for worker in list(self.flow.workers):
            self.most = max(self.most, worker.memory())
