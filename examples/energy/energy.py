"""What does my home use, and is that usual? Meter readings averaged over windows, for a page that shows them.

python energy.py         replays three days and shows one household its evening: README.md shows what it prints
"""

import tempfile
from pathlib import Path

from headrace import Client, EmbeddedStore, Entity, Event, EventTime, FeatureView, FileSource, OfflineLog, derived, run
from headrace.features import Hopping, Sliding, Tumbling
from headrace.features.functions import where

HERE = Path(__file__).parent


class Reading(Event):
    household: str
    watts: float | None
    at: EventTime


meters = FileSource(HERE / "meters.parquet", Reading, zone="Europe/Oslo", lateness="5m")


class Use(FeatureView, source=meters, entity=Entity("household", key="household")):
    watts_now = Reading.watts.last(last="30m")
    watts_15m = Reading.watts.mean(over=Tumbling("15m"))  # the quarter that was billed last
    watts_1h = Reading.watts.mean(over=Sliding("1h", hop="5m"))
    usual = Reading.watts.quantile(0.5, over=Sliding("1d", hop="1h"))
    kwh_1d = (Reading.watts / 12_000).sum(over=Hopping("1d", hop="1h"))  # watts, for a twelfth of an hour each
    kwh_1d_before = (Reading.watts / 12_000).sum(over=Hopping("1d", hop="1h", ending="1d ago"))
    peak = Reading.watts.max(over=Hopping("1d", hop="1h"))
    silent = Reading.watts.is_null().mean(last="1h")  # the share of readings that did not come
    times_usual = derived(watts_1h / usual)
    hint = derived(where(times_usual > 3, "something is on", ""))


def main(data: Path) -> None:
    run([Use], data)
    print("H-2 on the 11th of March, by the hour:")
    rows = OfflineLog(data / "log").scan(Use, [{"household": "H-2"}]).to_pandas()
    rows["at"] = rows["event_timestamp"].dt.tz_convert("Europe/Oslo")
    evening = rows["at"].between("2026-03-11T12:00+01:00", "2026-03-11T22:00+01:00") & (rows["at"].dt.minute == 0)
    for _, row in rows[evening].iterrows():
        bar = "#" * round(row["watts_1h"] / 150)
        use = f"{row['watts_1h']:6.0f} W  {row['times_usual']:4.1f} x usual"
        print(f"  {row['at']:%H:%M} {use}  {bar:<35} {row['hint']}".rstrip())

    print("\nThe page of each household, as its server asks:")
    client = Client(EmbeddedStore(data / "online", read_only=True))
    for number in (1, 2, 3):
        now = client.get(Use, household=f"H-{number}")
        billed = f"{now['watts_15m']:5.0f} W in the last quarter of an hour"
        days = f"{now['kwh_1d']:4.1f} kWh in a day, {now['kwh_1d_before']:4.1f} the day before"
        print(f"  H-{number}: {billed}, {days}, peak {now['peak']:5.0f} W")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
