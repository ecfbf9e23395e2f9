"""The readers of the example under connections that break: live, every reading counts once."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from headrace.features.views import definition
from headrace.flows import live
from headrace.flows.recording import LOG
from headrace.flows.runner import run
from headrace.stores.offline import OfflineLog

FOLDER = Path(__file__).parents[2] / "examples" / "readers"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def test_a_web_socket_that_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.001)
    example, stations = module("readers"), module("stations")
    with contextlib.ExitStack() as stack:
        there: Any = stack.enter_context(stations.Stations())
        there.add(7)
        there.breaking = [0, 3, 2]
        example.pushed.reader.url = there.socket
        summary = run([example.Pushed], tmp_path, live=True)
    assert there.asked == ["socket 0", "socket 0", "socket 3", "socket 5"]
    assert summary.read == {"pushed": 7}
    log = OfflineLog(tmp_path / LOG).scan(definition(example.Pushed))
    assert max(log.column("readings_1h").to_pylist()) == 4  # of the one station; the other has three
