"""The page over the examples lists each of them, and each command on it is one of that example's page."""

import re
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_page_lists_every_example() -> None:
    listed = re.findall(r"\]\(([^)/]+)/README\.md\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(page.parent.name for page in EXAMPLES.glob("*/README.md"))


def test_its_commands_are_those_of_the_pages() -> None:
    rows = re.findall(r"\]\(([^)]+)\) \|.*\| `([^`]+)` \|", (EXAMPLES / "README.md").read_text())
    assert rows
    assert [(page, command) for page, command in rows if command.split()[-1] not in (EXAMPLES / page).read_text()] == []
