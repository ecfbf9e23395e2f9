"""The layout holds: what is installed is what the folders show, and an import costs only what its user needs."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path, PurePosixPath

import pytest

from headrace import Entity, Event, EventTime, FeatureView, IterableSource, OfflineLog, derived, run
from headrace.materialize.online import sync
from headrace.stores.redis import RedisStore
from tests.servers.fixtures import RedisAddress

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "headrace"
FOLDERS = ("features", "flows", "materialize", "serving", "stores")

# Third-party packages that neither a definition nor a lookup may load; the command line's belong here too.
HEAVY = [
    *("datasketches", "duckdb", "lmdb", "numba", "pandas", "polars", "pyarrow"),
    *("confluent_kafka", "fastavro", "feast", "fsspec", "google.protobuf", "hiredis", "redis", "river"),
    *("prometheus_client", "structlog", "uvicorn", "httptools", "uvloop"),
    *("matplotlib", "scipy", "sklearn", "rich", "typer"),
]

# For tests of stores, which bring pytest and Hypothesis themselves.
TESTING = ("headrace/stores/testing",)


def modules() -> set[str]:
    """Paths of all our modules as a wheel names them: `headrace/features/events.py`."""
    found = set()
    for folder, _, names in os.walk(SOURCE, followlinks=True):
        inside = PurePosixPath("headrace", *Path(folder).relative_to(SOURCE).parts)
        found |= {str(inside / name) for name in names if name.endswith(".py")}
    # The starter project's files are data: a user's code, which no one imports from here.
    return {path for path in found if not path.startswith("headrace/starter/")}


def packages() -> set[str]:
    return {".".join(PurePosixPath(path).parent.parts) for path in modules()}


def python(code: str, *options: str, **environment: str) -> str:
    """What a fresh interpreter prints for the code, run outside the repository."""
    ran = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT.anchor,
        env=os.environ | environment,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel built from that sdist, of a copy of the repository."""
    copy = tmp_path_factory.mktemp("build") / "headrace"
    left_out = shutil.ignore_patterns(
        ".venv", ".git", ".hypothesis", ".*_cache", "__pycache__", "*.egg-info", "build", "dist"
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=left_out)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (copy / "dist").glob("*.whl")
    (sdist,) = (copy / "dist").glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_package_is_a_relative_link_to_its_folder(folder: str) -> None:
    assert os.readlink(SOURCE / folder) == f"../../{folder}"
    assert (ROOT / folder / "__init__.py").read_text().startswith('"""')


def test_the_project_names_every_package() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(setuptools["packages"]) == packages()
    mapped = {f"headrace.{folder}": folder for folder in FOLDERS} | {"headrace": "src/headrace"}
    assert setuptools["package-dir"] == mapped


def test_the_wheel_holds_the_folders_and_nothing_else(distributions: dict[str, Path]) -> None:
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name for name in names if name.endswith(".py") and "/starter/" not in name} == modules()
    assert "headrace/py.typed" in names
    assert {name for name in names if "/starter/" in name} == starter_files()


def starter_files() -> set[str]:
    return {f"headrace/starter/{path.name}" for path in (SOURCE / "starter").iterdir() if path.is_file()}


def test_the_sdist_holds_what_a_build_needs(distributions: dict[str, Path]) -> None:
    with tarfile.open(distributions["sdist"]) as sdist:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "src/headrace/py.typed"} <= names
    assert {f"{folder}/__init__.py" for folder in FOLDERS} <= names


def test_a_wheel_installed_elsewhere_starts_a_project_and_runs_it(
    distributions: dict[str, Path], tmp_path: Path
) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(distributions["wheel"])], check=True, capture_output=True)
    project = tmp_path / "project"
    code = (
        "import headrace.cli, sys\n"
        f"assert headrace.__file__.startswith({str(site)!r}), headrace.__file__\n"
        "headrace.cli.main(sys.argv[1:])"
    )
    run = ["run", str(project / "views.py"), "--quiet", "--data", str(tmp_path / "data")]
    # The kernels as plain Python: what is asked here is whether everything is there, not how fast it is.
    environment = os.environ | {"PYTHONPATH": str(site), "NUMBA_DISABLE_JIT": "1"}
    for arguments in (["init", str(project)], run):
        ran = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        assert ran.returncode == 0, ran.stderr


