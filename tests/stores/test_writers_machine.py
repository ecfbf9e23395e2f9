"""Two processes that want to be one writer, on a Redis that loses its data, with portions that arrive late.

A model says of each portion what becomes of it, and which row is there. A row that was written is never replaced by one
that was sent before it, whatever was under way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.servers.redis import RedisServer
from tests.stores.late import LateStore
from tests.stores.test_machine import PACE

from headrace.stores.errors import FencedError, UnreachableError
from headrace.stores.online import Portion, Reached
from headrace.stores.testing import AT, Visits, row, rows_of

WHO = st.sampled_from([0, 1])
KEY = {"user": "a"}


@dataclass
class Kept:
    """What the model holds of the writer: who has it with which epoch, and how far it has come."""

    owner: int
    epoch: int
    position: int | None = None


class WritersMachine(RuleBasedStateMachine):
    server: RedisServer
    layout: Literal["feast", "packed"]

    def __init__(self) -> None:
        super().__init__()
        with self.server.client() as client:
            client.flushall()
        self.stores = [LateStore(self.server.url, layout=self.layout) for _ in range(2)]
        self.kept: Kept | None = None
        self.mine: list[int | None] = [None, None]  # the epoch that each took over
        self.lost = [False, False]  # whether each has written something that is gone
        self.held: list[tuple[int, Portion, int] | None] = [None, None]
        self.row: tuple[int, int] | None = None
        self.epoch = self.position = self.number = 0

    @initialize()
    def begin(self) -> None:
        self.take_over(0, True)

    @rule(who=WHO, newer=st.booleans())
    def take_over(self, who: int, newer: bool) -> None:
        """With a later epoch, or the same again (after a loss)."""
        self.epoch += newer
        before = self.kept
        assert self.stores[who].take_over("w", self.epoch) == (
            None if before is None or before.position is None else Reached(before.position, AT)
        )
        self.kept = Kept(who, self.epoch, None if before is None else before.position)
        self.mine[who], self.lost[who] = self.epoch, False
        self.held = [None, None]  # whatever is under way has become void

    @precondition(lambda self: self.epoch > 1 and self.kept is not None)
    @rule(who=WHO)
    def take_over_with_an_epoch_that_has_passed(self, who: int) -> None:
        with pytest.raises(FencedError):
            self.stores[who].take_over("w", self.epoch - 1)

    def _portion(self, who: int, at: int) -> tuple[Portion, int]:
        self.position += 1
        self.number += 1
        epoch = self.mine[who]
        assert epoch is not None
        rows = rows_of(Visits, [(KEY, row(at, visits=self.number))])
        return Portion("w", epoch, self.position, AT, [(Visits, rows)]), self.number

    def _expected(self, who: int) -> str:
        if self.kept is None or self.kept.epoch < (self.mine[who] or 0):
            return "lost"
        if self.kept.owner != who or self.kept.epoch > (self.mine[who] or 0):
            return "fenced"
        return "lost" if self.lost[who] else "written"

    def _apply(self, portion: Portion, number: int, at: int) -> None:
        assert self.kept is not None
        self.kept.position = portion.position
        if self.row is None or self.row[0] <= at:
            self.row = (at, number)

    @rule(who=WHO, at=st.integers(0, 3))
    def write(self, who: int, at: int) -> None:
        if self.mine[who] is None:
            return
        portion, number = self._portion(who, at)
        expected = self._expected(who)
        assert self.stores[who].write_portions([portion]) == [expected]
        if expected == "written":
            self._apply(portion, number, at)
            self.held[who] = None

    @rule(who=WHO, at=st.integers(0, 3))
    def hold_back(self, who: int, at: int) -> None:
        if self.mine[who] is None:
            return
        portion, number = self._portion(who, at)
        self.stores[who].views()
        self.stores[who].write(Visits, rows_of(Visits, []))  # so that the portion is all that is sent
        self.stores[who].hold = True
        with pytest.raises(UnreachableError):
            self.stores[who].write_portions([portion])
        self.stores[who].hold = False
        self.held[who] = (at, portion, number) if self._expected(who) == "written" else None

    @rule(who=WHO)
    def arrive(self, who: int) -> None:
        """What was held back is written if nothing of its writer came in between, and changes nothing otherwise."""
        if not self.stores[who].held:
            return
        gate = self.stores[who].arrive()[0]
        held, self.held[who] = self.held[who], None
        if held is not None and gate == b"written":
            self._apply(held[1], held[2], held[0])
        assert (gate == b"written") == (held is not None)

    @rule()
    def lose_everything(self) -> None:
        with self.server.client() as client:
            client.flushall()
        self.kept, self.row, self.held = None, None, [None, None]
        self.lost = [True, True]

    @invariant()
    def the_row_is_the_models(self) -> None:
        found = self.stores[0].read(Visits, [KEY])[0]
        assert found == (None if self.row is None else row(self.row[0], visits=self.row[1]))

    def teardown(self) -> None:
        for store in self.stores:
            store.close()


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_one_writer_at_a_time(layout: Literal["feast", "packed"], new_redis: Callable[..., RedisServer]) -> None:
    WritersMachine.server, WritersMachine.layout = new_redis(), layout
    run_state_machine_as_test(WritersMachine, settings=settings(PACE, max_examples=25))
