"""Who does the work of a backfill that can be done side by side: threads here, or the executors of a Spark cluster."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.flows.backfill.site import Site

Job = Callable[[Site], Any]
"""A piece of work. One that was done, wholly or in part, may be done again: it leaves the same."""


class Brief(Protocol):
    """What tells another process what is being done."""

    def __call__(self) -> Site:
        """The site, as seen there."""


@dataclass(frozen=True)
class Here:
    """The brief of those who have the site."""

    site: Site

    def __call__(self) -> Site:
        return self.site


class Crew(Protocol):
    """Does jobs.

    load: gives the views in another process; None: all is done in this one.
    """

    @property
    def load(self) -> Callable[[], Iterable[Any]] | None: ...

    def do(self, brief: Brief, jobs: Sequence[Job], told: Callable[[int], None]) -> list[Any]:
        """What each job gives, in their order.

        brief, jobs: pickled where they go to other processes. told: called with the number of jobs that are done.

        Raises:
            HeadraceError: as a job raises it.
        """


class Threads:
    """Of this process. count: all cores by default."""

    load = None

    def __init__(self, count: int | None = None) -> None:
        self._count = count or os.cpu_count() or 1

    def do(self, brief: Brief, jobs: Sequence[Job], told: Callable[[int], None]) -> list[Any]:
        site = brief()
        with ThreadPoolExecutor(self._count, "headrace-backfill") as pool:
            doing = [pool.submit(job, site) for job in jobs]
            try:
                for done, each in enumerate(as_completed(doing), 1):
                    each.result()
                    told(done)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [each.result() for each in doing]
