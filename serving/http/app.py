"""The ASGI application: routes, who may ask, errors, and one id per request.

    head -> route -> key -> body within the limit -> lookup in one round trip -> JSON or Arrow

Raw ASGI, no framework: of a lookup of one entity a framework's own work is a third (docs/decisions/0014-http-stack.md).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from headrace.features.errors import did_you_mean
from headrace.serving.async_client import AsyncClient
from headrace.serving.http.arrow_wire import arrow_stream
from headrace.serving.http.asked import Choices, parsed
from headrace.serving.http.incoming import ClientLeft, Incoming, Receive, Scope, Send
from headrace.serving.http.negotiating import ARROW, JSON, expect_json, wanted
from headrace.serving.http.openapi import openapi
from headrace.serving.http.problems import Problem, problem_of, unknown
from headrace.serving.http.pushes import Pushes
from headrace.serving.http.served import served
from headrace.serving.http.settings import ServerSettings
from headrace.serving.http.tracing import TRACE, trace_of
from headrace.serving.http.watching import ServerWatcher, Unwatched

Readiness: TypeAlias = Callable[[], Awaitable[tuple[str, ...]]]
"""Why the server is not ready; empty when it is."""

Metrics: TypeAlias = Callable[[str], Awaitable[tuple[str, bytes]]]
"""From an Accept header to a content type and the metrics."""

_encode = msgspec.json.Encoder().encode
_JSON_TYPE = (b"content-type", JSON)
_ARROW_TYPE = (b"content-type", ARROW)
_MOST_DETAIL = 2_000


class Answer(NamedTuple):
    """status, headers without length and id, body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class _Route(NamedTuple):
    method: str
    answer: Callable[[Incoming], Awaitable[Answer]]
    open: bool = False
    """Whether it answers without a key."""


def lookup_app(
    client: AsyncClient,
    *,
    settings: ServerSettings | None = None,
    watcher: ServerWatcher | None = None,
    pushes: Pushes | None = None,
    readiness: Readiness | None = None,
    metrics: Metrics | None = None,
) -> LookupApp:
    """The lookup server's application.

    Args:
        client: reads the store; what it knows is what is served. It stays its owner's to close.
        settings: limits, keys, statuses.
        watcher: is told of every request. pushes: takes pushes; without it there is no such route.
        readiness: what `/readyz` asks. metrics: what `/metrics` answers; without it there is no such route.
    """
    return LookupApp(client, settings or ServerSettings(), watcher or Unwatched(), pushes, readiness, metrics)


