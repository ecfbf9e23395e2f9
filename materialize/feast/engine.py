"""Feast's compute engine: `feast materialize` from any offline store to any online store, by Headrace.

    # feature_store.yaml
    batch_engine:
      type: headrace.materialize.feast.HeadraceEngine

One job for each task, whatever happens: the job of a view that fails says so, and the other views' jobs go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from feast.entity import Entity
from feast.infra.common.materialization_job import MaterializationJob, MaterializationJobStatus, MaterializationTask
from feast.infra.common.retrieval_task import HistoricalRetrievalTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.registry.base_registry import BaseRegistry

from headrace.materialize.feast.files import file_reading
from headrace.materialize.feast.log import log_reading
from headrace.materialize.feast.options import HeadraceEngineConfig
from headrace.materialize.feast.reading import LOGGER, MaterializeError, Reader, Work
from headrace.materialize.feast.tables import graph_reading, table_reading
from headrace.materialize.feast.windows import windows_reading
from headrace.materialize.feast.writing import Progress, write_rows

READERS: tuple[Reader, ...] = (log_reading, windows_reading, file_reading, table_reading, graph_reading)
"""Asked in this order; the first that takes a task reads it."""


@dataclass(frozen=True)
class HeadraceJob(MaterializationJob):  # type: ignore[misc, unused-ignore]
    """A task that was done, or the error that ended it.

    Attributes:
        task: Feast's. failure: None if all rows are in the online store.
    """

    task: MaterializationTask
    failure: BaseException | None = None

    def status(self) -> MaterializationJobStatus:
        return MaterializationJobStatus.SUCCEEDED if self.failure is None else MaterializationJobStatus.ERROR

    def error(self) -> BaseException | None:
        return self.failure

    def should_be_retried(self) -> bool:
        """Whether the same call may succeed later: a server did not answer. What was written stays and is written
        again."""
        return isinstance(getattr(self.failure, "__cause__", None), ConnectionError)

    def job_id(self) -> str:
        return f"{self.task.feature_view.name}-{self.task.start_time}-{self.task.end_time}"

    def url(self) -> str | None:
        return None


class HeadraceEngine(ComputeEngine):  # type: ignore[misc, unused-ignore]
    """Reads plain views of Parquet files as a stream and writes Redis straight from their columns.

    Every other offline and online store is used through Feast's own class, and what a view computes by the nodes of
    Feast's local engine. An older row never covers a newer one in Redis, also beside other writers; a row at the
    instant of the one that is there takes its place.

    Args:
        repo_config, offline_store, online_store: by Feast. options: of `batch_engine`, see HeadraceEngineConfig.

    Raises:
        pydantic.ValidationError: an option that there is not, or a wrong value.
    """

    def __init__(self, *, repo_config: Any, offline_store: Any, online_store: Any, **options: Any) -> None:
        super().__init__(repo_config=repo_config, offline_store=offline_store, online_store=online_store)
        self.options = HeadraceEngineConfig(**options)

    def update(
        self,
        project: str,
        views_to_delete: Sequence[Any],
        views_to_keep: Sequence[Any],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
    ) -> None:
        """Nothing: the engine keeps nothing between its runs."""

    def teardown_infra(self, project: str, fvs: Sequence[Any], entities: Sequence[Entity]) -> None:
        """Nothing: the engine keeps nothing between its runs."""

    @property
    def supports_batch(self) -> bool:
        """True: Feast hands in all views at once, so that one that fails keeps none of the others from being done."""
        return True

    def materialize(self, registry: BaseRegistry, tasks: Any, **kwargs: Any) -> list[MaterializationJob]:
        """One job for each task, in order. Feast raises the first error; the others are logged here."""
        jobs: list[MaterializationJob] = super().materialize(registry, tasks, **kwargs)
        for job in [job for job in jobs if job.error() is not None][1:]:
            LOGGER.error("%s", job.error())
        return jobs

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any) -> HeadraceJob:
        try:
            work = Work(registry, task, self.repo_config, self.offline_store, self.online_store, self.options)
            materialize_view(work)
        except Exception as error:  # every failure of a view is its job's
            return HeadraceJob(task, _named(task, error))
        return HeadraceJob(task)

    def get_historical_features(self, registry: BaseRegistry, task: HistoricalRetrievalTask) -> Any:
        """As Feast's local engine does it; Feast itself asks its offline store and no engine."""
        local = LocalComputeEngine(
            repo_config=self.repo_config, offline_store=self.offline_store, online_store=self.online_store
        )
        return local.get_historical_features(registry, task)


def materialize_view(work: Work) -> None:
    """Read a task's rows and write them.

    Raises:
        HeadraceError: it cannot be done. Any other error of Feast's stores, of a view's function, of DuckDB.
    """
    if not (work.view.online or work.view.offline):
        return
    for reader in READERS:
        opened = reader(work)
        if opened is not None:
            with opened as reading, _progress(work, reading.rows) as progress:
                write_rows(work, reading, progress)
            return


@contextmanager
def _progress(work: Work, rows: int | None) -> Iterator[Progress]:
    """Feast's progress bar, with the view's name."""
    if work.task.tqdm_builder is None:
        yield lambda rows: None
        return
    bar = work.task.tqdm_builder(rows or 0)
    try:
        bar.set_description(work.view.name)
        yield bar.update
    finally:
        bar.close()


def _named(task: MaterializationTask, error: Exception) -> MaterializeError:
    """The error with the view's name in front."""
    span = f"from {task.start_time} to {task.end_time}"
    kind = "" if isinstance(error, MaterializeError) else f"{type(error).__name__}: "
    named = MaterializeError(f"Feature view '{task.feature_view.name}' is not materialized {span}: {kind}{error}")
    named.__cause__ = error
    return named
