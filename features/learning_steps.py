"""Objects that learn in a step of a flow: what is checked when it is defined."""

from __future__ import annotations

from typing import Any

from headrace.features.columns import Column, leaves
from headrace.features.dtypes import FLOAT, INT
from headrace.features.errors import DefinitionError
from headrace.features.events import EventSchema
from headrace.features.settling_steps import Learning
from headrace.features.stateful import stateful


def learning(
    shown: str,
    taken: EventSchema,
    gives: EventSchema,
    model: Any,
    x: Any,
    y: Any,
    into: str,
    value: Any,
    learn_first: bool | None,
) -> Learning:
    """How an object is driven by the rows of a stream, and what comes out.

    Args:
        taken, gives: the rows that go in, and come out.

    Raises:
        DefinitionError: `into` is no column of the type that the object tells; another column of `gives` is none of the
            rows that go in; x or y are of another event; and whatever a stateful feature is refused for.
    """
    row, driven = stateful(shown, taken.name, model, x, y, value=value, learn_first=learn_first)
    for leaf in (each for operand in row.operands for each in leaves(operand)):
        if isinstance(leaf, Column) and leaf.event != taken.name:
            raise DefinitionError(f"{shown}: {leaf!r} is no column of {taken.name}, whose rows it takes.")
    if into not in gives or into == gives.time_field:
        raise DefinitionError(
            f"{shown}: into={into!r} is no column of {gives.name}. Its columns: {', '.join(gives.names)}."
        )
    there = next(each.dtype for each in gives.fields if each.name == into)
    if there != driven.output and (there, driven.output) != (FLOAT, INT):
        raise DefinitionError(
            f"{shown}: {gives.name}.{into} is {there}, and {driven.shown} tells {driven.output}. Change the column, or "
            "say value= what to take of it."
        )
    types = {each.name: each.dtype for each in taken.fields}
    kept = tuple(each for each in gives.names if each not in (into, gives.time_field))
    for each in gives.fields:
        if each.name in kept and types.get(each.name) != each.dtype:
            raise DefinitionError(
                f"{shown}: {gives.name}.{each.name} ({each.dtype}) is neither into={into!r} nor a column of "
                f"{taken.name}. Give it that name and type, or leave it out."
            )
    return Learning(row, driven, into, kept)
