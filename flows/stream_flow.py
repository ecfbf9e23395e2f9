"""Views over the rows of a stream: what the steps of a flow give goes into an operator of each view.

    rows of the step, the flow's watermark -> operator of each view -> online rows, log rows

Nothing is judged here: a row comes of events that were let in, and what is late, ahead or repeated was told at their
source. So the watermark is the one that the steps were given. No row before it comes any more, since every step gives
rows at the instants of those it takes, or later.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from headrace.features.sources import Source
from headrace.features.steps import Step
from headrace.features.stream_source import StreamSource
from headrace.features.time import format_instant
from headrace.flows.batch import EventBatch
from headrace.flows.deadletter import BEHIND, DeadLetter, payload_text
from headrace.flows.shard import BEGINNING
from headrace.flows.snapshot import SnapshotError, pack, unpack
from headrace.flows.view_flow import Output, ViewFlow, filled
from headrace.stores.checkpoints import SnapshotPart


class Told:
    """How far the sources of a stream have come, as its flow says."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._newest: int | None = None
        self._watermark: int | None = None

    @property
    def newest(self) -> int | None:
        """Newest event of the sources, microseconds; None before the first."""
        return self._newest

    def watermark(self, clock_us: int | None = None) -> int | None:
        """Instants below it get no further row; None: there is none yet."""
        return self._watermark

    def tell(self, watermark_us: int | None, newest_us: int | None) -> None:
        """The sources have come so far. Neither goes back."""
        self._watermark = _later(self._watermark, watermark_us)
        self._newest = _later(self._newest, newest_us)

    def save(self, full: bool = False) -> SnapshotPart:
        """What a checkpoint holds of it."""
        meta = {"source": self._source, "newest": self._newest, "watermark": self._watermark}
        return SnapshotPart(pack(meta, {}))

    def load(self, chain: Sequence[bytes]) -> None:
        """Go on from there.

        Raises:
            SnapshotError: damaged, or not there.
        """
        if not chain:
            raise SnapshotError(
                f"The checkpoint does not say how far the views over stream '{self._source}' have come."
            )
        meta, _ = unpack(chain[-1])
        self._newest, self._watermark = meta["newest"], meta["watermark"]


class StreamFlow(ViewFlow[Told]):
    """Views over one stream.

    Args:
        source: the stream as their source. views: views or definitions over it, with names of their own.
        live: the clock is the one that `push` and `advance` are given (the wall's), not the sources' newest event.

    Raises:
        DefinitionError: two views have one name.
    """

    def __init__(self, source: Source, views: Iterable[Any], *, live: bool = False) -> None:
        super().__init__(source, views, Told(source.name), live)

    @property
    def step(self) -> Step:
        """The step whose rows the views take."""
        assert isinstance(self.source, StreamSource)
        return self.source.stream.step

    def _unread(self) -> Told:
        return Told(self.source.name)

    def push(
        self, batch: EventBatch, watermark_us: int | None, newest_us: int | None, clock_us: int | None = None
    ) -> Output:
        """Take rows of the stream, perhaps none, and then hear how far its sources have come.

        Args:
            batch: with the effective instants that they have there. watermark_us: of the flow of steps; None: there is
            none yet. newest_us: newest event of the sources, None before the first: the clock of a replay.
            clock_us: the clock of a live flow.

        Rows behind the settled log become dead letters. There are none unless a function gives other rows after a
        restart than it gave before.
        """
        settled = self._settled()
        behind = batch.effective < settled if settled is not None else None
        dead: list[DeadLetter] = []
        if behind is not None and behind.any():
            dead = self._letters(batch.take(behind), settled)
            batch = batch.take(~behind)
        self._progress.tell(watermark_us, newest_us)
        clock = max(t for t in (clock_us, self._progress.newest, BEGINNING) if t is not None)
        online = {}
        if len(batch):
            online = {name: op.process(batch, clock) for name, op in self._operators.items()}
        elif clock > BEGINNING:
            online = {name: op.advance(clock) for name, op in self._operators.items()}
        log = self._settle_in_time(len(batch), clock_us)
        return Output(
            online=filled(online),
            log=log,
            dead=dead,
            taken=len(batch),
            missing=self._missing(batch),
            batch=batch,
            drifts=self._found(),
        )

    def begin(self, watermark_us: int | None, newest_us: int | None) -> None:
        """The views are new where the sources have come so far already: they take up the stream from here."""
        self._progress.tell(watermark_us, newest_us)
        self._begin(tuple(self._operators))
        self.changed = tuple(self._operators)

    def _letters(self, batch: EventBatch, settled: int | None) -> list[DeadLetter]:
        assert settled is not None
        columns = {name: batch.arrow(name).to_pylist() for name in batch}
        why = f"older than {format_instant(settled)}, up to which the log of the views over the stream had settled"
        return [
            DeadLetter(
                BEHIND,
                why,
                self.source.name,
                int(batch.partition[i]),
                int(batch.offset[i]),
                int(batch.time[i]),
                payload_text({name: values[i] for name, values in columns.items()}),
            )
            for i in range(len(batch))
        ]


def _later(known: int | None, told: int | None) -> int | None:
    return max((each for each in (known, told) if each is not None), default=None)
