"""A file with flows on the command line."""

import json
from pathlib import Path

from typer.testing import CliRunner

from headrace.cli.commands import app

FILE = """
from headrace import Entity, Event, EventTime, FeatureView, Flow, IterableSource, ParquetSink

class Ride(Event):
    driver_id: str
    km: float
    at: EventTime

rides = IterableSource(
    [{"driver_id": "7", "km": float(n), "at": f"2026-05-01T12:0{n}:00Z"} for n in range(5)], Ride, name="rides"
)
flow = Flow("pickups")
near, far = flow.read(rides).branch(Ride.km < 2)
near.map_rows(lambda ride: vars(ride), name="copied").write(ParquetSink("near"))
"""
VIEW = """
class Activity(FeatureView, source=rides, entity=Entity("driver", key="driver_id")):
    rides_1h = Ride.count(last="1h")
"""


def written(folder: Path, text: str) -> str:
    (folder / "pickups.py").write_text(text)
    return str(folder / "pickups.py")


def test_run_takes_flows_with_views_and_without(tmp_path: Path) -> None:
    file = written(tmp_path, FILE.replace('"near"', repr(str(tmp_path / "near"))))
    ran = CliRunner().invoke(app, ["run", file, "--data", str(tmp_path / "data"), "--json", "-q"])
    assert ran.exit_code == 0, ran.output
    steps = {"pickups.rides": 5, "pickups.filter": 2, "pickups.otherwise": 3, "pickups.copied": 2}
    assert json.loads(ran.stdout)["given"] == steps
    file = written(tmp_path, FILE.replace('"near"', repr(str(tmp_path / "both"))) + VIEW)
    ran = CliRunner().invoke(app, ["run", file, "--data", str(tmp_path / "more"), "--json", "-q"])
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["given"] == steps
    assert told["taken"] == 5
    assert told["online_rows"]["activity"] > 0


def test_a_file_of_flows_has_no_views_to_show(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["views", written(tmp_path, FILE)])
    assert shown.exit_code != 0
    assert "has no feature view" in shown.stderr


def test_graph_draws_sources_steps_sinks_and_views(tmp_path: Path) -> None:
    drawn = CliRunner().invoke(app, ["graph", written(tmp_path, FILE + VIEW)])
    assert drawn.exit_code == 0, drawn.output
    assert drawn.stdout.splitlines() == [
        "flowchart LR",
        '    n0[("rides<br/>IterableSource")]',
        '    subgraph flow_pickups["pickups"]',
        '    n1["filter<br/>filter Ride.km &lt; 2"]',
        '    n2["otherwise<br/>not (Ride.km &lt; 2)"]',
        '    n3["copied<br/>map_rows"]',
        "    end",
        '    n4[("near<br/>ParquetSink")]',
        '    n5["activity<br/>view of driver"]',
        '    n6[("online store")]',
        '    n7[("offline log")]',
        "    n0 --> n1",
        "    n0 --> n2",
        "    n1 --> n3",
        "    n3 --> n4",
        "    n0 --> n5",
        "    n5 --> n6",
        "    n5 --> n7",
    ]


STREAMED = """
from headrace import FileSource

class Total(Event):
    driver_id: str
    rides: int
    at: EventTime

def add(count, ride):
    return (count or 0) + 1, {"driver_id": ride.driver_id, "rides": (count or 0) + 1}

flow = Flow("shifts")
far = flow.read(FileSource("ROWS", Ride, name="rides")).filter(Ride.km > 0, name="far")
far.write(ParquetSink("far"))
driver = Entity("driver", key="driver_id")
far.key_by("driver_id").stateful(add, gives=Total).window(
    "totals", entity=driver, features={"most": Total.rides.max(last="1h")}
)

class Far(FeatureView, source=far, entity=driver):
    rides_1h = Ride.count(last="1h")
"""


def test_views_over_streams_run_with_their_flow_and_are_verified(tmp_path: Path) -> None:
    rides = [{"driver_id": "7", "km": float(n), "at": f"2026-05-01T12:0{n}:00Z"} for n in range(5)]
    (tmp_path / "rides.jsonl").write_text("\n".join(map(json.dumps, rides)))
    text = FILE.partition("rides = ")[0] + STREAMED.replace("ROWS", str(tmp_path / "rides.jsonl"))
    file = written(tmp_path, text.replace('ParquetSink("far")', f"ParquetSink({str(tmp_path / 'sink')!r})"))
    words = [file, "--data", str(tmp_path / "data")]
    ran = CliRunner().invoke(app, ["run", *words, "--json", "-q"])
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["given"] == {"shifts.rides": 5, "shifts.far": 4, "shifts.add": 4}
    assert told["log_rows"] == {"far": 3, "totals": 3}
    sinks = sorted((tmp_path / "sink").rglob("*.parquet"))
    assert sinks
    verified = CliRunner().invoke(app, ["verify", *words, "--sample", "1", "--json"])
    assert verified.exit_code == 0, verified.output
    compared = {(each["view"], tuple(each["places"])): each["rows"] for each in json.loads(verified.stdout)["checks"]}
    assert compared["far", ("log", "computed anew")] == compared["totals", ("log", "computed anew")] == 3
    assert sorted((tmp_path / "sink").rglob("*.parquet")) == sinks  # nothing was written once more
    drawn = CliRunner().invoke(app, ["graph", file])
    assert drawn.exit_code == 0, drawn.output
    nodes = {line.split('"')[1].partition("<")[0]: line.split("[")[0].strip() for line in drawn.stdout.splitlines()
             if "view of" in line or "stateful" in line}  # fmt: skip
    assert f"    {nodes['add']} --> {nodes['totals']}" in drawn.stdout.splitlines()
    asked = CliRunner().invoke(app, ["backfill", file, "--data", str(tmp_path / "other")])
    assert asked.exit_code != 0
    assert "only `headrace run` computes flows of steps" in " ".join(asked.stderr.split())
