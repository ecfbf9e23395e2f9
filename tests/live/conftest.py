"""Tests of flows as processes get a second chance.

Workers, Kafka and Redis are processes that share two cores with the other tests: one that is starved for seconds misses
a time limit of the test, not a promise of the flow. A flow that is wrong is wrong the second time as well, and pytest's
summary says `rerun`.
"""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))
