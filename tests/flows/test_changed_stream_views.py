"""Views over streams that are new or have changed, are named twice, or run live."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.flows.test_live import eventually

import headrace
from headrace.features import (
    DataError,
    DefinitionError,
    Entity,
    Event,
    EventTime,
    Flow,
    IterableSource,
    Stream,
    define,
    definition,
)
from headrace.features.sinks import CallableSink
from headrace.features.stream_source import StreamSource
from headrace.flows.snapshot import SnapshotError
from headrace.testing import replay

START = datetime(2026, 1, 1, tzinfo=UTC)


class Press(Event):
    button: str
    at: EventTime


BUTTON = Entity("button", key="button")


def presses(n: int) -> list[dict[str, Any]]:
    return [{"button": "ab"[i % 2], "at": START + timedelta(seconds=i)} for i in range(n)]


def stream_of(rows: Any, **more: Any) -> Stream:
    return (
        Flow("pressed").read(IterableSource(rows, Press, name="presses", **more)).filter(lambda row: True, name="all")
    )


def view_of(stream: Stream, name: str = "counts", **more: Any) -> Any:
    return define(name, source=stream, entity=BUTTON, features={"n": Press.count(last="1h"), **more})


def value(folder: Path, view: Any, button: str = "a") -> Any:
    with headrace.EmbeddedStore(folder / "online", read_only=True) as store:
        return headrace.Client(store).get(view, {"button": button}).to_dict()


def test_a_view_that_is_new_is_refused_or_begins_empty(tmp_path: Path) -> None:
    headrace.run([stream_of(presses(6)).flow], tmp_path)
    with pytest.raises(SnapshotError, match=r"View 'counts' is not in the checkpoint of stream 'pressed\.all'.*start"):
        headrace.run([view_of(stream_of(presses(8)))], tmp_path)
    with pytest.raises(SnapshotError, match=r"View 'counts' is new.*not read again.*on_change=\"start\""):
        headrace.run([view_of(stream_of(presses(8)))], tmp_path, on_change="backfill")
    view = view_of(stream_of(presses(8)))
    headrace.run([view], tmp_path, on_change="start")
    assert value(tmp_path, view) == {"n": 1}
    second = view_of(view.source.stream, "more")
    with pytest.raises(SnapshotError, match=r"View 'more' is not in the checkpoint"):
        headrace.run([view, second], tmp_path)
    headrace.run([view, second], tmp_path, on_change="start")
    assert value(tmp_path, view) == {"n": 1}


def test_a_view_that_has_changed_is_refused_or_keeps_what_is_unchanged(tmp_path: Path) -> None:
    headrace.run([view_of(stream_of(presses(6)))], tmp_path)
    changed = view_of(stream_of(presses(8)), ever=Press.count(last="1d"))
    with pytest.raises(SnapshotError, match="feature ever added"):
        headrace.run([changed], tmp_path)
    with pytest.raises(SnapshotError, match="View 'counts' is new or has changed"):
        headrace.run([changed], tmp_path, on_change="backfill")
    headrace.run([changed], tmp_path, on_change="start")
    assert value(tmp_path, changed) == {"n": 4, "ever": 1}


def test_its_flow_runs_once_with_its_sinks(tmp_path: Path) -> None:
    given: list[Any] = []
    stream = stream_of(presses(4))
    stream.write(CallableSink(lambda rows: given.extend(rows), name="given"))
    one, other = view_of(stream), stream.window("others", entity=BUTTON, features={"n": Press.count(last="1h")})
    summary = headrace.run([stream.flow, one, other], tmp_path)
    assert len(given) == 4
    assert summary.taken == 4
    assert summary.given == {"pressed.presses": 4, "pressed.all": 4}
    assert summary.log_rows.keys() == summary.entities.keys() == {"counts", "others"}
    assert value(tmp_path, one) == value(tmp_path, other) == {"n": 2}


def test_names_are_told_apart(tmp_path: Path) -> None:
    stream = stream_of(presses(1))
    stream.window("counts", entity=BUTTON, features={"n": Press.count(last="1h")})
    with pytest.raises(DefinitionError, match="flow 'pressed' has a view 'counts' already"):
        stream.window("counts", entity=BUTTON, features={"n": Press.count(last="1h")})
    with pytest.raises(DefinitionError, match="Two views are named 'counts'"):
        headrace.run([stream.flow, view_of(stream)], tmp_path)
    with pytest.raises(DefinitionError, match="Two flows are named 'pressed'"):
        headrace.run([view_of(stream_of([])), view_of(stream_of([]), "more")], tmp_path)


def test_a_source_says_what_its_stream_says() -> None:
    view = definition(view_of(stream_of([], lateness="3s", late="count", dedup="button", max_ahead="1m")))
    source = view.source
    assert isinstance(source, StreamSource)
    assert (source.name, source.kind, source.lateness_us, source.late) == ("pressed.all", "stream", 3_000_000, "count")
    assert (source.dedup, source.max_ahead_us, [root.name for root in source.roots]) == (None, None, ["presses"])


def test_what_takes_sources_only_says_what_to_do(tmp_path: Path) -> None:
    view = view_of(stream_of(presses(4)))
    with pytest.raises(DefinitionError, match="only `headrace run` computes flows of steps"):
        headrace.backfill([view], tmp_path)
    with pytest.raises(DefinitionError, match=r"log=OfflineLog\(\.\.\.\)"):
        headrace.training_set([{"button": "a", "event_timestamp": START}], view)
    with replay(view) as t, pytest.raises(DataError, match="is replayed from one partition"):
        t.send(presses(1), partition=1)


def test_a_live_row_shows_at_once_and_falls_while_nothing_comes(tmp_path: Path) -> None:
    ended = threading.Event()

    def pressed() -> Iterator[dict[str, Any]]:
        for _ in range(2):
            yield {"button": "a", "at": datetime.now(UTC)}
        ended.wait(60)

    stream = stream_of(pressed(), lateness="1h")  # the watermark is far behind: nobody waits for it
    view = view_of(stream, now=Press.count(last="1s", exact=True))
    thread = threading.Thread(target=headrace.run, args=([view], tmp_path), kwargs={"live": True}, daemon=True)
    thread.start()
    eventually((tmp_path / "online").exists)
    with headrace.EmbeddedStore(tmp_path / "online", read_only=True) as store:

        def shown() -> Any:
            row = store.read(view, [{"button": "a"}])[0] if view.name in store.views() else None
            return None if row is None else row.values

        eventually(lambda: shown() is not None and shown()["n"] == 2)
        eventually(lambda: shown() == {"n": 2, "now": 0})
    ended.set()
    thread.join(60)
    assert not thread.is_alive()
    rows = headrace.OfflineLog(tmp_path / "log").scan(view).to_pylist()
    assert [(row["n"], row["now"]) for row in rows] == [(1, 1), (2, 2), (2, 1), (2, 0), (0, 0)]
