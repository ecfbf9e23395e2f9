"""Errors of executors on their way to the driver: those of Headrace as they were there, for Spark shows a traceback."""

import msgspec

from headrace.features import errors as feature_errors
from headrace.features.errors import DataError, HeadraceError
from headrace.flows.snapshot import SnapshotError
from headrace.stores import errors as store_errors


class Failure(msgspec.Struct):
    """An error that would be there the next time too, for the driver to raise."""

    part: str
    kind: str
    words: str


def raised(failure: Failure) -> HeadraceError:
    """An error of an executor, as it was there."""
    from headrace.flows.graph import rows as graph_rows

    for module in (feature_errors, store_errors, graph_rows):
        kind = getattr(module, failure.kind, None)
        if isinstance(kind, type) and issubclass(kind, HeadraceError):
            return kind(failure.words)
    return SnapshotError(failure.words) if failure.kind == "SnapshotError" else DataError(failure.words)


def spark_failed(error: BaseException) -> bool:
    """Whether a job has failed in Spark, not in this program."""
    return type(error).__module__.startswith(("pyspark.", "py4j."))


def words_of(error: BaseException) -> str:
    """What Spark says, without its traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " / ".join(lines[:3])[:600]
