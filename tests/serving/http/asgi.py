"""An ASGI application asked in process, without sockets."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_constant=_no_json)


def _no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def ask(
    app: Any,
    method: str,
    path: str,
    body: Any = b"",
    headers: dict[str, str] | None = None,
    pieces: Iterable[dict[str, Any]] | None = None,
) -> Answered:
    """One request; `body` is bytes or what is written as JSON.

    Args:
        pieces: the messages of the body, instead of one with all of it; after the last nothing comes.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    waiting = list(pieces) if pieces is not None else [{"type": "http.request", "body": data, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
    }
    asyncio.run(app(scope, receive, send))
    if not sent:
        return Answered(0, {}, b"")
    start, *rest = sent
    found = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Answered(start["status"], found, b"".join(each.get("body", b"") for each in rest))


def look_up(app: Any, body: Any, **headers: str) -> Answered:
    """POST /get-online-features."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(app, "POST", "/get-online-features", body, named)
