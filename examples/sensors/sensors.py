"""Which machine behaves oddly? An anomaly score and a drift detector of River's for each machine, as features.

python sensors.py        replays two hours of three machines and tells what was odd: README.md shows what it prints
"""

import tempfile
from pathlib import Path

from river.anomaly import HalfSpaceTrees
from river.drift import ADWIN

from headrace import Client, EmbeddedStore, Entity, Event, EventTime, FeatureView, FileSource, OfflineLog, run

HERE = Path(__file__).parent


class Reading(Event):
    machine: str
    heat: float
    sound: float
    at: EventTime


readings = FileSource(HERE / "readings.parquet", Reading, lateness="5s")


class Health(FeatureView, source=readings, entity=Entity("machine", key="machine")):
    oddness = Reading.stateful(
        HalfSpaceTrees(seed=7, n_trees=20, height=6, window_size=100, limits={"heat": (30, 90), "sound": (0, 4)}),
        x=[Reading.heat, Reading.sound],
    )
    shifts = Reading.sound.stateful(ADWIN(delta=0.0005))
    heat_1m = Reading.heat.mean(last="1m")
    sound_1m = Reading.sound.mean(last="1m")
    sound_1h = Reading.sound.mean(last="1h")


def main(data: Path) -> None:
    summary = run([Health], data)
    print(f"{summary.taken:,} readings")
    rows = OfflineLog(data / "log").scan(Health).to_pandas().sort_values("event_timestamp")
    rows = rows[rows["event_timestamp"].between("2026-03-02T06:10Z", "2026-03-02T07:59:59Z")]  # it has learnt by then
    for machine, its in rows.groupby("machine"):
        print(f"\n{machine}: oddness by ten minutes, the highest of each")
        highest = its.groupby(its["event_timestamp"].dt.floor("10min"))["oddness"].max()
        for at, oddness in highest.items():
            print(f"  {at:%H:%M}  {oddness:.2f}  {'#' * round(oddness * 30)}{'  <- look' if oddness > 0.8 else ''}")
        for at in its.loc[its["shifts"].diff() > 0, "event_timestamp"]:
            print(f"  {at:%H:%M:%S}  its sound is not what it was")

    print("\nNow:")
    client = Client(EmbeddedStore(data / "online", read_only=True))
    for machine in ("mill-1", "press-1", "press-2"):
        now = client.get(Health, machine=machine)
        sound = f"sound {now['sound_1m']:.2f}, in an hour {now['sound_1h']:.2f}"
        print(f"  {machine:<8} heat {now['heat_1m']:.1f}  {sound}  shifts {now['shifts']}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
