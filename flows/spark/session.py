"""The Spark session that a flow runs in."""

import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headrace.features.errors import DefinitionError
from headrace.flows.spark.settings import SparkSettings

FAILURES = 4
"""How often a task is tried in local mode, where Spark's own default is once."""
LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
}
"""Of a session on this machine alone: nothing listens to others."""
OURS = {
    # Each turn is planned alike; its stages have as many tasks as they need.
    "spark.sql.adaptive.enabled": "false",
    # Else parts of a union that have a Spark task each are computed in one, one after the other.
    "spark.sql.unionOutputPartitioning": "false",
}
"""Of a session's SQL, for the flow's turns alone."""


def session(settings: SparkSettings) -> tuple[Any, bool]:
    """A `SparkSession` on the context that is there (spark-submit, a notebook), or on a new one; and whether it is new.

    Raises:
        DefinitionError: pyspark or Java is not here.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise DefinitionError(
            f"--engine spark needs pyspark, which cannot be imported here ({error}): pip install 'headrace[spark]'."
        ) from None
    there = SparkSession.getActiveSession()
    if there is not None:
        return _ours(there), False
    master = settings.master or os.environ.get("MASTER") or "local[*]"
    local = master.startswith("local")
    if local and shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise DefinitionError(
            "Spark needs Java 17 or newer, and there is no `java` here. Install a JRE, or set JAVA_HOME."
        )
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else executors take whatever is named python3
    conf = {"spark.python.worker.reuse": "true", **(LOCAL if local else {}), **settings.conf}
    builder = SparkSession.builder.master(_patient(master)).appName("headrace")
    for name, value in conf.items():
        builder = builder.config(name, value)
    with _own_interrupts():
        made = builder.getOrCreate()
    made.sparkContext.setLogLevel("WARN")
    return _ours(made), True


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """A new context takes Ctrl-C for itself; whoever had it before keeps it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ours(there: Any) -> Any:
    """A session beside the one that is there, with settings of its own."""
    beside = there.newSession()
    for name, value in OURS.items():
        beside.conf.set(name, value)
    return beside


def _patient(master: str) -> str:
    """The master, where tasks that fail in local mode are tried again.

    >>> _patient("local[2]"), _patient("local"), _patient("spark://host:7077")
    ('local[2,4]', 'local[1,4]', 'spark://host:7077')
    """
    if master == "local":
        return f"local[1,{FAILURES}]"
    match = re.fullmatch(r"local\[(\*|\d+)\]", master)
    return master if match is None else f"local[{match[1]},{FAILURES}]"
