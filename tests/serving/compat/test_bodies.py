"""Bodies that are broken, huge or of another form get a 4xx that says what and where; the server goes on."""

import json
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import SLOW_IS_FINE
from tests.serving.compat.hostile import BODY, GOOD, JSONS, good
from tests.serving.compat.serving import Address
from tests.serving.compat.views import Drivers

VISITOR = {"user": ["a"], "shop": [1]}

BODIES: list[tuple[Any, int, str | None]] = [
    # No JSON
    (b"", 400, None),
    (b"{", 400, None),
    (b'{"entities":', 400, None),
    (b"nonsense", 400, None),
    (b'{"entities": {"user": ["a"]}} {}', 400, None),
    (b"{'entities': {}}", 400, None),
    (b'{"entities": NaN}', 400, None),
    (b'\xff\xfe{"entities"', 400, None),
    (b'{"entities": {"user": ["\xff"]}}', 400, None),
    (b'{"entities": {"user": ["\xed\xa0\x80"]}}', 400, None),
    (json.dumps(GOOD).encode("utf-16"), 400, None),
    (b"\x00" * 100, 400, None),
    (b'{"a":' * 100_000, 400, None),
    (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, None),
    # JSON of another form
    (b"[]", 422, None),
    (b"[" * 500_000, 422, None),
    (b"null", 422, None),
    (b"7", 422, None),
    (b'"features"', 422, None),
    (b"{}", 422, "entities"),
    ({"features": ["drivers:visits"]}, 422, "entities"),
    (good(entities=None), 422, "entities"),
    (good(entities=[]), 422, "entities"),
    (good(entities=[{"user": "a"}]), 422, "entities"),
    (good(entities={"user": "a"}), 422, "entities.user"),
    (good(entities={"user": None}), 422, "entities.user"),
    (good(entities={"user": {"0": "a"}}), 422, "entities.user"),
    (good(features="drivers:visits"), 422, "features"),
    (good(features={"drivers": ["visits"]}), 422, "features"),
    (good(features=[7]), 422, "features[0]"),
    (good(features=[None]), 422, "features[0]"),
    (good(features=["drivers:visits", ["drivers:most"]]), 422, "features[1]"),
    (good(feature_service=7), 422, "feature_service"),
    (good(full_feature_names="yes"), 422, "full_feature_names"),
    (good(full_feature_names=1), 422, "full_feature_names"),
    (good(request=[]), 422, "request"),
    (good(request={"amount": 3}), 422, "request.amount"),
    (good(at=7), 422, "at"),
    (good(feast_statuses="yes"), 422, "feast_statuses"),
    # Nothing such
    (good(features=["drivers:visit"]), 404, "features[0]"),
    (good(features=["drivers:visits", "driver:visits"]), 404, "features[1]"),
    (good(features=[""]), 404, "features[0]"),
    (good(features=[":"]), 404, "features[0]"),
    (good(features=["drivers:"]), 404, "features[0]"),
    (good(features=["drivers:visits:x"]), 404, "features[0]"),
    (good(features=["drivers:_hidden"]), 404, "features[0]"),
    (good(features=["x" * 100_000]), 404, "features[0]"),
    (good(features=["\x00\u2028\ud83d\ude00"]), 404, "features[0]"),
    (good(feature_service="prizing"), 404, "feature_service"),
    # Of the wrong kind
    (good(features=[]), 422, "features"),
    (good(features=["drivers:visits", "drivers:visits"]), 422, "features"),
    (good(entities={}), 422, "entities"),
    (good(entities={"usr": ["a"]}), 422, "entities.usr"),
    (good(entities={"user": ["a"], "shop": [1]}), 422, "entities.shop"),
    (good(entities={"user": ["a", 7]}), 422, "entities.user[1]"),
    (good(entities={"user": ["a", None]}), 422, "entities.user[1]"),
    (good(entities={"user": [["a"]]}), 422, "entities.user[0]"),
    (good(entities={"user": [True]}), 422, "entities.user[0]"),
    (good(features=["shops:visits"], entities={"shop": ["7"]}), 422, "entities.shop[0]"),
    (good(features=["shops:visits"], entities={"shop": [7.5]}), 422, "entities.shop[0]"),
    (good(features=["shops:visits"], entities={"shop": [7.0]}), 422, "entities.shop[0]"),
    (good(features=["shops:visits"], entities={"shop": [True]}), 422, "entities.shop[0]"),
    (good(features=["shops:visits"], entities={"shop": [2**63]}), 422, "entities.shop[0]"),
    (good(features=["shops:visits"], entities={"shop": [-(2**63) - 1]}), 422, "entities.shop[0]"),
    (good(features=["shops:visits"], entities={"shop": [10**400]}), 422, "entities.shop[0]"),
    (b'{"features":["shops:visits"],"entities":{"shop":[1e999]}}', 422, "entities"),
    (good(features=["pairs"], entities={"user": ["a"], "shop": [1, 2]}), 422, "entities"),
    (good(features=["pairs"], entities={"user": ["a"]}), 422, "entities"),
    ({"features": ["every_type"], "entities": {**VISITOR, "token": ["?"]}}, 422, "entities.token[0]"),
    ({"features": ["every_type"], "entities": {**VISITOR, "token": [7]}}, 422, "entities.token[0]"),
    (good(request={"amount": [1.0]}), 422, "request.amount"),
    (good(at="yesterday"), 422, "at"),
    (good(at="2026-01-01T00:00:00"), 422, "at"),
    # Too many
    (good(entities={"user": ["a"] * 1001}), 422, "entities.user"),
    (good(entities={"user": ["a"] * 100_000}), 422, "entities.user"),
    (good(features=["drivers:visits"] * 51), 422, "features"),
    (good(entities={"user": ["a" * (1 << 20)]}), 413, None),
]  # fmt: skip


