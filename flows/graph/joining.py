"""Joins: the events of two streams that lie near each other in time, and the row of a table as of an event."""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from headrace.flows.graph.keyed import NOTHING
from headrace.flows.graph.ordering import NEVER, Output
from headrace.flows.graph.taken import Event, Remake, Values

Pair = Callable[[Any, Any], Any]
LEFT, RIGHT = 0, 1


class StreamJoin:
    """Every pair of a left and a right event of one key at most `within` microseconds apart, once.

    make: the row of a pair; given None on the right for a left event without a partner, where `unmatched` asks for
    those. A pair's row has the instant of the later event, one without a partner the instant from which none can come
    any more. Memory: the events of the last `within` behind the watermark.
    """

    def __init__(self, within: int, make: Pair, unmatched: bool, rows: tuple[Remake, Remake]) -> None:
        self._within, self._make, self._unmatched, self._rows = within, make, unmatched, rows
        self._held: tuple[dict[Any, dict[int, list[Any]]], ...] = ({}, {})  # by side, key and number of arrival
        self._leaving: list[tuple[int, int, int, Any]] = []  # instant, number, side, key
        self._count = 0
        self.due = NEVER

    def take(self, event: Event, side: int) -> Iterable[Output]:
        found: list[Output] = []
        partners: list[int] = []
        for number, other in self._held[1 - side].get(event.key, {}).items():
            if abs(other[1] - event.time) <= self._within:
                partner = self._rows[1 - side](other[0])
                made = self._make(*((event.row, partner) if side == LEFT else (partner, event.row)))
                at = max(other[1], event.time)
                partners.append(number)
                if made is not None:
                    effective = max(at, event.effective)
                    found.append(Output(made, at, effective, event.position, NOTHING))
        for number in partners:
            self._held[1 - side][event.key][number][3] = True
        leaves = max(event.time + self._within, event.effective)
        held = [event.values, event.time, event.position, bool(partners)]
        self._held[side].setdefault(event.key, {})[self._count] = held
        heapq.heappush(self._leaving, (leaves, self._count, side, event.key))
        self._count += 1
        self.due = self._leaving[0][0]
        return found

    def until(self, upto: int) -> Iterator[Output]:
        while self._leaving and self._leaving[0][0] <= upto:
            at, number, side, key = heapq.heappop(self._leaving)
            values, _, position, matched = self._held[side][key].pop(number)
            if not self._held[side][key]:
                del self._held[side][key]
            if side == LEFT and self._unmatched and not matched:
                made = self._make(self._rows[LEFT](values), None)
                if made is not None:
                    yield Output(made, at, at, position, NOTHING)
        self.due = self._leaving[0][0] if self._leaving else NEVER

    def save(self) -> Any:
        leaving = sorted(self._leaving, key=lambda each: each[1])  # in order of arrival
        return [
            self._count,
            [[at, number, side, key, self._held[side][key][number]] for at, number, side, key in leaving],
        ]

    def load(self, saved: Any) -> None:
        self._count, leaving = saved
        self._held, self._leaving = ({}, {}), []
        for at, number, side, key, event in leaving:
            self._held[side].setdefault(key, {})[number] = event
            self._leaving.append((at, number, side, key))
        heapq.heapify(self._leaving)
        self.due = self._leaving[0][0] if self._leaving else NEVER


class TableJoin:
    """Each left event with the newest row of its key that the right side, a table, had at or before it.

    make: given the event's row and the table's, None where the table has none or it is as old as `valid_for`
    (microseconds) or older; where `unmatched` is False such an event gives no row.
    """

    due = NEVER

    def __init__(self, make: Pair, unmatched: bool, valid_for: int | None, rows: tuple[Remake, Remake]) -> None:
        self._make, self._unmatched, self._valid_for, self._rows = make, unmatched, valid_for, rows
        self._table: OrderedDict[Any, tuple[int, Values]] = OrderedDict()  # in order of the last change

    def take(self, event: Event, side: int) -> Iterable[Output]:
        known = self._table.get(event.key)
        if side == RIGHT:
            if known is None or event.time >= known[0]:
                self._table[event.key] = (event.time, event.values)
                self._table.move_to_end(event.key)
            return ()
        there = known is not None and (self._valid_for is None or event.effective - known[0] < self._valid_for)
        if not there and not self._unmatched:
            return ()
        made = self._make(event.row, self._rows[RIGHT](known[1]) if known is not None and there else None)
        if made is None:
            return ()
        return [Output(made, event.time, event.effective, event.position, NOTHING)]

    def until(self, upto: int) -> Iterable[Output]:
        while self._valid_for is not None and self._table:
            key, (time, _) = next(iter(self._table.items()))
            if upto + 1 - time < self._valid_for:
                break
            del self._table[key]
        return ()

    def save(self) -> Any:
        return [[key, time, row] for key, (time, row) in self._table.items()]

    def load(self, saved: Any) -> None:
        self._table = OrderedDict((key, (time, row)) for key, time, row in saved)
