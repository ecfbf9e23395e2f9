"""An evening of three drivers in a Feast repository that materializes by Headrace's engine, without any service.

python evening.py        makes the repository in a folder of its own, materializes it minute by minute: README.md shows
                         what it prints
"""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import FeatureStore

HERE = Path(__file__).parent
EVENING = datetime(2026, 3, 2, 18, tzinfo=UTC)
RIDES = [  # minutes after six, driver, fare, district
    (0, 1, 12.5, "harbour"),
    (10, 2, 31.0, "airport"),
    (25, 1, 9.0, "centre"),
    (40, 1, 18.0, "hills"),
    (55, 2, 22.5, "centre"),
    (70, 3, 14.0, "harbour"),
]
EARNINGS = ["earnings:sum_fare_3600s", "earnings:rides_1h", "earnings:mean_fare_6h"]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what Feast tells about every step, and what its dependencies deprecate."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def repository(folder: Path) -> FeatureStore:
    """The repository of this folder, with its data, in another one."""
    for name in ("feature_store.yaml", "definitions.py"):
        shutil.copy(HERE / name, folder)
    columns = {
        "at": [EVENING + timedelta(minutes=minute) for minute, *_ in RIDES],
        "driver_id": [driver for _, driver, *_ in RIDES],
        "fare": [fare for *_, fare, _ in RIDES],
        "district": [district for *_, district in RIDES],
    }
    pd.DataFrame(columns).to_parquet(folder / "rides.parquet")
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    import definitions

    store = FeatureStore(repo_path=str(folder))
    store.apply([definitions.driver, definitions.newest_ride, definitions.earnings])
    return store


def shown(store: FeatureStore, features: list[str]) -> None:
    answer = store.get_online_features(features, [{"driver_id": driver} for driver in (1, 2, 3)]).to_dict()
    for at, driver in enumerate(answer["driver_id"]):
        cells = [answer[name.partition(":")[2]][at] for name in features]
        print(f"  driver {driver}", *(f"{cell(each):>9}" for each in cells))


def cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main(folder: Path) -> None:
    with quietly():
        store = repository(folder)
        store.materialize(EVENING - timedelta(hours=1), EVENING + timedelta(minutes=45), ["newest_ride"])
    print("The newest ride of each driver by 18:45: fare, district")
    shown(store, ["newest_ride:fare", "newest_ride:district"])

    start = EVENING - timedelta(hours=1)
    for minute in (45, 75, 105, 135):
        end = EVENING + timedelta(minutes=minute)
        with quietly():
            store.materialize(start, end, ["earnings"])
        print(f"\nBy {end:%H:%M}: earned in the last hour, rides in it, mean fare of the last six hours")
        shown(store, EARNINGS)
        start = end


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made).resolve())
        os.chdir(HERE)
