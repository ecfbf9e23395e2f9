"""How far an online store has been filled from a log: a mark in the store itself, so that both are lost together.

A mark is one instant: of every entity whose newest row is at or before it, the store has that row or a newer one. It is
the position of a writer (headrace.stores.online) named after the view, its definition and the parts of the log, so that
whatever makes former rows unlike those of now (another definition, a log made anew, a part that has joined) begins from
nothing.
"""

from __future__ import annotations

import hashlib
import time

from headrace.stores.errors import FencedError
from headrace.stores.layout import row_layout
from headrace.stores.manifest import Manifest
from headrace.stores.online import Portion, PositionedStore, Reached, View, filling_prefix


class LostError(Exception):
    """The store no longer holds what this run has written; begin again."""


class Mark:
    """The mark of one view in one store, taken over by this run: an earlier run that still goes on is told so.

    Args:
        anew: forget what there is, so that this run begins from nothing, and one that goes on after it was killed too.

    Attributes:
        at_us: how far the store has been filled; None: it never was, or what it was filled with counts no more.
    """

    def __init__(self, store: PositionedStore, view: View, manifest: Manifest, *, anew: bool = False) -> None:
        self._store = store
        self._view = row_layout(view).view
        self._writer = mark_name(view, manifest)
        self._epoch = time.time_ns() // 1000
        if anew:
            store.forget_writers(filling_prefix(self._view))
        reached = self._take_over()
        if reached is None and not anew:  # what other definitions or logs left is of no use any more
            store.forget_writers(filling_prefix(self._view))
            reached = self._take_over()
        self.at_us = None if reached is None else reached.position

    def _take_over(self) -> Reached | None:
        try:
            return self._store.take_over(self._writer, self._epoch)
        except FencedError as error:
            raise FencedError(
                f"View '{self._view}' of {self._store!r} was filled by a run that began later than now, by the clock "
                "of its machine. Mend the clock that is wrong, or write everything anew: `headrace materialize --all`, "
                "fill(..., everything=True)."
            ) from error

    def move(self, us: int | None) -> None:
        """Say that every row up to `us` is in the store; call it after they were written. It never goes back; None
        leaves it where it is, and still asks the store.

        Raises:
            FencedError: another run fills this view of the store.
            LostError: the store lost what was written, such as a server that was started again without its data.
        """
        us = max((each for each in (us, self.at_us) if each is not None), default=None)
        if us is None:  # a writer that has no position yet, and gets none now
            return
        (told,) = self._store.write_portions([Portion(self._writer, self._epoch, us, us)])
        if told == "fenced":
            raise FencedError(
                f"View '{self._view}': another run fills {self._store!r} from the same log since. Let that one end; "
                "what this one has written is right and stays."
            )
        if told == "lost":
            raise LostError
        self.at_us = us


def mark_name(view: View, manifest: Manifest) -> str:
    """The name of the writer that stands for a view filled from a log as of this manifest."""
    layout = row_layout(view)
    parts = sorted((part, commit.born) for part, commit in manifest.parts.items() if layout.view in commit.views)
    says = repr(("mark 1", layout.identity, parts)).encode()
    return filling_prefix(layout.view) + hashlib.blake2b(says, digest_size=16).hexdigest()
