"""A Redis store whose commands can be held back and arrive later, as those of a stalled connection do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.stores.redis import RedisStore


class LateStore(RedisStore):
    """While `hold` is set, what is sent is kept instead, and the call times out; `arrive` sends what was kept last."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.hold = False
        self.held: list[tuple[Any, ...]] = []
        self._really = self._talk.send
        self._talk.send = self._send_or_hold  # type: ignore[method-assign]

    def _send_or_hold(self, commands: Sequence[tuple[Any, ...]], together: bool) -> list[Any]:
        if self.hold:
            self.held = list(commands)
            raise TimeoutError("timed out")
        return self._really(commands, together)

    def arrive(self) -> list[Any]:
        """The server's answers to what was held back."""
        held, self.held = self.held, []
        return self._really(held, False)
