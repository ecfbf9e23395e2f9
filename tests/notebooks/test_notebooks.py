"""Every notebook runs from top to bottom, and was saved as it runs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if not target.startswith("https:")]
    assert targets
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_the_front_pages_list_every_notebook() -> None:
    root = NOTEBOOKS[0].parents[1]
    pages = [(root / page).read_text() for page in ("README.md", "docs/index.md")]
    assert [path.name for path in NOTEBOOKS if not all(f"notebooks/{path.name})" in page for page in pages)] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    if path.stem == "machine":
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_server").url)
    saved = nbformat.read(path, 4)
    ran = nbformat.read(path, 4)
    NotebookClient(ran, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert printed(ran) == printed(saved)
    assert figures(ran) == figures(saved) > 0


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell prints, without what it shows as its value; the kernel may send them in several pieces."""
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    assert [output for shown in outputs for output in shown if output.get("name") == "stderr"] == []
    texts = ("".join(output.text for output in shown if output.output_type == "stream") for shown in outputs)
    # A fingerprint may change with the form of definitions; what a reader sees otherwise may not.
    return [re.sub(r"fingerprint \w+", "", text) for text in texts]


def figures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
