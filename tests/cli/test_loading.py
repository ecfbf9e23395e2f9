"""A user's file is read as Python reads it, and what is wrong with it is told with its line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.commands import app
from headrace.cli.loading import load
from headrace.features.errors import DefinitionError

RIDES = """
from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource

class Ride(Event):
    driver_id: str
    fare: float
    at: EventTime

rides = IterableSource([], Ride)
driver = Entity("driver", key="driver_id")

class DriverActivity(FeatureView, source=rides, entity=driver):
    rides_30m = Ride.count(last="30m")
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())

    def write(text: str, name: str = "rides_views.py") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_finds_the_views_of_a_file_in_their_order(write: Write) -> None:
    more = "\nclass Fares(FeatureView, source=rides, entity=driver):\n    fare_1h = Ride.fare.sum(last='1h')\n"
    file = load(write(RIDES + more))
    assert [view.name for view in file.views] == ["driver_activity", "fares"]
    assert file.only([]) == file.views
    assert [view.name for view in file.only(["fares"])] == ["fares"]


def test_a_view_is_found_by_the_name_of_its_class_too(write: Write) -> None:
    file = load(write(RIDES))
    assert file.view("DriverActivity") is file.view("driver_activity")


def test_a_file_may_import_its_neighbours_and_show_their_views(write: Write) -> None:
    write(RIDES, "ride_definitions.py")
    file = load(write("from ride_definitions import DriverActivity\n"))
    assert [view.name for view in file.views] == ["driver_activity"]


def test_a_file_named_like_a_module_in_use_does_not_replace_it(write: Write) -> None:
    import json

    load(write(RIDES, "json.py"))
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\n", r"rides_views\.py has no feature view\. Define one"),
        (RIDES.replace("Ride.count(", "Ride.fair.sum("), r"rides_views\.py, line 13: .*'fair'; did you mean 'fare'"),
        (RIDES + "\n1 / 0\n", r"rides_views\.py, line 15: ZeroDivisionError: division by zero\. .* --debug"),
        ("def broken(:\n", r"rides_views\.py, line 1: SyntaxError"),
        ("import no_such_module_anywhere\n", r"line 1: ModuleNotFoundError: .*no_such_module_anywhere"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(write: Write, text: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        load(write(text))


def test_two_views_of_one_name_are_refused(write: Write) -> None:
    other = "\nclass Other(FeatureView, source=rides, entity=driver, name='driver_activity'):\n"
    twice = RIDES + other + "    rides_1h = Ride.count(last='1h')\n"
    with pytest.raises(DefinitionError, match="two feature views named 'driver_activity'"):
        load(write(twice))


def test_a_missing_file_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"There is no file .*headrace init"):
        load(tmp_path / "views.py")


def test_an_unknown_view_is_answered_with_the_nearest(write: Write) -> None:
    with pytest.raises(DefinitionError, match=r"no feature view 'driver_activty'; did you mean 'driver_activity'\?"):
        load(write(RIDES)).view("driver_activty")


SERVICE = """
from headrace.features import FeatureService, Request, derived

amount = Request("amount", float)
pricing = FeatureService(
    "pricing", [DriverActivity], derived={"twice": derived(amount * 2.0)}, version=3
)
"""


def test_services_are_found_beside_the_views(write: Write) -> None:
    file = load(write(RIDES + SERVICE))
    assert [(service.name, service.version) for service in file.services] == [("pricing", 3)]
    assert [view.name for view in file.views] == ["driver_activity"]


def test_a_file_of_services_alone_has_their_views(write: Write) -> None:
    write(RIDES, "only_definitions.py")
    file = load(write("import only_definitions as only\n" + SERVICE.replace("[Driver", "[only.Driver")))
    assert [view.name for view in file.views] == ["driver_activity"]


def test_two_services_of_one_name_are_refused(write: Write) -> None:
    more = 'other = FeatureService("pricing", [DriverActivity])\n'
    with pytest.raises(DefinitionError, match="two feature services named 'pricing'"):
        load(write(RIDES + SERVICE + more))


def test_views_shows_services_too(write: Write) -> None:
    path = str(write(RIDES + SERVICE))
    told = CliRunner().invoke(app, ["views", path])
    assert "pricing version 3, for driver_id, given along: amount (float64)" in told.stdout
    view, service = json.loads(CliRunner().invoke(app, ["views", path, "--json"]).stdout)
    assert (view["kind"], service["kind"], service["keys"]) == ("view", "service", ["driver_id"])
    assert service["features"]["rides_30m"] == {"dtype": "int64", "of": "driver_activity:rides_30m"}
    assert service["features"]["twice"] == {"dtype": "float64"}
