"""The executors of a Spark cluster as the crew of a backfill: a job of Spark for each phase, a task for each piece.

Nothing goes through Spark but what jobs are told and what they give: events and rows lie in the data folder, which the
driver and all executors find at the same place.
"""

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from headrace.features.errors import HeadraceError
from headrace.flows.backfill.crew import Brief, Job
from headrace.flows.backfill.site import Site
from headrace.flows.spark.failing import Failure, raised, spark_failed, words_of
from headrace.flows.spark.session import session
from headrace.flows.spark.settings import SparkSettings

LOOK_S = 0.3
"""How often the progress is looked at."""
_names = itertools.count()


class SparkCrew:
    """Executors; to be used in a `with` statement, which ends the session if it is its own.

    Args:
        settings: how Spark is reached. load: gives the views in an executor; it is pickled.

    Raises:
        DefinitionError: pyspark or Java is not here.
    """

    def __init__(self, settings: SparkSettings, load: Callable[[], Iterable[Any]]) -> None:
        self.load = load
        self._spark, self._owned = session(settings)

    def __enter__(self) -> "SparkCrew":
        return self

    def __exit__(
        self, exc: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned:
            self._spark.stop()

    def do(self, brief: Brief, jobs: Sequence[Job], told: Callable[[int], None]) -> list[Any]:
        if not jobs:
            return []
        found: list[Any] = []
        failed: list[BaseException] = []
        context = self._spark.sparkContext
        group = f"headrace-backfill-{next(_names)}"

        def collect() -> None:
            try:
                context.setJobGroup(group, group)  # of this thread
                work = partial(_done, brief, group)
                found.extend(context.parallelize(list(jobs), len(jobs)).map(work).collect())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=collect, name=group, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(LOOK_S)
                told(self._through(group))
        except BaseException:
            context.cancelJobGroup(group)
            raise
        for error in failed:
            if spark_failed(error):
                raise HeadraceError(
                    f"Spark gave up a backfill's work: {words_of(error)}. What was done stays; mend it, and the same "
                    "command goes on with what is left."
                ) from error
            raise error
        for each in found:
            if isinstance(each, Failure):
                raise raised(each)
        told(len(jobs))
        return found

    def _through(self, group: str) -> int:
        status = self._spark.sparkContext.statusTracker()
        found = [status.getJobInfo(job) for job in status.getJobIdsForGroup(group)]
        stages = [status.getStageInfo(stage) for job in found if job is not None for stage in job.stageIds]
        return sum(stage.numCompletedTasks for stage in stages if stage is not None)


_sites: dict[str, Site] = {}
"""Of this process, the last one."""


def _done(brief: Brief, group: str, job: Job) -> Any:
    """In an executor: what the job gives; an error that would be there the next time too, as `Failure`."""
    try:
        if group not in _sites:
            _sites.clear()
            _sites[group] = brief()
        return job(_sites[group])
    except HeadraceError as error:
        return Failure("", type(error).__name__, str(error))


__all__ = ["SparkCrew"]
