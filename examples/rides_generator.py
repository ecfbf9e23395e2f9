"""A city's ride hailing as a stream of events into Kafka: what `rides.py` computes features of.

    python rides_generator.py --rate 1000            sends until Ctrl-C, to the topic rides at localhost:9092

Drivers pick people up in twelve zones and take them to others. In the morning people ride to their offices, in the
evening home, at night to the bars and back; traffic makes rides slow and fares dear in the rush hours. As streams are,
this one is out of order: phones without a signal report seconds late, a few of them minutes, and now and then one sends
something that is no ride at all. Hours are UTC. With `--seed` and `--start` it is the same stream every time.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rides_city import Message, messages


class KafkaTopic:
    """Sends to a topic, which is made with `partitions` if there is none.

    Raises:
        SystemExit: no broker answers, or the topic cannot be made; with a message.
    """

    def __init__(self, topic: str, bootstrap: str, partitions: int) -> None:
        try:
            from confluent_kafka import KafkaError, KafkaException, Producer
            from confluent_kafka.admin import AdminClient, NewTopic
        except ModuleNotFoundError:
            sys.exit(
                "Sending to Kafka needs confluent-kafka: pip install 'headrace[kafka]'. Or write a file: --out FILE"
            )
        quiet = {"bootstrap.servers": bootstrap, "log_level": 0}
        admin = AdminClient(quiet)
        try:
            known = topic in admin.list_topics(timeout=5).topics
            if not known:
                admin.create_topics([NewTopic(topic, num_partitions=partitions)])[topic].result(30)
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                sys.exit(f"No Kafka at {bootstrap}, or it has no topic '{topic}' for us: {reason.str()}. "
                         "Start one, or name another with --bootstrap.")  # fmt: skip
        self.shown = f"the topic {topic} at {bootstrap}"
        self.failed = 0
        self._topic = topic
        self._producer = Producer(quiet | {"linger.ms": 2, "compression.type": "lz4", "enable.idempotence": True})

    def send(self, message: Message) -> None:
        while True:
            try:
                self._producer.produce(self._topic, message.payload, message.key, on_delivery=self._delivered)
                return
            except BufferError:  # Kafka is slower than we are: wait for it
                self._producer.poll(0.1)

    def serve(self) -> None:
        self._producer.poll(0)

    def close(self) -> None:
        self.failed += self._producer.flush(30)

    def _delivered(self, error: Any, _: Any) -> None:
        self.failed += error is not None


class Lines:
    """Writes JSON lines: the same messages without Kafka."""

    def __init__(self, path: Path) -> None:
        self.shown = str(path)
        self.failed = 0
        self._file = path.open("wb")

    def send(self, message: Message) -> None:
        self._file.write(message.payload + b"\n")

    def serve(self) -> None: ...

    def close(self) -> None:
        self._file.close()


def send(
    stream: Iterator[Message], to: KafkaTopic | Lines, *, events: int | None, wait: bool, stop: Stop
) -> Counter[str]:
    """Sends each message when it is due, or at once without `wait`, until `events` are sent or somebody says stop."""
    sent: Counter[str] = Counter()
    told = Progress()
    began = time.monotonic()
    for count, message in enumerate(stream):
        if count == events or stop.said:
            break
        if count % 256 == 0:
            to.serve()
            told.show(sent)
        while wait and (ahead := message.due - (time.monotonic() - began)) > 0 and not stop.said:
            to.serve()
            told.show(sent)
            time.sleep(min(ahead, 0.2))
        if stop.said:
            break
        to.send(message)
        sent[message.kind] += 1
    return sent


class Stop:
    """Whether Ctrl-C or SIGTERM came. A flag, no `threading.Event`, whose lock may be held where the signal arrives."""

    def __init__(self) -> None:
        self.said = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._say)

    def _say(self, *_: object) -> None:
        self.said = True


class Progress:
    """One line on a terminal, renewed each second; into a file a line every ten seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._every = 1.0 if self._terminal else 10.0
        self._told, self._sent = time.monotonic(), 0

    def show(self, sent: Counter[str]) -> None:
        now, total = time.monotonic(), sent.total()
        if now - self._told < self._every:
            return
        rate = (total - self._sent) / (now - self._told)
        self._told, self._sent = now, total
        line = f"{total:,} sent, {rate:,.0f}/s; {sent['late']:,} late, {sent['bad']:,} broken"
        print(
            f"\r{line:<70}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr, flush=True
        )


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A city's ride hailing as a stream of events into Kafka.")
    bootstrap = os.environ.get("HEADRACE_KAFKA_BOOTSTRAP", "localhost:9092")
    add = parser.add_argument
    add("--rate", type=float, default=1000, help="events a second (%(default)s)")
    add("--drivers", type=int, default=10_000, help="drivers in the city (%(default)s)")
    add("--late", type=float, default=0.02, help="share of events reported late (%(default)s)")
    add("--bad", type=float, default=0.0001, help="share of messages that are no ride (%(default)s)")
    add("--seed", type=int, default=1, help="another city, another stream (%(default)s)")
    add("--start", type=datetime.fromisoformat, help="instant of the first event, such as 2026-03-06T17:00Z (now)")
    add("--events", type=int, help="stop after so many (never)")
    add("--fast", action="store_true", help="send as fast as Kafka takes them; only the times keep to the rate")
    add("--topic", default="rides", help="made if it is not there (%(default)s)")
    add("--partitions", type=int, default=4, help="of a topic that is made (%(default)s)")
    add("--bootstrap", default=bootstrap, help="Kafka's address, also HEADRACE_KAFKA_BOOTSTRAP (%(default)s)")
    add("--out", type=Path, metavar="FILE", help="write JSON lines to a file, without Kafka; needs --events")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = arguments()
    given = parser.parse_args(argv)
    if given.rate <= 0 or given.drivers < 1 or not (0 <= given.late < 1 and 0 <= given.bad < 1):
        parser.error("--rate and --drivers are more than 0; --late and --bad are shares from 0 to 1.")
    if given.events is None and (given.out or given.fast):
        parser.error("--out and --fast need an end: add --events N.")
    start = given.start or datetime.now(UTC)
    if start.tzinfo is None:
        parser.error(f"--start {start.isoformat()} has no zone: add Z for UTC, as in 2026-03-06T17:00Z.")
    if given.start is None and given.fast:
        start -= timedelta(seconds=given.events / given.rate)  # so that the last event is of now
    stop = Stop()
    to = Lines(given.out) if given.out else KafkaTopic(given.topic, given.bootstrap, given.partitions)
    stream = messages(
        rate=given.rate,
        drivers=given.drivers,
        late=given.late,
        bad=given.bad,
        seed=given.seed,
        start=start.astimezone(UTC),
    )
    print(f"Sending {given.rate:,.0f} events/s to {to.shown}; Ctrl-C ends it.", file=sys.stderr)
    sent = send(stream, to, events=given.events, wait=not (given.fast or given.out), stop=stop)
    to.close()
    print(f"\n{sent.total():,} sent: {sent['late']:,} of them late, {sent['bad']:,} broken.", file=sys.stderr)
    if to.failed:
        print(f"{to.failed:,} were not delivered.", file=sys.stderr)
    return 1 if to.failed else 0


if __name__ == "__main__":
    sys.exit(main())
