"""`headrace feast plan` and `apply`: what would change in a Feast repository, what does, and what is never touched."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.materialize.feast.engine_repo import trips_view
from typer.testing import CliRunner, Result

from headrace.cli.commands import app
from headrace.features import Entity, Event, EventTime, FeatureService, FeatureView, IterableSource, derived
from headrace.features.errors import DefinitionError, HeadraceError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    from feast import Entity as FeastEntity
    from feast import FeatureStore, Field
    from feast.repo_operations import apply_total
    from feast.types import Int64, String
    from feast.value_type import ValueType

    from headrace.materialize.feast.planning import Change, Difference, Plan, apply_plan, plan

PROJECT = """
project: rides
provider: local
registry: registry.db
offline_store: {{ type: {offline} }}
online_store: {{ type: sqlite, path: online.db }}
entity_key_serialization_version: 3
"""


class Ride(Event):
    driver_id: str
    shop: int
    ok: bool
    fare: float
    at: EventTime


rides = IterableSource([], Ride, name="rides")
driver = Entity("driver", key="driver_id")


class Activity(FeatureView, source=rides, entity=driver, ttl="7d"):
    rides_30m = Ride.count(last="30m")
    fare_mean = Ride.fare.mean(last="1h")
    share = derived(rides_30m / Ride.count(last="1h"), default=0.0)


class Later(FeatureView, source=rides, entity=driver, ttl="1d", name="activity"):
    """`Activity` some time later: one feature of another window, one gone, one new."""

    rides_30m = Ride.count(last="30m")
    fare_mean = Ride.fare.mean(last="2h")
    city = Ride.shop.last(last="1h")


class AtShop(FeatureView, source=rides, entity=Entity("at_shop", keys=["driver_id", "shop"])):
    visits = Ride.count(last="1h")


scores = FeatureService("scores", [Activity["share"], AtShop["visits"]], version=2)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return made(tmp_path / "repo")


def made(folder: Path, offline: str = "file") -> Path:
    folder.mkdir()
    (folder / "feature_store.yaml").write_text(PROJECT.format(offline=offline))
    return folder


def planned(repo: Path, *views: Any, services: Any = (), file: str = "views.py") -> tuple[Plan, Any]:
    found = [view.__view__ for view in views]
    return plan(repo, {file: found}, {file: services}, log=str(repo.parent / "log"))


def apply(repo: Path, *views: Any, **how: Any) -> Any:
    """Feast's store after views were applied, opened anew."""
    apply_plan(*planned(repo, *views, **how))
    return opened(repo)


