"""What the strategies of the oracle draw, from a seed: one value, for tests too long for Hypothesis to repeat."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

T = TypeVar("T")


def drawn(strategy: st.SearchStrategy[T], number: int) -> T:
    """One value of the strategy, the same for the same seed and version of Hypothesis."""
    out: list[T] = []

    # The first example is the simplest there is; a later one is drawn.
    @seed(number)
    @settings(max_examples=5, phases=[Phase.generate], database=None, derandomize=False, deadline=None)
    @given(strategy)
    def take(value: T) -> None:
        out.append(value)

    take()
    return out[-1]
