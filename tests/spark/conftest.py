"""Spark is installed by `make spark`, which `make test` calls; without it a run of pytest alone leaves these out."""

import importlib.util
import os

if importlib.util.find_spec("pyspark") is None and not os.environ.get("CI"):
    collect_ignore_glob = ["test_*.py"]
