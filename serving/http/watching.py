"""Who watches the HTTP server: told of every request as it begins and ends."""

from __future__ import annotations

from typing import Protocol


class ServerWatcher(Protocol):
    """Is told of requests, in the thread of the event loop: every method must return at once.

    `route` is the path of a known route ("/get-online-features"), or "other" for any path that nobody serves, so that
    its values are bounded.
    """

    def began(self, route: str) -> None:
        """The head of a request has come."""

    def ended(
        self,
        route: str,
        method: str,
        status: int,
        seconds: float,
        bytes_in: int,
        bytes_out: int,
        trace: str,
    ) -> None:
        """Its answer was sent, or its connection is gone. Called once for each `began`.

        Args:
            status: of the answer; 499 when the client left before it had one. seconds: from the head to the last byte
                that was handed over. bytes_in: of the request's body. bytes_out: of the answer's. trace: its id.
        """

    def refused(self, reason: str) -> None:
        """A request was refused, besides its `ended`.

        Args:
            reason: one of a fixed list: "unauthorized", "too_large", "too_many_entities", "too_many_features",
                "malformed", "unknown", "timeout", "unreachable".
        """


class Unwatched:
    """Nobody watches."""

    def began(self, route: str) -> None: ...

    def ended(
        self,
        route: str,
        method: str,
        status: int,
        seconds: float,
        bytes_in: int,
        bytes_out: int,
        trace: str,
    ) -> None: ...

    def refused(self, reason: str) -> None: ...
