"""What `POST /push` and `POST /write-to-online-store` hand their requests to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Pushes(Protocol):
    """Takes rows and events that callers push."""

    async def push(self, body: bytes, trace: str) -> Mapping[str, Any]:
        """Take what a request pushes; it returns when that is kept.

        Args:
            body: the request's, JSON, within the server's limit. trace: the request's id.

        Returns:
            what is answered, with status 200.

        Raises:
            Problem: ends the request with that status. DataError and DefinitionError: 422, in their own words.
            UnreachableError: 503.
        """

    async def write(self, body: bytes, trace: str) -> Mapping[str, Any]:
        """As `push`, for what a Feast client sends to `/write-to-online-store`: rows of a feature view."""

    def openapi(self) -> Mapping[str, Any]:
        """Path -> path item for `/openapi.json`, for "/push" and "/write-to-online-store": the `post` operation with
        schemas, examples and every status that it gives; those of all routes (400, 401, 413, 415 ...) are added."""
