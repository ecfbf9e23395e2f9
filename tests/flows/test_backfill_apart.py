"""A backfill whose work is done elsewhere, stretch by stretch and bucket by bucket, ends as a run does."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from tests.flows.apart import Apart
from tests.flows.test_backfill import DAY, MINUTE, Ride, online, rides, views_of

from headrace.features import FileSource, FrameSource
from headrace.features.errors import DataError
from headrace.flows.backfill import backfill
from headrace.flows.runner import run
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.offline import OfflineLog

LATENESS = "1m"


def views(folder: Path, **judging: Any) -> list[Any]:
    """Over all files of the folder."""
    return views_of([FileSource(folder, Ride, name="rides", format="csv", **{"lateness": LATENESS, **judging})])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine files, one after the other in time: one is empty, and in two some rows are broken."""
    made = tmp_path / "rides"
    made.mkdir()
    events = rides(4000, 3)
    cuts = [0, 10, 700, 700, 1500, 1501, 2400, 3000, 3900, 4000]
    for at, (first, last) in enumerate(pairwise(cuts)):
        path = made / f"{at}.csv"
        pa.csv.write_csv(events.slice(first, last - first), path)
        if at in (2, 5):
            with path.open("a") as file:
                file.write('"d1","oslo",much,2026-01-01T00:00:00Z\n' * 3)
    return made


def letters(data: Path) -> list[Any]:
    table = read_dead_letters(OfflineLog(data / "log")).select(["reason", "detail", "source", "offset", "payload"])
    return sorted(tuple(row.values()) for row in table.to_pylist())


def same(views: list[Any], one: Path, other: Path) -> None:
    logs = [OfflineLog(each / "log") for each in (one, other)]
    assert logs[0].manifest().clock == logs[1].manifest().clock
    for view in views:
        assert logs[0].scan(view).num_rows > 100
        assert logs[0].scan(view).equals(logs[1].scan(view))
        assert logs[0].settled_us(view) == logs[1].settled_us(view)
        assert online(one, view).keys() == online(other, view).keys()
    assert letters(one) == letters(other)


COUNTS = ("read", "taken", "duplicates", "log_rows", "tail_rows", "dead", "missing", "entities")


@pytest.mark.parametrize("seed", range(3))
def test_it_ends_as_a_run_does(folder: Path, tmp_path: Path, seed: int) -> None:
    its = views(folder)
    there = run(its, tmp_path / "run")
    here = backfill(its, tmp_path / "apart", batch_size=300, crew=Apart(partial(views, folder), seed))
    for count in COUNTS:
        assert getattr(here, count) == getattr(there, count), count
    assert here.dead["late"] > 0
    assert here.dead["malformed"] == 6
    same(its, tmp_path / "apart", tmp_path / "run")
    assert not (tmp_path / "apart" / "backfill").exists()


@pytest.mark.parametrize(
    ("judging", "asked"),
    [
        ({}, {"to_us": DAY + 217 * MINUTE}),
        ({}, {"repair": True}),
        ({"dedup": "fare"}, {}),
        ({"dedup": "fare"}, {"repair": True, "from_us": DAY + 100 * MINUTE}),
        ({"late": "count"}, {}),
        ({"max_ahead": "2m"}, {}),
    ],
)
def test_it_ends_as_a_backfill_in_one_process(
    folder: Path, tmp_path: Path, judging: dict[str, Any], asked: dict[str, Any]
) -> None:
    its = views(folder, **judging)
    there = backfill(its, tmp_path / "here", **asked)
    crew = Apart(partial(views, folder, **judging), 7)
    here = backfill(its, tmp_path / "apart", batch_size=300, crew=crew, **asked)
    for count in COUNTS:
        assert getattr(here, count) == getattr(there, count), count
    same(its, tmp_path / "apart", tmp_path / "here")


def test_one_that_was_given_up_goes_on(folder: Path, tmp_path: Path) -> None:
    its = views(folder)
    rng = np.random.default_rng(5)
    done = 0
    while True:
        crew = Apart(partial(views, folder), int(rng.integers(1 << 30)), give_up=int(rng.integers(1, 12)))
        try:
            backfill(its, tmp_path / "apart", crew=crew)
            break
        except KeyboardInterrupt:
            done += crew.done
            assert done < 500, "it does not come to its end"
    assert done > 20
    backfill(its, tmp_path / "at once")
    same(its, tmp_path / "apart", tmp_path / "at once")


def test_events_of_this_process_cannot_be_read_elsewhere(tmp_path: Path) -> None:
    (view, _) = views_of([FrameSource(rides(100, 1), Ride, name="frame")])
    with pytest.raises(DataError, match=r"Source 'frame': other machines read files, .* in a FrameSource"):
        backfill([view], tmp_path / "data", crew=Apart(lambda: [view], 1))


def test_files_that_do_not_fit_say_so_as_they_do_here(tmp_path: Path) -> None:
    path = tmp_path / "rides.parquet"
    pq.write_table(rides(10, 1).drop_columns(["fare"]), path)
    source = FileSource(path, Ride, name="rides")
    with pytest.raises(DataError, match="fare") as here:
        backfill(views_of([source]), tmp_path / "here")
    with pytest.raises(DataError) as apart:
        backfill(views_of([source]), tmp_path / "apart", crew=Apart(partial(views_of, [source]), 1))
    assert str(apart.value).replace(str(path), path.name) == str(here.value).replace(str(path), path.name)
