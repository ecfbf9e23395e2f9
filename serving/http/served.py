"""`GET /features`: what this server serves, for people and for programs that check a contract."""

from __future__ import annotations

from typing import Any

from headrace.features.time import format_duration
from headrace.serving.catalog import Catalog
from headrace.stores.layout import row_layout


def served(catalog: Catalog) -> dict[str, Any]:
    """Services (name, version, fingerprint, what must be given, what comes back in which order) and views."""
    return {
        "services": [
            {
                "name": service.name,
                "version": service.version,
                "fingerprint": service.fingerprint(),
                "keys": _keys([dict(row_layout(view).keys) for view in service.views]),
                "request": [{"name": each.name, "type": each.dtype} for each in service.request],
                "features": [
                    *({"name": each.name, "type": each.dtype, "from": each.ref} for each in service.features),
                    *(
                        {"name": each.name, "type": each.feature.dtype, "from": str(each.feature)}
                        for each in service.on_demand
                    ),
                ],
            }
            for _, service in sorted(catalog.services.items())
        ],
        "views": [
            {
                "name": view.name,
                "fingerprint": view.fingerprint(),
                "keys": _keys([dict(row_layout(view).keys)]),
                "ttl": None if view.ttl_us is None else format_duration(view.ttl_us),
                "features": [{"name": name, "type": view.dtypes[name]} for name in view.feature_names()],
            }
            for _, view in sorted(catalog.views.items())
        ],
    }


def _keys(columns: list[dict[str, str]]) -> list[dict[str, str]]:
    known: dict[str, str] = {}
    for each in columns:
        known |= each
    return [{"name": name, "type": dtype} for name, dtype in known.items()]
