"""Keyed streams: steps that remember something of each key. Definitions only, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.features.errors import DefinitionError
from headrace.features.events import EventMeta, schema_of
from headrace.features.settling_steps import Batching, Folding, Forgetting, Framing, Joining, fold_window, how_joined
from headrace.features.sources import Duration, one_of
from headrace.features.steps import FRAMES, ON_ERROR, Step, event_given
from headrace.features.time import duration_us
from headrace.features.windows import Window

if TYPE_CHECKING:
    from headrace.features.streams import Stream


@dataclass(frozen=True, eq=False)
class KeyedStream:
    """A stream with a column whose values tell whose rows they are."""

    stream: Stream
    key: str

    def stateful(
        self,
        function: Callable[..., Any],
        *,
        forget_after: Duration | None = None,
        gives: Any = None,
        name: str | None = None,
        on_error: str | None = None,
    ) -> Stream:
        """Rows made by something that remembers: each key's rows come to it in event-time order, ties as they came.

        A row is taken once the watermark has passed it, so what comes out depends on the events and not on the order
        in which they arrived within `lateness` (contract C3).

        Args:
            function: `function(state, row)` gives `(state, output)`, the state being None before a key's first row; or
                a class with a method `on_event(row)` that gives the output, of which each key has an object. The
                output is a row, a list of rows, or None. What is remembered must be plain data or objects of plain
                attributes (headrace.features.object_state): it rests in the checkpoint.
            forget_after: a key that has had no row for so long, in event time, begins anew; without it nothing is
                forgotten, and memory grows with the keys.
        """
        if isinstance(function, type) and not callable(getattr(function, "on_event", None)):
            raise DefinitionError(f"{self.stream!r}.stateful: {function.__name__} has no method on_event(row).")
        rule = None
        if forget_after is not None:
            rule = Forgetting(_span(forget_after, "forget_after", f"{self.stream!r}.stateful"))
        return self.stream._called("stateful", function, gives, name, on_error, key=self.key, rule=rule)

    def learn(
        self,
        model: Any,
        *,
        x: Any,
        y: Any = None,
        into: str,
        gives: EventMeta,
        value: Any = None,
        learn_first: bool | None = None,
        name: str | None = None,
        on_error: str | None = None,
    ) -> Stream:
        """Each row with what an object says of it that learns from the key's rows, such as one of River's.

        Each key has an object of its own. Rows come to it as those of `stateful`. A row of which a part of x is missing
        goes on with null, and is not learned from. One at which the object raises is a row that the step cannot take;
        the object keeps what it learned of it until then.

        Args:
            model: an object, or a class or function without parameters that makes one. Its state must be able to rest
                in a checkpoint, and random numbers need a seed.
            x, y, value, learn_first: as of a feature `Ride.stateful(model, ...)`: what it learns from, the label, what
                it is asked for, and whether before or after it has learned.
            into: the column of `gives` for what it tells. gives: its other columns are those of the same name.
        """
        from headrace.features.learning_steps import learning  # who has no such step need not load it

        shown = f"{self.stream!r}.learn"
        if not isinstance(gives, EventMeta):
            raise DefinitionError(f"{shown}: gives= takes the event class of the rows that come out, got {gives!r}.")
        rule = learning(shown, self.stream.schema, schema_of(gives), model, x, y, into, value, learn_first)
        flow = self.stream.flow
        kept = flow.on_error if on_error is None else one_of("on_error", on_error, ON_ERROR, shown)
        made = flow._name("learn", name)
        return self.stream._added(
            Step(made, "stateful", gives, self.stream.step, key=self.key, on_error=kept, rule=rule)
        )

    def stateful_frame(
        self,
        function: Callable[..., Any],
        *,
        over: Duration,
        as_: str = "pandas",
        gives: Any = None,
        name: str | None = None,
        on_error: str | None = None,
    ) -> Stream:
        """Rows made of a frame of the key's last rows at each of them: those in (t - over, t], the newest last.

        Rows are taken as those of `stateful`. Of two rows of one instant the first one's frame lacks the second.

        Args:
            function: `function(frame)` gives a row, a list of rows, or None.
            over: how far back the frame reaches in event time, such as "1h".
            as_: "pandas", "polars", "arrow" or "numpy" (a dict of arrays by column).
        """
        shown = f"{self.stream!r}.stateful_frame"
        rule = Framing(_span(over, "over", shown), one_of("as_", as_, FRAMES, shown))
        return self.stream._called("stateful_frame", function, gives, name, on_error, key=self.key, rule=rule)

    def stateful_batches(
        self,
        function: Callable[[Any, Any], tuple[Any, Any]],
        *,
        state: Mapping[str, bool | int | float | str],
        every: Duration = "1s",
        gives: Any = None,
        name: str | None = None,
        on_error: str | None = None,
    ) -> Stream:
        """Rows of all keys at once, as pandas frames: those of a span of event time, beside what is remembered of keys.

        The span (b - every, b] is taken once the watermark has passed b, so frames depend on the events alone. Where
        the source ends, what waits is taken as a span of its own. For the steps and views after it, rows that come out
        count from b, as late ones do.

        Args:
            function: `function(state, rows)` gives `(state, frame)`. `rows`: the span's rows in event-time order,
                labelled 0 to n - 1. `state`: a row for each key among them, which is its label. It is given back with
                the same labels and columns, and new values. `frame`: the rows that come out, or None. Their labels
                say whose instants they have: those of `rows`, or keys, which stand for a key's last row.
            state: by column, the value that a new key has; a bool, int, float or text.
            every: how long a span is. Long ones make large frames, which cost less for each row, and later rows.
        """
        shown = f"{self.stream!r}.stateful_batches"
        if not isinstance(state, Mapping) or not state:
            raise DefinitionError(f"{shown}: state= takes values by column, such as {{'count': 0}}, got {state!r}.")
        for column, value in state.items():
            if type(value) not in (bool, int, float, str):
                raise DefinitionError(
                    f"{shown}: state: {column}={value!r} is neither a bool, an int, a float nor text."
                )
        rule = Batching(_span(every, "every", shown), dict(state))
        return self.stream._called("stateful_batches", function, gives, name, on_error, key=self.key, rule=rule)

    def fold(
        self,
        function: Callable[[Any, Any], Any],
        window: Window,
        *,
        initial: Callable[[], Any],
        finish: Callable[[Any], Any],
        gives: Any = None,
        name: str | None = None,
        on_error: str | None = None,
    ) -> Stream:
        """One row of each key and window when the window closes, which is when the watermark passes its end.

        A window without rows gives none. The row's instant is the window's end, (b - W, b] being the window; a
        session's is `gap` after its last row.

        Args:
            function: `function(state, row)` gives the new state, rows coming in event-time order. It must not change
                the state it is given where it may raise.
            window: Tumbling, Hopping or Session.
            initial: gives the state that a window begins with: `list`, `lambda: 0`.
            finish: `finish(state)` gives the row, or None for none. The key, and the columns `window_start` and
                `window_end` where `gives` has them (a session's are its first and last row), need not be in it.
            gives: event class of the rows; by default the return annotation of `finish`.
        """
        shown = f"{self.stream!r}.fold"
        for what, each in (("initial", initial), ("finish", finish)):
            if not callable(each):
                raise DefinitionError(f"{shown}: {what} must be a function, got {each!r}.")
        rule = Folding(fold_window(window, shown), initial, finish)
        event = event_given(finish, gives, self.stream.step.event, shown)
        return self.stream._called("fold", function, event, name, on_error, key=self.key, rule=rule)

    def reduce(
        self,
        function: Callable[[Any, Any], Any],
        window: Window,
        *,
        name: str | None = None,
        on_error: str | None = None,
    ) -> Stream:
        """As `fold`, the state being a row: `function(row, next_row)` gives one row for both.

        A window's row has the window's end as its instant.
        """
        rule = Folding(fold_window(window, f"{self.stream!r}.reduce"))
        event = self.stream.step.event
        return self.stream._called("reduce", function, event, name, on_error, key=self.key, rule=rule)

    def join(
        self,
        right: KeyedStream,
        function: Callable[[Any, Any], Any],
        *,
        within: Duration,
        how: str = "inner",
        gives: Any = None,
        name: str | None = None,
        on_error: str | None = None,
    ) -> Stream:
        """A row of each pair of rows, one of either side, of one key and at most `within` apart; each pair once.

        A pair's row has the instant of the later of the two. What is kept are the rows of the last `within`.

        Args:
            right: the other side, keyed; a stream of this flow.
            function: `function(left, right)` gives the row, or None for none.
            how: "left" gives `function(left, None)` too for a row that no partner can come for any more, `within` after
                it.
        """
        shown = f"{self.stream!r}.join"
        rule = Joining(_key_of(right, shown), how_joined(how, shown), within_us=duration_us(within, "within"))
        return self._joined("join", right, function, rule, gives, name, on_error)

    def lookup(
        self,
        table: KeyedStream,
        function: Callable[[Any, Any], Any],
        *,
        how: str = "left",
        valid_for: Duration | None = None,
        gives: Any = None,
        name: str | None = None,
        on_error: str | None = None,
    ) -> Stream:
        """Each row with the newest row of its key that `table` had at or before its instant.

        Args:
            table: a stream of this flow, keyed, whose newest row of each key counts.
            function: `function(row, table_row)` gives the row, or None for none; the second is None where the table has
                no row.
            how: "inner" passes over rows for which the table has none.
            valid_for: how long a row of the table counts; without it, until the next one of its key.
        """
        shown = f"{self.stream!r}.lookup"
        span = None if valid_for is None else _span(valid_for, "valid_for", shown)
        rule = Joining(_key_of(table, shown), how_joined(how, shown), valid_for_us=span)
        return self._joined("lookup", table, function, rule, gives, name, on_error)

    def _joined(
        self, kind: str, other: KeyedStream, function: Any, rule: Joining, gives: Any, name: str | None,
        on_error: str | None,
    ) -> Stream:  # fmt: skip
        shown = f"{self.stream!r}.{kind}"
        step = other.stream.step
        if other.stream.flow is not self.stream.flow:
            raise DefinitionError(
                f"{shown}: {other.stream!r} is of another flow, expected one of '{self.stream.flow.name}'. A "
                "flow may read several sources: flow.read(...) the other one too."
            )
        kinds = [self.stream.schema.field(self.key).dtype, other.stream.schema.field(other.key).dtype]
        if kinds[0] != kinds[1]:
            raise DefinitionError(
                f"{shown}: the keys '{self.key}' ({kinds[0]}) and '{other.key}' ({kinds[1]}) are of two types, so they "
                "never meet. Make them one with map_rows."
            )
        return self.stream._called(kind, function, gives, name, on_error, key=self.key, rule=rule, other=step)


def _key_of(other: Any, shown: str) -> str:
    if not isinstance(other, KeyedStream):
        raise DefinitionError(f"{shown} takes a keyed stream, such as other.key_by('id'), got {other!r}.")
    return other.key


def _span(value: Duration, what: str, shown: str) -> int:
    """A duration that is not nothing, in microseconds."""
    us = duration_us(value, what)
    if us == 0:
        raise DefinitionError(f"{shown}: {what}={value!r} holds no row. Give a longer one, such as '1h'.")
    return us
