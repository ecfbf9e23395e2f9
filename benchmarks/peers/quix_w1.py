"""Quix Streams' sliding windows on W1, from Kafka: run by flow.py with the interpreter of its own environment.

    .peers/quix/bin/python quix_w1.py BOOTSTRAP TOPIC EVENTS        prints {"seconds": .., "events": .., "rows": ..}

Count, sum, mean and maximum of a driver's last 30 minutes at each of its events, with a grace of ten seconds; state in
its RocksDB, without changelog topics. Rows are counted and go nowhere. Timed from the first message to the last.
"""

import json
import os
import sys
import tempfile
import time
import uuid
from datetime import timedelta
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Max, Mean, Sum


class Seen:
    first = 0.0
    events = 0
    rows = 0


def main(bootstrap: str, topic: str, events: str) -> None:
    def processed(*_: Any) -> None:
        Seen.first = Seen.first or time.perf_counter()
        Seen.events += 1
        if Seen.events == int(events):
            seconds = time.perf_counter() - Seen.first
            print(json.dumps({"seconds": seconds, "events": Seen.events, "rows": Seen.rows}), flush=True)
            os._exit(0)

    def counted(_: Any) -> None:
        Seen.rows += 1

    app = Application(
        broker_address=bootstrap,
        consumer_group=uuid.uuid4().hex,
        auto_offset_reset="earliest",
        state_dir=tempfile.mkdtemp(prefix="quix-"),
        use_changelog_topics=False,
        on_message_processed=processed,
        consumer_extra_config={"fetch.queue.backoff.ms": 2},
    )
    source = app.topic(
        topic,
        value_deserializer="json",
        key_deserializer="str",
        timestamp_extractor=lambda value, headers, stamp, kind: value["event_ts"],
    )
    window = app.dataframe(source).sliding_window(timedelta(minutes=30), grace_ms=timedelta(seconds=10))
    made = window.agg(pickups=Count(), total=Sum("amount"), mean=Mean("amount"), most=Max("amount")).current()
    made.update(counted)
    app.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
