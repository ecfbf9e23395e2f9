"""The data folder of a run, and the views file it was made from: so a question needs no more than a view's name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.cli.loading import ViewsFile, load
from headrace.features.errors import HeadraceError
from headrace.features.views import ViewDefinition

DATA = Path("headrace-data")
PARTS = ("online", "log", "backfill")
REMEMBERED = "run.json"


def remember(data: Path, file: ViewsFile, *, live: Mapping[str, Any] | None = None) -> None:
    """Notes in the data folder which file its views come from; of a live flow also what was said with the run."""
    data.mkdir(parents=True, exist_ok=True)
    noted = {"views_file": str(file.path), **({} if live is None else {"live": dict(live)})}
    (data / REMEMBERED).write_text(json.dumps(noted) + "\n")


def remembered(data: str | Path) -> dict[str, Any]:
    """What the last run into the folder noted; empty when none did."""
    try:
        noted = json.loads((Path(data) / REMEMBERED).read_text())
    except FileNotFoundError:
        return {}
    return noted if isinstance(noted, dict) else {}


def asked_view(data: str | Path, file: Path | None, name: str) -> ViewDefinition:
    """The view of this name in `file`, or in the file whose run made the data folder.

    Raises:
        HeadraceError: no run made the folder and no file is given, or as `load`.
    """
    return load(asked_file(data, file)).view(name)


def asked_file(data: str | Path, file: Path | None) -> Path:
    """`file`, or the one whose run made the data folder."""
    if "://" not in str(data) and not Path(data).is_dir():
        raise HeadraceError(
            f"There is no data folder {data}. Fill it with `headrace run FILE --data {data}`, "
            "or name another with --data."
        )
    if file is not None:
        return file
    noted = {} if "://" in str(data) else remembered(data)
    if "views_file" not in noted:
        raise HeadraceError(
            f"{data} was not made by `headrace run`, so the definition of the view is not known. "
            "Name its file with --file."
        )
    return Path(noted["views_file"])


def forget(data: Path) -> None:
    """Removes what runs have written to the data folder: online store, log, dead letters and checkpoints."""
    for part in PARTS:
        shutil.rmtree(data / part, ignore_errors=True)
