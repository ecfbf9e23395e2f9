"""The HTTP stack of `headrace serve` with nothing behind it: a server that reads a request and answers N bytes at /N.

python -m benchmarks.constant_answer PORT [WORKERS]
"""

import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

import uvicorn

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
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", int(port)))
    config = uvicorn.Config(app, lifespan="off", access_log=False, log_level="warning", loop="uvloop", http="httptools")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
