"""Frames of a key's last events."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from headrace.flows.graph.ordering import NEVER, Output
from headrace.flows.graph.taken import Event, Values

NOTHING: dict[str, Any] = {}


def outputs_of(made: Any, event: Event) -> Iterator[Output]:
    """The rows that a function returned for an event: none, one, or a list of them."""
    if made is None:
        return
    several = made if isinstance(made, list) else [made]
    for row in several:
        yield Output(row, event.time, event.effective, event.position, NOTHING)


class FramePerKey:
    """`function(frame) -> None | row | list of rows` for the frame of a key's events in (t - over, t] at each event.

    build: makes the frame of a list of rows, oldest first; the event asked for is the last one.
    """

    due = NEVER

    def __init__(self, over: int, build: Callable[[Sequence[Values]], Any], function: Callable[[Any], Any]) -> None:
        self._over, self._build, self._function = over, build, function
        self._events: OrderedDict[Any, deque[tuple[int, Values]]] = OrderedDict()

    def take(self, event: Event, side: int) -> Iterable[Output]:
        kept = self._events.setdefault(event.key, deque())
        kept.append((event.effective, event.values))
        self._events.move_to_end(event.key)
        while kept[0][0] <= event.effective - self._over:
            kept.popleft()
        return outputs_of(self._function(self._build([values for _, values in kept])), event)

    def until(self, upto: int) -> Iterable[Output]:
        """Events that no frame can hold any more go with their key, once its newest has."""
        while self._events:
            key, kept = next(iter(self._events.items()))
            if kept[-1][0] > upto + 1 - self._over:
                break
            del self._events[key]
        return ()

    def save(self) -> Any:
        return [[key, list(kept)] for key, kept in self._events.items()]

    def load(self, saved: Any) -> None:
        self._events = OrderedDict((key, deque(kept)) for key, kept in saved)
