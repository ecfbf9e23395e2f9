"""Payloads that can't be events of `Happening`, one of each kind; the flow puts every one aside as malformed."""

from __future__ import annotations

import json

WHOLE = {
    "who": "poison",
    "where_from": 1,
    "id": None,
    "amount": 1.5,
    "units": 2,
    "city": "oslo",
    "paid": True,
    "at": "2026-01-01T00:00:00Z",
}


def _with(**changed: object) -> bytes:
    return json.dumps({**WHOLE, **changed}).encode()


def _without(column: str) -> bytes:
    return json.dumps({name: value for name, value in WHOLE.items() if name != column}).encode()


POISON: dict[str, bytes] = {
    "no JSON": b"hello",
    "cut off": _with()[:-9],
    "two values": _with() + b" " + _with(),
    "two lines": _with() + b"\n" + _with(),
    "an array": b"[1, 2, 3]",
    "a number": b"17",
    "null": b"null",
    "nothing at all": b"",
    "blanks": b"  \n ",
    "an empty object": b"{}",
    "no key": _without("who"),
    "null key": _with(who=None),
    "key of another type": _with(who=7),
    "no time": _without("at"),
    "null time": _with(at=None),
    "time without a zone": _with(at="2026-01-01T00:00:00"),
    "no instant": _with(at="yesterday"),
    "time as a number": _with(at=1_767_225_600),
    "text for a number": _with(amount="much"),
    "a fraction for an integer": _with(units=1.5),
    "an integer beyond 64 bits": _with(units=2**63),
    "text for a truth": _with(paid="yes"),
    "an object for a text": _with(city={"name": "oslo"}),
    "no UTF-8": _with().replace(b"oslo", b"\xff\xfe"),
    "half a surrogate": _with().replace(b"oslo", b"\\ud800"),
    "a NUL byte": _with().replace(b"oslo", b"o\x00lo"),
    "binary": bytes(range(256)),
    "deep": b'{"who": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "long": _with()[:-1] + b', "more": "' + b"x" * 300_000,
}
