"""A worker of W1's view on a live topic until it is killed: freshness.py runs it as a process.

python -m benchmarks.live_worker BOOTSTRAP TOPIC REDIS_URL FOLDER
"""

import sys
from typing import Any

from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource
from headrace.flows.worker.observing import Silent
from headrace.flows.worker.running import run_worker
from headrace.flows.worker.settings import FlowSettings


class Pickup(Event):
    driver_id: str
    amount: float
    event_ts: EventTime


def last_half_hour(bootstrap: str, topic: str, unit: str, start: str = "earliest") -> Any:
    """The view of W1 over a topic; `unit` of its event times."""
    source = KafkaSource(
        topic, Pickup, keyed_by="driver_id", lateness="10s", unit=unit, start=start, bootstrap_servers=bootstrap
    )

    class LastHalfHour(FeatureView, source=source, entity=Entity("driver", key="driver_id"), ttl="7d"):
        pickups = Pickup.count(last="30m")
        amount_sum = Pickup.amount.sum(last="30m")
        amount_mean = Pickup.amount.mean(last="30m")
        amount_max = Pickup.amount.max(last="30m")

    return LastHalfHour


class Announced(Silent):
    """Prints "ready" once."""

    said = False

    def ready(self, yes: bool) -> None:
        if yes and not self.said:
            self.said = True
            print("ready", flush=True)


def main(bootstrap: str, topic: str, redis_url: str, folder: str) -> None:
    settings = FlowSettings("live", folder, online=redis_url)
    run_worker([last_half_hour(bootstrap, topic, "us", "latest")], settings, observer=Announced())


if __name__ == "__main__":
    main(*sys.argv[1:])
