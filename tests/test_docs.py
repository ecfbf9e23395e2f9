"""The documentation says what is so: its examples run, its links lead somewhere, and what is public is in it."""

import contextlib
import importlib
import inspect
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import pytest
import typer

from headrace.cli.commands import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PUBLIC = [
    "headrace",
    "headrace.features",
    "headrace.features.functions",
    "headrace.flows.backfill",
    "headrace.flows.kafka.decoding",
    "headrace.flows.kafka.errors",
    "headrace.flows.kafka.settings",
    "headrace.flows.kafka.statistics",
    "headrace.flows.kafka.topics",
    "headrace.flows.runner",
    "headrace.flows.worker.observing",
    "headrace.materialize",
    "headrace.materialize.feast",
    "headrace.materialize.online",
    "headrace.serving",
    "headrace.serving.http",
    "headrace.stores.embedded",
    "headrace.stores.errors",
    "headrace.stores.memory",
    "headrace.stores.offline",
    "headrace.stores.online",
    "headrace.stores.opening",
    "headrace.stores.redis",
    "headrace.testing",
]

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(*found.groups(), text[: found.start()].count("\n") + 2) for found in FENCE.finditer(text)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def same(expected: str, got: str) -> bool:
    return OutputChecker().check_output(expected, got, ELLIPSIS | NORMALIZE_WHITESPACE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [
        target for target in LINK.findall(page.read_text()) if not target.startswith(("http:", "https:", "mailto:"))
    ]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text()], ids=name)
def test_python_runs_as_written(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in order and share their names; a block `text` after one is what it prints."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    printed = ""
    for block in blocks(page):
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)
            printed = out.getvalue()
        elif block.language == "text" and printed:
            assert same(block.text, printed), f"{name(page)}, line {block.line}, prints now:\n{printed}"
            printed = ""


def commands(block: Block) -> Iterator[tuple[str, str]]:
    for part in block.text.split("$ ")[1:]:
        command, _, output = part.partition("\n")
        yield command, output


@pytest.mark.parametrize("page", [page for page in PAGES if "```console" in page.read_text()], ids=name)
def test_commands_print_as_written(page: Path, tmp_path: Path) -> None:
    """The commands of a page's `console` blocks run in order in one folder. A line `...` stands for any lines."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in blocks(page):
        for command, output in commands(block) if block.language == "console" else ():
            ran = subprocess.run(
                ["sh", "-c", command],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                env=os.environ | {"PATH": path, "COLUMNS": "100"},
            )
            assert ran.returncode == 0, ran.stderr
            assert same(output, ran.stdout), f"{name(page)}: {command} prints now:\n{ran.stdout}"


def public(module: str) -> list[str]:
    """What a module declares public, else the classes and functions that it defines without an underscore."""
    found = importlib.import_module(module)
    declared = getattr(found, "__all__", None)
    if declared is not None:
        return [each for each in declared if not each.startswith("__")]
    return [
        each
        for each, value in vars(found).items()
        if not each.startswith("_") and callable(value) and getattr(value, "__module__", "") == module
    ]


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_public_has_a_docstring(module: str) -> None:
    found = importlib.import_module(module)
    objects = {each: getattr(found, each) for each in public(module)}
    assert [each for each, value in objects.items() if callable(value) and not inspect.getdoc(value)] == []


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_public_is_in_the_reference(module: str) -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()
    assert [each for each in public(module) if f"`{each}`" not in reference] == []


def test_the_verbs_told_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    verbs = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split())
    told = set()
    for page in PAGES:
        told |= set(re.findall(r"(?:^ {4}|`|\$ )make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert told <= verbs
    assert verbs == set(re.findall(r"^#   make ([a-z-]+)", makefile, re.MULTILINE))


def test_the_command_line_is_told_with_every_option() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    commands = typer.main.get_command(app).commands
    for command_name, command in commands.items():
        part = re.search(rf"^## `headrace {command_name}\b.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        assert part, f"headrace {command_name} has no section"
        options = [each for option in command.params for each in option.opts if each.startswith("--")]
        assert [each for each in options if each != "--help" and f"`{each}" not in part.group()] == []
