"""What a row of a view looks like at rest: its columns, their types, and which definition made it.

Every stored row has the entity's key columns, `event_timestamp` (the instant it is as of), `newest_event` (the newest
event of the entity that the view took) and one column per feature in the order of the definition. The Arrow schema is
always given in full, so a column that is null from top to bottom, or a table without rows, keeps its types.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.features.dtypes import BOOL, BYTES, FLOAT, INT, STRING, TIMESTAMP, split_list, split_map
from headrace.features.features import DerivedFeature
from headrace.features.views import ViewDefinition, definition
from headrace.stores.errors import SchemaMismatchError

if TYPE_CHECKING:
    import pyarrow as pa

EVENT_TIMESTAMP = "event_timestamp"
NEWEST_EVENT = "newest_event"


@dataclass(frozen=True)
class RowLayout:
    """Columns of the rows of one view and the identity of the definition that makes them.

    Attributes:
        view: name of the view.
        keys: name and type of each key column, in the entity's order.
        features: name and type of each feature column: the public ones in the order of the definition, then the hidden
            ones that readers need (`ViewDefinition.stored_names`).
        identity: hash of everything in the definition that decides what a stored row says: keys, event columns,
            features. Not ttl, which readers apply, nor how the log is thinned, nor the order of the features.
        meaning: for each feature column, a hash of how it is computed.
        base: hash of what all features rest on: keys and the time column; "" in rows of version 0.1.
    """

    view: str
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    identity: str
    meaning: tuple[str, ...]
    base: str = ""

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.keys)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.features)

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Every column with its type: keys, the two times, features."""
        return (*self.keys, (EVENT_TIMESTAMP, TIMESTAMP), (NEWEST_EVENT, TIMESTAMP), *self.features)

    def conflicts(self, asked: RowLayout) -> list[str]:
        """Why rows of this layout and rows of `asked` cannot be one history; none when only features came or went."""
        return self.unlike(asked) + self._altered(asked)

    def unlike(self, asked: RowLayout) -> list[str]:
        """What differs in the entities or instants that the rows are of."""
        if self.keys != asked.keys:
            return [f"keys were {_shown(self.keys)}, now {_shown(asked.keys)}"]
        if self.base and asked.base and self.base != asked.base:
            return ["the column that holds the event time differs"]
        return []

    def differences(self, asked: RowLayout) -> list[str]:
        """What differs between this layout, of stored rows, and that of the definition asked for; for messages."""
        found = []
        if self.keys != asked.keys:
            found.append(f"keys were {_shown(self.keys)}, now {_shown(asked.keys)}")
        found += [f"'{name}' is new" for name in asked.feature_names if name not in self.feature_names]
        found += self._altered(asked)
        found += [f"'{name}' is gone" for name in self.feature_names if name not in asked.feature_names]
        if not found and self.identity != asked.identity:
            found.append("the event or a hidden feature differs")
        return found

    def _altered(self, asked: RowLayout) -> list[str]:
        """Features of both layouts that mean different things."""
        found = []
        stored = {name: (dtype, how) for (name, dtype), how in zip(self.features, self.meaning, strict=True)}
        for (name, dtype), how in zip(asked.features, asked.meaning, strict=True):
            if name in stored and stored[name][0] != dtype:
                found.append(f"'{name}' was {stored[name][0]}, now {dtype}")
            elif name in stored and stored[name][1] != how:
                found.append(f"'{name}' is computed in another way")
        return found


@lru_cache(maxsize=256)
def _layout(view: ViewDefinition) -> RowLayout:
    keys = tuple((name, view.schema.field(name).dtype) for name in view.entity.keys)
    event = tuple((name, view.schema.field(name).dtype) for name in view.event_columns)
    features = sorted((each.name, each.feature.key) for each in view.features)
    says = ("rows 1", view.name, keys, view.schema.name, event, view.schema.time_field, features)
    return RowLayout(
        view=view.name,
        keys=keys,
        features=tuple((name, view.dtypes[name]) for name in view.stored_names),
        identity=_hash(says),
        meaning=tuple(_hash(_meaning(view, name)) for name in view.stored_names),
        base=_hash(("base 1", view.name, keys, view.schema.time_field)),
    )


def _meaning(view: ViewDefinition, name: str) -> tuple[Any, ...]:
    """How a feature is computed; of a derived one also its hidden inputs, which have no column to tell it."""
    feature = view.feature(name)
    inputs = feature.inputs if isinstance(feature, DerivedFeature) else ()
    hidden = tuple((each, _meaning(view, each)) for each in inputs if each not in view.stored_names)
    return (*feature.key, hidden) if hidden else feature.key


