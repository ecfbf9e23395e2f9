"""Steps "fold", "reduce", "stateful_frame", "join" and "lookup" as they run."""

from collections.abc import Callable
from typing import Any

from headrace.features.object_state import Known
from headrace.features.settling_steps import Batching, Folding, Framing, Joining
from headrace.features.steps import Step
from headrace.features.windows import Session
from headrace.flows.graph.folding import SessionFold, WindowFold
from headrace.flows.graph.framing import frames_of
from headrace.flows.graph.joining import StreamJoin, TableJoin
from headrace.flows.graph.keyed import FramePerKey
from headrace.flows.graph.ordering import Logic, Settling
from headrace.flows.graph.rows import row_fields
from headrace.flows.graph.taken import remaking

SETTLING = ("fold", "reduce", "stateful_frame", "stateful_batches", "join", "lookup")
"""Kinds of steps that `settling` makes."""


def settling(step: Step) -> Settling:
    """A step of a kind in `SETTLING`, with nothing taken yet."""
    assert step.parent is not None
    rule = step.rule
    if isinstance(rule, Joining):
        assert step.other is not None
        rows = (remaking(step.parent.event, step.parent.schema), remaking(step.other.event, step.other.schema))
        logic: Logic
        if step.kind == "join":
            logic = StreamJoin(rule.within_us, step.function, rule.unmatched, rows)
        else:
            logic = TableJoin(step.function, rule.unmatched, rule.valid_for_us, rows)
        return Settling(step, [step.parent, step.other], [step.key, rule.right_key], logic)
    if isinstance(rule, Batching):
        from headrace.flows.graph.batching import SpanBatches  # pandas is loaded where frames of it are wanted

        return SpanBatches(step)
    if isinstance(rule, Framing):
        logic = FramePerKey(rule.over_us, frames_of(step.parent.schema, rule.as_), step.function)
        return Settling(step, [step.parent], [step.key], logic)
    assert isinstance(rule, Folding)
    initial, fold, finish = _reducing(step) if step.kind == "reduce" else (rule.initial, step.function, rule.finish)
    assert initial is not None
    assert finish is not None
    keys = {step.key} & set(step.schema.names)

    def filled(key: Any) -> dict[str, Any]:
        return dict.fromkeys(keys, key)

    if isinstance(rule.window, Session):
        logic = SessionFold(rule.window.gap_us, initial, fold, finish, filled)
    else:
        logic = WindowFold(rule.window.width_us, rule.window.hop_us, initial, fold, finish, filled)
    known = Known.of(initial(), classes=[step.parent.event, step.event])  # a state may hold rows
    return Settling(step, [step.parent], [step.key], logic, known)


def _reducing(step: Step) -> tuple[Callable[[], Any], Callable[[Any, Any], Any], Callable[[Any], Any]]:
    """A reduce as a fold over columns: the first row of a window is what it begins with."""
    assert step.parent is not None
    names = step.schema.names
    remake = remaking(step.event, step.schema)

    def fold(held: dict[str, Any] | None, row: Any) -> dict[str, Any]:
        if held is None:
            return dict(vars(row))
        given = row_fields(step.function(remake([held.get(name) for name in names]), row), step)
        return {name: given.get(name) for name in names}

    def finish(held: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in held.items() if name != step.schema.time_field}

    return lambda: None, fold, finish
