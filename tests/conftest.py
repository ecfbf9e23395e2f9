"""How all tests run: in UTC, with deterministic Hypothesis examples.

The profile is `ci` when the variable CI is set, else `dev`; HYPOTHESIS_PROFILE names another. `explore` draws new
examples at every run and is for hunting. `ci` does not shrink: that may take five minutes, longer than a test may, and
all that was seen of a failure then was a worker that died. Which examples are drawn depends on the modules that are
imported, too: Hypothesis takes constants from them.
"""

import os
import time

import prometheus_client  # before Feast: it sets a variable that would make every metric of the process another kind
import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.servers.fixtures import kafka, kafka_address, new_kafka, new_redis, redis_port, redis_server

__all__ = ["kafka", "kafka_address", "new_kafka", "new_redis", "redis_port", "redis_server"]

assert prometheus_client.values.ValueClass.__name__ == "MutexValue", "PROMETHEUS_MULTIPROC_DIR is set"

os.environ["TZ"] = "UTC"
time.tzset()

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("dev", max_examples=25, derandomize=True, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.register_profile(
    "ci",
    max_examples=30,
    derandomize=True,
    deadline=None,
    suppress_health_check=SLOW_IS_FINE,
    phases=[Phase.explicit, Phase.generate],
)
settings.register_profile("explore", max_examples=2000, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start many processes come first, so that one process of the tests has them all, one after the other:
    shares are cut from the order, and who is through steals from the end of another's. Three at a time were too much
    for two cores: Kafka threw members out of their groups.
    """
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/live/", "tests/spark/")))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Feast sets the variable as it is imported; the processes that a test starts are to be as a user's."""
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