def shown(case: Any) -> str:
    text = case if isinstance(case, bytes) else json.dumps(case).encode()
    return text[:60].decode("latin-1").encode("unicode_escape").decode()


@pytest.mark.parametrize(("body", "status", "field"), BODIES, ids=[shown(body) for body, _, _ in BODIES])
def test_bodies(bounded_server: Address, body: Any, status: int, field: str | None) -> None:
    reply = bounded_server.ask(body)
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    said = reply.json
    assert said.get("field") == field, said
    assert len(said["detail"]) > 20
    assert len(reply.body) < 8_000
    assert said["trace"] == reply.headers["x-request-id"]


PRICED: list[tuple[dict[str, Any], str]] = [
    ({}, "request"),
    ({"request": {}}, "request"),
    ({"request": {"amount": []}}, "request"),
    ({"request": {"amount": [1.0, 2.0]}}, "request"),
    ({"request": {"amount": ["1"]}}, "request.amount[0]"),
    ({"request": {"amount": [{}]}}, "request.amount[0]"),
    ({"request": {"amount": [True]}}, "request.amount[0]"),
    ({"request": {"amount": [1.0], "amuont": [1.0]}}, "request.amuont"),
    ({"request": {"amount": [1.0]}, "entities": {"user": ["a"], "shop": [1], "amount": [1.0]}}, "request.amount"),
]


@pytest.mark.parametrize(("changed", "field"), PRICED, ids=[shown(changed) for changed, _ in PRICED])
def test_request_data(bounded_server: Address, changed: dict[str, Any], field: str) -> None:
    asked = {"feature_service": "pricing", "entities": {"user": ["a"], "shop": [1]}, **changed}
    reply = bounded_server.ask(asked)
    assert (reply.status, reply.json.get("field")) == (422, field), reply.body


def test_what_is_odd_but_right(bounded_server: Address) -> None:
    for body in (
        b'{"entities":{"user":["b"]},"features":["drivers:visits"],"entities":{"user":["a"]}}',  # the last counts
        b'\n\t {"features" : ["drivers:visits"],"entities":{"user":["a"]}}\r\n ',
        b'{"features":["drivers:visits"],"entities":{"user":["\\u0061"]},"unknown":{"deep":[[[[1]]]]}}',
    ):
        reply = bounded_server.ask(body)
        assert (reply.status, reply.json["results"][0]["values"]) == (200, ["a"])
    for user in ("", "\x00", "\u2028", "\U0001f600", "x" * 100_000, "ключ"):
        assert bounded_server.ask(good(entities={"user": [user]})).json["results"][0]["values"] == [user]
    for shop in (2**63 - 1, -(2**63)):
        reply = bounded_server.ask(good(features=["shops:visits"], entities={"shop": [shop]}))
        assert (reply.status, reply.json["results"][0]["values"]) == (200, [shop])
    none = bounded_server.ask(good(entities={"user": []})).json
    assert [column["values"] for column in none["results"]] == [[], []]


def test_many_bad_and_good_requests_at_once(bounded_server: Address) -> None:
    wrong: list[str] = []

    def ask(seed: int) -> None:
        for at in range(seed, seed + 40):
            body, status, _ = BODIES[at * 7 % len(BODIES)]
            if bounded_server.ask(body).status != status:
                wrong.append(shown(body))
            if bounded_server.ask(good(entities={"user": [f"u{at}"]})).json["results"][0]["values"] != [f"u{at}"]:
                wrong.append(f"u{at}")

    threads = [threading.Thread(target=ask, args=(at * 100,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


REFS = st.sampled_from([f"drivers:{name}" for name in Drivers.__view__.feature_names()] + ["shops", "pairs:paid"])
FIELDS = {
    "entities": JSONS | st.dictionaries(st.sampled_from(["user", "shop", "amount"]), st.lists(JSONS, max_size=3)),
    "features": JSONS | st.lists(REFS | st.text(max_size=8), max_size=4),
    "feature_service": JSONS | st.sampled_from(["plain", "pricing"]),
    "full_feature_names": JSONS,
    "request": JSONS | st.fixed_dictionaries({"amount": st.lists(st.floats(allow_nan=False) | JSONS, max_size=3)}),
    "at": JSONS | st.datetimes().map(str) | st.just("2026-01-01T00:00:00Z"),
    "feast_statuses": JSONS,
}
ASKED = st.fixed_dictionaries({}, optional=FIELDS).map(lambda body: json.dumps(body).encode())  # type: ignore[arg-type]


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A request whose bytes were changed here and there."""
    body = bytearray(draw(ASKED | st.just(BODY)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(body) - 1, 0)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


@settings(max_examples=300, suppress_health_check=[*SLOW_IS_FINE, HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=60) | ASKED | mangled())
def test_any_bytes_are_answered_or_refused(bounded_server: Address, body: bytes) -> None:
    reply = bounded_server.ask(body)
    assert reply.status in (200, 400, 404, 422), (reply.status, reply.body)
    said = reply.json
    assert "results" in said if reply.status == 200 else said["detail"]
