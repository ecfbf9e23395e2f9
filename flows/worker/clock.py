"""The flow's clock: the wall's, but not its jumps."""

import time
from collections.abc import Callable

from headrace.features.time import SECOND

JUMP_US = 2 * SECOND
"""A wall clock that is further from where it should be has jumped; nearer, it is being adjusted and is followed."""
BELIEVED_AFTER_S = 60.0
"""How long a jump must last until it is believed."""


class SteadyClock:
    """Microseconds UTC that go on evenly while the wall clock jumps for a moment, and never go back by themselves.

    Values fall as time passes (contract C5), so an hour's jump forward would empty every window at once. The clock
    follows the wall in small steps; when the wall has jumped, it goes on by the monotonic clock until the jump has
    lasted `BELIEVED_AFTER_S`: then the wall was wrong before, and is right now.

    Args:
        wall_ns: nanoseconds UTC. monotonic_ns: nanoseconds of a clock that never jumps.
    """

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall, self._monotonic = wall_ns, monotonic_ns
        self._told = self._wall() // 1000
        self._at = self._monotonic()
        self._jumped_at: int | None = None

    def now_us(self) -> int:
        """The instant it is."""
        at, wall = self._monotonic(), self._wall() // 1000
        expected = self._told + (at - self._at) // 1000
        if abs(wall - expected) <= JUMP_US:
            self._jumped_at = None
            self._told, self._at = max(wall, self._told), at
        elif self._jumped_at is not None and at - self._jumped_at >= BELIEVED_AFTER_S * 1e9:
            self._jumped_at = None
            self._told, self._at = wall, at
        else:
            if self._jumped_at is None:
                self._jumped_at = at
            self._told, self._at = expected, at
        return self._told

    @property
    def jumped(self) -> bool:
        """Whether the wall clock is far from where it should be, and not believed yet."""
        return self._jumped_at is not None
