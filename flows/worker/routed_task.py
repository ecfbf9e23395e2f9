"""The task of a partition of a repartition topic of views."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headrace.features.errors import DataError
from headrace.flows.batch import EventBatch
from headrace.flows.worker.exchange import Inbox, receive
from headrace.flows.worker.task import Stamps, Task, TaskState

LET_GO_S = 30.0
"""How often the read messages of a repartition topic are deleted."""


class RoutedTask(Task):
    """A partition of a repartition topic, whose events have been judged where they came from."""

    def __init__(self, *, name: str, let_go: Callable[[str, int, int], None], **common: Any) -> None:
        super().__init__(**common)
        self._name = name
        self._let_go = let_go
        self._let_go_s = time.monotonic()
        self.inbox = Inbox()

    def take(self, messages: Sequence[Any], offset: int, clock_us: int | None, stamps: Stamps) -> int:
        """Take messages of senders in the order of the topic; `offset`: the next to read after them.

        Returns how many events had not come before.

        Raises:
            DataError: a message is no sender's, or events between messages are missing.
        """
        batches: list[EventBatch] = []
        newest: dict[int, int] = {}
        schema = self.flow.source.schema
        for message in messages:
            try:
                routed = receive(schema, message.value(), message.headers())
                fresh = self.inbox.take(routed)
            except DataError as error:
                raise DataError(
                    f"Repartition topic '{self.topic}', partition {self.partition}, offset {message.offset()}: {error}."
                ) from None
            if fresh is not None:
                batches.append(fresh)
            if routed.cover.newest is not None:
                known = newest.get(routed.cover.partition)
                came = routed.cover.newest
                newest[routed.cover.partition] = came if known is None else max(came, known)
        self.offset = offset
        batch = EventBatch.concat(batches) if batches else None
        self.emit(self.flow.push_judged(batch, newest, self.clock(clock_us)), (), stamps)
        return 0 if batch is None else len(batch)

    def committed(self, position: int) -> None:
        """Let Kafka delete what no restart will read again."""
        super().committed(position)
        now = time.monotonic()
        if now - self._let_go_s >= LET_GO_S:
            self._let_go_s = now
            self._let_go(self.topic, self.partition, position)

    def offsets_name(self) -> str:
        return self._name

    def state(self) -> TaskState:
        return msgspec.structs.replace(super().state(), inbox=dict(self.inbox.next))

    def restore(self, state: TaskState) -> None:
        super().restore(state)
        self.inbox.next = dict(state.inbox)
