"""Limits, keys and ids of requests, and who is told of them."""

from typing import Any

import pytest
from tests.serving.http.asgi import ask, look_up

from headrace.features.errors import DataError
from headrace.serving.http import ServerSettings
from headrace.serving.http.tracing import TRACE

TOTAL = {"features": ["visits:total"], "entities": {"user": ["a"]}}
SMALL = ServerSettings(body_bytes=100, entities=2, features=1)


class Seen:
    """A watcher that keeps what it was told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[tuple[Any, ...]] = []
        self.reasons: list[str] = []

    def began(self, route: str) -> None:
        self.begun.append(route)

    def ended(
        self, route: str, method: str, status: int, seconds: float, bytes_in: int, bytes_out: int, trace: str
    ) -> None:
        assert seconds >= 0
        self.done.append((route, method, status, bytes_in, bytes_out, trace))

    def refused(self, reason: str) -> None:
        self.reasons.append(reason)


def test_a_body_over_the_limit(app_with: Any) -> None:
    app = app_with(SMALL)
    told = ask(app, "POST", "/get-online-features", b"x", {"content-length": "101"}, pieces=[])
    assert (told.status, "connection" in told.headers) == (413, False)
    assert "101 bytes, the server's limit is 100" in told.json["detail"]
    huge = ask(app, "POST", "/get-online-features", b"x", {"content-length": "9" * 5000}, pieces=[])
    assert (huge.status, huge.headers["connection"]) == (413, "close")
    assert look_up(app, b" " * 101).status == 413


def test_a_body_in_pieces_is_stopped_at_the_limit(app_with: Any) -> None:
    app, piece = app_with(SMALL), {"type": "http.request", "body": b" " * 60, "more_body": True}
    answer = ask(app, "POST", "/get-online-features", pieces=[piece, piece])  # a third would never come
    assert (answer.status, answer.headers["connection"]) == (413, "close")


def test_a_body_in_pieces_is_put_together(app: Any) -> None:
    whole = look_up(app, TOTAL)
    data = b'{"features": ["visits:total"], "entities": {"user": ["a"]}}'
    pieces = [{"type": "http.request", "body": data[at : at + 7], "more_body": True} for at in range(0, len(data), 7)]
    answer = ask(app, "POST", "/get-online-features", pieces=[*pieces, {"type": "http.request"}])
    assert (answer.status, answer.body) == (200, whole.body)


def test_a_body_that_does_not_come(app_with: Any) -> None:
    answer = ask(app_with(ServerSettings(timeout_s=0.01)), "POST", "/get-online-features", pieces=[])
    assert (answer.status, answer.headers["connection"]) == (408, "close")


def test_too_many_entities_and_features(app_with: Any) -> None:
    seen = Seen()
    app = app_with(SMALL, watcher=seen)
    assert look_up(app, TOTAL | {"entities": {"user": ["a", "b"]}}).status == 200
    many = look_up(app, TOTAL | {"entities": {"user": ["a", "b", "c"]}})
    assert (many.status, many.json["field"]) == (422, "entities.user")
    assert "3 values, the server's limit is 2" in many.json["detail"]
    for features in (["visits"], ["visits:total", "visits:visits"]):
        wide = look_up(app, {"features": features, "entities": {"user": []}})
        assert (wide.status, wide.json["field"]) == (422, "features")
    assert seen.reasons == ["too_many_entities", "too_many_features", "too_many_features"]


def test_too_many_values(app_with: Any) -> None:
    app = app_with(ServerSettings(values=4))
    assert look_up(app, {"features": ["visits"], "entities": {"user": ["a"] * 2}}).status == 200
    many = look_up(app, {"features": ["visits"], "entities": {"user": ["a"] * 3}})
    assert (many.status, many.json["field"]) == (422, "entities.user")
    assert "3 entities times 2 features are more than the server's limit of 4 values" in many.json["detail"]


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(DataError, match="entities is 0, expected more than 0"):
        ServerSettings(entities=0)
    with pytest.raises(DataError, match="statuses is 'none', expected 'honest' or 'feast'"):
        ServerSettings(statuses="none")  # type: ignore[arg-type]


def test_without_a_key_nothing_but_health_is_answered(app_with: Any) -> None:
    seen = Seen()
    app = app_with(ServerSettings(keys=["correct horse", "other"]), watcher=seen)
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic other"}, {"x-api-key": ""}):
        answer = ask(app, "POST", "/get-online-features", TOTAL, headers)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="headrace"')
    for path in ("/features", "/openapi.json", "/nothing"):
        assert ask(app, "GET", path).status == 401
    assert set(seen.reasons) == {"unauthorized"}
    for path in ("/healthz", "/health", "/readyz"):
        assert ask(app, "GET", path).status == 200
    for headers in ({"authorization": "bearer correct horse"}, {"x-api-key": "other"}):
        assert ask(app, "POST", "/get-online-features", TOTAL, headers).status == 200


def test_keys_are_not_kept() -> None:
    settings = ServerSettings(keys=["correct horse", ""])
    assert repr(settings.accepted) == "Keys(1 accepted)"
    assert "horse" not in repr(settings)
    assert ServerSettings(keys=[""]).accepted is None


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"x-request-id": "order-17"}, "order-17"),
        ({"x-request-id": "a" * 128}, "a" * 128),
        (
            {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
            "4bf92f3577b34da6a3ce929d0e0e4736",
        ),
        ({"x-request-id": "a" * 129}, None),
        ({"x-request-id": "two words"}, None),
        ({"x-request-id": "caf\u00e9"}, None),
        ({"x-request-id": ""}, None),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": "00-nothing"}, None),
        ({}, None),
    ],
)
def test_ids_of_requests(app: Any, headers: dict[str, str], trace: str | None) -> None:
    found = ask(app, "GET", "/healthz", headers=headers).headers["x-request-id"]
    if trace is None:
        assert len(found) == 32
        assert int(found, 16) >= 0
        assert ask(app, "GET", "/healthz", headers=headers).headers["x-request-id"] != found
    else:
        assert found == trace


def test_the_id_reaches_what_is_called(app_with: Any) -> None:
    told: list[str | None] = []

    async def readiness() -> tuple[str, ...]:
        told.append(TRACE.get())
        return ("The online store does not answer.",)

    answer = ask(app_with(readiness=readiness), "GET", "/readyz", headers={"x-request-id": "probe"})
    assert (answer.status, answer.json) == (503, {"ok": False, "because": ["The online store does not answer."]})
    assert told == ["probe"]


def test_the_watcher_is_told_of_every_request_once(app_with: Any) -> None:
    seen = Seen()
    app = app_with(watcher=seen)
    answer = look_up(app, TOTAL, x_request_id="1")
    ask(app, "GET", "/nowhere", headers={"x-request-id": "2"})
    ask(app, "HEAD", "/healthz", headers={"x-request-id": "3"})
    left = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    assert ask(app, "POST", "/get-online-features", headers={"x-request-id": "4"}, pieces=left).status == 0
    assert seen.begun == ["/get-online-features", "other", "/healthz", "/get-online-features"]
    body = b'{"features": ["visits:total"], "entities": {"user": ["a"]}}'
    done = [each[:4] + each[5:] for each in seen.done]
    assert done == [
        ("/get-online-features", "POST", 200, len(body), "1"),
        ("other", "GET", 404, 0, "2"),
        ("/healthz", "HEAD", 200, 0, "3"),
        ("/get-online-features", "POST", 499, 1, "4"),
    ]
    assert [each[4] for each in seen.done][0::2] == [len(answer.body), 0]
    assert seen.reasons == ["unknown"]
