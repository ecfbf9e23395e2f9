"""Features tested without services: events in, time moved by hand, values out.

    with headrace.testing.replay(DriverActivity) as t:
        t.send([{"driver_id": "7", "fare": 12.5, "city": "SF", "status": "completed", "at": "12:00"}])
        t.at("12:05")
        assert t.get(driver_id="7")["pickups_30m"] == 1
        t.at("12:31")
        assert t.get(driver_id="7")["pickups_30m"] == 0

The same admission, operator, reading rules and stores as in a flow; only the source and the clock are yours. For flows
of steps:

    with headrace.testing.replay_flow(flow) as t:
        t.send([{"driver_id": "7", "km": 3.0, "at": "12:00"}])
        assert t.rows("totals") == [{"driver_id": "7", "rides": 1, ...}]
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from headrace.features.errors import DataError
from headrace.features.reading import Status, read_at
from headrace.features.stream_source import StreamSource
from headrace.features.streams import Flow, Stream
from headrace.features.time import duration_us, format_instant, instant_us
from headrace.features.views import ViewDefinition, definition
from headrace.flow_replay import FlowReplay, dated_on, instant_on
from headrace.flows.deadletter import DeadLetter
from headrace.flows.decode import decode_rows, reading_of
from headrace.flows.pipeline import SourceFlow
from headrace.flows.shard import BEGINNING
from headrace.flows.view_flow import Output, ViewFlow
from headrace.stores.memory import MemoryStore


class FeatureRow(dict[str, Any]):
    """Public features of one entity at one instant, by name; instants as integer microseconds UTC.

    status: by feature, see `headrace.features.reading.Status`. event_timestamp: the instant the stored row is as
    of, and
    newest_event: the entity's newest event that the view took; ISO text, None for an entity that was never seen.
    """

    def __init__(
        self, values: Mapping[str, Any], status: Mapping[str, Status], as_of: int | None, newest: int | None
    ) -> None:
        super().__init__(values)
        self.status = dict(status)
        self.event_timestamp = None if as_of is None else format_instant(as_of)
        self.newest_event = None if newest is None else format_instant(newest)


class Replay:
    """A view under test; made by `replay`.

    Attributes:
        dead: every event that was not taken so far, with its reason.
        duplicates: how many events had been taken before (contract C9).
    """

    def __init__(self, view: Any, day: str) -> None:
        self.view: ViewDefinition = definition(view)
        self._midnight = instant_us(f"{day}T00:00:00Z", "day")
        self._flow = self._begun()
        self._store = MemoryStore()
        self._log: list[pa.Table] = []
        self._offsets: dict[int, int] = {}
        self._clock: int | None = None
        self.dead: list[DeadLetter] = []
        self.duplicates = 0

    def _begun(self) -> ViewFlow[Any]:
        self._source = SourceFlow(self.view.source, [self.view])
        return self._source

    def __enter__(self) -> "Replay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()

    def send(self, rows: Iterable[Any] | Mapping[str, Any], partition: int = 0) -> None:
        """Give the flow one event or several, in this order.

        Args:
            rows: mappings or event objects. The time field may be a time of day ("12:00"), meant in UTC on `day`.
            partition: the partition of the source that they come from; lateness is judged within it (contract C7).

        Events that are not taken are in `dead` afterwards.
        """
        given = [rows] if isinstance(rows, Mapping) or not isinstance(rows, Iterable) else list(rows)
        source = self.view.source
        at = source.schema.time_field
        offset = self._offsets.get(partition, 0)
        self._offsets[partition] = offset + len(given)
        how = reading_of(source)
        batch, dead = decode_rows(source.schema, [self._dated(row, at) for row in given], partition, offset, how)
        self.dead += dead
        self._take(self._source.push(batch, self._clock))

    def end(self) -> None:
        """The source has ended: what waits in the steps before a stream goes on. Of other views nothing waits."""

    def at(self, time: str | datetime) -> None:
        """Move the clock. It stays where it is if `time` is earlier; without a call it follows the newest event.

        Args:
            time: ISO text with a zone, an aware datetime, or a time of day ("12:05") in UTC on `day`.
        """
        self._clock = max(self._instant(time, "at"), self._clock if self._clock is not None else BEGINNING)
        self._take(self._flow.advance(self._clock))

    def after(self, duration: str | timedelta) -> None:
        """Move the clock on by a duration, such as "90s"."""
        self._clock = self.clock_us + duration_us(duration, "after")
        self._take(self._flow.advance(self._clock))

    @property
    def clock_us(self) -> int:
        """The clock: what `at` set, or the newest event if that is later; microseconds UTC."""
        known = [t for t in (self._clock, self._flow.newest_us) if t is not None]
        return max(known, default=self._midnight)

    def get(self, **key: Any) -> FeatureRow:
        """The entity's features as a model server would be given them now.

        Args:
            key: the entity's keys by column.

        Raises:
            DataError: a key is missing or unknown.
        """
        stored = self._store.read(self.view, [key])[0]
        if stored is None:
            return FeatureRow(*read_at(self.view, None, None, None, self.clock_us), None, None)
        as_of, newest = stored.event_timestamp_us, stored.newest_event_us
        return FeatureRow(*read_at(self.view, stored.values, as_of, newest, self.clock_us), as_of, newest)

    def log_table(self, tail: bool = False) -> pa.Table:
        """The settled log so far as an Arrow table; with `tail` also the rows that would follow if no event came."""
        parts = [*self._log, *(self._flow.tail().values() if tail else ())]
        if not parts:
            parts = list(self._flow.tail().values())
            return parts[0].slice(0, 0) if parts else pa.table({})
        return pa.concat_tables(parts)

    def log(self, tail: bool = False) -> list[dict[str, Any]]:
        """The rows of `log_table` as dicts; instants as aware datetimes, maps as lists of pairs."""
        rows: list[dict[str, Any]] = self.log_table(tail).to_pylist()
        return rows

    def training_set(self, spine: Any, time: str = "event_timestamp") -> pa.Table:
        """The features that serving would have given at each row of `spine`; see
        `headrace.materialize.training_set`."""
        from headrace.materialize.training import training_set
        from headrace.stores.offline import OfflineLog

        with tempfile.TemporaryDirectory() as folder:
            log = OfflineLog(Path(folder))
            for part in self._log:
                log.append(self.view, part)
            for table in self._flow.tail().values():
                log.tail(self.view, table)
            log.commit(settled_us=self._flow.settled_us())
            return training_set(spine, self.view, log=log, time=time)

    def restart(self) -> None:
        """Kill the flow and start it again from a snapshot taken this instant; nothing may change by it."""
        parts = {name: [part.data] for name, part in self._flow.save(full=True).items()}
        self._flow = self._begun()
        self._flow.load(parts)

    @property
    def entities(self) -> int:
        """How many entities the operator holds in memory."""
        return self._flow.entities[self.view.name]

    def _take(self, output: Output) -> None:
        for table in output.online.values():
            self._store.write(self.view, table)
        self._log += output.log.values()
        self.dead += output.dead
        self.duplicates += output.duplicates

    def _instant(self, value: Any, name: str) -> int:
        return instant_on(self._midnight, value, name)

    def _dated(self, row: Any, field: str) -> Any:
        return dated_on(self._midnight, row, field)


class StreamReplay(Replay):
    """A view over a stream under test; made by `replay`. Rows are sent to the sources of its flow."""

    def __init__(self, view: ViewDefinition, stream: Stream, day: str) -> None:
        self._steps = FlowReplay(stream.flow, day, [view])
        super().__init__(view, day)

    def _begun(self) -> ViewFlow[Any]:
        return self._steps.streams[0]

    def send(self, rows: Iterable[Any] | Mapping[str, Any], partition: int = 0, *, source: str | None = None) -> None:
        """Give the flow one event or several, in this order; its steps give the view its rows.

        Args:
            rows: of a source of the flow, as of `Replay.send`. partition: 0, there is no other.
            source: the name of the source; it need not be said where the flow reads only one.

        Raises:
            DataError: there is no such source or partition.
        """
        if partition:
            raise DataError(f"send: partition={partition}: a flow of steps is replayed from one partition, 0.")
        self._steps.send(rows, source, self._clock)
        self._gather()

    def end(self) -> None:
        self._steps.end(self._clock)
        self._gather()

    def restart(self) -> None:
        self._steps.restart()
        self._flow = self._begun()

    def _gather(self) -> None:
        for output in self._steps.outputs:
            self._take(output)
        self._steps.outputs.clear()
        self.dead += self._steps.dead
        self._steps.dead.clear()
        self.duplicates = self._steps.duplicates


def replay(view: Any, day: str = "2026-01-01") -> Replay:
    """A view under test, to be used in a `with` statement.

    Args:
        view: a feature view or its definition. Its source gives lateness, dedup and the like; no event is read from it.
            Of a view over a stream, the rows sent are those of the flow's source, and its steps make those of the view.
        day: the day that times of day such as "12:05" mean, YYYY-MM-DD, in UTC.
    """
    made = definition(view)
    if isinstance(made.source, StreamSource):
        return StreamReplay(made, made.source.stream, day)
    return Replay(made, day)


def replay_flow(flow: Flow, day: str = "2026-01-01") -> FlowReplay:
    """A flow of steps under test, to be used in a `with` statement.

    Args:
        flow: its sources give lateness, dedup and the like; no event is read from them.
        day: the day that times of day such as "12:05" mean, YYYY-MM-DD, in UTC.
    """
    return FlowReplay(flow, day)


__all__: Sequence[str] = ("FeatureRow", "FlowReplay", "Replay", "StreamReplay", "replay", "replay_flow")
