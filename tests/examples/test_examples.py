"""Every example prints what its page says, and its data are those that its generator makes."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGES = sorted(EXAMPLES.glob("*/README.md"))
LIVE = {"rides"}  # whose commands need Kafka and Redis: test_rides.py runs them


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_an_example_prints_what_its_page_says(page: Path, tmp_path: Path) -> None:
    named = re.findall(r"^    python (\S+\.py)$", page.read_text(), re.MULTILINE)
    (script,) = [page.with_name(Path(each).name) for each in named]
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert re.findall(r"^```text\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL) == [ran.stdout]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name not in LIVE], ids=lambda page: page.parent.name
)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    commands = re.findall(r"^    headrace (.*)$", page.read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        words = [str(page.with_name(word)) if word.endswith(".py") else word for word in command.split()]
        ran = subprocess.run([sys.executable, "-m", "headrace", *words], capture_output=True, text=True, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if not (page.parent / link).exists()] == []


def test_the_payments_are_those_that_the_generator_makes() -> None:
    spec = importlib.util.spec_from_file_location("generate_payments", EXAMPLES / "payments" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    payments = generate.made()
    arrived = generate.reported(payments)
    assert generate.FILE.read_text() == "".join(generate.json.dumps(each) + "\n" for each in arrived)
    assert len(arrived) == len(payments) + 1
