"""Every notebook runs from top to bottom, and was saved as it runs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    saved = nbformat.read(path, 4)
    ran = nbformat.read(path, 4)
    NotebookClient(ran, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert printed(ran) == printed(saved)
    assert figures(ran) == figures(saved) > 0


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells print, without what they show as their value."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    # A fingerprint may change with the form of definitions; what a reader sees otherwise may not.
    return [re.sub(r"fingerprint \w+", "", output.text) for output in outputs if output.output_type == "stream"]


def figures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
