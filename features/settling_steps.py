"""What steps over settled rows are told beside their function: windows, spans, tables, how long to remember."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.features.code import code_key
from headrace.features.columns import Row, expr_key
from headrace.features.errors import DefinitionError
from headrace.features.windows import Hopping, Session, Tumbling

if TYPE_CHECKING:
    from headrace.features.stateful import Stateful

FoldWindow = Tumbling | Hopping | Session


@dataclass(frozen=True)
class Forgetting:
    """Of "stateful". after_us: how long a key is silent before what is remembered of it goes."""

    after_us: int

    @property
    def key(self) -> str:
        """The rule as text; equal where state may go on."""
        return repr((self.after_us,))


@dataclass(frozen=True)
class Learning:
    """Of "stateful" with an object that learns. row: what it is given of a row. into: column of what it tells.

    kept: columns that the rows that come out have from those that go in.
    """

    row: Row
    object: Stateful
    into: str
    kept: tuple[str, ...]

    @property
    def key(self) -> str:
        return repr((expr_key(self.row), self.object.key, self.into, self.kept))


@dataclass(frozen=True)
class Folding:
    """Of "fold" and "reduce". initial: gives what a window begins with. finish: makes its row.

    A "reduce" has neither.
    """

    window: FoldWindow
    initial: Callable[[], Any] | None = None
    finish: Callable[[Any], Any] | None = None

    @property
    def key(self) -> str:
        """The rule as text; equal where state may go on."""
        return repr((self.window, *(None if each is None else code_key(each) for each in (self.initial, self.finish))))


@dataclass(frozen=True)
class Framing:
    """Of "stateful_frame". over_us: how far back a frame reaches. as_: its kind."""

    over_us: int
    as_: str

    @property
    def key(self) -> str:
        return repr((self.over_us, self.as_))


@dataclass(frozen=True)
class Batching:
    """Of "stateful_batches". every_us: how long a span is. initial: by column of the state, what a new key has."""

    every_us: int
    initial: Mapping[str, bool | int | float | str]

    @property
    def key(self) -> str:
        return repr((self.every_us, dict(self.initial)))


@dataclass(frozen=True)
class Joining:
    """Of "join": within_us, how far apart in time two rows of a pair may be. Of "lookup": valid_for_us.

    unmatched: whether a row on the left without a partner gives a row all the same. right_key: column of the other.
    """

    right_key: str
    unmatched: bool
    within_us: int = 0
    valid_for_us: int | None = None

    @property
    def key(self) -> str:
        return repr((self.right_key, self.unmatched, self.within_us, self.valid_for_us))


Rule = Forgetting | Learning | Folding | Framing | Batching | Joining


def fold_window(window: Any, shown: str) -> FoldWindow:
    """A window that closes.

    Raises:
        DefinitionError: it never does, or is asked at another time.
    """
    if not isinstance(window, (Tumbling, Hopping, Session)):
        raise DefinitionError(
            f"{shown}: got the window {window!r}, expected one that closes: Tumbling('1h'), Hopping('1h', hop='15m') "
            "or Session('30m'). For what a sliding window holds at each event, use stateful_frame(over=...) or a "
            "feature view."
        )
    if window.ending_us or (isinstance(window, Tumbling) and window.current):
        raise DefinitionError(f"{shown}: {window!r}: a fold has neither ending= nor current=. Leave them out.")
    return window


def how_joined(how: str, shown: str) -> bool:
    """Whether rows without a partner count.

    Raises:
        DefinitionError: neither "inner" nor "left".
    """
    if how not in ("inner", "left"):
        raise DefinitionError(f"{shown}: how={how!r} is unknown. Choose how='inner' or how='left'.")
    return how == "left"
