"""A reader of the user's own: read on from its position, whatever happened; live it is started again when it raises."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import Entity, Event, EventTime, FeatureView, Lifetime
from headrace.features.errors import DataError, DefinitionError
from headrace.features.python_source import PythonSource
from headrace.features.views import definition
from headrace.flows import live
from headrace.flows.read import batches
from headrace.flows.recording import LOG, ONLINE
from headrace.flows.runner import run
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog


class Ride(Event):
    number: int
    driver_id: str
    at: EventTime


SECOND = 1_000_000
START = 1_767_225_600 * SECOND


def ride(number: int) -> dict[str, Any]:
    return {"number": number, "driver_id": f"d{number % 2}", "at": START + number * SECOND}


class Pages:
    """Rides 0 to n in pages, as an API gives them; `next` is where the next page begins. Raises where it is told to.

    Attributes:
        asked: positions it was read from.
    """

    def __init__(self, n: int, size: int, failing: dict[int, Exception] | None = None) -> None:
        self.n, self.size, self.failing = n, size, dict(failing or {})
        self.asked: list[Any] = []

    def read(self, position: Any) -> Iterator[tuple[list[dict[str, Any]], Any]]:
        self.asked.append(position)
        start = 0 if position is None else position["next"]
        while start < self.n:
            if start in self.failing:
                raise self.failing.pop(start)
            stop = min(start + self.size, self.n)
            yield [ride(i) for i in range(start, stop)], {"next": stop}
            start = stop


def view_of(reader: Any, **options: Any) -> type[FeatureView]:
    class Seen(
        FeatureView,
        source=PythonSource(reader, Ride, name="rides", unit="us", **options),
        entity=Entity("driver", key="driver_id"),
    ):
        rides = Ride.count(over=Lifetime())
        newest = Ride.number.last(over=Lifetime())

    return Seen


def online(view: type[FeatureView], data: Path) -> dict[Any, tuple[Any, Any]]:
    with contextlib.closing(EmbeddedStore(data / ONLINE, read_only=True)) as store:
        return {
            key["driver_id"]: (row.values["rides"], row.values["newest"]) for key, row in store.scan(definition(view))
        }


def test_a_replay_reads_all(tmp_path: Path) -> None:
    view = view_of(Pages(10, 3))
    summary = run([view], tmp_path, batch_size=4)
    assert summary.read == {"rides": 10}
    assert online(view, tmp_path) == {"d0": (5, 8), "d1": (5, 9)}


def test_the_next_run_reads_on(tmp_path: Path) -> None:
    run([view_of(Pages(10, 3))], tmp_path)
    later = Pages(13, 3)
    view = view_of(later)
    assert run([view], tmp_path).read == {"rides": 3}
    assert later.asked == [{"next": 10}]
    assert online(view, tmp_path) == {"d0": (7, 12), "d1": (6, 11)}


@given(n=st.integers(0, 12), size=st.integers(1, 5), batch=st.integers(1, 6), stop=st.integers(0, 12))
def test_parts_of_any_size(n: int, size: int, batch: int, stop: int) -> None:
    """Read up to some part, then on from it: the same rows and offsets as in one go."""
    whole = [(p.batch.values("number").tolist(), p.batch.offset.tolist()) for p in batches(source(n, size), batch)]
    numbers = [number for part, _ in whole for number in part]
    assert numbers == [offset for _, offsets in whole for offset in offsets] == list(range(n))
    begun, progress = [], None
    for part in batches(source(n, size), batch):
        begun += part.batch.values("number").tolist()
        progress = part.progress
        if progress.offset >= stop:
            break
    if progress is None:
        assert n == 0
        return
    rest = batches(source(n, size), batch, progress.offset, position=progress.position)
    left = [(part.batch.values("number").tolist(), part.batch.offset.tolist()) for part in rest]
    assert begun + [number for part, _ in left for number in part] == list(range(n))
    assert [offset for _, offsets in left for offset in offsets] == list(range(len(begun), n))


def source(n: int, size: int) -> PythonSource:
    return PythonSource(Pages(n, size), Ride, unit="us")


def test_a_replay_stops_where_the_reader_raises_and_the_next_goes_on(tmp_path: Path) -> None:
    reader = Pages(10, 2, {6: ConnectionError("the line is dead")})
    with pytest.raises(ConnectionError):
        run([view_of(reader)], tmp_path, batch_size=2, checkpoint_every_s=0)
    view = view_of(reader)
    assert run([view], tmp_path, batch_size=2).read == {"rides": 4}
    assert online(view, tmp_path) == {"d0": (5, 8), "d1": (5, 9)}


def test_live_a_reader_that_raises_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.001)
    reader = Pages(10, 2, {4: ConnectionError("the line is dead"), 0: OSError("not yet")})
    view = view_of(reader)
    with caplog.at_level(logging.WARNING, "headrace.live"):
        summary = run([view], tmp_path, live=True)
    assert summary.read == {"rides": 10}
    assert reader.asked == [None, None, {"next": 4}]
    assert online(view, tmp_path) == {"d0": (5, 8), "d1": (5, 9)}
    assert [record.getMessage().partition(" It is")[0] for record in caplog.records] == [
        "Source 'rides': its reader raised OSError: not yet.",
        "Source 'rides': its reader raised ConnectionError: the line is dead.",
    ]


def test_live_the_next_run_reads_on(tmp_path: Path) -> None:
    run([view_of(Pages(5, 2))], tmp_path, live=True)
    reader = Pages(8, 2)
    assert run([view_of(reader)], tmp_path, live=True).read == {"rides": 3}
    assert reader.asked == [{"next": 5}]


def test_a_row_that_does_not_fit_is_a_dead_letter(tmp_path: Path) -> None:
    class Reader:
        def read(self, position: Any) -> Iterator[tuple[Any, Any]]:
            yield [ride(0), {**ride(1), "number": "one"}, ride(2)], "here"

    summary = run([view_of(Reader())], tmp_path)
    assert summary.dead == {"malformed": 1}
    (letter,) = read_dead_letters(OfflineLog(tmp_path / LOG)).to_pylist()
    assert (letter["offset"], json.loads(letter["payload"])["number"]) == (1, "one")


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ([ride(0)], r"yielded a dict, expected \(rows, position\)"),
        ([("a row", 1)], "yielded a tuple of 2, expected"),
        ([([ride(0)], object())], "yielded a position that cannot rest in a checkpoint"),
    ],
)
@pytest.mark.parametrize("alive", [False, True])
def test_a_reader_that_yields_something_else(given_: list[Any], said: str, alive: bool, tmp_path: Path) -> None:
    class Reader:
        def read(self, position: Any) -> Iterator[Any]:
            yield from given_

    with pytest.raises(DataError, match=said):
        run([view_of(Reader())], tmp_path, live=alive)


@pytest.mark.parametrize(("reader", "said"), [(Pages, "the class Pages"), ([1], "a list"), (None, "a NoneType")])
def test_no_reader(reader: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=f"got {said}, expected an object with a method read"):
        PythonSource(reader, Ride)
