"""Right requests that were changed at random get an answer or a reason, never the server's own failure."""

import json
import random
from collections import Counter
from typing import Any

from tests.serving.http.asgi import ask

RIGHT: list[dict[str, Any]] = [
    {"features": ["visits:total"], "entities": {"user": ["a"]}},
    {"feature_service": "pricing", "entities": {"user": ["a"], "shop": [1]}, "request": {"amount": [1.0]}},
    {"features": ["every_type"], "entities": {"user": ["full"], "shop": [1], "token": ["dA=="]}},
]
FIELDS = [
    "features",
    "feature_service",
    "entities",
    "full_feature_names",
    "request",
    "at",
    "feast_statuses",
    "user",
    "x",
]
ODD: list[Any] = [
    *(None, True, 0, -1, 2**63, 2**64, 10**400, 1.5, 1e308, "", "a", "\0", "\U0001f600", "pricing", "visits:total"),
    *([], {}, [None], [[]], {"a": [1]}, {"user": ["a"]}, ["visits:total"] * 2, ["visits:"], [":"]),
    *("2026-01-01T00:00:00Z", "9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00:00+23:59"),
]


def changed(draw: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and draw.random() < 0.9:
        value = dict(value)
        kind = draw.random()
        if kind < 0.15 and value:
            value.pop(draw.choice(list(value)))
        elif kind < 0.35 or not value:
            value[draw.choice(FIELDS)] = draw.choice(ODD)
        else:
            name = draw.choice(list(value))
            value[name] = changed(draw, value[name])
        return value
    if isinstance(value, list) and value and draw.random() < 0.7:
        at = draw.randrange(len(value))
        return [*value[:at], changed(draw, value[at]), *value[at + 1 :]]
    return [*value, draw.choice(ODD)] if isinstance(value, list) else draw.choice(ODD)


def test_no_request_makes_the_server_fail(app: Any) -> None:
    draw, statuses = random.Random(5), Counter[int]()
    for _ in range(2000):
        asked: Any = draw.choice(RIGHT)
        for _ in range(draw.randint(0, 2)):
            asked = changed(draw, asked)
        body = bytearray(json.dumps(asked).encode())
        for _ in range(draw.choice([0, 0, 0, 0, 1, 3])):
            body[draw.randrange(len(body))] = draw.randrange(256)
        accept = draw.choice(["*/*", "application/vnd.apache.arrow.stream"])
        answer = ask(app, "POST", "/get-online-features", bytes(body), {"accept": accept})
        assert answer.status < 500, body
        if answer.status != 200:
            assert answer.json["detail"], body
        statuses[answer.status] += 1
    assert set(statuses) == {200, 400, 404, 422}
    assert statuses[200] > 300
