"""One id per request, from the caller where it gives one, in the answer and in every log line of the request."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from contextvars import ContextVar

TRACE: ContextVar[str | None] = ContextVar("TRACE", default=None)
"""The id of the request that is being answered; None outside of requests."""

_GIVEN = re.compile(rb"[\x21-\x7e]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def trace_of(headers: Mapping[bytes, bytes]) -> str:
    """The id of a request: its `X-Request-Id` if that is 1 to 128 printable characters without blanks, else the trace
    id of its `traceparent` (W3C Trace Context), else a new one of 32 hex digits.

    >>> trace_of({b"x-request-id": b"order-17"})
    'order-17'
    >>> trace_of({b"traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
    '4bf92f3577b34da6a3ce929d0e0e4736'
    """
    given = headers.get(b"x-request-id")
    if given is not None and _GIVEN.fullmatch(given):
        return given.decode("ascii")
    parent = headers.get(b"traceparent")
    if parent is not None and (found := _TRACEPARENT.fullmatch(parent)) and set(found[1]) != {48}:  # all zero: none
        return found[1].decode("ascii")
    return f"{random.getrandbits(128):032x}"
