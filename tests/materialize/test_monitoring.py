"""Feature monitoring: figures against definitions, and the command with its page."""

from __future__ import annotations

import json
import math
import random
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from typer.testing import CliRunner

from headrace.cli.commands import app
from headrace.cli.loading import load
from headrace.features import DataError
from headrace.materialize import monitoring, profiles
from headrace.materialize.distances import LEAST_SHARE, Grid, kolmogorov_smirnov, stability_index
from headrace.materialize.monitoring import Limits, Reference, monitor_tables
from headrace.materialize.profiles import CategoryProfile, NumberProfile
from headrace.serving import Client, FeatureLog
from headrace.stores.embedded import EmbeddedStore

NUMBERS = st.lists(st.sampled_from((-2.0, -0.5, 0.0, 0.1, 0.1, 0.25, 3.0, 1e9)) | st.floats(-5, 5), min_size=1)


@given(NUMBERS, NUMBERS)
def test_the_statistic_is_that_of_two_samples(reference: list[float], other: list[float]) -> None:
    grid = Grid(np.array(reference))
    counted = sum((grid.count(np.array(other[at : at + 3])) for at in range(0, len(other), 3)), np.zeros(1, np.int64))
    assert counted.sum() == len(other)
    functions = [[sum(each <= at for each in values) / len(values) for at in reference + other]
                 for values in (reference, other)]  # fmt: skip
    by_hand = max(abs(a - b) for a, b in zip(*functions, strict=True))
    assert math.isclose(kolmogorov_smirnov(grid.reference, counted), by_hand, abs_tol=1e-12)


@given(NUMBERS, NUMBERS, st.integers(2, 12))
def test_bins_count_every_value_once(reference: list[float], other: list[float], bins: int) -> None:
    grid = Grid(np.array(reference))
    edges = grid.edges(bins)
    inner = [-math.inf, *edges.tolist(), math.inf]
    by_hand = [sum(low < each <= high for each in other) for low, high in pairwise(inner)]
    assert grid.binned(grid.count(np.array(other)), edges).tolist() == by_hand


def test_the_index_by_hand() -> None:
    before, now = np.array([20, 30, 50]), np.array([10, 30, 60])
    by_hand = sum((b - a) * math.log(b / a) for a, b in ((0.2, 0.1), (0.3, 0.3), (0.5, 0.6)))
    assert math.isclose(stability_index(before, now), by_hand)
    gone = stability_index(np.array([50, 50]), np.array([100, 0]))
    assert math.isclose(gone, 0.5 * math.log(2) + (LEAST_SHARE - 0.5) * math.log(LEAST_SHARE / 0.5))
    assert stability_index(before, before * 7) == pytest.approx(0.0, abs=1e-12)


def test_tenths_of_the_reference() -> None:
    grid = Grid(np.arange(1000.0))
    assert grid.binned(grid.reference, grid.edges()).tolist() == [100] * 10
    same = Grid(np.full(50, 3.0))
    assert same.binned(same.reference, same.edges()).tolist() == [50, 0]


def test_numbers_beyond_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "EXACT", 1_000)
    values = np.random.default_rng(3).normal(size=40_000)
    profile = NumberProfile()
    for part in np.array_split(values, 13):
        profile.add(pa.array([*part, None, math.nan]))
    assert (profile.seen.rows, profile.seen.missing) == (40_026, 26)
    told = profile.quantiles()
    assert told is not None
    assert (told["min"], told["max"]) == (values.min(), values.max())
    for name, q in (("p5", 0.05), ("p50", 0.5), ("p99", 0.99)):
        assert abs((values <= told[name]).mean() - q) < 0.005
    edges = np.array([-1.0, 0.0, 1.0])
    assert profile.shares(edges) == pytest.approx([0.159, 0.341, 0.341, 0.159], abs=0.01)


