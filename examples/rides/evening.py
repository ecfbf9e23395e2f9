"""An evening of the city in seconds, without Kafka or Redis: the features of ../rides.py, replayed from a file.

python evening.py       README.md shows what it prints
"""

import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(EXAMPLES))  # rides.py and its city lie beside this folder

from rides import DriverActivity, Ride  # noqa: E402
from rides_city import messages  # noqa: E402

from headrace import Client, EmbeddedStore, FileSource, OfflineLog, run, training_set  # noqa: E402
from headrace.features.views import definition  # noqa: E402

START = datetime(2026, 3, 6, 17, 0, tzinfo=UTC)
COLUMNS = ["pickups_30m", "earned_30m", "minutes_mean_30m", "euro_per_km_30m", "zones_30m", "last_zone"]


def main(folder: Path) -> None:
    # 150 drivers, of whom one reports something every second: 90 minutes from five o'clock on.
    stream = messages(rate=1, drivers=150, late=0.05, bad=0.001, seed=7, start=START)
    file = folder / "evening.jsonl"
    file.write_bytes(b"\n".join(each.payload for each in islice(stream, 5400)) + b"\n")

    # A view says what, its source says from where: the same features, from the file.
    evening = replace(definition(DriverActivity), source=FileSource(file, Ride, name="rides", lateness="10s"))
    summary = run([evening], folder / "data")
    print(f"{summary.taken} events taken, not taken: {dict(sorted(summary.dead.items()))}")

    print("\nThe evening of driver-42, as of these instants:")
    spine = [{"driver_id": "driver-42", "event_timestamp": f"2026-03-06T{t}:00Z"} for t in TIMES]
    log = OfflineLog(folder / "data" / "log")
    print("       " + " ".join(f"{name:>16}" for name in COLUMNS))
    for time, row in zip(TIMES, training_set(spine, evening, log=log).to_pylist(), strict=True):
        print(f"{time:>6} " + " ".join(f"{shown(row[name]):>16}" for name in COLUMNS))

    print("\nAt the end, as a model server asks:")
    vector = Client(EmbeddedStore(folder / "data" / "online", read_only=True)).get(evening, driver_id="driver-42")
    for name, value in vector.items():
        print(f"  {name:<18} {shown(value):<10} {vector.status[name]}")


TIMES = ["17:15", "17:30", "17:45", "18:00", "18:15", "18:30"]


def shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
