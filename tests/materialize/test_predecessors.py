"""The newest instant at or before each question, beside looking at all of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.materialize.predecessors import NONE, Predecessors

times = st.one_of(st.integers(-4, 12), st.integers(-(2**62), 2**62))
pairs = st.lists(st.tuples(st.integers(0, 4), times), max_size=30)


@given(pairs, st.lists(pairs, max_size=4), st.sampled_from([5, 6, 1 << 20]))
def test_as_if_every_instant_were_looked_at(
    questions: list[tuple[int, int]], told: list[list[tuple[int, int]]], count: int
) -> None:
    asked = np.array(questions, dtype=np.int64).reshape(-1, 2)
    found = Predecessors(asked[:, 0], asked[:, 1], count)
    for some in told:
        these = np.array(some, dtype=np.int64).reshape(-1, 2)
        found.tell(these[:, 0], these[:, 1])
    every = [pair for some in told for pair in some]
    assert found.found().tolist() == [
        max((t for slot, t in every if slot == asked_slot and t <= at), default=NONE) for asked_slot, at in questions
    ]
