"""Observers that speak: log lines of what happens in a worker, its status for a supervisor, and several at once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from headrace.flows.kafka.statistics import ClientStatistics
from headrace.flows.worker.observing import Observer, Silent
from headrace.ops.logs import Repeats

PROGRESS_EVERY_S = 30.0


class Several:
    """An `Observer` that tells all of its observers."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def assigned(self, part: str, topic: str, partition: int) -> None:
        for each in self._observers:
            each.assigned(part, topic, partition)

    def revoked(self, part: str) -> None:
        for each in self._observers:
            each.revoked(part)

    def ready(self, yes: bool) -> None:
        for each in self._observers:
            each.ready(yes)

    def alive(self) -> None:
        for each in self._observers:
            each.alive()

    def batch(self, part: str, events: int, nbytes: int, steps: Mapping[str, float]) -> None:
        for each in self._observers:
            each.batch(part, events, nbytes, steps)

    def counted(self, part: str, what: str, count: int) -> None:
        for each in self._observers:
            each.counted(part, what, count)

    def wrote(self, view: str, where: str, rows: int, seconds: float) -> None:
        for each in self._observers:
            each.wrote(view, where, rows, seconds)

    def position(self, part: str, *, offset: int, lag: int | None, watermark_us: int | None) -> None:
        for each in self._observers:
            each.position(part, offset=offset, lag=lag, watermark_us=watermark_us)

    def freshness(self, seconds: npt.NDArray[np.float64]) -> None:
        for each in self._observers:
            each.freshness(seconds)

    def checkpoint(self, part: str, *, seconds: float, nbytes: int, delta: bool) -> None:
        for each in self._observers:
            each.checkpoint(part, seconds=seconds, nbytes=nbytes, delta=delta)

    def client(self, topic: str, statistics: ClientStatistics) -> None:
        for each in self._observers:
            each.client(topic, statistics)

    def trouble(self, what: str, message: str) -> None:
        for each in self._observers:
            each.trouble(what, message)

    def recovered(self, what: str) -> None:
        for each in self._observers:
            each.recovered(what)


class Status(Silent):
    """An `Observer` that keeps what one line about the worker says; `read` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events = 0
        self._dead = 0
        self._ready = False
        self._fresh_s: float | None = None
        self._parts: dict[str, int | None] = {}
        self._failing: dict[str, str] = {}

    def assigned(self, part: str, topic: str, partition: int) -> None:
        with self._lock:
            self._parts[part] = None

    def revoked(self, part: str) -> None:
        with self._lock:
            self._parts.pop(part, None)

    def ready(self, yes: bool) -> None:
        self._ready = yes

    def batch(self, part: str, events: int, nbytes: int, steps: Mapping[str, float]) -> None:
        with self._lock:
            self._events += events

    def counted(self, part: str, what: str, count: int) -> None:
        if what.startswith("dead:"):
            with self._lock:
                self._dead += count

    def position(self, part: str, *, offset: int, lag: int | None, watermark_us: int | None) -> None:
        with self._lock:
            if part in self._parts:
                self._parts[part] = lag

    def freshness(self, seconds: npt.NDArray[np.float64]) -> None:
        if seconds.size:
            p99 = float(np.partition(seconds, int(0.99 * (seconds.size - 1)))[int(0.99 * (seconds.size - 1))])
            with self._lock:
                self._fresh_s = p99 if self._fresh_s is None else max(self._fresh_s, p99)

    def trouble(self, what: str, message: str) -> None:
        with self._lock:
            self._failing[what] = message

    def recovered(self, what: str) -> None:
        with self._lock:
            self._failing.pop(what, None)

    def read(self) -> dict[str, Any]:
        """events and dead since the start, ready, number of parts, lag (None: not known yet), what is failing; fresh_s:
        the worst p99 of a batch since the last reading, None when none was written."""
        with self._lock:
            fresh_s, self._fresh_s = self._fresh_s, None
            lags = [lag for lag in self._parts.values() if lag is not None]
            return {
                "events": self._events,
                "dead": self._dead,
                "ready": self._ready,
                "parts": len(self._parts),
                "lag": sum(lags) if lags or not self._parts else None,
                "trouble": next(iter(self._failing), None),
                "fresh_s": fresh_s,
            }


class Teller(Silent):
    """An `Observer` that writes log lines: assignments, troubles and their ends, dead letters, now and then progress.

    A line that repeats is written every 30 seconds at most, with how many were held back.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._log = structlog.get_logger("headrace.worker")
        self._now = now
        self._repeats = Repeats(now=now)
        self._lock = threading.Lock()
        self._since = now()
        self._events = 0
        self._dead: Counter[str] = Counter()
        self._checkpoints = 0
        self._lags: dict[str, int] = {}
        self._failing: dict[str, float] = {}
        self._is_ready: bool | None = None

    def assigned(self, part: str, topic: str, partition: int) -> None:
        self._log.info("task assigned", part=part, topic=topic, partition=partition)

    def revoked(self, part: str) -> None:
        with self._lock:
            self._lags.pop(part, None)
        self._log.info("task left", part=part)

    def ready(self, yes: bool) -> None:
        if yes != self._is_ready:
            self._is_ready = yes
            self._log.info("ready" if yes else "not ready: tasks are being taken over")

    def alive(self) -> None:
        now = self._now()
        if now - self._since < PROGRESS_EVERY_S:
            return
        with self._lock:
            seconds, events, dead = now - self._since, self._events, dict(self._dead)
            lag, checkpoints = sum(self._lags.values()), self._checkpoints
            self._since, self._events, self._checkpoints = now, 0, 0
            self._dead.clear()
        self._log.info(
            "progress",
            events=events,
            events_per_s=round(events / seconds, 1),
            lag=lag,
            checkpoints=checkpoints,
            **({"dead": dead} if dead else {}),
        )

    def batch(self, part: str, events: int, nbytes: int, steps: Mapping[str, float]) -> None:
        with self._lock:
            self._events += events

    def counted(self, part: str, what: str, count: int) -> None:
        kind, _, reason = what.partition(":")
        if kind == "drift":
            self._log.warning("values have drifted", part=part, where=reason)
        if kind != "dead":
            return
        with self._lock:
            self._dead[reason] += count
        held = self._repeats.allow(f"dead {part} {reason}")
        if held is not None:
            self._log.warning("events could not be taken", part=part, reason=reason, count=count, **_held(held))

    def position(self, part: str, *, offset: int, lag: int | None, watermark_us: int | None) -> None:
        if lag is not None:
            with self._lock:
                self._lags[part] = lag

    def checkpoint(self, part: str, *, seconds: float, nbytes: int, delta: bool) -> None:
        with self._lock:
            self._checkpoints += 1
        self._log.debug("checkpoint", part=part, seconds=round(seconds, 4), bytes=nbytes, delta=delta)

    def trouble(self, what: str, message: str) -> None:
        with self._lock:
            self._failing.setdefault(what, self._now())
        held = self._repeats.allow(f"trouble {what} {message}")
        if held is not None:
            self._log.warning(f"{what} fails; trying again", what=what, message=message, **_held(held))

    def recovered(self, what: str) -> None:
        with self._lock:
            since = self._failing.pop(what, None)
        if since is not None:
            self._log.info(f"{what} works again", what=what, after_s=round(self._now() - since, 1))


def _held(count: int) -> dict[str, int]:
    return {"repeated": count} if count else {}
