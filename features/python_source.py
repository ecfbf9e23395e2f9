"""Sources of the user's own: anything that can be read on from a position."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from headrace.features.columns import Column
from headrace.features.errors import DefinitionError
from headrace.features.sources import Duration, Source, instant_rules, set_fields


class Reader(Protocol):
    """What a source of your own is: an object with one method."""

    def read(self, position: Any) -> Iterable[tuple[Iterable[Any], Any]]:
        """Rows, and the position after them: where to read on.

        Args:
            position: None at the first start. Later what was yielded with the last rows that a checkpoint counts:
                anything made of None, bool, int, float, str, bytes, list and dict.

        A generator, as a rule. It yields some rows at a time, dicts or objects of the event class; a few thousand at
        most, because what it yields together is taken together. No rows with a new position are welcome. It may wait as
        long as it likes for more: it runs in a thread of its own where the flow is live. When it returns, the source
        has ended.
        """


@dataclass(frozen=True, init=False, repr=False)
class PythonSource(Source):
    """Events that an object of yours reads; see `Reader`. One partition.

    The position rests in the checkpoint, so that a restarted flow reads on where it stopped, and every event counts
    once if the reader gives the same rows after the same position. In a live flow a reader that raises is started again
    from the position after the rows it gave last, after a pause; a replay stops with the error, and the next run goes
    on.

    Attributes:
        reader: the object.
        zone: IANA zone of naive instants; without it they are refused (contract C1).
        ambiguous, nonexistent: as of a FileSource.
        unit: unit of instants that are integers; without it they are refused.
    """

    reader: Reader = field(hash=False, compare=False)
    zone: str | None
    ambiguous: str
    nonexistent: str
    unit: str | None

    kind: ClassVar[str] = "python"

    def __init__(
        self,
        reader: Reader,
        event: Any,
        *,
        name: str | None = None,
        zone: str | None = None,
        ambiguous: str = "refuse",
        nonexistent: str = "refuse",
        unit: str | None = None,
        lateness: Duration = "0s",
        max_ahead: Duration | None = None,
        dedup: str | Column[Any] | None = None,
        idle_after: Duration | None = None,
        late: str = "dead_letter",
    ) -> None:
        self._common(
            name or getattr(event, "__name__", "rows").lower(), event, lateness, max_ahead, dedup, idle_after, late
        )
        shown = f"PythonSource '{self.name}'"
        if isinstance(reader, type) or not callable(getattr(reader, "read", None)):
            got = f"the class {reader.__name__}" if isinstance(reader, type) else f"a {type(reader).__name__}"
            raise DefinitionError(
                f"{shown}: got {got}, expected an object with a method read(position) that yields (rows, position)."
            )
        set_fields(self, reader=reader, **instant_rules(zone, ambiguous, nonexistent, unit, shown))
