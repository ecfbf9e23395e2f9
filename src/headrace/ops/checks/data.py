"""Where the log and the checkpoints go: writable, with room, and with the put-if-absent that fences a zombie off."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from headrace.ops.checks.finding import Finding
from headrace.stores.places import open_place

AREA = "data"
LITTLE_BYTES = 1 << 30
TOO_LITTLE_BYTES = 100 << 20


def check_data(data: str) -> Iterator[Finding]:
    """The data folder or URL."""
    if "://" not in data:
        folder = Path(data).resolve()
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            yield Finding(
                "fail",
                AREA,
                data,
                f"cannot be written: {there} is {'no folder' if not there.is_dir() else 'not writable for this user'}",
                "Name another with --data or [offline] data, or change its owner.",
            )
            return
        yield from _room(data, there)
    yield from _commits(data)


def _room(data: str, there: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(there).free
    shown = f"{free / 2**30:,.1f} GiB free"
    if free < TOO_LITTLE_BYTES:
        yield Finding("fail", AREA, data, shown, "Make room: a flow stops where it cannot write a checkpoint.")
    elif free < LITTLE_BYTES:
        yield Finding("warn", AREA, data, shown, "The log grows with every event; make room.")
    else:
        yield Finding("ok", AREA, data, shown)


def _commits(data: str) -> Iterator[Finding]:
    """A file is created twice: a commit needs the second to be refused."""
    is_new = "://" not in data and not Path(data).exists()
    root = f"{data.rstrip('/')}/doctor-{uuid.uuid4().hex[:8]}"
    name, beside = "probe", "probe.beside"
    began = time.perf_counter()
    try:
        place = open_place(root)
        place.prepare([""])
        try:
            first = place.create(name, b"1", beside)
            second = place.create(name, b"2", beside)
            content = place.read(name)
        finally:
            place.delete([name])
    except (OSError, ImportError, ValueError) as error:
        yield Finding(
            "fail", AREA, data, f"a file cannot be created: {error}", "Check the path, its rights and quotas."
        )
        return
    finally:
        if "://" not in data:
            shutil.rmtree(root, ignore_errors=True)
            if is_new:
                with_nothing(Path(data))
    took = time.perf_counter() - began
    if first and not second and content == b"1":
        yield Finding("ok", AREA, data, f"files are created once only; three round trips took {took * 1000:,.0f} ms")
    else:
        yield Finding(
            "fail",
            AREA,
            data,
            "a file was created twice, so that two owners of a partition could commit over each other",
            "Take a store with conditional writes: a local or NFS folder with hard links, S3, GCS or Azure.",
        )


def with_nothing(folder: Path) -> None:
    """The folder goes again when nothing is in it."""
    try:
        folder.rmdir()
    except OSError:
        return