def test_few_numbers_are_exact() -> None:
    profile = NumberProfile()
    profile.add(pa.array([4, 1, None, 3, 2], type=pa.int64()))
    told = profile.quantiles()
    assert told is not None
    assert (told["min"], told["p50"], told["max"], profile.seen.missing_share) == (1.0, 2.5, 4.0, 0.2)
    assert NumberProfile().quantiles() is None
    odd = NumberProfile()
    odd.add(pa.array([math.inf, -math.inf]))
    assert (odd.seen.infinite, odd.quantiles()) == (2, None)


def test_categories_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "DIFFERENT", 3)
    profile = CategoryProfile()
    profile.add(pa.array(["a", "b", None, "c", "a"]))
    profile.add(pa.array(["d", "e", "a"]))
    assert profile.counts == {"a": 3, "b": 1, "c": 1, profiles.OTHER: 2}
    flags = CategoryProfile()
    flags.add(pa.array([True, False, True]))
    assert flags.counts == {"true": 2, "false": 1}


def training(path: Path, **columns: Any) -> Reference:
    pq.write_table(pa.table(columns), path)
    return Reference(path)


DEFAULT = Limits()


def report_of(reference: Reference | None, limits: Limits = DEFAULT, **columns: Any) -> dict[str, Any]:
    dtypes = {"fare": "float64", "city": "string", "seen": "timestamp"}
    features = {name: ("rides", name, dtypes[name]) for name in columns}
    made = monitor_tables("rows", features, [pa.table(columns)], reference, limits=limits)
    return {each.feature: each for each in made.features} | {"left": made.left, "alarms": made.alarms}


def test_alarms(tmp_path: Path) -> None:
    draw = random.Random(3)
    old = [draw.gauss(0, 1) for _ in range(2_000)]
    reference = training(tmp_path / "t.parquet", fare=old, rides__city=["a"] * 1_500 + ["b"] * 500)
    same = report_of(reference, fare=old[::2], city=["a", "a", "a", "b"] * 250)
    assert same["alarms"] == 0
    moved = report_of(
        reference, Limits(psi=0.2, ks=0.3, missing=0.2), fare=[each + 1 for each in old] + [None] * 600,
        city=["b"] * 2_600,
    )  # fmt: skip
    assert len(moved["fare"].alarms) == 3
    assert moved["fare"].ks == pytest.approx(ks_2samp(old, [each + 1 for each in old]).statistic)
    assert moved["city"].psi > 2
    assert "23.1% of its values are missing, 0.0% in the reference" in moved["fare"].alarms[2]
    quiet = report_of(reference, Limits(psi=None, ks=None, missing=None), fare=[9.0], city=["zz"])
    assert quiet["alarms"] == 0
    alone = report_of(None, fare=[None, 1.0], city=["a", "b"])
    assert (alone["fare"].psi, alone["fare"].alarms) == (None, ("50.0% of its values are missing",))


def test_what_the_reference_lacks_is_said(tmp_path: Path) -> None:
    reference = training(tmp_path / "t.parquet", fares=[1.0])
    made = report_of(reference, fare=[1.0], seen=[1])
    assert "no column 'fare'; did you mean 'fares'?" in made["left"]["rides.fare"]
    assert made["fare"].psi is None
    with pytest.raises(DataError, match="cannot be compared with feature 'fare'"):
        report_of(training(tmp_path / "u.parquet", fare=["a"]), fare=[1.0])
    with pytest.raises(DataError, match="There is no reference"):
        Reference(tmp_path / "none.parquet")
    (tmp_path / "x.parquet").write_text("x")
    with pytest.raises(DataError, match="is no Parquet file"):
        Reference(tmp_path / "x.parquet")


def test_a_large_reference_is_sampled_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "SAMPLED", 100)
    reference = training(tmp_path / "t.parquet", fare=np.arange(10_050.0))
    values = np.concatenate([part.to_numpy() for part in reference.parts("fare")])
    assert len(values) == 100
    assert set(np.diff(values)) <= {100.0, 101.0}


