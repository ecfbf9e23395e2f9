"""The server does what /openapi.json says of it: schemathesis draws requests of that description and against it."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.serving.compat.serving import Served
from tests.serving.compat.views import PLAIN, PRICING, VIEWS

from headrace.serving.http import ServerSettings
from headrace.serving.http.pushing import Pushing
from headrace.stores.memory import MemoryStore

KEY = "s3cret-of-the-server"
EXAMPLES = 20
"""Drawn for each route, beside those that cover every part of the description."""
CONFIG = """
# A JSON schema cannot say that the entities' columns are those of the views asked for, and of one length.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "422"]
"""


@pytest.mark.parametrize(
    ("keys", "phases"), [((), "examples,coverage,fuzzing"), ((KEY,), "fuzzing")], ids=["open", "with keys"]
)
def test_schemathesis_finds_nothing(tmp_path: Path, keys: tuple[str, ...], phases: str) -> None:
    settings = ServerSettings(entities=50, features=40, keys=keys)  # limits that drawn requests reach
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    store = MemoryStore()
    pushes = Pushing(store, VIEWS, most=50)
    with Served(store, [*VIEWS, PLAIN, PRICING], settings, pushes) as server:
        options = ["--phases", phases, "--checks", "all", "--max-examples", str(EXAMPLES)]
        options += ["--seed", "1", "--generation-deterministic", "--no-shrink", "--no-color", "--request-timeout", "10"]
        options += [each for key in keys for each in ("--header", f"Authorization: Bearer {key}")]
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run", *options]
        ran = subprocess.run(
            [*command, f"{server.url}/openapi.json"], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        asked = {"features": ["drivers"], "entities": {"user": ["a"]}}
        assert server.ask(asked, Authorization=f"Bearer {KEY}").status == 200
    pushes.close()
