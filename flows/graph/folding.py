"""Folds of a key's events in windows: one row when a window closes, none for a window without events (contract C2).

    width W, hop h     windows (b - W, b] for every multiple b of h; tumbling: h = W
    session gap g      events each less than g after the one before

A window closes when no event that lies in it can come any more. Its row has the instant of its end (a session's: the
gap after its last event) and the position of its newest event.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from headrace.features.time import as_datetime, format_instant
from headrace.flows.graph.ordering import NEVER, Output, TooLateError
from headrace.flows.graph.taken import Event

Initial = Callable[[], Any]
Fold = Callable[[Any, Any], Any]


class WindowFold:
    """`finish(fold(... fold(initial(), event) ...))` of every hopping window of each key.

    key_fill: gives the columns of a key that the row need not set.
    """

    def __init__(
        self,
        width: int,
        hop: int,
        initial: Initial,
        fold: Fold,
        finish: Callable[[Any], Any],
        key_fill: Callable[[Any], dict[str, Any]],
    ) -> None:
        self._width, self._hop = width, hop
        self._initial, self._fold, self._finish, self._key_fill = initial, fold, finish, key_fill
        self._windows: dict[int, dict[Any, tuple[Any, int, int]]] = {}  # end -> key -> state and newest event
        self._ends: list[int] = []
        self.due = NEVER

    def take(self, event: Event, side: int) -> Iterable[Output]:
        """The event enters every window that holds it and has not closed."""
        first = -(-event.time // self._hop) * self._hop
        ends = [end for end in range(first, first + self._width, self._hop) if end >= event.effective]
        if not ends:
            raise TooLateError(f"its windows, up to {format_instant(first + self._width - self._hop)}, have closed")
        folded = []
        for end in ends:
            known = self._windows.get(end, {}).get(event.key)
            state = self._fold(self._initial() if known is None else known[0], event.row)
            newest = (event.time, event.position)
            folded.append((state, *(newest if known is None else max(newest, known[1:]))))
        for end, state in zip(ends, folded, strict=True):
            if end not in self._windows:
                self._windows[end] = {}
                heapq.heappush(self._ends, end)
            self._windows[end][event.key] = state
        self.due = self._ends[0]
        return ()

    def until(self, upto: int) -> Iterator[Output]:
        while self._ends and self._ends[0] <= upto:
            end = heapq.heappop(self._ends)
            span = {"window_start": as_datetime(end - self._width), "window_end": as_datetime(end)}
            for key, (state, _, position) in self._windows.pop(end).items():
                row = self._finish(state)
                if row is not None:
                    yield Output(row, end, end, position, {**span, **self._key_fill(key)})
        self.due = self._ends[0] if self._ends else NEVER

    def save(self) -> Any:
        return [[end, [[key, list(held)] for key, held in self._windows[end].items()]] for end in sorted(self._windows)]

    def load(self, saved: Any) -> None:
        self._windows = {end: {key: tuple(held) for key, held in keys} for end, keys in saved}
        self._ends = sorted(self._windows)
        self.due = self._ends[0] if self._ends else NEVER


class SessionFold:
    """`finish(fold(...))` of every session of each key; `window_start`, `window_end` are its first and last event."""

    def __init__(
        self,
        gap: int,
        initial: Initial,
        fold: Fold,
        finish: Callable[[Any], Any],
        key_fill: Callable[[Any], dict[str, Any]],
    ) -> None:
        self._gap, self._initial, self._fold, self._finish, self._key_fill = gap, initial, fold, finish, key_fill
        self._open: dict[Any, tuple[Any, int, int, int]] = {}  # state, first event, last event and its position
        self._closing: list[tuple[int, int, Any]] = []  # instant, position of the last event, key; some outdated
        self.due = NEVER

    def take(self, event: Event, side: int) -> Iterable[Output]:
        known = self._open.get(event.key)
        time, newest = event.time, (event.time, event.position)
        closed = time + self._gap <= event.effective if known is None else time <= known[1] - self._gap
        if closed:
            raise TooLateError(f"the session at {format_instant(time)} has closed")
        if known is None:
            held = (self._fold(self._initial(), event.row), time, *newest)
        else:
            state = self._fold(known[0], event.row)
            held = (state, min(known[1], time), *max(newest, known[2:]))
        self._open[event.key] = held
        if known is None or held[2:] != known[2:]:
            heapq.heappush(self._closing, (held[2] + self._gap, held[3], event.key))
        self.due = self._closing[0][0] - 1
        return ()

    def until(self, upto: int) -> Iterator[Output]:
        while self._closing and self._closing[0][0] - 1 <= upto:
            at, position, key = heapq.heappop(self._closing)
            held = self._open.get(key)
            if held is None or (held[2] + self._gap, held[3]) != (at, position):
                continue
            del self._open[key]
            row = self._finish(held[0])
            if row is not None:
                span = {"window_start": as_datetime(held[1]), "window_end": as_datetime(held[2])}
                yield Output(row, at, at, position, {**span, **self._key_fill(key)})
        self.due = self._closing[0][0] - 1 if self._closing else NEVER

    def save(self) -> Any:
        return [[key, list(held)] for key, held in self._open.items()]

    def load(self, saved: Any) -> None:
        self._open = {key: tuple(held) for key, held in saved}
        self._closing = sorted((held[2] + self._gap, held[3], key) for key, held in self._open.items())
        self.due = self._closing[0][0] - 1 if self._closing else NEVER
