"""Rows drawn at random, and what a reader must be told of them: an oracle that shares no code with serving.

The instant asked is NOW, always. A row is (key, values, event_timestamp, newest_event), microseconds before NOW.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from tests.serving.compat.views import VIEWS

from headrace.features.dtypes import split_list, split_map
from headrace.stores.layout import row_layout
from headrace.stores.online import StoredRow
from headrace.stores.testing import AT

NOW = AT + 123_457
"""No whole second, no whole millisecond."""
MINUTE = 60_000_000
TTL = {"drivers": 120 * MINUTE, "shops": None, "pairs": 30 * MINUTE}
DEFAULTS = {("drivers", "mean"): -1.0, ("drivers", "home"): "nowhere", ("pairs", "paid"): False}
EMPTY: dict[tuple[str, str], Any] = {
    ("drivers", "visits"): 0,
    ("drivers", "total"): 0.0,
    ("shops", "visits"): 0,
    ("pairs", "visits"): 0,
    **DEFAULTS,
}
"""What an empty window gives where it is not null."""
HALF_LIFE = 60 * MINUTE

ENTITIES = 3
"""Users and shops that may have rows; one more of each is asked for and has none."""


@dataclass(frozen=True)
class Drawn:
    """One row of a view.

    Attributes:
        view: its name. user, shop: numbers of the entities; a view takes those that it has a key for.
        before: event_timestamp, and quiet: newest_event before that; microseconds.
    """

    view: str
    user: int
    shop: int
    values: dict[str, Any]
    before: int
    quiet: int


@dataclass(frozen=True)
class Told:
    """What a reader is told of one value: the value, its status, the instant its row is as of, microseconds."""

    value: Any
    status: str
    event_time: int | None


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INTS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 300)
FLOATS = st.floats(allow_nan=False) | st.sampled_from([0.0, -1.0, 1.0, -0.0, 5e-324, 0.1, float("inf")])
INSTANTS = st.integers(-(10**15), 4 * 10**15)
"""Microseconds: 1938 to 2096."""
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "int64": INTS,
    "float64": FLOATS,
    "string": TEXTS,
    "bool": st.booleans(),
    "bytes": st.binary(max_size=8),
    "timestamp": INSTANTS,
}


def values_of(dtype: str) -> st.SearchStrategy[Any]:
    """Values of a type as rows store them, null among them."""
    element, pair = split_list(dtype), split_map(dtype)
    if element is not None:
        return st.none() | st.lists(SCALARS[element], max_size=3)
    if pair is not None:
        return st.none() | st.dictionaries(SCALARS[pair[0]], SCALARS[pair[1]], max_size=3)
    return st.none() | SCALARS[dtype]


def _features(view: str) -> st.SearchStrategy[dict[str, Any]]:
    features = {name: values_of(dtype) for name, dtype in _DTYPES[view].items()}
    for (of, name), default in DEFAULTS.items():
        if of == view:
            features[name] = features[name] | st.just(default)
    if view == "shops":
        return st.fixed_dictionaries(features).map(lambda row: row | {"double": row["fade"] and row["fade"] * 2})
    return st.fixed_dictionaries(features)


_DTYPES = {view.name: dict(row_layout(view).features) for view in VIEWS}
_BEFORE = st.integers(0, 180 * MINUTE) | st.sampled_from([0, 1, 30 * MINUTE, 30 * MINUTE - 1, 120 * MINUTE])
_QUIET = st.sampled_from([0, 1, 15 * MINUTE]) | st.integers(0, 120 * MINUTE)
_NUMBERS = st.integers(0, ENTITIES - 1)

ROWS = st.lists(
    st.sampled_from(list(_DTYPES)).flatmap(
        lambda view: st.builds(Drawn, st.just(view), _NUMBERS, _NUMBERS, _features(view), _BEFORE, _QUIET)
    ),
    max_size=9,
    unique_by=lambda row: (*entity_of(row.view, row.user, row.shop), row.before),
)


def entity_of(view: str, user: int, shop: int) -> tuple[Any, ...]:
    """Which row of a view speaks of a user and a shop."""
    return {"drivers": (view, user), "shops": (view, shop), "pairs": (view, user, shop)}[view]


def key_of(view: str, user: str, shop: int) -> dict[str, Any]:
    """A key as stores take it."""
    return {"drivers": {"user": user}, "shops": {"shop": shop}, "pairs": {"user": user, "shop": shop}}[view]


def stored(row: Drawn) -> StoredRow:
    """A row as stores take it."""
    return StoredRow(row.values, NOW - row.before, NOW - row.before - row.quiet)


def told(rows: list[Drawn], view: str, feature: str, user: int, shop: int) -> Told:
    """What a reader must be told at NOW, by reading all rows one after the other."""
    newest = None
    for row in rows:
        if entity_of(row.view, row.user, row.shop) == entity_of(view, user, shop) and (
            newest is None or row.before < newest.before
        ):
            newest = row
    empty = EMPTY.get((view, feature))
    if newest is None:
        return Told(empty, "NOT_FOUND", None)
    at = NOW - newest.before
    ttl = TTL[view]
    if ttl is not None and newest.before + newest.quiet >= ttl:
        return Told(empty, "OUTSIDE_MAX_AGE", at)
    value = newest.values[feature]
    if value is None:
        return Told(None, "NULL", at)
    if feature in ("fade", "double") and newest.before > 0:
        faded = newest.values["fade"] * 2.0 ** -(newest.before / HALF_LIFE)
        value = faded if feature == "fade" else faded * 2
    default = DEFAULTS.get((view, feature))
    return Told(value, "DEFAULT" if default is not None and value == default else "PRESENT", at)


def python_value(value: Any, dtype: str) -> Any:
    """A stored value as clients give it: instants as datetimes."""
    element = split_list(dtype)
    if value is None:
        return None
    if element is not None:
        return [python_value(each, element) for each in value]
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value) if dtype == "timestamp" else value
