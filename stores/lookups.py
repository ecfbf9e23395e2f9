"""What a lookup asks of an online store and what it gets: some features of several views for many entities, at once.

`OnlineStore.look_up` answers any number of asks in one round trip, decodes no feature that was not asked for, and tells
the clock that the rows are as of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from headrace.stores.layout import RowLayout
from headrace.stores.online import Clock

FoundRow: TypeAlias = tuple[tuple[Any, ...], int, int]
"""Values in the order asked (instants as integer microseconds, null as None), event_timestamp and newest_event of the
row, microseconds."""

Keys: TypeAlias = Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """Some features of a view, for some entities.

    Attributes:
        layout: of the rows of the view's definition.
        features: names of stored features, in the order in which their values are wanted.
        keys: plain key values (`plain_key`) of each entity, in the entity's order. Asks of one call that are about the
            same entities share one object, and stores may then fetch them together.
    """

    layout: RowLayout
    features: tuple[str, ...]
    keys: Keys


class Looked(NamedTuple):
    """What a store answers.

    Attributes:
        clock: as it was before any row was read: a row may be newer than it, never older.
        rows: for each ask, a row or None for each key. A row is whole; different entities may be moments apart.
    """

    clock: Clock | None
    rows: list[list[FoundRow | None]]


def picking(names: Sequence[str], wanted: Sequence[str]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """The function that takes the `wanted` of a row of values in the order of `names`.

    >>> picking(["a", "b", "c"], ["c", "a"])([1, 2, 3])
    (3, 1)
    """
    from operator import itemgetter

    places = [names.index(name) for name in wanted]
    if len(places) > 1:
        return tuple if places == list(range(len(names))) else itemgetter(*places)
    return (lambda row: (row[places[0]],)) if places else (lambda row: ())
