"""The data folder of a run, and the views file it was made from: so a question needs no more than a view's name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from headrace.cli.loading import ViewsFile, load
from headrace.features.errors import HeadraceError
from headrace.features.views import ViewDefinition

DATA = Path("headrace-data")
PARTS = ("online", "log")
REMEMBERED = "run.json"


def remember(data: Path, file: ViewsFile, *, online: str | None = None) -> None:
    """Notes in the data folder which file its views come from, and where rows went if that was said with the run."""
    data.mkdir(parents=True, exist_ok=True)
    noted = {"views_file": str(file.path), **({} if online is None else {"online": online})}
    (data / REMEMBERED).write_text(json.dumps(noted) + "\n")


def asked_view(data: Path, file: Path | None, name: str) -> ViewDefinition:
    """The view of this name in `file`, or in the file whose run made the data folder.

    Raises:
        HeadraceError: no run made the folder and no file is given, or as `load`.
    """
    if not data.is_dir():
        raise HeadraceError(
            f"There is no data folder {data}. Fill it with `headrace run FILE --data {data}`, "
            "or name another with --data."
        )
    return load(file or _remembered(data)).view(name)


def forget(data: Path) -> None:
    """Removes what runs have written to the data folder: online store, log, dead letters and checkpoints."""
    for part in PARTS:
        shutil.rmtree(data / part, ignore_errors=True)


def _remembered(data: Path) -> Path:
    try:
        return Path(json.loads((data / REMEMBERED).read_text())["views_file"])
    except FileNotFoundError:
        raise HeadraceError(
            f"{data} was not made by `headrace run`, so the definition of the view is not known. "
            "Name its file with --file."
        ) from None