def _hash(says: object) -> str:
    return hashlib.blake2b(repr(says).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class LoggedView:
    """A view as the log of its flow knows it, for a program that has no definition at hand, such as Feast's.

    Attributes:
        layout: of its rows. ttl_us: as `ViewDefinition.ttl_us`, which a log does not say.
    """

    layout: RowLayout
    ttl_us: int | None = None

    @property
    def name(self) -> str:
        return self.layout.view


def row_layout(view: Any) -> RowLayout:
    """The layout of the rows of a view, given as its class, its definition or a LoggedView."""
    return view.layout if isinstance(view, LoggedView) else _layout(definition(view))


def stored_view(view: Any) -> ViewDefinition | LoggedView:
    """What a store needs of a view to write it: name, ttl and layout. Raises DefinitionError if it is none."""
    return view if isinstance(view, LoggedView) else definition(view)


def encode_layout(layout: RowLayout) -> bytes:
    return msgspec.msgpack.encode(layout)


def decode_layout(data: bytes) -> RowLayout:
    return msgspec.msgpack.decode(data, type=RowLayout)


def same(stored: RowLayout, asked: RowLayout) -> bool:
    """Whether one definition made both, but for the order of the features and what readers apply."""
    return stored.identity == asked.identity and sorted(stored.features) == sorted(asked.features)


def check_same(stored: RowLayout, asked: RowLayout, place: str, remedy: str) -> None:
    """Refuse rows that another definition of the view made.

    Args:
        place: the store, for the message.
        remedy: what to do, a sentence.

    Raises:
        SchemaMismatchError: the definitions differ in what a stored row says; names the differences.
    """
    if not same(stored, asked):
        what = "; ".join(stored.differences(asked))
        raise SchemaMismatchError(
            f"{place} holds rows of view '{asked.view}' that another definition made: {what}. {remedy}"
        )


def check_readable(stored: RowLayout, asked: RowLayout, place: str, remedy: str) -> None:
    """Refuse to read rows in which a feature asked for means something else, or is not there.

    Rows of a definition that has more features are fine: who still has the former one reads what it knows.

    Raises:
        SchemaMismatchError: as `check_same`.
    """
    there = set(zip(stored.features, stored.meaning, strict=True))
    if stored.unlike(asked) or not there.issuperset(zip(asked.features, asked.meaning, strict=True)):
        check_same(stored, asked, place, remedy)


def check_related(stored: RowLayout, asked: RowLayout) -> None:
    """Refuse a definition that is no later form of the stored one: another entity, or another column for the time.

    Raises:
        SchemaMismatchError: names what differs.
    """
    found = stored.unlike(asked)
    if found:
        raise SchemaMismatchError(
            f"View '{asked.view}' cannot take the place of its former definition: {'; '.join(found)}. Give it another "
            "name, or drop the former one's rows first."
        )


def arrow_type(dtype: str) -> pa.DataType:
    """The Arrow type of a column type of dtypes.py.

    >>> arrow_type("map<string,list<int64>>")
    MapType(map<string, list<element: int64>>)
    """
    import pyarrow as pa

    plain = {INT: pa.int64, FLOAT: pa.float64, STRING: pa.string, BOOL: pa.bool_, BYTES: pa.binary}
    if dtype in plain:
        return plain[dtype]()
    if dtype == TIMESTAMP:
        return pa.timestamp("us", tz="UTC")
    element = split_list(dtype)
    if element is not None:
        return pa.list_(pa.field("element", arrow_type(element)))
    pair = split_map(dtype)
    if pair is not None:
        return pa.map_(arrow_type(pair[0]), arrow_type(pair[1]))
    raise SchemaMismatchError(f"{dtype!r} is no column type. Types are listed in headrace.features.dtypes.")


@lru_cache(maxsize=256)
def arrow_schema(layout: RowLayout) -> pa.Schema:
    """The full Arrow schema of a view's rows; times are never null, neither are keys."""
    import pyarrow as pa

    never_null = {*layout.key_names, EVENT_TIMESTAMP, NEWEST_EVENT}
    return pa.schema(
        [pa.field(name, arrow_type(dtype), nullable=name not in never_null) for name, dtype in layout.columns]
    )


def conform(layout: RowLayout, rows: pa.Table) -> pa.Table:
    """`rows` with exactly the columns of the layout, in order and cast without loss.

    Raises:
        SchemaMismatchError: a column is missing, unknown or holds what its type cannot; a null key or time.
    """
    import pyarrow as pa

    schema = arrow_schema(layout)
    exactly = rows.schema.equals(schema)
    missing = [] if exactly else [name for name in schema.names if name not in rows.column_names]
    unknown = [] if exactly else [name for name in rows.column_names if name not in schema.names]
    if missing or unknown:
        parts = [f"without {', '.join(missing)}"] if missing else []
        parts += [f"with the unknown {', '.join(unknown)}"] if unknown else []
        raise SchemaMismatchError(
            f"View '{layout.view}': got rows {' and '.join(parts)}; expected {', '.join(schema.names)}."
        )
    if not exactly:
        rows = rows.select(schema.names)
    for name in (*layout.key_names, EVENT_TIMESTAMP, NEWEST_EVENT):
        if rows.column(name).null_count:
            raise SchemaMismatchError(
                f"View '{layout.view}': column '{name}' has null rows. A key or time is never null."
            )
    if exactly or rows.schema.equals(schema):
        return rows
    try:
        return rows.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaMismatchError(f"View '{layout.view}': rows do not fit its columns: {error}.") from error


def _shown(columns: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in columns)
