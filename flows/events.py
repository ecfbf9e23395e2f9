"""From a decoded batch to what the kernels take: slots, numeric inputs, masks, and values for object features."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.features.columns import Column, Expression
from headrace.features.evaluate import evaluate
from headrace.flows.batch import EventBatch
from headrace.flows.buffer import Prepared
from headrace.flows.keys import KeyTable
from headrace.flows.plan import Plan

Array = npt.NDArray[Any]


class _Lazy(Mapping[str, tuple[Array, Array]]):
    """The columns of a batch as `evaluate` wants them, made when asked for."""

    def __init__(self, batch: EventBatch) -> None:
        self._batch = batch

    def __getitem__(self, name: str) -> tuple[Array, Array]:
        return self._batch.values(name), self._batch.valid(name)

    def __iter__(self) -> Any:
        return iter(self._batch)

    def __len__(self) -> int:
        return len(self._batch.columns)


def prepare(plan: Plan, keys: KeyTable, batch: EventBatch) -> Prepared:
    """The events of `batch` that concern the view, with new keys given slots.

    An event that no feature takes does not concern it, nor one without the entity's key (a key declared `| None`):
    a flight whose aircraft is unknown counts for its airport all the same.
    """
    columns = _Lazy(batch)
    n = len(batch)
    known: dict[int, tuple[Array, Array]] = {}

    def column(expression: Expression) -> tuple[Array, Array]:
        if isinstance(expression, Column):
            return columns[expression.name]
        if id(expression) not in known:
            known[id(expression)] = evaluate(expression, columns, n)
        return known[id(expression)]

    masks = np.ones((n, len(plan.masks)), dtype=np.uint8)
    everything = bool(plan.relevant)
    for m, mask in enumerate(plan.masks):
        if mask.wheres:
            everything = False
            passed = np.zeros(n, dtype=np.bool_)
            for where in mask.wheres:
                values, valid = column(where)
                passed |= values.astype(np.bool_) & valid
            masks[:, m] = passed
        if mask.column is not None:
            valid = column(mask.column)[1]
            if not valid.all():
                everything = False
                masks[:, m] &= valid
    chosen: Any = slice(None)
    if not everything or any(batch.missing(key) for key in keys.names):
        chosen = np.asarray(masks[:, list(plan.relevant)].any(axis=1))
        for key in keys.names:
            chosen &= batch.valid(key)
        everything = bool(chosen.all())
        chosen = slice(None) if everything else chosen
    inputs = np.zeros((n, max(1, len(plan.inputs))))
    bits = inputs.view(np.int64)
    for i, (expression, whole) in enumerate(zip(plan.inputs, plan.whole, strict=True)):
        values, _ = column(expression)
        if whole:
            bits[:, i] = values
        else:
            inputs[:, i] = values
    events = Prepared(
        slot=keys.slots(batch if everything else batch.take(chosen)),
        time=batch.time[chosen],
        effective=batch.effective[chosen],
        position=batch.position[chosen],
        inputs=inputs[chosen],
        masks=masks[chosen],
        objects=_objects(plan, column, n)[chosen],
    )
    return events


def _objects(plan: Plan, column: Any, n: int) -> Array:
    """(n, object features) the value each takes of each event; None where it is missing."""
    out = np.empty((n, len(plan.objects)), dtype=object)
    for o, result in enumerate(plan.objects):
        feature = result.feature
        if feature.column is None:
            values: list[Any] = [True] * n
        else:
            values = _plain(*column(feature.column))
        if feature.by is not None:
            buckets = _plain(*column(feature.by))
            values = [None if b is None or v is None else (b, v) for b, v in zip(buckets, values, strict=True)]
        out[:, o] = np.fromiter(values, dtype=object, count=n)
    return out


def _plain(values: Array, valid: Array) -> list[Any]:
    """Python values, None where missing."""
    return [v if ok else None for v, ok in zip(values.tolist(), valid.tolist(), strict=True)]
