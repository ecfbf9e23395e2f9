"""A worker tunes the interpreter, and leaves it as it was."""

import gc
import sys

import pytest

from headrace.flows.worker.interpreter import THRESHOLDS, TURN_S, tuned_interpreter


def _as_it_is() -> tuple[object, ...]:
    return gc.get_threshold(), gc.get_freeze_count(), sys.getswitchinterval()


def test_the_interpreter_is_tuned_and_then_as_before() -> None:
    before = _as_it_is()
    with tuned_interpreter():
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > 0
        assert sys.getswitchinterval() == pytest.approx(TURN_S)
    assert _as_it_is() == before


def test_also_after_an_error() -> None:
    before = _as_it_is()
    with pytest.raises(ValueError, match="broken"), tuned_interpreter():
        raise ValueError("broken")
    assert _as_it_is() == before
