"""Whether the lookup server should be sent requests: its store answers, and nobody has asked it to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from headrace.features.errors import HeadraceError
from headrace.ops.logs import Repeats
from headrace.ops.secrets import redact

EVERY_S = 1.0
WITHIN_S = 2.0


class Asked(Protocol):
    """A store, as far as this is concerned."""

    def clock(self) -> object:
        """Anything that it must be read for."""


class Readiness:
    """Asks the store once a second and remembers what it said, so that `/readyz` costs nothing.

    Args:
        store: is asked in a thread, for it may wait. stopping: whether the server was asked to stop. within_s: how long
            the store may take.
    """

    def __init__(self, store: Asked, stopping: Callable[[], bool], *, within_s: float = WITHIN_S) -> None:
        self._store, self._stopping, self._within_s = store, stopping, within_s
        self._why = "The store was not asked yet."
        self._asking: asyncio.Future[object] | None = None
        self._repeats = Repeats()
        self._log = structlog.get_logger("headrace.server")

    async def __call__(self) -> tuple[str, ...]:
        return self.because()

    def because(self) -> tuple[str, ...]:
        """Every reason why not; none: it is ready."""
        stopping = ("The server is stopping.",) if self._stopping() else ()
        return (*stopping, self._why) if self._why else stopping

    async def look(self) -> None:
        """Asks the store."""
        before = self._why
        if self._asking is None:  # one that hangs is waited for, and not asked once more
            self._asking = asyncio.ensure_future(asyncio.to_thread(self._store.clock))
        try:
            async with asyncio.timeout(self._within_s):
                await asyncio.shield(self._asking)
            self._why = ""
        except TimeoutError:
            self._why = f"The store did not answer within {self._within_s:g} s."
        except (HeadraceError, OSError) as error:
            self._why = redact(f"The store fails: {error}")
        if self._asking.done():
            self._asking = None
        if self._why:
            held = self._repeats.allow(self._why)
            if held is not None:
                self._log.warning("the store cannot be read", why=self._why, **({"repeated": held} if held else {}))
        elif before:
            self._log.info("the store answers")
