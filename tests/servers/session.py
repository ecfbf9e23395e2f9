"""One server of a kind for a whole run of pytest: the first xdist worker that needs it starts it for all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.process import ServerProcess


def controller() -> int:
    """The pid of the process that ends last: pytest itself, which started the xdist workers if there are any."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all xdist workers of this run see."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


STARTED: list[ServerProcess] = []  # by this worker; Python complains of a process that nobody holds any more


def once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path, int], tuple[ServerProcess, dict[str, Any]]]
) -> dict[str, Any]:
    """What `make(folder, watched)` tells of the server it started, started once whoever asks first.

    It is killed by its guard when the run ends. A server that did not start is tried again by who asks next: the port
    that was free may have been taken.
    """
    folder = shared_folder(factory)
    told = folder / f"{name}.json"
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            attempts = 3
            for attempt in range(attempts):
                try:
                    server, facts = make(folder / f"{name}-{attempt}-{os.getpid()}", controller())
                    STARTED.append(server)
                    break
                except RuntimeError:
                    if attempt == attempts - 1:
                        raise
            told.write_text(json.dumps(facts))
    facts = json.loads(told.read_text())
    assert isinstance(facts, dict)
    return facts
