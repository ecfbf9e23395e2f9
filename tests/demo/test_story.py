"""The whole demo, as `make demo` runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from headrace.demo.flights import departures, read_flights
from headrace.demo.lift import TIMETABLE, judge, late_among_flagged
from headrace.demo.story import PAUSE, leaves_for_good


@pytest.mark.slow
def test_the_demo_from_beginning_to_end(tmp_path: Path) -> None:
    folder = tmp_path / "demo-output"
    told = run("demo", cwd=tmp_path)
    the_features_lift_the_model(told)
    a_figure_is_saved_and_named(told, folder)
    the_aircraft_asked_again_has_empty_windows(told)
    the_folder_left_is_a_project_to_go_on_with(told, folder)


def run(*words: str, cwd: Path) -> str:
    """What `headrace` prints."""
    command = [sys.executable, "-m", "headrace", *words]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | {"COLUMNS": "100"})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def the_features_lift_the_model(told: str) -> None:
    alone = re.search(r"timetable alone +\d+ +([\d.]+) +([\d.]+)", told)
    featured = re.search(r"with features +\d+ +([\d.]+) +([\d.]+)", told)
    assert alone, told
    assert featured, told
    assert [float(score) for score in alone.groups()] == pytest.approx([0.676, 0.296], abs=0.01)
    assert [float(score) for score in featured.groups()] == pytest.approx([0.771, 0.510], abs=0.01)


def a_figure_is_saved_and_named(told: str, folder: Path) -> None:
    assert "demo-output/flights.png" in told
    with Image.open(folder / "flights.png") as image:
        assert image.width > 1500
        assert np.asarray(image.convert("L")).std() > 10  # not blank


def the_aircraft_asked_again_has_empty_windows(told: str) -> None:
    table = told[told.index("Asked again") :]
    assert re.search(r"flights_1d +[1-9]\d* +PRESENT +0 +PRESENT", table), table
    assert re.search(r"delay_mean_1d +-?[\d.]+ +PRESENT +null +NULL", table), table


def the_folder_left_is_a_project_to_go_on_with(told: str, folder: Path) -> None:
    said = re.findall(r"^  headrace (.*)$", told, re.MULTILINE)
    assert len(said) == 3
    for command in said:
        assert "airport_delays" in run(*command.split(), cwd=folder)


def test_a_model_is_judged_on_months_that_it_has_not_seen() -> None:
    n = 4000
    random = np.random.default_rng(7)
    signal = random.normal(size=n)
    rows = pd.DataFrame({name: random.integers(0, 5, n) for name in TIMETABLE})
    rows["signal"] = np.where(random.random(n) < 0.1, np.nan, signal)
    rows["late"] = signal + random.normal(size=n) > 1
    rows["month"] = random.integers(1, 13, n)
    alone, featured = judge(rows, TIMETABLE), judge(rows, [*TIMETABLE, "signal"])
    assert len(featured.late) == (rows["month"] > 8).sum()
    assert alone.roc_auc < 0.6 < 0.75 < featured.roc_auc
    assert late_among_flagged(featured) > late_among_flagged(alone)


def test_the_aircraft_shown_leaves_before_the_pause_and_not_after() -> None:
    departed = departures(read_flights())
    its = departed[departed["tailnum"] == leaves_for_good(departed)]
    assert its["at"].max() <= PAUSE
    assert (its["at"] > PAUSE - pd.Timedelta(days=1)).sum() >= 3
