"""Who watches a lookup client: told of every answer, failure and retry, for metrics and feature logs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from headrace.features.services import FeatureService
    from headrace.serving.asking import Plan, Question
    from headrace.serving.table import FeatureTable

_log = logging.getLogger("headrace.serving")


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a client answered.

    Attributes:
        plan: what was asked for; one object for every call that asks for the same. service: None for a list of
            features. table: the answer; its `entities` are the keys asked. request: values given along, by name.
        seconds: of the whole call. trace: of the call, as `features(trace=)` was given it.
    """

    plan: Plan
    service: FeatureService | None
    table: FeatureTable
    request: Mapping[str, Sequence[Any]]
    seconds: float
    trace: str | None


class Watcher(Protocol):
    """Called in the caller's thread, by several threads at a time, before the call returns: it must return at once.
    What it raises never spoils an answer: it is logged the first time and counted (`Client.watcher_failures`)."""

    def answered(self, answer: Answer) -> None:
        """A call of `features` was answered, perhaps without some views (`answer.table.failures`)."""
        ...

    def failed(self, shown: str, error: Exception, seconds: float, trace: str | None) -> None:
        """A call of `features` raised an error. A task that was cancelled is no failure.

        Args:
            shown: the plan's name, or "A lookup" when what was asked for is not known.
        """
        ...

    def retried(self) -> None:
        """A call is made again within the retry budget."""
        ...


class Watchers:
    """Several watchers, told one after the other.

    Attributes:
        failures: how often one of them raised an error.
    """

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = tuple(watchers)
        self.failures = 0

    def call(self, trace: str | None) -> WatchedCall | None:
        """One call that begins now; None when nobody watches."""
        return WatchedCall(self, time.perf_counter(), trace) if self._watchers else None

    def retried(self) -> None:
        self.tell(lambda each: each.retried())

    def tell(self, say: Callable[[Watcher], None]) -> None:
        for each in self._watchers:
            try:
                say(each)
            except Exception as error:  # a watcher must never spoil an answer
                self.failures += 1
                if self.failures == 1:
                    _log.error(
                        "A watcher of lookups failed: %r. Later failures are only counted.", each, exc_info=error
                    )


@dataclass(frozen=True, slots=True, eq=False)
class WatchedCall:
    """A call under way; `began` is of `time.perf_counter`."""

    watchers: Watchers
    began: float
    trace: str | None

    def answered(self, question: Question, table: FeatureTable) -> None:
        spent, plan = time.perf_counter() - self.began, question.plan
        answer = Answer(plan, plan.service, table, question.request, spent, self.trace)
        self.watchers.tell(lambda each: each.answered(answer))

    def failed(self, plan: Plan | None, error: Exception) -> None:
        spent, shown = time.perf_counter() - self.began, "A lookup" if plan is None else plan.shown
        self.watchers.tell(lambda each: each.failed(shown, error, spent, self.trace))
