"""What `/openapi.json` says of pushes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from headrace.features.dtypes import BOOL, BYTES, FLOAT, INT, STRING, TIMESTAMP, split_list, split_map
from headrace.features.sources import Source
from headrace.features.views import ViewDefinition
from headrace.stores.layout import EVENT_TIMESTAMP, row_layout

_PLAIN: dict[str, dict[str, Any]] = {
    INT: {"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1},
    FLOAT: {"type": "number", "format": "double"},
    STRING: {"type": "string"},
    BOOL: {"type": "boolean"},
    TIMESTAMP: {"type": "string", "format": "date-time"},
    BYTES: {"type": "string", "contentEncoding": "base64"},
}
_PUSHED = _PLAIN | {
    FLOAT: {"anyOf": [_PLAIN[FLOAT], {"enum": ["NaN", "Infinity", "-Infinity"]}]},
    TIMESTAMP: {"type": ["string", "number"], "description": "ISO 8601 with a zone; a number where there is a `unit`."},
}
_EXAMPLES: dict[str, Any] = {
    INT: 7,
    FLOAT: 12.5,
    STRING: "7",
    BOOL: True,
    TIMESTAMP: "2026-05-01T12:00:00Z",
    BYTES: "Nw==",
}

_STATUSES = {
    404: "Neither a view nor a source is named so; `detail` has the nearest name.",
    406: "`Accept` wants no JSON.",
    409: "This server only reads its online store.",
    422: "A row or event that does not fit; `field` names column and row. Nothing was written.",
    503: "The online store or Kafka does not answer, or too many pushes wait; push the same again.",
    504: "The online store did not answer in time; push the same again.",
}


def push_operations(
    views: Iterable[ViewDefinition], sources: Mapping[str, Source], published: Container[str], most: int
) -> dict[str, Any]:
    """Path -> path item."""
    views = list(views)
    taking = {name: source for name, source in sources.items() if name in published}
    unit = {"enum": ["s", "ms", "us"], "description": "Of instants that are numbers."}
    rows = {
        "df": _frame(views, most),
        "to": {"enum": ["online", "offline", "online_and_offline"], "description": "Rows go online only."},
        "unit": unit,
        "zone": {"const": "UTC", "description": "Of instants without a zone, which are refused otherwise."},
        "missing": {"enum": ["refuse", "null"], "description": "What becomes of features that have no column."},
    }
    events = {"type": "array", "maxItems": most, "items": {"anyOf": [_event(each) for each in taking.values()]}}
    if not taking:
        events = {"type": "array", "maxItems": 0}
    pushes = {
        "type": "object",
        "required": ["push_source_name"],
        "oneOf": [{"required": ["df"]}, {"required": ["events"]}],
        "properties": {
            "push_source_name": {"enum": list(dict.fromkeys([*(view.name for view in views), *sources]))},
            "events": events,
            **rows,
        },
    }
    writes = {
        "type": "object",
        "required": ["feature_view_name", "df"],
        "properties": {
            "feature_view_name": {"enum": [view.name for view in views]},
            "df": rows["df"],
            "unit": unit,
            "missing": rows["missing"],
        },
    }
    written = {"written": {"type": "integer"}, "older": {"type": "integer"}}
    answered = {"type": "object", "required": ["written", "older"], "properties": written}
    sent = {"type": "object", "required": ["events"], "properties": {"events": {"type": "integer"}}}
    row_example = {"feature_view_name": views[0].name, "df": _example(views[0])} if views else {}
    push_example = {"push_source_name": views[0].name, "df": _example(views[0])} if views else {}
    return {
        "/push": {
            "post": _operation(
                "push", "Rows into a view, or events into a source", pushes, {"anyOf": [answered, sent]}, push_example
            )
        },
        "/write-to-online-store": {
            "post": _operation(
                "writeToOnlineStore", "Rows into a view, as Feast's client sends them", writes, answered, row_example
            )
        },
    }


def _operation(
    name: str, summary: str, body: dict[str, Any], answer: dict[str, Any], example: dict[str, Any]
) -> dict[str, Any]:
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses: dict[str, Any] = {
        "200": {
            "description": "Kept. `written`: rows; `older`: rows that did not take the place of a newer one.",
            "content": {"application/json": {"schema": answer}},
        }
    }
    responses |= {str(status): {"description": said, "content": problem} for status, said in _STATUSES.items()}
    content: dict[str, Any] = {"schema": body}
    if example:
        content["examples"] = {"rows": {"value": example}}
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": responses,
    }


def _frame(views: list[ViewDefinition], most: int) -> dict[str, Any]:
    frames = []
    for view in views:
        layout = row_layout(view)
        never_null = {*layout.key_names, EVENT_TIMESTAMP}
        columns = {
            name: {"type": "array", "maxItems": most, "items": _type(dtype, null=name not in never_null, of=_PUSHED)}
            for name, dtype in layout.columns
        }
        required = [*layout.key_names, EVENT_TIMESTAMP]
        frames.append({"title": view.name, "type": "object", "required": required, "properties": columns})
    return {"anyOf": frames} if frames else {"type": "object"}


def _event(source: Source) -> dict[str, Any]:
    fields = source.schema.fields
    return {
        "title": source.schema.name,
        "type": "object",
        "required": [field.name for field in fields if not field.nullable],
        "properties": {field.name: _type(field.dtype, null=field.nullable) for field in fields},
        "additionalProperties": False,
    }


def _type(dtype: str, *, null: bool = False, of: Mapping[str, dict[str, Any]] = _PLAIN) -> dict[str, Any]:
    element, pair = split_list(dtype), split_map(dtype)
    if element is not None:
        made: dict[str, Any] = {"type": "array", "items": _type(element, null=True, of=of)}
    elif pair is not None:
        made = {"type": ["object", "array", "string"]}
    else:
        made = of[dtype]
    return {"anyOf": [made, {"type": "null"}]} if null else made


def _example(view: ViewDefinition) -> dict[str, Any]:
    return {name: [_EXAMPLES.get(dtype)] for name, dtype in row_layout(view).columns if name != "newest_event"}
