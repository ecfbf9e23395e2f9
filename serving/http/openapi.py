"""`GET /openapi.json`."""

from __future__ import annotations

from typing import Any

from headrace.serving.catalog import Catalog
from headrace.serving.http.pushes import Pushes
from headrace.serving.http.settings import ServerSettings


def openapi(catalog: Catalog, settings: ServerSettings, pushes: Pushes | None, metrics: bool) -> dict[str, Any]:
    """The document."""
    return {"openapi": "3.1.0", "info": {"title": "Headrace lookups", "version": "1"}, "paths": {}}
