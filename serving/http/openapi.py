"""`GET /openapi.json`: what the server accepts and answers, with the names and types that it serves (OpenAPI 3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headrace.features import dtypes
from headrace.serving.catalog import Catalog
from headrace.serving.http.pushes import Pushes
from headrace.serving.http.settings import ServerSettings
from headrace.stores.layout import row_layout
from headrace.version import VERSION

_MOST_NAMES = 2_000
"""A catalog of more features is described without listing them; `GET /features` does."""

_SCALARS: dict[str, dict[str, Any]] = {
    dtypes.INT: {"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1},
    dtypes.FLOAT: {"type": "number", "format": "double"},
    dtypes.STRING: {"type": "string"},
    dtypes.BOOL: {"type": "boolean"},
    dtypes.TIMESTAMP: {"type": "string", "format": "date-time"},
    dtypes.BYTES: {"type": "string", "contentEncoding": "base64"},
}

_WORDS = ["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"]

_SAID = {
    400: "The body is no JSON.",
    401: "No key was given, or one that is not accepted.",
    404: "A service, view or feature that is not served; `detail` has the nearest name.",
    406: "`Accept` wants neither JSON nor Arrow.",
    408: "The request did not arrive in time.",
    413: "The body is larger than the server's limit.",
    415: "`Content-Type` is not `application/json`, or the body is compressed.",
    422: "JSON that cannot be answered; `field` tells where.",
    500: "The server's own failure; its log has the cause under the trace id.",
    503: "The online store does not answer; `Retry-After` says when to ask again.",
    504: "There was no answer within the server's limit.",
}

_TRACE_HEADER = {
    "X-Request-Id": {
        "description": "The id of the request: the caller's own, else its traceparent's, else a new one.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    }
}


def openapi(catalog: Catalog, settings: ServerSettings, pushes: Pushes | None, metrics: bool) -> dict[str, Any]:
    """The document of a server that serves this catalog; `pushes` and `metrics` add their routes."""
    closed = settings.accepted is not None
    paths: dict[str, Any] = {
        "/get-online-features": {"post": _lookup(catalog, settings, closed)},
        "/features": {
            "get": _page("listFeatures", "What is served: services and views, with keys and types", "Served", closed)
        },
        "/openapi.json": {"get": _page("describe", "This document", "Document", closed)},
    }
    for path, operation in (("/healthz", "isAlive"), ("/health", "isAliveForFeast")):
        paths[path] = {"get": _health(operation, "Whether the process answers; Feast's name is /health", [200])}
    paths["/readyz"] = {"get": _health("isReady", "Whether lookups can be answered, and why not", [200, 503])}
    if metrics:
        text = {"schema": {"type": "string"}}
        page = _page("metrics", "Metrics in Prometheus's text format or OpenMetrics", "", closed)
        page["responses"]["200"]["content"] = {"text/plain": text, "application/openmetrics-text": text}
        paths["/metrics"] = {"get": page}
    if pushes is not None:
        for path, item in pushes.openapi().items():
            paths[path] = {method: _completed(operation, closed) for method, operation in item.items()}
    out: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Headrace lookups",
            "version": VERSION,
            "description": "Features by entity key, in the form of Feast's HTTP server.",
        },
        "paths": paths,
        "components": {"schemas": _schemas()},
    }
    if closed:
        out["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return out


def _lookup(catalog: Catalog, settings: ServerSettings, closed: bool) -> dict[str, Any]:
    ok = {
        "description": "Features, column by column: the key columns, then the features in the order asked.",
        "headers": _TRACE_HEADER,
        "content": {
            "application/json": {"schema": _ref("Features"), "example": _EXAMPLE_ANSWER},
            "application/vnd.apache.arrow.stream": {"schema": {"type": "string", "contentMediaType": "binary"}},
        },
    }
    operation = {
        "operationId": "getOnlineFeatures",
        "summary": "Features of entities, in one round trip to the online store",
        "parameters": [
            _header(
                "X-Request-Id",
                "An id for the request; another takes its place unless it is 1 to 128 of the letters ! to ~.",
            ),
            _header("X-Feast-Statuses", "As `feast_statuses`, which wins: `true`, `yes` or `1`; anything else is no."),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _asked(catalog, settings), "examples": _examples(catalog)},
            },
        },
        "responses": {"200": ok} | {str(status): _problem(status) for status in (404, 406, 422, 503, 504)},
    }
    return _completed(operation, closed)


def _asked(catalog: Catalog, settings: ServerSettings) -> dict[str, Any]:
    refs = [f"{view.name}:{name}" for view in catalog.views.values() for name in view.feature_names()]
    listed = len(refs) <= _MOST_NAMES
    ref = {"type": "string", "enum": sorted([*refs, *catalog.views])} if listed and refs else {"type": "string"}
    service: dict[str, Any] = {"type": "string"}
    if catalog.services and listed:
        service["enum"] = sorted(catalog.services)
    keys: dict[str, str] = {}
    for view in catalog.views.values():
        keys |= dict(row_layout(view).keys)
    request = {each.name: each.dtype for found in catalog.services.values() for each in found.request}
    columns = {name: _column(dtype, settings.entities) for name, dtype in sorted((request | keys).items())}
    given = {name: _column(dtype, settings.entities, null=True) for name, dtype in sorted(request.items())}
    properties: dict[str, Any] = {
        "features": {
            "type": "array",
            "items": ref,
            "minItems": 1,
            "maxItems": settings.features,
            "uniqueItems": True,
            "description": "`view:feature`, or `view` for all of a view.",
        },
        "feature_service": {**service, "description": "A service in place of `features`; it wins over them."},
        "entities": {
            "type": "object",
            "properties": columns,
            "additionalProperties": False,
            "description": "Key column -> n values: those of every view that is asked, and no others. What `request` "
            "holds may stand here, too.",
        },
        "request": {
            "type": "object",
            "properties": given,
            "additionalProperties": False,
            "description": "n values for each column that the service's features on demand are computed from.",
        },
        "full_feature_names": {
            "type": "boolean",
            "default": False,
            "description": "Name every feature `view__feature`; by default only those of which two views have one.",
        },
        "at": {
            "type": "string",
            "format": "date-time",
            "description": "The instant asked, with a zone; by default now.",
        },
        "feast_statuses": {
            "type": "boolean",
            "default": settings.statuses == "feast",
            "description": "PRESENT and null for what was never there, as Feast says.",
        },
        "include_feature_view_version_metadata": {"type": "boolean", "default": False},
    }
    return {
        "type": "object",
        "required": ["entities"],
        "anyOf": [{"required": ["features"]}, {"required": ["feature_service"]}],
        "properties": properties,
    }


def _column(dtype: str, most: int, *, null: bool = False) -> dict[str, Any]:
    items = dict(_SCALARS.get(dtype, {}))
    if null and items:
        items = {"anyOf": [items, {"type": "null"}]}
    return {"type": "array", "items": items, "maxItems": most}


def _schemas() -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string"}
    typed: dict[str, Any] = {
        "type": "array",
        "items": {"type": "object", "required": ["name", "type"], "properties": {"name": text, "type": text}},
    }
    service: dict[str, Any] = {"name": text, "version": {"type": "integer"}, "fingerprint": text}
    service |= {"keys": typed, "request": typed, "features": typed}
    view: dict[str, Any] = {
        "name": text,
        "fingerprint": text,
        "keys": typed,
        "ttl": {"type": ["string", "null"]},
        "features": typed,
    }
    column = {
        "values": {"type": "array", "items": {}},
        "statuses": {"type": "array", "items": {"type": "string", "enum": _WORDS}},
        "event_timestamps": {"type": "array", "items": {"type": "string", "format": "date-time"}},
    }
    metadata = {
        "feature_names": {"type": "array", "items": text},
        "failures": {
            "type": "object",
            "additionalProperties": text,
            "description": "View -> why its rows could not be had; its values are null and INVALID.",
        },
        "defaults": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "description": "Feature -> the entities, counted from 0, whose value is the feature's default.",
        },
        "feature_view_metadata": {"type": "array", "items": {"type": "object"}},
    }
    return {
        "Features": {
            "type": "object",
            "required": ["metadata", "results"],
            "properties": {
                "metadata": {"type": "object", "required": ["feature_names"], "properties": metadata},
                "results": {"type": "array", "items": _object(column)},
            },
        },
        "Served": _object(
            {
                "services": {"type": "array", "items": _object(service)},
                "views": {"type": "array", "items": _object(view)},
            }
        ),
        "Document": {"type": "object", "required": ["openapi", "info", "paths"]},
        "Health": _object({"ok": {"type": "boolean"}, "because": {"type": "array", "items": text}}),
        "Problem": {
            "type": "object",
            "required": ["detail"],
            "properties": {
                "detail": {"type": "string", "description": "What was got, what was expected, the next move."},
                "field": {"type": "string", "description": "Where in the body, such as `entities.driver_id[3]`."},
                "trace": text,
            },
        },
    }


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": sorted(properties), "properties": dict(properties)}


def _completed(operation: Mapping[str, Any], closed: bool) -> dict[str, Any]:
    """A POST with the statuses that every one has."""
    responses = {str(status): _problem(status) for status in (400, 408, 413, 415, 500, *([401] if closed else []))}
    out = {**operation, "responses": dict(sorted((responses | dict(operation["responses"])).items()))}
    return out | _security(closed)


def _page(operation: str, summary: str, schema: str, closed: bool) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": summary, "headers": _TRACE_HEADER}}
    if schema:
        responses["200"]["content"] = {"application/json": {"schema": _ref(schema)}}
    if closed:
        responses["401"] = _problem(401)
    return {"operationId": operation, "summary": summary, "responses": responses, **_security(closed)}


def _health(operation: str, summary: str, statuses: Iterable[int]) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref("Health")}}
    responses = {str(each): {"description": "Yes." if each == 200 else "No.", "content": content} for each in statuses}
    return {"operationId": operation, "summary": summary, "responses": responses, "security": []}


def _problem(status: int) -> dict[str, Any]:
    out: dict[str, Any] = {"description": _SAID[status], "content": {"application/json": {"schema": _ref("Problem")}}}
    if status == 503:
        out["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    if status == 401:
        out["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return out


def _security(closed: bool) -> dict[str, Any]:
    return {"security": [{"bearer": []}, {"apiKey": []}] if closed else []}


def _header(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


_VALUES: dict[str, Any] = {dtypes.INT: 7, dtypes.FLOAT: 12.5, dtypes.STRING: "7", dtypes.BOOL: True}
_VALUES |= {dtypes.TIMESTAMP: "2026-05-01T12:00:00Z", dtypes.BYTES: "Nw=="}


def _examples(catalog: Catalog) -> dict[str, Any]:
    """Requests that can be sent as they are."""
    out = {}
    for view in list(catalog.views.values())[:1]:
        asked = [f"{view.name}:{name}" for name in view.feature_names()[:2]]
        entities = {name: [_VALUES[dtype]] for name, dtype in row_layout(view).keys}
        out["features"] = {"value": {"features": asked, "entities": entities}}
    for service in list(catalog.services.values())[:1]:
        entities = {name: [_VALUES[dtype]] for each in service.views for name, dtype in row_layout(each).keys}
        value: dict[str, Any] = {"feature_service": service.name, "entities": entities}
        if service.request:
            value["request"] = {each.name: [_VALUES.get(each.dtype)] for each in service.request}
        out["service"] = {"value": value}
    return out


_EPOCH = "1970-01-01T00:00:00Z"
_EXAMPLE_ANSWER = {
    "metadata": {"feature_names": ["driver_id", "rides_1h"]},
    "results": [
        {"values": ["7"], "statuses": ["PRESENT"], "event_timestamps": [_EPOCH]},
        {"values": [3], "statuses": ["PRESENT"], "event_timestamps": ["2026-05-01T12:00:00Z"]},
    ],
}
