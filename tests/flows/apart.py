"""A crew whose jobs see nothing of this process: everything goes there and back as bytes, in any order, some twice."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from headrace.flows.backfill.crew import Brief, Job

_given: dict[str, Any] = {}


class Given:
    """Gives a view that nobody can pickle, to whoever is in the same process after all."""

    def __init__(self, view: Any) -> None:
        self._name = str(id(view))
        _given.clear()
        _given[self._name] = view

    def __call__(self) -> list[Any]:
        return [_given[self._name]]


class Apart:
    """load: gives the views. seed: of the order, and of what is done again. give_up: after so many jobs."""

    def __init__(self, load: Callable[[], Iterable[Any]], seed: int, give_up: int | None = None) -> None:
        self.load = load
        self._rng = random.Random(seed)
        self._left = give_up
        self.done = 0

    def do(self, brief: Brief, jobs: Sequence[Job], told: Callable[[int], None]) -> list[Any]:
        order = [*range(len(jobs)), *(at for at in range(len(jobs)) if self._rng.random() < 0.3)]
        self._rng.shuffle(order)
        found: dict[int, Any] = {}
        for at in order:
            if self._left is not None and self.done >= self._left:
                raise KeyboardInterrupt
            its_brief, its_job = pickle.loads(pickle.dumps((brief, jobs[at])))
            found[at] = pickle.loads(pickle.dumps(its_job(its_brief())))
            self.done += 1
            told(len(found))
        return [found[at] for at in range(len(jobs))]
