"""`headrace init`: a small project that runs as it is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from headrace.features.errors import HeadraceError

FILES = ("views.py", "test_views.py", "rides.csv", "README.md")


def write_starter(folder: Path) -> list[Path]:
    """Writes the starter project's files into the folder, which is made if need be.

    Returns:
        The files written, in the order to read them.

    Raises:
        HeadraceError: one of the files is there already; nothing is written then.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise HeadraceError(
            f"{folder} already has {', '.join(there)}, and nothing was written. "
            "Name another folder: headrace init my-features"
        )
    folder.mkdir(parents=True, exist_ok=True)
    starter = files("headrace") / "starter"
    for name in FILES:
        (folder / name).write_bytes((starter / name).read_bytes())
    return [folder / name for name in FILES]