class LookupApp:
    """An ASGI application; see `lookup_app`. Of one event loop."""

    def __init__(
        self,
        client: AsyncClient,
        settings: ServerSettings,
        watcher: ServerWatcher,
        pushes: Pushes | None,
        readiness: Readiness | None,
        metrics: Metrics | None,
    ) -> None:
        self._client, self._settings, self._watcher = client, settings, watcher
        self._pushes, self._readiness, self._metrics = pushes, readiness, metrics
        self._choices = Choices(client.catalog, settings)
        self._routes: dict[str, _Route] = {
            "/get-online-features": _Route("POST", self._features),
            "/features": _Route("GET", self._page(lambda: served(client.catalog))),
            "/openapi.json": _Route(
                "GET", self._page(lambda: openapi(client.catalog, settings, pushes, metrics is not None))
            ),
            "/healthz": _Route("GET", self._alive, open=True),
            "/health": _Route("GET", self._alive, open=True),
            "/readyz": _Route("GET", self._ready, open=True),
        }
        if pushes is not None:
            self._routes["/push"] = _Route("POST", self._pushed(pushes.push))
            self._routes["/write-to-online-store"] = _Route("POST", self._pushed(pushes.write))
        if metrics is not None:
            self._routes["/metrics"] = _Route("GET", self._scraped)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _no_http(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        trace = trace_of(headers)
        TRACE.set(trace)
        path = scope["path"]
        route = self._routes.get(path)
        shown = path if route is not None else "other"
        self._watcher.began(shown)
        asked = Incoming(scope, receive, headers, trace)
        status, bytes_out = 499, 0
        try:
            try:
                answer = await self._answer(route, asked)
            except ClientLeft:
                return
            except Exception as error:
                answer = self._refusal(error, trace)
            head = asked.method == "HEAD"
            body = answer.body
            # 204 has neither body nor length (RFC 9110, 8.6).
            length = () if answer.status == 204 else ((b"content-length", b"%d" % len(body)),)
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": [*answer.headers, *length, (b"x-request-id", trace.encode("ascii"))],
                }
            )
            await send({"type": "http.response.body", "body": b"" if head else body})
            status, bytes_out = answer.status, 0 if head else len(body)
        finally:
            self._watcher.ended(
                shown, asked.method, status, time.perf_counter() - began, asked.bytes_in, bytes_out, trace
            )

    async def _answer(self, route: _Route | None, asked: Incoming) -> Answer:
        keys = self._settings.accepted
        if keys is not None and not (route is not None and route.open) and not keys.admit(asked.headers):
            raise Problem(
                401,
                "This server wants a key: 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
                reason="unauthorized",
                headers=((b"www-authenticate", b'Bearer realm="headrace"'),),
            )
        if route is None:
            near = did_you_mean(asked.path[:200], self._routes)
            raise unknown(f"Nothing is served at {asked.path[:200]!r}{near} GET /openapi.json lists what is.")
        if asked.method != route.method and not (asked.method == "HEAD" and route.method == "GET"):
            allow = b"GET, HEAD, OPTIONS" if route.method == "GET" else b"POST, OPTIONS"
            if asked.method == "OPTIONS":
                return Answer(204, ((b"allow", allow),), b"")
            raise Problem(
                405,
                f"{asked.path} answers {allow.decode()}, not {asked.method[:20]}.",
                reason="malformed",
                headers=((b"allow", allow),),
            )
        return await route.answer(asked)

    async def _features(self, asked: Incoming) -> Answer:
        settings = self._settings
        expect_json(asked.headers)
        form = wanted(asked.headers.get(b"accept"))
        body = parsed(await asked.body(settings.body_bytes, settings.timeout_s))
        choice = self._choices.of(body)
        entities, request = choice.given(body, settings)
        try:
            table = await self._client.features(choice.plan, entities, request=request, at=body.at, trace=asked.trace)
        except Exception as error:
            problem = problem_of(error, settings.timeout_s)
            if problem.status == 422 and problem.field is None:
                problem.field = choice.field(entities, request)
            raise problem from None
        if table.failures and len(table.failures) == len(choice.plan.parts):
            raise problem_of(next(iter(table.failures.values())), settings.timeout_s)
        if form is ARROW:
            return Answer(200, (_ARROW_TYPE,), arrow_stream(choice.wire, table))
        feast = body.feast_statuses
        if feast is None:
            said = asked.headers.get(b"x-feast-statuses")
            feast = settings.statuses == "feast" if said is None else said.strip().lower() in (b"1", b"true", b"yes")
        written = choice.wire.json(table, feast=feast, views=body.include_feature_view_version_metadata)
        return Answer(200, (_JSON_TYPE,), written)

    def _pushed(
        self, take: Callable[[bytes, str], Awaitable[Mapping[str, Any]]]
    ) -> Callable[[Incoming], Awaitable[Answer]]:
        async def answer(asked: Incoming) -> Answer:
            expect_json(asked.headers)
            if wanted(asked.headers.get(b"accept")) is ARROW:
                raise Problem(406, "This route answers 'application/json'.", reason="malformed")
            body = await asked.body(self._settings.body_bytes, self._settings.timeout_s)
            return Answer(200, (_JSON_TYPE,), _encode(await take(body, asked.trace)))

        return answer

    def _page(self, make: Callable[[], Any]) -> Callable[[Incoming], Awaitable[Answer]]:
        """A page that is the same for as long as the server runs; made when it is first asked for."""
        made: list[bytes] = []

        async def answer(asked: Incoming) -> Answer:
            if not made:
                made.append(_encode(make()))
            return Answer(200, (_JSON_TYPE,), made[0])

        return answer

    async def _alive(self, asked: Incoming) -> Answer:
        return Answer(200, (_JSON_TYPE, (b"cache-control", b"no-store")), b'{"ok":true,"because":[]}')

    async def _ready(self, asked: Incoming) -> Answer:
        because = () if self._readiness is None else await self._readiness()
        written = _encode({"ok": not because, "because": because})
        return Answer(503 if because else 200, (_JSON_TYPE, (b"cache-control", b"no-store")), written)

    async def _scraped(self, asked: Incoming) -> Answer:
        assert self._metrics is not None
        kind, body = await self._metrics(asked.headers.get(b"accept", b"").decode("latin-1"))
        return Answer(200, ((b"content-type", kind.encode("latin-1")), (b"cache-control", b"no-store")), body)

    def _refusal(self, error: Exception, trace: str) -> Answer:
        problem = problem_of(error, self._settings.timeout_s)
        if problem.reason:
            self._watcher.refused(problem.reason)
        detail = problem.detail
        if len(detail) > _MOST_DETAIL:
            detail = detail[:_MOST_DETAIL] + " ..."
        said = {"detail": detail, "trace": trace}
        if problem.field is not None:
            said["field"] = problem.field[:_MOST_DETAIL]
        return Answer(problem.status, (_JSON_TYPE, *problem.headers), _json(said))


def _json(said: Mapping[str, str]) -> bytes:
    try:
        return _encode(said)
    except UnicodeEncodeError:  # half of a surrogate pair, from a path or a name
        return _encode({name: text.encode("utf-8", "replace").decode() for name, text in said.items()})


async def _no_http(scope: Scope, receive: Receive, send: Send) -> None:
    """Lifespan has nothing to do here, and WebSockets are turned away."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1003})
