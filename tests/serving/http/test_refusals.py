"""A request that cannot be answered gets a 4xx that names the field, what was got and what to do."""

import json
import logging
from typing import Any

import pytest
from tests.serving.http.asgi import ask, look_up

from headrace.serving import AsyncClient
from headrace.serving.http import ServerSettings, lookup_app
from headrace.serving.http.seldom import SeldomLog
from headrace.stores.errors import SchemaMismatchError, UnreachableError
from headrace.stores.lookups import Looked
from headrace.stores.memory import MemoryStore
from headrace.stores.testing import ByShop, Visits

USER = {"user": ["a"]}
TOTAL = {"features": ["visits:total"], "entities": USER}
PRICING = {"feature_service": "pricing", "entities": {"user": ["a"], "shop": [1]}, "request": {"amount": [1.0]}}


@pytest.mark.parametrize(
    ("body", "status", "field", "words"),
    [
        ({"features": ["visits:totals"], "entities": USER}, 404, "features[0]", "did you mean 'total'?"),
        ({"features": ["visits:total", "visit:total"], "entities": USER}, 404, "features[1]", "did you mean 'visits'?"),
        (
            {"features": ["every_type:_fading_1"], "entities": USER},
            404,
            "features[0]",
            "No feature of view 'every_type'",
        ),
        (PRICING | {"feature_service": "price"}, 404, "feature_service", "did you mean 'pricing'?"),
        ({"entities": USER}, 422, "features", "No feature was asked for"),
        ({"features": [], "entities": USER}, 422, "features", "No feature was asked for"),
        ({"features": ["visits:total"] * 2, "entities": USER}, 422, "features", "asked for twice"),
        ({"features": ["visits:total"]}, 422, "entities", "missing"),
        ({"features": "visits:total", "entities": USER}, 422, "features", "got str, expected array"),
        ({"features": [1], "entities": USER}, 422, "features[0]", "got int, expected str"),
        (TOTAL | {"full_feature_names": "yes"}, 422, "full_feature_names", "got str, expected bool"),
        (TOTAL | {"entities": {"shop": ["1"], "user": "a"}}, 422, "entities.user", "got str, expected array"),
        (TOTAL | {"entities": ["a"]}, 422, "entities", "got array, expected object"),
        (TOTAL | {"entities": {"users": ["a"]}}, 422, "entities.users", r"expected exactly user (string)"),
        (TOTAL | {"entities": {}}, 422, "entities", r"expected exactly user (string)"),
        (TOTAL | {"entities": {"user": ["a", 7]}}, 422, "entities.user[1]", "'user' is 7 (int), expected string"),
        (TOTAL | {"entities": {"user": ["a", None]}}, 422, "entities.user[1]", "expected string"),
        (TOTAL | {"entities": {"user": [["a"]]}}, 422, "entities.user[0]", "expected string"),
        (PRICING | {"entities": {"user": ["a"], "shop": [1, 2]}}, 422, "entities", "of different lengths"),
        (PRICING | {"entities": {"user": ["a"], "shop": [1.5]}}, 422, "entities.shop[0]", "expected int64"),
        (PRICING | {"entities": {"user": ["a"], "shop": [True]}}, 422, "entities.shop[0]", "expected int64"),
        (PRICING | {"entities": {"user": ["a"], "shop": [2**63]}}, 422, "entities.shop[0]", "does not fit 64 bits"),
        (PRICING | {"request": {}}, 422, "request", "expected exactly amount (float64)"),
        (PRICING | {"request": {"amount": [1], "price": [1]}}, 422, "request.price", "expected exactly amount"),
        (PRICING | {"request": {"amount": [1, 2]}}, 422, "request", "2 values for 1 entities"),
        (PRICING | {"request": {"amount": ["1"]}}, 422, "request.amount[0]", "expected float64"),
        (
            PRICING | {"entities": {"user": ["a"], "shop": [1], "amount": [1]}},
            422,
            "request.amount",
            "given in 'entities' and in 'request'",
        ),
        (TOTAL | {"at": "2026-01-01"}, 422, "at", "has no time zone"),
        (TOTAL | {"at": "noon"}, 422, "at", "is no instant"),
        (TOTAL | {"at": 12}, 422, "at", "got int, expected str"),
        (TOTAL | {"at": "2025-01-01T00:00:00Z"}, 422, "at", "nothing older is kept"),
        (
            {"features": ["every_type"], "entities": {"user": ["a"], "shop": [1], "token": ["?"]}},
            422,
            "entities.token[0]",
            "expected bytes as base64",
        ),
        ([], 422, None, "got array, expected object"),
        (b"null", 422, None, "got null, expected object"),
        (b"", 400, None, "no JSON"),
        (b"{", 400, None, "no JSON"),
        (b'{"entities": {"user": ["\xff"]}}', 400, None, "no JSON"),
        (b'{"entities": {"user": [NaN]}}', 400, None, "no JSON"),
        (b'{"entities": {"user": ' + b"[" * 100_000, 400, None, "nested too deeply"),
        (b'{"entities": {"user": [1e999]}}', 422, "entities", "out of range"),
        (json.dumps(TOTAL).encode() + b"x", 400, None, "no JSON"),
    ],
)
def test_a_wrong_body(app: Any, body: Any, status: int, field: str | None, words: str) -> None:
    answer = look_up(app, body)
    assert (answer.status, answer.json.get("field")) == (status, field), answer.json
    assert words in answer.json["detail"]
    assert answer.json["trace"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"


def test_a_long_value_is_not_sent_back_whole(app: Any) -> None:
    assert len(look_up(app, TOTAL | {"entities": {"u" * 100_000: ["a"]}}).body) < 6_000
    assert len(look_up(app, {"features": ["v" * 100_000], "entities": USER}).body) < 6_000


def test_methods_and_paths(app: Any) -> None:
    refused = ask(app, "GET", "/get-online-features")
    assert (refused.status, refused.headers["allow"]) == (405, "POST, OPTIONS")
    assert ask(app, "HEAD", "/get-online-features").status == 405
    assert ask(app, "POST", "/features").headers["allow"] == "GET, HEAD, OPTIONS"
    allowed = ask(app, "OPTIONS", "/features")
    assert (allowed.status, allowed.headers["allow"], allowed.body) == (204, "GET, HEAD, OPTIONS", b"")
    assert "content-length" not in allowed.headers
    unknown = ask(app, "GET", "/feature")
    assert unknown.status == 404
    assert "did you mean '/features'?" in unknown.json["detail"]
    assert ask(app, "GET", "/\udcff").status == 404
    assert ask(app, "POST", "/push").status == ask(app, "GET", "/metrics").status == 404


def test_head_has_all_but_the_body(app: Any) -> None:
    got, head = ask(app, "GET", "/features"), ask(app, "HEAD", "/features")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", got.headers["content-length"])
    assert int(got.headers["content-length"]) == len(got.body)


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("content-type", "application/json", 200),
        ("content-type", "application/json; charset=UTF-8", 200),
        ("content-type", "Application/Vnd.api+json", 200),
        ("content-type", "application/json; charset=latin-1", 415),
        ("content-type", "application/x-www-form-urlencoded", 415),
        ("content-type", "text/plain", 415),
        ("content-encoding", "gzip", 415),
        ("content-encoding", "identity", 200),
        ("accept", "*/*", 200),
        ("accept", "text/html, application/*;q=0.1", 200),
        ("accept", "text/html", 406),
        ("accept", "application/json;q=0, */*", 200),
        ("accept", "application/json;q=0", 406),
        ("accept", "application/json;q=x", 406),
    ],
)
def test_forms(app: Any, name: str, value: str, status: int) -> None:
    assert ask(app, "POST", "/get-online-features", TOTAL, {name: value}).status == status


