"""Live runs: the wall's clock, events as they come, values that fall while none come."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource, define
from headrace.features.errors import DataError
from headrace.flows.recording import LOG, ONLINE
from headrace.flows.runner import run
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog


class Press(Event):
    button: str
    at: EventTime


def view_over(rows: Any) -> Any:
    source = IterableSource(rows, Press, name="presses")
    features = {"presses": Press.count(last="1s", exact=True)}
    return define("presses", source=source, entity=Entity("button", key="button"), features=features)


def press() -> dict[str, Any]:
    return {"button": "a", "at": datetime.now(UTC)}


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what another thread does; a minute is far beyond what it takes."""
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until, "it never held"
        time.sleep(0.01)


def test_a_value_shows_at_once_and_falls_while_nothing_comes(tmp_path: Path) -> None:
    ended = threading.Event()
    sent: list[datetime] = []

    def presses() -> Iterator[dict[str, Any]]:
        for _ in range(2):
            row = press()
            sent.append(row["at"])
            yield row
        ended.wait(60)

    view = view_over(presses())
    seen: list[int] = []
    thread = threading.Thread(
        target=run, args=([view], tmp_path), kwargs={"live": True, "checkpoint_every_s": 0.2}, daemon=True
    )
    thread.start()
    eventually((tmp_path / ONLINE).exists)
    store = EmbeddedStore(tmp_path / ONLINE, read_only=True)

    def value() -> int | None:
        row = store.read(view, [{"button": "a"}])[0] if view.name in store.views() else None
        if row is not None:
            seen.append(row.values["presses"])
        return seen[-1] if seen else None

    eventually(lambda: value() == 2)
    eventually(lambda: value() == 0)
    clock = store.clock()
    assert clock is not None
    assert clock.kind == "wall"
    store.close()
    ended.set()
    thread.join(60)
    assert not thread.is_alive()
    # Two presses, and each leaving: in the log or, as no later event moved the watermark, in its tail.
    rows = OfflineLog(tmp_path / LOG).scan(view).to_pylist()
    assert [row["presses"] for row in rows] == [1, 2, 1, 0]
    assert [row["event_timestamp"] for row in rows][:2] == sent


def test_a_source_that_fails_keeps_what_came_before(tmp_path: Path) -> None:
    def presses() -> Iterator[dict[str, Any]]:
        yield press()
        raise ConnectionError("the cable is out")

    with pytest.raises(
        DataError, match=r"Source 'presses' failed after 1 rows: ConnectionError.*What came before is kept"
    ):
        run([view_over(presses())], tmp_path, live=True)
    assert OfflineLog(tmp_path / LOG).scan(view_over([])).num_rows == 2


def test_an_event_too_far_ahead_of_the_wall_is_refused(tmp_path: Path) -> None:
    rows = [press(), {"button": "a", "at": datetime(2200, 1, 1, tzinfo=UTC)}, press()]
    summary = run([view_over(rows)], tmp_path, live=True)
    assert summary.taken == 2
    assert summary.dead == {"ahead": 1}


def test_a_checkpoint_settles_what_its_events_allow(tmp_path: Path) -> None:
    """A live flow settles its log each second, and this one ends before that."""

    def presses() -> Iterator[dict[str, Any]]:
        now = datetime.now(UTC)
        yield {"button": "a", "at": now - timedelta(seconds=10)}
        time.sleep(0.1)
        yield {"button": "a", "at": now}

    view = view_over(presses())
    run([view], tmp_path, live=True)
    log = OfflineLog(tmp_path / LOG)
    assert [row["presses"] for row in log.scan(view, tail=False).to_pylist()] == [1, 0]
    assert [row["presses"] for row in log.scan(view).to_pylist()] == [1, 0, 1, 0]


class Presses(FeatureView, source=IterableSource([], Press), entity=Entity("button", key="button")):
    count = Press.count(last="1m")


def test_a_source_without_rows_ends_at_once(tmp_path: Path) -> None:
    assert run([Presses], tmp_path, live=True).taken == 0
