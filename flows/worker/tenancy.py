"""Which partitions a consumer of a group holds, and the task of each: they come, fail, are taken over, and go.

assigned --> task --> revoked, lost                    the group gives and takes
              |  ^
              |  '-- opened again from its checkpoint  a store failed (C15)
              |  '-- taken back                        the process that took it over was late
              v
            failed, fenced: paused, and nothing is read
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import OFFSET_END, TopicPartition

from headrace.features.errors import HeadraceError
from headrace.flows.worker.consuming import Place
from headrace.flows.worker.opening import Workplace, settled_rows
from headrace.flows.worker.task import Task
from headrace.stores.errors import CorruptError, FencedError, SchemaMismatchError, StoreError

REOPEN_S = (0.5, 10.0)
"""How long after a failure a task is opened again: at first, and at most after failing again and again."""
FENCED_S = 10.0
"""A task that another process has taken over leaves us within this time, or it is ours after all."""
FENCES, FENCES_WITHIN_S = 4, 300.0
"""Taken over so often within so long: two flows write the same parts."""


class Tenancy:
    """The tasks of a consumer's partitions.

    Args:
        place: what the worker's tasks share. open: makes the task of a topic's partition. dropped: called with the
            place of each task that is given up.

    Attributes:
        client: the `confluent_kafka.Consumer`, from when there is one. tasks: by place. paused: whether no partition is
            to be read now. assigned_once: whether the group has said anything yet.
    """

    client: Any

    def __init__(self, place: Workplace, open: Callable[[str, int], Task], dropped: Callable[[Place], None]) -> None:
        self._place, self._open, self._dropped = place, open, dropped
        self.tasks: dict[Place, Task] = {}
        self.paused = False
        self.assigned_once = False
        self._failed: dict[Place, tuple[float, int]] = {}
        self._fenced: dict[Place, float] = {}
        self._fences: dict[Place, list[float]] = {}
        self._filler: Task | None = None

    @property
    def whole(self) -> bool:
        """Whether the group has spoken and no task has failed."""
        return self.assigned_once and not self._failed

    @property
    def vacant(self) -> bool:
        """Whether no partition is here."""
        return not (self.tasks or self._failed or self._fenced)

    # The group gives and takes

    def assigned(self, consumer: Any, partitions: list[Any]) -> None:
        """Partitions come: open their tasks, and read on where their checkpoints end."""
        self.assigned_once = True
        given: list[TopicPartition] = []
        waiting: list[TopicPartition] = []
        opened: dict[Place, Task] = {}

        def tried(at: Place, step: Callable[[], None]) -> None:
            try:
                step()
            except FencedError:  # it has been given to another process since: we are told so soon
                self._fence(at)
                waiting.append(TopicPartition(at[0], at[1], OFFSET_END))
            except StoreError as error:
                if _lasts(error):
                    raise
                self._try_later(at, 0, error)
                waiting.append(TopicPartition(at[0], at[1], OFFSET_END))

        def open_(at: Place) -> None:
            opened[at] = self._open(*at)

        def begin(at: Place, task: Task) -> None:
            task.begin()
            self._add(at, task)
            given.append(TopicPartition(at[0], at[1], task.offset))

        # All are ready, with the history of what is new in them, before the first shows a changed view.
        for each in partitions:
            at = (each.topic, each.partition)
            tried(at, partial(open_, at))
        for at, task in opened.items():
            tried(at, partial(begin, at, task))
        consumer.incremental_assign(given + waiting)
        paused = given + waiting if self.paused else waiting
        if paused:
            consumer.pause([TopicPartition(each.topic, each.partition) for each in paused])

    def revoked(self, consumer: Any, partitions: list[Any], leave: Callable[[Sequence[Place]], None]) -> None:
        """Partitions go in good order: `leave` hands over those of their tasks that are here."""
        places = [(each.topic, each.partition) for each in partitions]
        leave([at for at in places if at in self.tasks])
        for at in places:
            self._failed.pop(at, None)
        self._unfence(places)
        _unassign(consumer, partitions)

    def lost(self, consumer: Any, partitions: list[Any]) -> None:
        """The group has given the partitions to others while we were away: nothing of ours counts any more."""
        for each in partitions:
            at = (each.topic, each.partition)
            self._failed.pop(at, None)
            self._unfence([at])
            if at in self.tasks:
                self.drop(at)
        _unassign(consumer, partitions)

    def drop(self, at: Place) -> None:
        """Give a task up; what it has not committed does not count."""
        task = self.tasks.pop(at)
        self._dropped(at)
        task.close_sinks()
        self._place.online.close(task.part)
        self._place.logs.close(task.log)
        self._place.observer.revoked(task.part)

    def _add(self, at: Place, task: Task) -> None:
        self.tasks[at] = task
        self._place.observer.assigned(task.part, *at)

    # Stores fail, and others take over

    def watch(self, now: float) -> None:
        """Give up what has failed or was taken over, and open it again in time; fill a store that has lost rows.

        Raises:
            HeadraceError: a failure that lasts. FencedError: another consumer group writes the same parts.
        """
        for at, task in list(self.tasks.items()):
            failure = task.log.failure
            state = self._place.online.state(task.part)
            if isinstance(failure, FencedError) or state == "fenced":
                self._taken_over(at)
            elif failure is not None:
                self.drop(at)
                tries = self._failed.get(at, (0.0, 0))[1]
                self._failed[at] = (now + min(REOPEN_S[0] * 2**tries, REOPEN_S[1]), tries + 1)
                self.client.pause([TopicPartition(*at)])
            elif state == "lost":
                try:
                    self._refill(task)
                except FencedError:
                    self._taken_over(at)
        for at, (due, tries) in list(self._failed.items()):
            if due <= now:
                self._reopen(at, tries)
        for at, since in list(self._fenced.items()):
            if now - since > FENCED_S:
                self._take_back(at, now)

    def _reopen(self, at: Place, tries: int) -> None:
        try:
            task = self._open(*at)
            task.begin()
        except FencedError:
            del self._failed[at]
            self._fence(at)
            return
        except HeadraceError as error:
            if _lasts(error):
                raise
            self._try_later(at, tries, error)
            return
        del self._failed[at]
        self._place.observer.recovered("log")
        self._add(at, task)
        self.client.seek(TopicPartition(at[0], at[1], task.offset))
        if not self.paused:
            self.client.resume([TopicPartition(*at)])

    def _try_later(self, at: Place, tries: int, error: HeadraceError) -> None:
        """A task that cannot be opened now, as when a disk is full, is opened after a while."""
        self._failed[at] = (time.monotonic() + min(REOPEN_S[0] * 2**tries, REOPEN_S[1]), tries + 1)
        self._place.observer.trouble("log", str(error))

    def _taken_over(self, at: Place) -> None:
        self.drop(at)
        self._fence(at)
        self.client.pause([TopicPartition(*at)])

    def _fence(self, at: Place) -> None:
        """Another process has taken the task of a partition that we have."""
        self._fenced[at] = time.monotonic()
        self._fences.setdefault(at, []).append(self._fenced[at])
        self._place.observer.trouble("task", f"topic '{at[0]}', partition {at[1]} was taken over by another process")

    def _unfence(self, places: Sequence[Place]) -> None:
        """Partitions that others write have left us: all is as it should be."""
        if [at for at in places if self._fenced.pop(at, None) is not None] and not self._fenced:
            self._place.observer.recovered("task")

    def _take_back(self, at: Place, now: float) -> None:
        """A partition that the group still gives to us, though another process had taken its part: the other was
        late.

        Raises:
            FencedError: it happens again and again, so the other is alive and of another group.
        """
        self._fences[at] = [when for when in self._fences.get(at, []) if now - when < FENCES_WITHIN_S]
        if len(self._fences[at]) >= FENCES:
            raise FencedError(
                f"Topic '{at[0]}', partition {at[1]}: another process writes this flow's part, again and again, and is "
                "in another consumer group, since ours still has the partition. Give one of the two flows another "
                "name, or another data folder and project."
            )
        self._unfence([at])
        self._failed[at] = (now, 0)

    def _refill(self, task: Task) -> None:
        observer, online = self._place.observer, self._place.online
        observer.trouble("online store", f"it has lost rows; '{task.part}' writes all of them anew")
        online.open(task.part, task.epoch)
        # One task writes what the log has; if its rows are lost again, it is told and writes them again.
        filler = self._filler
        others = filler is not None and filler is not task and filler in self.tasks.values()
        if filler is not None and others and online.state(filler.part) == "open":
            task.refill({})
        else:
            self._filler = task
            views = {view.name: view for each in self.tasks.values() for view in each.views}
            task.refill(settled_rows(self._place, list(views.values())))
        observer.recovered("online store")


def _unassign(consumer: Any, partitions: list[Any]) -> None:
    """The client remembers what is paused, also of partitions that leave: one that came back would never be read."""
    consumer.resume([TopicPartition(each.topic, each.partition) for each in partitions])
    consumer.incremental_unassign(partitions)


def _lasts(error: HeadraceError) -> bool:
    """Whether an error is there the next time too, so that a person has to look at it."""
    return not isinstance(error, StoreError) or isinstance(error, SchemaMismatchError | CorruptError)