class Broken(MemoryStore):
    """A store whose lookups raise."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def look_up(self, asks: Any) -> Looked:
        if len(asks) > 1 or asks[0].layout.view == "visits":
            raise self.error
        return super().look_up(asks)


def test_a_store_that_is_away() -> None:
    app = lookup_app(AsyncClient(Broken(UnreachableError("redis://user:secret@host:6379 is away")), [Visits]))
    answer = look_up(app, TOTAL)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "secret" not in answer.body.decode()


def test_a_store_that_is_late() -> None:
    error = UnreachableError("did not answer within 5 s")
    error.__cause__ = TimeoutError()
    app = lookup_app(AsyncClient(Broken(error), [Visits]), settings=ServerSettings(timeout_s=2.5))
    answer = look_up(app, TOTAL)
    assert answer.status == 504
    assert "within 2.5 s" in answer.json["detail"]


def test_what_is_the_servers_own_fault_is_in_its_log_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.serving.http.problems._log", SeldomLog(logging.getLogger("headrace")))
    for error in (ZeroDivisionError("secret"), SchemaMismatchError("secret")):
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            answer = look_up(lookup_app(AsyncClient(Broken(error), [Visits])), TOTAL)
        assert answer.status == 500
        assert "secret" not in answer.body.decode()
        assert "secret" in caplog.text


def test_a_cause_that_fails_every_request_has_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    at = 0.0
    log = SeldomLog(logging.getLogger("headrace"), 10.0, now=lambda: at)
    for moment in (0.0, 1.0, 9.9, 10.0, 10.1):
        at = moment
        log.write(logging.WARNING, "Away", ValueError(str(moment)))
        log.write(logging.WARNING, "Wrong", KeyError(moment))
    said = [record.getMessage() for record in caplog.records]
    more = " (2 more since the last line of its kind)"
    assert said == ["Away: 0.0", "Wrong: 0.0", f"Away{more}: 10.0", f"Wrong{more}: 10.0"]


def test_a_view_without_its_rows_leaves_a_partial_answer() -> None:
    store = Broken(SchemaMismatchError("secret"))
    app = lookup_app(AsyncClient(store, [Visits, ByShop], on_failure="partial"))
    both = {"features": ["visits:total", "by_shop:visits"], "entities": {"user": ["a"], "shop": [1]}}
    answer = look_up(app, both)
    assert answer.status == 200
    assert answer.json["metadata"]["failures"] == {"visits": "Its rows in the online store are of another definition."}
    total, shop = answer.json["results"][2:]
    assert total == {"values": [None], "statuses": ["INVALID"], "event_timestamps": ["1970-01-01T00:00:00Z"]}
    assert shop["statuses"] == ["NOT_FOUND"]
    feast = look_up(app, both | {"feast_statuses": True}).json["results"][2:]
    assert [each["statuses"] for each in feast] == [["INVALID"], ["PRESENT"]]
    assert look_up(app, TOTAL).status == 500, "of a single view nothing is left"
