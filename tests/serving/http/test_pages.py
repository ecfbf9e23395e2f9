"""The pages: what is served, its description, metrics, pushes; and answers in Arrow."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
from openapi_spec_validator import validate
from tests.serving.http.asgi import ask, look_up

from headrace.features.errors import DataError
from headrace.serving.http import Problem, ServerSettings
from headrace.stores.errors import UnreachableError
from headrace.stores.testing import FULL

ARROW = "application/vnd.apache.arrow.stream"


def test_what_is_served(app: Any) -> None:
    said = ask(app, "GET", "/features").json
    assert [each["name"] for each in said["views"]] == ["by_shop", "every_type", "fading", "visits"]
    (service,) = said["services"]
    assert (service["name"], service["version"], len(service["fingerprint"])) == ("pricing", 3, 32)
    assert service["keys"] == [{"name": "user", "type": "string"}, {"name": "shop", "type": "int64"}]
    assert service["request"] == [{"name": "amount", "type": "float64"}]
    assert [each["name"] for each in service["features"]] == ["mean", "fading__visits", "by_shop__visits", "to_mean"]
    assert service["features"][0] == {"name": "mean", "type": "float64", "from": "fading:mean"}
    fading = said["views"][2]
    assert (fading["ttl"], fading["features"][1]) == ("2h", {"name": "mean", "type": "float64"})


class Pushed:
    """Takes pushes, or raises what it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes, str]] = []
        self.error: Exception | None = None

    async def push(self, body: bytes, trace: str) -> Mapping[str, Any]:
        return self._take("push", body, trace)

    async def write(self, body: bytes, trace: str) -> Mapping[str, Any]:
        return self._take("write", body, trace)

    def _take(self, how: str, body: bytes, trace: str) -> Mapping[str, Any]:
        if self.error is not None:
            raise self.error
        self.got.append((how, body, trace))
        return {"rows": 1}

    def openapi(self) -> Mapping[str, Any]:
        operation = {"responses": {"200": {"description": "Kept."}}}
        return {"/push": {"post": operation}, "/write-to-online-store": {"post": operation}}


def test_pushes(app_with: Any) -> None:
    pushes = Pushed()
    app = app_with(ServerSettings(body_bytes=10), pushes=pushes)
    assert ask(app, "POST", "/push", b"{}", {"x-request-id": "1"}).json == {"rows": 1}
    assert ask(app, "POST", "/write-to-online-store", b"{}", {"x-request-id": "2"}).status == 200
    assert pushes.got == [("push", b"{}", "1"), ("write", b"{}", "2")]
    assert ask(app, "POST", "/push", b" " * 11).status == 413
    assert ask(app, "POST", "/push", b"{}", {"content-type": "text/plain"}).status == 415
    assert ask(app, "POST", "/push", b"{}", {"accept": ARROW}).status == 406
    for error, status in (
        (Problem(409, "No."), 409),
        (DataError("No."), 422),
        (UnreachableError("secret"), 503),
        (RuntimeError("secret"), 500),
    ):
        pushes.error = error
        answer = ask(app, "POST", "/push", b"{}")
        assert answer.status == status
        assert "secret" not in answer.body.decode()


def test_metrics_are_given_in(app_with: Any) -> None:
    async def metrics(accept: str) -> tuple[str, bytes]:
        return f"text/plain; for={accept}", b"up 1\n"

    answer = ask(app_with(metrics=metrics), "GET", "/metrics", headers={"accept": "text/plain"})
    assert (answer.status, answer.headers["content-type"], answer.body) == (
        200,
        "text/plain; for=text/plain",
        b"up 1\n",
    )


@pytest.mark.parametrize("closed", [False, True])
def test_the_description_is_valid_and_its_examples_are_answered(app_with: Any, closed: bool) -> None:
    async def metrics(accept: str) -> tuple[str, bytes]:
        return "text/plain", b""

    settings = ServerSettings(keys=["k"] if closed else [])
    app = app_with(settings, pushes=Pushed(), metrics=metrics)
    headers = {"x-api-key": "k"}
    said = ask(app, "GET", "/openapi.json", headers=headers).json
    validate(said)
    routes = {path: next(iter(item)).upper() for path, item in said["paths"].items()}
    for path, method in routes.items():
        other = "POST" if method == "GET" else "GET"
        assert ask(app, other, path, headers=headers).headers["allow"].startswith(method)
        told = set(said["paths"][path][method.lower()]["responses"])
        assert ("401" in told) == (closed and ask(app, method, path).status == 401)
    post = said["paths"]["/get-online-features"]["post"]
    examples = post["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) == 2
    for example in examples.values():
        answer = look_up(app, example["value"], x_api_key="k")
        assert answer.status == 200, answer.body


def read(answer: Any) -> Any:
    assert (answer.status, answer.headers["content-type"]) == (200, ARROW), answer.body
    with pa.ipc.open_stream(answer.body) as reader:
        return reader.read_all()


def test_arrow_has_the_same_values_as_json(app: Any) -> None:
    users = ["a", "n", "d", "o", "new"]
    body = {"features": ["fading:mean", "fading:visits"], "entities": {"user": users}}
    table = read(look_up(app, body, accept=f"{ARROW}, application/json;q=0.9"))
    assert table.schema.names == ["user", "mean", "visits", "__statuses", "__event_timestamps"]
    assert [str(field.type) for field in table.schema][:3] == ["string", "double", "int64"]
    assert table["mean"].to_pylist() == [4.0, None, -1.0, -1.0, -1.0]
    told = json.loads(table.schema.metadata[b"headrace"])
    words = [[told["statuses"][code] for code in row] for row in table["__statuses"].to_pylist()]
    assert [row[0] for row in words] == ["PRESENT", "NULL", "DEFAULT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert [row[1] for row in words] == ["PRESENT", "PRESENT", "PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    times = table["__event_timestamps"].to_pylist()
    assert times[4] == [None, None]
    assert times[1][0].isoformat() == "2026-01-01T00:00:00.000001+00:00"


def test_arrow_of_every_type_and_of_nobody(app: Any) -> None:
    entities = {"user": ["full", "null", "new"], "shop": [1, 1, 1], "token": ["dA=="] * 3}
    table = read(look_up(app, {"features": ["every_type"], "entities": entities}, accept=ARROW))
    first = table.to_pylist()[0]
    assert first["token"] == b"t"
    assert (first["total"], first["most"], first["raw"]) == (float("inf"), -(2**63), b"\x00\xff")
    assert first["by_city"] == list(FULL["by_city"].items())
    none = read(
        look_up(app, {"features": ["every_type"], "entities": {"user": [], "shop": [], "token": []}}, accept=ARROW)
    )
    assert none.num_rows == 0
    assert none.schema == table.schema


def test_the_application_needs_no_server_and_no_arrow() -> None:
    code = "import sys, headrace.serving.http; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    heavy = {"uvicorn", "httptools", "starlette", "pyarrow", "pandas", "duckdb", "prometheus_client", "feast", "numba"}
    assert loaded & heavy == set()
