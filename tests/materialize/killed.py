"""A process that fills a store and dies of kill -9: python -m tests.materialize.killed LOG STORE MOMENT WRITE

It tells each step as it comes. MOMENT is "before" or "after" the batch of that number, or "never": then it waits at the
end to be killed.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from tests.materialize.filling import Hindered, HinderedRows

from headrace.materialize.online import Step, fill
from headrace.stores.filling import filling
from headrace.stores.offline import OfflineLog
from headrace.stores.opening import open_online
from headrace.stores.testing import Visits

BATCH = 100


class Deadly(Hindered):
    """A store whose process dies before or after a batch: after it, some of its rows may be on their way."""

    def __init__(self, store: Any, moment: str, number: int) -> None:
        super().__init__(store, -1, lambda: None)
        self.moment, self.number = moment, number

    def filling(self, view: Any) -> Any:
        return DeadlyRows(self, filling(self.store, view))

    def die(self, moment: str) -> None:
        if moment == self.moment and self.calls == self.number:
            os.kill(os.getpid(), signal.SIGKILL)


class DeadlyRows(HinderedRows):
    owner: Deadly

    def write(self, rows: Any) -> None:
        self.owner.hinder()
        self.owner.die("before")
        self.rows.write(rows)
        self.owner.die("after")


def told(step: Step) -> None:
    print("step", step.done, flush=True)


if __name__ == "__main__":
    log, place, moment, number = sys.argv[1:]
    store = Deadly(open_online(place, expire=False), moment, int(number))
    fill(store, Visits, log=OfflineLog(log), batch_rows=BATCH, progress=told)
    sys.stdin.read()
