"""A request that is right, from which the wrong ones are made; limits that tests reach; and any JSON."""

import json
from typing import Any

from hypothesis import strategies as st

from headrace.serving.http import ServerSettings

LIMITS = ServerSettings(body_bytes=1 << 20, entities=1000, features=50, timeout_s=20)
GOOD = {"features": ["drivers:visits"], "entities": {"user": ["a"]}}
BODY = json.dumps(GOOD).encode()


def good(**changed: Any) -> dict[str, Any]:
    """The right request with other fields."""
    return {**GOOD, **changed}


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
"""Any JSON."""
