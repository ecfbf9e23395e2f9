"""A request that is right, from which the wrong ones are made; and a server with small limits."""

import json
from typing import Any

from headrace.serving.http import ServerSettings

LIMITS = ServerSettings(body_bytes=1 << 20, entities=1000, features=50, timeout_s=20)
GOOD = {"features": ["drivers:visits"], "entities": {"user": ["a"]}}
BODY = json.dumps(GOOD).encode()


def good(**changed: Any) -> dict[str, Any]:
    """The right request with other fields."""
    return {**GOOD, **changed}
