"""Files that survive a crash: write beside, flush to the disk, rename, flush the folder.

A rename within one file system is atomic: a reader sees the old file or the new one, never half of either. Without the
flush of the folder a power loss can forget the rename itself.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, atomically and durably; the folder must exist."""
    beside = path.with_name(path.name + ".new")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Flush what was written to `path` to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Flush the entries of a folder (creations, renames, deletions) to the disk."""
    if os.name == "nt":  # a folder cannot be opened there; NTFS journals its entries
        return
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, durably."""
    missing = []
    step = path
    while not step.exists():
        missing.append(step)
        step = step.parent
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)