def opened(repo: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Feast deprecates of itself
        return FeatureStore(repo_path=str(repo))


def names(changes: tuple[Change, ...], action: str) -> list[str]:
    return [f"{each.kind} {each.name}" for each in changes if each.action == action]


def registered(store: Any) -> set[str]:
    found = [*store.list_all_feature_views(), *store.list_feature_services()]
    found += [*store.list_data_sources(), *store.list_entities()]
    return {each.name for each in found} - {"__dummy"}


def test_views_and_services_are_registered_once(repo: Path) -> None:
    first, _ = planned(repo, Activity, AtShop, services=[scores])
    assert registered(opened(repo)) == set(), "a plan changes nothing"
    objects = ["driver", "shop", "activity_log", "activity_stream", "at_shop_log", "at_shop_stream"]
    kinds = ["entity"] * 2 + ["source"] * 4
    expected = [f"{kind} {name}" for kind, name in zip(kinds, objects, strict=True)]
    expected += ["view activity", "view at_shop", "service scores", "file headrace_objects.py"]
    assert (names(first.changes, "add"), len(first.changes)) == (expected, len(expected))

    store = apply(repo, Activity, AtShop, services=[scores])
    view = store.get_feature_view("activity")
    assert {field.name: str(field.dtype) for field in view.features} == {
        "rides_30m": "Int64",
        "fare_mean": "Float64",
        "share": "Float64",
    }
    (mean,) = [field for field in view.features if field.name == "fare_mean"]
    assert mean.description == "mean of Ride.fare (last 1h, hop 1m)"
    assert (view.ttl, view.entities, view.tags["headrace"]) == (
        timedelta(days=7),
        ["driver"],
        Activity.__view__.fingerprint(),
    )
    assert view.batch_source.path == f"{repo.parent / 'log'}/view=activity"
    assert (view.stream_source.name, view.batch_source.timestamp_field) == ("activity_stream", "event_timestamp")
    assert store.get_feature_view("at_shop").entities == ["driver", "shop"]
    assert store.get_entity("shop").value_type == ValueType.INT64
    service = store.get_feature_service("scores")
    asked = {each.name: [field.name for field in each.features] for each in service.feature_view_projections}
    assert asked == {"activity": ["share"], "at_shop": ["visits"]}
    assert service.tags["headrace.version"] == "2"

    again, _ = planned(repo, Activity, AtShop, services=[scores])
    assert again.changes == ()


def test_a_changed_view_is_told_feature_by_feature(repo: Path) -> None:
    apply(repo, Activity)
    changed, _ = planned(repo, Later)
    (change,) = changed.changes
    assert (change.action, change.kind, change.name) == ("change", "view", "activity")
    count = "[count (last 1h, hop 1m)]"
    assert set(change.differences) == {
        Difference("ttl", "7d", "1d"),
        Difference(
            "fare_mean", "Float64: mean of Ride.fare (last 1h, hop 1m)", "Float64: mean of Ride.fare (last 2h, hop 2m)"
        ),
        Difference("share", f"Float64: rides_30m / {count}", None),
        Difference("city", None, "Int64: last of Ride.shop (last 1h, hop 1m)"),
    }
    store = apply(repo, Later)
    assert store.get_feature_view("activity").ttl == timedelta(days=1)
    assert {field.name for field in store.get_feature_view("activity").features} == {"rides_30m", "fare_mean", "city"}
    assert planned(repo, Later)[0].changes == ()


def test_what_a_file_has_no_longer_is_removed_and_another_files_is_not(repo: Path) -> None:
    apply(repo, Activity, AtShop, services=[scores])
    apply(repo, Other, file="others.py")
    found, store = planned(repo, Activity)
    assert [(change.action, change.kind, change.name) for change in found.changes] == [
        ("remove", "service", "scores"),
        ("remove", "view", "at_shop"),
        ("remove", "source", "at_shop_log"),
        ("remove", "source", "at_shop_stream"),
        ("remove", "entity", "shop"),
    ]
    apply_plan(found, store)
    mine = {"driver", "activity", "activity_log", "activity_stream"}
    assert registered(opened(repo)) == {*mine, "other", "other_log", "other_stream"}
    assert planned(repo, Activity)[0].changes == ()


class Other(FeatureView, source=rides, entity=driver, name="other"):
    rides_1d = Ride.count(last="1d")


def test_objects_of_another_hand_are_left_alone(repo: Path, tmp_path: Path) -> None:
    store = opened(repo)
    theirs = FeastEntity(name="chauffeur", join_keys=["driver_id"], value_type=ValueType.STRING, description="theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Feast deprecates of itself
        schema = [Field(name="driver_id", dtype=String), Field(name="trips", dtype=Int64)]
        store.apply([theirs, trips_view(tmp_path / "trips.parquet", "at_shop", entities=[theirs], schema=schema)])
    store = apply(repo, Activity)
    assert store.get_feature_view("activity").entities == ["chauffeur"], "their entity of the same key"
    assert [each.name for each in store.list_entities() if each.name != "__dummy"] == ["chauffeur"]
    assert store.get_entity("chauffeur").description == "theirs"
    with pytest.raises(DefinitionError, match=r"has a view 'at_shop' that is not Headrace's.*Give yours another name"):
        planned(repo, Activity, AtShop)
    assert "at_shop" in registered(opened(repo))


@pytest.mark.parametrize(
    ("entity", "said"),
    [
        ({"name": "driver", "join_keys": ["id"], "value_type": ValueType.STRING}, "an entity 'driver' with the join"),
        ({"name": "d", "join_keys": ["driver_id"], "value_type": ValueType.INT64}, "entity 'd' has it as INT64. Give"),
    ],
)
def test_an_entity_that_is_in_the_way(repo: Path, entity: dict[str, Any], said: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Feast deprecates of itself
        opened(repo).apply([FeastEntity(**entity)])
    with pytest.raises(DefinitionError, match="View 'activity': key 'driver_id'.*" + said):
        planned(repo, Activity)


def test_a_key_of_another_type_in_their_views_is_told(repo: Path, tmp_path: Path) -> None:
    schema = [Field(name="driver_id", dtype=Int64), Field(name="trips", dtype=Int64)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Feast deprecates of itself
        theirs = FeastEntity(name="chauffeur", join_keys=["driver_id"])  # its type may be left open
        opened(repo).apply([theirs, trips_view(tmp_path / "t.parquet", entities=[theirs], schema=schema)])
    found, _ = planned(repo, Activity)
    told = (
        "activity: key 'driver_id' is String, in the repository's view 'trips_of' it is Int64: no service can be asked"
    )
    assert [note.startswith(told) for note in found.notes] == [True]


def test_feasts_own_apply_keeps_what_it_does_not_define(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes what no file of the repository defines; the file that we leave there defines ours."""
    monkeypatch.setattr(sys, "path", [str(repo), *sys.path])
    monkeypatch.chdir(repo)
    store = apply(repo, Activity, AtShop, services=[scores])
    there = registered(store)
    run_feast_apply(store, repo)
    assert registered(opened(repo)) == there
    assert planned(repo, Activity, AtShop, services=[scores])[0].changes == ()

    (repo / "headrace_objects.py").unlink()
    run_feast_apply(store, repo)
    assert registered(opened(repo)) == set(), "without the file they are gone"
    assert "file headrace_objects.py" in names(planned(repo, Activity)[0].changes, "add")


def run_feast_apply(store: Any, repo: Path) -> None:
    sys.modules.pop("headrace_objects", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Feast deprecates of itself
        apply_total(store.config, repo, skip_source_validation=True)
    sys.modules.pop("headrace_objects", None)


def test_duckdbs_offline_store_is_given_a_pattern(tmp_path: Path) -> None:
    store = apply(made(tmp_path / "repo", offline="duckdb"), Activity)
    assert store.get_feature_view("activity").batch_source.path == f"{tmp_path / 'log'}/view=activity/*/*.parquet"


def test_a_folder_without_a_repository(tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match=r"no Feast repository: it has no feature_store.yaml. Name the folder"):
        planned(tmp_path, Activity)


# The commands


VIEWS = """
from headrace.features import Entity, Event, EventTime, FeatureService, FeatureView, IterableSource, Request, derived

class Ride(Event):
    driver_id: str
    at: EventTime

class Activity(FeatureView, source=IterableSource([], Ride, name="rides"), entity=Entity("driver", key="driver_id")):
    rides_30m = Ride.count(last="30m")

scores = FeatureService("scores", [Activity], derived={"more": derived(Activity["rides_30m"] + Request("n", int))})
"""


@pytest.fixture
def views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "feast_views.py"
    path.write_text(VIEWS)
    yield path
    sys.modules.pop("feast_views", None)


def headrace(*words: str | Path, answer: str | None = None) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Feast deprecates of itself
        return CliRunner().invoke(
            app, ["feast", *map(str, words)], input=answer, env={"COLUMNS": "160", "TERM": "dumb"}
        )


def test_the_commands(repo: Path, views: Path) -> None:
    shown = headrace("plan", views, "--repo", repo)
    assert shown.exit_code == 0, shown.output
    assert "+ view activity\n    + entities: driver\n    + ttl: none\n    + rides_30m: Int64: count (" in shown.stdout
    assert "! activity: the log at" in shown.stdout
    assert "! scores: more on demand; only Headrace's client and `headrace serve` compute it" in shown.stdout
    assert shown.stdout.endswith("Project rides: 6 to add, 0 to change, 0 to remove.\n")
    assert headrace("plan", views, "--repo", repo, "--check").exit_code == 3

    refused = headrace("apply", views, "--repo", repo, answer="n\n")
    assert (refused.exit_code, registered(opened(repo))) == (1, set())
    assert not (repo / "headrace_objects.py").exists()
    done = headrace("apply", views, "--repo", repo, answer="y\n")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "Applied to project rides.")
    assert "activity" in registered(opened(repo))

    nothing = headrace("plan", views, "--repo", repo, "--check")
    assert (nothing.exit_code, nothing.stdout.splitlines()[-1]) == (0, "Project rides: nothing to change.")
    again = headrace("apply", views, "--repo", repo, "--yes", "--json")
    assert (again.exit_code, json.loads(again.stdout)["changes"]) == (0, [])
    assert "--json asks no questions" in headrace("apply", views, "--repo", repo, "--json").stderr
