"""Every example prints what its page says, and its data are those that its generator makes."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from headrace.cli.commands import app

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGES = sorted(EXAMPLES.glob("*/README.md"))
LIVE = {"rides"}  # whose commands need Kafka and Redis: test_rides.py runs them
FEASTS = {"feast"}  # whose commands are Feast's and Python's


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_an_example_prints_what_its_page_says(page: Path, tmp_path: Path) -> None:
    named = re.findall(r"^    python (\S+\.py)$", page.read_text(), re.MULTILINE)
    (script,) = [page.with_name(Path(each).name) for each in named]
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert re.findall(r"^```text\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL) == [ran.stdout]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name not in LIVE | FEASTS], ids=lambda page: page.parent.name
)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = re.findall(r"^    headrace (.*)$", page.read_text(), re.MULTILINE)
    assert commands
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = [str(page.with_name(word)) if word.endswith(".py") else word for word in command.split()]
        ran = CliRunner().invoke(app, words, env={"TERM": "dumb"})
        assert ran.exit_code == 0, ran.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if not (page.parent / link).exists()] == []


def test_the_payments_are_those_that_the_generator_makes() -> None:
    generate = generator("payments")
    payments = generate.made()
    arrived = generate.reported(payments)
    assert generate.FILE.read_text() == "".join(generate.json.dumps(each) + "\n" for each in arrived)
    assert len(arrived) == len(payments) + 1


@pytest.mark.parametrize("name", ["logins", "sessions", "weblogs"])
def test_a_generator_writes_the_data_that_are_there(name: str, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / name / "generate.py", tmp_path)
    subprocess.run([sys.executable, tmp_path / "generate.py"], check=True)
    data = generator(name).FILE
    assert (tmp_path / data.name).read_bytes() == data.read_bytes()


@pytest.mark.parametrize("name", ["energy", "fraud", "drivers", "orderbook", "sensors"])
def test_a_table_is_the_one_that_its_generator_makes(name: str) -> None:
    generate = generator(name)
    assert pq.read_table(generate.FILE).equals(generate.made())


def test_rides_and_arrivals_are_those_that_the_generator_makes() -> None:
    generate = generator("online_learning")
    assert [pq.read_table(file) for file in (generate.RIDES, generate.ARRIVALS)] == list(generate.made())


def generator(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"generate_{name}", EXAMPLES / name / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
