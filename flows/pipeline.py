"""One source and the views over it: admission once, then each view's operator.

    decoded batch -> admission -> operator of each view -> online rows, log rows
                         \\-> dead letters

The embedded runner and `headrace.testing` drive this object; it does no I/O itself.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.features.sources import Source
from headrace.flows.admission import Admission
from headrace.flows.batch import EventBatch
from headrace.flows.shard import BEGINNING
from headrace.flows.view_flow import ADMISSION as ADMISSION
from headrace.flows.view_flow import Output as Output
from headrace.flows.view_flow import ViewFlow, filled


class SourceFlow(ViewFlow[Admission]):
    """Views over one source, whose events it judges.

    Args:
        source: where the events come from; its lateness, max_ahead, dedup, idle_after and late rule admission.
        views: views or definitions over it, with names of their own; none where a flow only judges events.
        partitions: those that hold the watermark back from the start, see `Admission`.
        live: the clock is the one that `push` and `advance` are given (the wall's), not the stream's.

    Raises:
        DefinitionError: two views have one name.
    """

    def __init__(
        self, source: Source, views: Iterable[Any], *, live: bool = False, partitions: Iterable[int] = ()
    ) -> None:
        super().__init__(source, views, Admission(source, partitions, live=live), live)

    def _unread(self) -> Admission:
        return Admission(self.source, live=self._live)

    def push(self, batch: EventBatch, clock_us: int | None = None, wall_us: int | None = None) -> Output:
        """Take a batch of decoded events.

        Args:
            batch: events in the order of their source.
            clock_us: the flow's clock, microseconds; None: the newest event (a replay).
            wall_us: the wall clock, which far-future events are judged by where the source sets no `max_ahead`;
            None: not
                judged then.
        """
        admitted = self._progress.admit(batch, clock_us, self._settled(), wall_us=wall_us)
        newest = self._progress.newest
        clock = max(t for t in (clock_us, newest, BEGINNING) if t is not None)
        online = {name: op.process(admitted.batch, clock) for name, op in self._operators.items()}
        log = self._settle_in_time(len(admitted.batch), clock_us)
        return Output(
            online=filled(online),
            log=log,
            drifts=self._found(),
            dead=admitted.dead,
            duplicates=admitted.duplicates,
            taken=len(admitted.batch),
            missing=self._missing(admitted.batch),
            batch=admitted.batch,
        )

    def push_judged(self, batch: EventBatch | None, heard: Mapping[int, int], clock_us: int | None = None) -> Output:
        """Take events that other flows have judged, one per source partition, and hear how far they have come.

        What is left to judge is an event that came twice by different partitions, and one behind the settled log.

        Args:
            batch: with the effective instants that they were given; None: no events.
            heard: newest event by source partition, microseconds; see `Admission.hear`.
            clock_us: as in `push`.
        """
        admitted = (
            None if batch is None else self._progress.admit(by_effect(batch), clock_us, self._settled(), judged=True)
        )
        for partition, newest in heard.items():
            self._progress.hear(partition, newest, clock_us)
        clock = max(t for t in (clock_us, self._progress.newest, BEGINNING) if t is not None)
        if admitted is None:
            online = {name: op.advance(clock) for name, op in self._operators.items()} if clock > BEGINNING else {}
            log = self._settle_in_time(0, clock_us)
            return Output(online=filled(online), log=log, drifts=self._found())
        taken = by_time(admitted.batch, self.source.schema.time_field)
        online = {name: op.process(taken, clock) for name, op in self._operators.items()}
        log = self._settle_in_time(len(admitted.batch), clock_us)
        return Output(
            online=filled(online),
            log=log,
            drifts=self._found(),
            dead=admitted.dead,
            duplicates=admitted.duplicates,
            taken=len(taken),
            missing=self._missing(taken),
            batch=taken,
        )

    def judge(self, batch: EventBatch, wall_us: int | None = None, *, instead: Admission | None = None) -> Output:
        """Let events in or not, as `push` does in a replay, without computing anything from them.

        A flow that only judged takes up what others computed from `Output.batch`: see `take_up`.

        Args:
            instead: another judge, whose verdicts count; this flow's own then only moves its watermark.
        """
        admitted = self._progress.admit(batch, None, self._progress.watermark(), wall_us=wall_us)
        if instead is not None:
            admitted = instead.admit(batch, wall_us=wall_us)
        taken = admitted.batch
        return Output(
            dead=admitted.dead,
            duplicates=admitted.duplicates,
            taken=len(taken),
            missing=self._missing(taken),
            batch=taken,
        )

    def judgement(self) -> bytes:
        """What was let in so far, for `take_judgement` of another flow of the source."""
        return self._progress.save(full=True).data

    def take_judgement(self, judgement: bytes) -> None:
        """Go on judging from there. Raises SnapshotError where it is damaged or of another source."""
        self._progress.load([judgement])


def by_effect(batch: EventBatch) -> EventBatch:
    """The events at the instants from which they count, which is what another judge has let them in for."""
    return EventBatch(batch.columns, batch.effective, batch.partition, batch.offset, batch.effective)


def by_time(batch: EventBatch, time_field: str) -> EventBatch:
    """The events at their own times again."""
    return EventBatch(batch.columns, batch.values(time_field), batch.partition, batch.offset, batch.effective)
