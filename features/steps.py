"""Steps of flows: what each is told, as data. Made by the methods of streams; flows/graph computes them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from headrace.features.code import code_key
from headrace.features.columns import Expression, expr_key
from headrace.features.errors import DefinitionError
from headrace.features.events import EventMeta, EventSchema, schema_of
from headrace.features.settling_steps import Rule
from headrace.features.sinks import Sink
from headrace.features.sources import Source

FRAMES = ("pandas", "polars", "arrow", "numpy")
ON_ERROR = ("dead_letter", "stop")
VIEW = "view"
"""Kind of a step that stands for a view over its parent's rows; see headrace.flows.graph.viewing."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a flow.

    Attributes:
        name: unique in its flow. kind: the method that made it; "otherwise" is the second stream of a branch.
        event: class of the rows it gives. parent: whose rows it takes; None for "read". source: of "read".
        function: what it calls, a class of "stateful" included. condition: of a filter over columns. frames: what
        "map_batches" is given. key: column of "stateful". sink: of "write". on_error: "dead_letter" or "stop".
        other: the right side of "join" and "lookup", the second stream of "merge". rule: what steps over settled
        rows are told; see `headrace.features.settling_steps`.
    """

    name: str
    kind: str
    event: EventMeta
    parent: Step | None = None
    source: Source | None = None
    function: Any = None
    condition: Expression | None = None
    frames: str = ""
    key: str = ""
    sink: Sink | None = None
    on_error: str = "dead_letter"
    other: Step | None = None
    rule: Rule | None = None

    @property
    def schema(self) -> EventSchema:
        """Of the rows it gives."""
        return schema_of(self.event)

    @property
    def roots(self) -> tuple[Source, ...]:
        """The sources that its rows come from, each once."""
        if self.source is not None:
            return (self.source,)
        above = [each for each in (self.parent, self.other) if each is not None]
        return tuple({root.name: root for each in above for root in each.roots}.values())

    @property
    def root(self) -> Source:
        """The first of the sources that its rows come from."""
        return self.roots[0]

    @property
    def shown(self) -> str:
        """How messages name it: "step 'price' (function price)"."""
        if self.function is None:
            return f"step '{self.name}'"
        return f"step '{self.name}' (function {getattr(self.function, '__qualname__', type(self.function).__name__)})"

    @property
    def fingerprint(self) -> str:
        """What it computes, as text: equal where its state may go on."""
        function = "" if self.function is None else _code(self.function)
        taken = self.parent.schema.fields if self.parent is not None else ()
        text = (self.kind, function, expr_key(self.condition), self.key, taken, self.schema.fields)
        if self.rule is None:
            return repr(text)
        return repr((*text, self.rule.key, self.other.schema.fields if self.other is not None else ()))


def event_given(function: Any, gives: Any, taken: EventMeta, shown: str) -> EventMeta:
    """The event class of what a function gives."""
    if gives is None:
        try:
            told = inspect.signature(function, eval_str=True).return_annotation
        except (NameError, TypeError, ValueError):  # an annotation out of sight, or a builtin without a signature
            told = None
        gives = told if isinstance(told, EventMeta) else taken
    try:
        schema_of(gives)
    except DefinitionError as error:
        raise DefinitionError(f"{shown}: gives: {error}") from None
    found: EventMeta = gives
    return found


def _code(function: Any) -> str:
    if not isinstance(function, type):
        return code_key(function)
    methods = [code_key(each) for each in vars(function).values() if hasattr(each, "__code__")]
    return f"{function.__qualname__}({', '.join(methods)})"