VIEWS = """
from pathlib import Path
from river.drift import PageHinkley
from headrace.features import Entity, Event, EventTime, FeatureView, FileSource

class Ride(Event):
    driver_id: str
    fare: float
    city: str
    at: EventTime

rides = FileSource(Path(__file__).parent / "rides.csv", Ride)

class Fares(FeatureView, source=rides, entity=Entity("driver", key="driver_id"), drift={"fare": PageHinkley()}):
    fare = Ride.fare.last(last="1h")
    city = Ride.city.last(last="1h")
    cities = Ride.city.top_k(2, last="1h")
"""


class Tags(HTMLParser):
    """Which tags are open, and what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag == "svg"
        self.fetched += [
            f"{name}={value}" for name, value in attrs if name == "src" or (value or "").startswith("http")
        ]
        if tag not in ("meta", "i"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [f"{name}={value}" for name, value in attrs if name == "src"]

    def handle_endtag(self, tag: str) -> None:
        if tag != "i":
            assert self.open.pop() == tag


def served(folder: Path) -> None:
    """A client asks for the features of all drivers twice, and what it is told is logged."""
    (view,) = load(folder / "views.py").views
    with EmbeddedStore(folder / "data" / "online", read_only=True) as store, FeatureLog(folder / "served") as log:
        client = Client(store, watchers=[log])
        for _ in range(2):
            client.features([view["fare", "city"]], {"driver_id": [str(at) for at in range(5)]})


def test_the_command(tmp_path: Path) -> None:
    rows = [f"{at % 5},{at % 7 + (20 if at > 300 else 0)},<b>oslo,2026-01-01T{at // 60:02d}:{at % 60:02d}:00Z" for at in
            range(600)]  # fmt: skip
    (tmp_path / "rides.csv").write_text("driver_id,fare,city,at\n" + "\n".join(rows) + "\n")
    (tmp_path / "views.py").write_text(VIEWS)
    pq.write_table(pa.table({"fare": [float(at % 7) for at in range(300)], "city": ["<b>oslo"] * 300}),
                   tmp_path / "training.parquet")  # fmt: skip
    data, views, html = str(tmp_path / "data"), str(tmp_path / "views.py"), tmp_path / "report.html"
    run = CliRunner().invoke(app, ["run", views, "--data", data, "--quiet"])
    assert run.exit_code == 0, run.output
    assert "drift: fares.fare.PageHinkley" in run.output
    asked = ["monitor", views, "--data", data, "--reference", str(tmp_path / "training.parquet")]
    made = CliRunner().invoke(app, [*asked, "--html", str(html), "--json"])
    assert made.exit_code == 3, made.output
    told = json.loads(made.output)
    by_name = {each["feature"]: each for each in told["features"]}
    assert by_name["fare"]["psi"] > 1
    assert by_name["city"]["psi"] == pytest.approx(0)
    assert by_name["cities"]["psi"] is None
    assert "no column 'cities'" in told["not_compared"]["fares.cities"]
    assert {each["detector"] for each in told["drifts"]} == {"PageHinkley"}
    text = html.read_text()
    tags = Tags()
    tags.feed(text)
    assert (tags.open, tags.fetched, tags.pictures) == ([], [], 2)
    assert "<b>oslo" not in text
    assert "PageHinkley" in text
    calm = CliRunner().invoke(app, [*asked, "--to", "2026-01-01T05:00:00Z"])
    assert calm.exit_code == 0, calm.output
    assert "fares.fare" in calm.output
    served(tmp_path)
    answers = CliRunner().invoke(app, [*asked, "--served", str(tmp_path / "served"), "--json"])
    assert answers.exit_code == 3, answers.output
    told = json.loads(answers.output)
    assert {(each["feature"], each["seen"]["rows"]) for each in told["features"]} == {("fare", 10), ("city", 10)}
    assert told["features"][0]["psi"] > 1
    assert told["drifts"] == []
    none = CliRunner().invoke(app, [*asked, "--served", str(tmp_path / "nobody")])
    assert (none.exit_code, "has no answers with these views" in none.output) == (1, True)
    nothing = CliRunner().invoke(app, ["monitor", views, "--data", str(tmp_path / "other")])
    assert nothing.exit_code == 1
    assert "There is no log" in nothing.output
