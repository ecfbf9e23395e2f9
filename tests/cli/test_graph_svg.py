"""`headrace graph --svg`: nodes apart, arrows from left to right and through no node, text as XML."""

from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from headrace.cli.commands import app
from headrace.cli.graphing import Node, Picture
from headrace.cli.layout import Layout, layout
from headrace.cli.svg import svg

SVG = "{http://www.w3.org/2000/svg}"
FILE = """
from headrace import Entity, Event, EventTime, FeatureView, Flow, IterableSource, ParquetSink

class Ride(Event):
    driver_id: str
    km: float
    at: EventTime

rides = IterableSource([], Ride, name="rides")
flow = Flow("pickups")
near, far = flow.read(rides).branch(Ride.km < 2, name="near")
near.write(ParquetSink("short"))

class Activity(FeatureView, source=far, entity=Entity("driver", key="driver_id")):
    rides_1h = Ride.count(last="1h")
"""


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    sizes = draw(st.lists(st.tuples(st.floats(40, 300), st.floats(20, 60)), max_size=9))
    pairs = list(combinations(range(len(sizes)), 2))
    arrows = draw(st.lists(st.sampled_from(pairs), max_size=14)) if pairs else []
    numbers = draw(st.permutations(range(len(sizes))))  # arrows need not lead to higher numbers
    return sizes, [(numbers[one], numbers[two]) for one, two in arrows]


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_nodes_stand_apart_and_arrows_run_between_them(
    graph: tuple[list[tuple[float, float]], list[tuple[int, int]]],
) -> None:
    sizes, arrows = graph
    found = layout(sizes, arrows)
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(found.nodes, sizes, strict=True)]
    for left, top, right, bottom in boxes:
        assert left >= 0
        assert top >= 0
        assert right <= found.width
        assert bottom <= found.height
    for one, two in combinations(boxes, 2):
        assert one[2] < two[0] or two[2] < one[0] or one[3] < two[1] or two[3] < one[1]
    for (above, below), points in zip(arrows, found.arrows, strict=True):
        assert points[0] == pytest.approx((boxes[above][2], (boxes[above][1] + boxes[above][3]) / 2))
        assert points[-1] == pytest.approx((boxes[below][0], (boxes[below][1] + boxes[below][3]) / 2))
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        between = [box for i, box in enumerate(boxes) if i not in (above, below)]
        for (x0, y0), (x1, y1) in zip(points[::2], points[1::2], strict=True):  # level across a layer
            assert y0 == y1
            assert not any(box[0] <= x1 and x0 <= box[2] and box[1] <= y0 <= box[3] for box in between)
        for (x0, _), (x1, _) in zip(points[1:-1:2], points[2:-1:2], strict=True):  # between layers, where no node is
            assert x0 < x1
            assert not any(box[0] < x1 - 1e-9 and x0 + 1e-9 < box[2] for box in boxes)


def test_a_layout_of_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        layout([(50.0, 20.0)] * 2, [(0, 1), (1, 0)])


def test_an_empty_layout_is_its_margins() -> None:
    assert layout([], []) == Layout((), (), 32.0, 32.0)


def test_text_is_xml_and_what_is_long_is_clipped_and_told_whole() -> None:
    long = "filter " + "Ride.km < 2 & " * 9
    drawn = ElementTree.fromstring(svg(Picture((Node("a<b\x07", long, flow="x"), Node("y", stored=True)), ((0, 1),))))
    told = {each.get("class"): each.text for each in drawn.iter(f"{SVG}text") if each.text != "y"}
    assert told["name"] == "a<b "
    assert told["told"] == long[:43] + "…"
    assert drawn.find(f".//{SVG}title").text == f"a<b  {long}"  # type: ignore[union-attr]


def test_steps_of_several_flows_name_their_flow() -> None:
    drawn = svg(Picture((Node("one", "filter", flow="x"), Node("two", "map_rows", flow="y")), ()))
    assert ">x: filter<" in drawn
    assert ">y: map_rows<" in drawn


def test_the_command_writes_a_file_and_says_where_it_cannot(tmp_path: Path) -> None:
    file = tmp_path / "views.py"
    file.write_text(FILE)
    ran = CliRunner().invoke(app, ["graph", str(file), "--svg", str(tmp_path / "flow.svg")])
    assert ran.exit_code == 0, ran.output
    assert "flowchart" not in ran.stdout
    drawn = ElementTree.parse(tmp_path / "flow.svg")
    shown = [each.text for each in drawn.iter(f"{SVG}text")]
    for each in (
        "rides",
        "near",
        "near_otherwise",
        "short",
        "activity",
        "view of driver",
        "online store",
        "offline log",
    ):
        assert each in shown
    assert len(list(drawn.iterfind(f"{SVG}path[@class='arrow']"))) == 6
    assert "--svg" in CliRunner().invoke(app, ["graph", "--help"], env={"COLUMNS": "200"}).stdout
    refused = CliRunner().invoke(app, ["graph", str(file), "--svg", str(tmp_path / "none" / "flow.svg")])
    assert refused.exit_code == 2
    assert "cannot be written" in refused.stderr
