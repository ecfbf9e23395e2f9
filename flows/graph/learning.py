"""Step "stateful" with an object that learns: each key's rows come to an object of its own."""

from datetime import UTC, datetime, timedelta
from typing import Any

from headrace.features.dtypes import TIMESTAMP
from headrace.features.errors import DataError
from headrace.features.evaluate import evaluate
from headrace.features.settling_steps import Learning
from headrace.features.stateful import Running
from headrace.features.steps import Step
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import DeadLetter
from headrace.flows.graph.rows import Made, batch_given, failed, rows_of, times_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Learner:
    """Drives the objects of a step. What is remembered of a key is [object, drifts]."""

    def __init__(self, step: Step, rule: Learning) -> None:
        assert step.parent is not None
        self._step, self._parent, self.rule = step, step.parent, rule

    def fold(self, batch: EventBatch, memory: dict[Any, Any]) -> Made:
        """What comes of rows in their order."""
        rule, driven = self.rule, self.rule.object
        columns = {name: (batch.values(name), batch.valid(name)) for name in batch}
        inputs, whole = evaluate(rule.row, columns, len(batch))
        rows = rows_of(batch, self._parent)
        times = times_of(rows, self._step)
        given: list[dict[str, Any]] = []
        origin: list[int] = []
        dead: list[DeadLetter] = []
        for i, (row, at) in enumerate(zip(rows, batch.effective.tolist(), strict=True)):
            told = None
            if whole[i]:
                key = getattr(row, self._step.key)
                if key not in memory:
                    memory[key] = [driven.init().model, 0]
                model, drifts = memory[key]
                running = Running(model, drifts=drifts)
                try:
                    told = driven.update(running, inputs[i], at, i).value
                except DataError as error:
                    dead.append(failed(self._step, batch, i, str(error)))
                    continue
                memory[key][1] = running.drifts
            if told is not None and driven.output == TIMESTAMP:
                told = _EPOCH + timedelta(microseconds=told)
            given.append({**{name: getattr(row, name) for name in rule.kept}, rule.into: told})
            origin.append(i)
        result = batch_given(self._step, batch, times, given, origin)
        return Made(result.batch, dead + result.dead)
