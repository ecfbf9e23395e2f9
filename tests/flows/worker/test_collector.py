"""A worker keeps the collector calm, and leaves it as it was."""

import gc

import pytest

from headrace.flows.worker.collector import THRESHOLDS, calm_collector


def test_the_collector_is_calm_and_then_as_before() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    with calm_collector():
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > before[1]
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_also_after_an_error() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="broken"), calm_collector():
        raise ValueError("broken")
    assert gc.get_threshold() == before