def test_dependencies_point_one_way() -> None:
    ran = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("package", ["headrace", "headrace.features", "headrace.serving"])
def test_an_import_loads_nothing_heavy(package: str) -> None:
    heavy = HEAVY if package == "headrace.serving" else [*HEAVY, "numpy"]
    loaded = python(f"import sys, json, {package}; print(json.dumps(sorted(sys.modules)))")
    assert sorted(set(heavy) & set(json.loads(loaded))) == []


@pytest.mark.parametrize(("package", "most"), [("headrace", 20), ("headrace.features", 80), ("headrace.serving", 190)])
def test_an_import_loads_few_modules(package: str, most: int) -> None:
    """What makes an import slow, counted and not timed: the machine may be busy with other tests."""
    count = f"import sys; before = set(sys.modules); import {package}; print(len(set(sys.modules) - before))"
    assert 0 < int(python(count)) <= most


MODEL_SERVER = """
import importlib.abc, sys

class OnlyTheBase(importlib.abc.MetaPathFinder):
    "As on a machine where nothing else is installed."
    def find_spec(self, name, path, target=None):
        top = name.partition(".")[0]
        base = {{*sys.stdlib_module_names, "headrace", "msgspec", "numpy", *{packages!r}}}
        if top not in base and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named '{{top}}'", name=top)

sys.meta_path.insert(0, OnlyTheBase())

from headrace import Client, Entity, Event, EventTime, FeatureView, IterableSource, derived
from headrace.stores.opening import open_online

class Ride(Event):
    driver_id: str
    fare: float
    at: EventTime

class DriverActivity(FeatureView, source=IterableSource([], Ride), entity=Entity("driver", key="driver_id"), ttl="7d"):
    rides_30m = Ride.count(last="30m")
    fares = Ride.fare.decayed_sum("1h", last="1d")
    per_ride = derived(fares / rides_30m, default=0.0)

client = Client(open_online({store!r}, read_only=True))
print(client.get(DriverActivity, driver_id="7").to_numpy().tolist())
print(client.get(DriverActivity, driver_id="8").to_dict())
"""


def test_a_model_server_needs_only_the_base_and_its_store(tmp_path: Path, redis_server: RedisAddress) -> None:
    class Ride(Event):
        driver_id: str
        fare: float
        at: EventTime

    rides = IterableSource([{"driver_id": "7", "fare": 3.0, "at": "2026-01-01T12:00:00Z"}], Ride)

    class DriverActivity(FeatureView, source=rides, entity=Entity("driver", key="driver_id"), ttl="7d"):
        rides_30m = Ride.count(last="30m")
        fares = Ride.fare.decayed_sum("1h", last="1d")
        per_ride = derived(fares / rides_30m, default=0.0)

    run([DriverActivity], tmp_path)
    with RedisStore(redis_server.url, expire=False) as store:  # a replay of the past
        sync(store, DriverActivity, log=OfflineLog(tmp_path / "log"))
    for place, packages in ((str(tmp_path / "online"), ["lmdb"]), (redis_server.url, ["redis", "hiredis"])):
        printed = python(MODEL_SERVER.format(store=place, packages=packages)).splitlines()
        assert printed == ["[1.0, 3.0, 3.0]", "{'rides_30m': 0, 'fares': None, 'per_ride': 0.0}"]


def test_every_package_that_the_code_imports_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: each for name, each in project["optional-dependencies"].items() if name != "dev"}
    wanted = [*project["dependencies"], *(each for listed in extras.values() for each in listed)]
    declared = {re.split(r"[\[<>=!~; ]", each)[0].lower().replace("_", "-") for each in wanted}
    brought_by = packages_distributions()
    for path in modules():
        tree = ast.parse((SOURCE.parent / path).read_text())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        for top in {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, "headrace", ""}:
            known = {each.lower().replace("_", "-") for each in brought_by.get(top, [])}
            assert known & declared or path.startswith(TESTING), f"{path} imports {top}, of {known}: declare it"
