"""The HTTP stack of `headrace serve` with nothing behind it: a server that reads a request and answers N bytes at /N.

python -m benchmarks.constant_answer PORT [WORKERS]
"""

import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

from headrace.ops.http_server import HttpServer
from headrace.ops.server_address import listening

Message = MutableMapping[str, Any]


@lru_cache
def answer(path: str) -> tuple[Message, Message]:
    size = int(path[1:])
    headers = [(b"content-type", b"application/json"), (b"content-length", str(size).encode())]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    return start, {"type": "http.response.body", "body": b" " * size}


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    while (await receive()).get("more_body"):
        pass
    for message in answer(scope["path"]):
        await send(message)


def main(port: str, workers: str = "1") -> None:
    for _ in range(int(workers) - 1):
        if os.fork() == 0:
            break
    HttpServer(app).run(listening("127.0.0.1", int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
