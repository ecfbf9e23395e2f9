"""One source's backfill as every process that works on it sees it: what is read, who judges it, where it goes."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import pyarrow as pa

from headrace.features.events import EventSchema
from headrace.features.sources import Source
from headrace.features.views import ViewDefinition
from headrace.flows.backfill.stage import Spill, Stage
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.stores.deadletters import dead_letter_table

Spills = dict[tuple[str, ...], Spill]
"""By entity keys, one for all views of that entity."""


@dataclass
class Counts:
    """What became of the events. left: those after the last instant asked for, which come by the topic."""

    taken: int = 0
    duplicates: int = 0
    left: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)

    def add(self, more: "Counts") -> None:
        """Those of another stretch."""
        self.taken += more.taken
        self.duplicates += more.duplicates
        self.left += more.left
        self.missing.update(more.missing)
        self.dead.update(more.dead)

    def packed(self) -> bytes:
        """For `unpacked`."""
        said = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}
        return msgspec.json.encode(said)

    @classmethod
    def unpacked(cls, data: bytes) -> "Counts":
        """What `packed` gave."""
        said = msgspec.json.decode(data)
        return cls(**{**said, "missing": Counter(said["missing"]), "dead": Counter(said["dead"])})


class Judge(Protocol):
    """Judges the events of a source in their order, and says which part of the log they belong to."""

    counts: Counts

    @property
    def end(self) -> int | None:
        """Offset of the first event that is not read, once it has come."""

    def take(self, batch: EventBatch) -> Iterator[tuple[str, EventBatch | None, list[DeadLetter]]]:
        """What the next events bring to each part: its name, events let in, and dead letters."""

    def save(self) -> dict[str, bytes]:
        """What another judge has to know to go on from here; `counts` not among it."""

    def load(self, saved: Mapping[str, bytes]) -> None:
        """Go on from what another has saved."""


@dataclass(frozen=True)
class PartOfLog:
    """stage: where what it gets lies. views: what is computed of it."""

    stage: Stage
    views: tuple[ViewDefinition, ...]


@dataclass(frozen=True)
class Site:
    """A source, its judge, and the parts of the log.

    name: of the source, as it is shown. read: what is read; its events may have columns beside those of `schema`.
    stage: of the whole. parts: the first gets what cannot be decoded. judge: made anew, given the wall clock in
    microseconds. from_us: only log rows as of later instants.
    """

    name: str
    read: Source
    schema: EventSchema
    stage: Stage
    parts: Mapping[str, PartOfLog]
    judge: Callable[[int], Judge]
    from_us: int | None

    @property
    def first(self) -> str:
        """The part that gets what cannot be decoded."""
        return next(iter(self.parts))

    def spills(self, part: str, stretch: int = 0) -> Spills:
        """Where a part's events are put, those of one stretch of the source."""
        its = self.parts[part]
        columns: dict[tuple[str, ...], dict[str, None]] = {}
        for view in its.views:
            columns.setdefault(view.entity.keys, dict.fromkeys(view.entity.keys)).update(
                dict.fromkeys(view.event_columns)
            )
        return {keys: its.stage.spill(self.schema, keys, tuple(names), stretch) for keys, names in columns.items()}


class Outlets:
    """Takes what a judge lets in, and what it does not, to the stages of the parts; to be used in a `with` statement.

    stretch: of the source, of which all is.
    """

    def __init__(self, site: Site, stretch: int = 0) -> None:
        self._stack = ExitStack()
        self._refuse = {
            name: self._stack.enter_context(part.stage.refusing(stretch)) for name, part in site.parts.items()
        }
        self._spills = {name: site.spills(name, stretch) for name in site.parts}

    def __enter__(self) -> "Outlets":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._stack.__exit__(kind, *rest)  # type: ignore[arg-type]
        if kind is None:
            for spills in self._spills.values():
                for spill in spills.values():
                    spill.close()

    def put(self, part: str, events: EventBatch | None, letters: pa.Table | None) -> None:
        """letters: in the form of headrace.stores.deadletters."""
        if letters is not None and letters.num_rows:
            self._refuse[part](letters)
        if events is not None and len(events):
            for spill in self._spills[part].values():
                spill.add(events)


def lettered(letters: Sequence[DeadLetter]) -> pa.Table | None:
    """Dead letters in the form of headrace.stores.deadletters; None where there are none."""
    return dead_letter_table([letter.record() for letter in letters]) if letters else None
