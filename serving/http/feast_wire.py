"""Answers as Feast's HTTP server writes them: columns of values, statuses and event timestamps, in JSON.

    {"metadata": {"feature_names": ["driver_id", "rides_1h"]},
     "results": [{"values": ["7"], "statuses": ["PRESENT"], "event_timestamps": ["1970-01-01T00:00:00Z"]},
                 {"values": [3], "statuses": ["PRESENT"], "event_timestamps": ["2026-05-01T12:00:00Z"]}]}

Written straight from the rows of a FeatureTable. What many columns share (the statuses of a view whose rows are all
there, its event timestamps) is written once and joined in as bytes.

| status          | honest          | feast                                  |
|-----------------|-----------------|----------------------------------------|
| PRESENT         | PRESENT         | PRESENT                                |
| NULL            | NULL_VALUE      | PRESENT, null                          |
| DEFAULT         | PRESENT, and its entity's number in metadata.defaults | PRESENT |
| NOT_FOUND       | NOT_FOUND       | PRESENT, null                          |
| OUTSIDE_MAX_AGE | OUTSIDE_MAX_AGE | PRESENT, null                          |
| FAILED          | INVALID, why in metadata.failures | INVALID              |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from headrace.features.dtypes import BOOL, FLOAT, INT, TIMESTAMP
from headrace.features.features import MISSING
from headrace.features.reading import Status
from headrace.features.time import EPOCH, as_datetime
from headrace.serving.asking import Plan
from headrace.serving.http.problems import why_failed
from headrace.serving.table import FeatureTable, Origin

_encode = msgspec.json.Encoder().encode

WORDS = {
    Status.PRESENT: "PRESENT",
    Status.NULL: "NULL_VALUE",
    Status.DEFAULT: "PRESENT",
    Status.NOT_FOUND: "NOT_FOUND",
    Status.OUTSIDE_MAX_AGE: "OUTSIDE_MAX_AGE",
    Status.FAILED: "INVALID",
}
"""Ours -> the words that Feast's clients know."""

_FEAST = dict.fromkeys(Status, "PRESENT") | {Status.FAILED: "INVALID"}
_GONE = (Status.NOT_FOUND, Status.OUTSIDE_MAX_AGE)
_KEPT_N = 1024
_TOGETHER_N = 64
"""Columns of up to so many values are written together and divided, a call less for each. Longer ones: no copies."""
_FLAT = (INT, FLOAT, BOOL, TIMESTAMP)


class Wire:
    """How the answers of one plan are written; what does not depend on the rows is made once.

    Attributes:
        key_types: key column -> its type. names: of the features in answers.
    """

    __slots__ = (
        "_bool_keys",
        "_columns",
        "_defaults",
        "_flat",
        "_floats",
        "_names_json",
        "_timed",
        "_views_json",
        "key_types",
        "names",
    )

    def __init__(self, plan: Plan, names: Sequence[str] | None = None) -> None:
        self.key_types = dict(plan.keys)
        self.names = tuple([each.name for each in plan.columns] if names is None else names)
        self._names_json = b'{"metadata":{"feature_names":' + _encode([*self.key_types, *self.names])
        views = [{"name": part.view.name, "version": 0} for part in plan.parts]
        self._views_json = b',"feature_view_metadata":' + _encode(views)
        self._columns = [(each.origin, each.default, TIMESTAMP in each.dtype) for each in plan.columns]
        self._bool_keys = {at for at, each in enumerate(plan.columns) if "map<bool" in each.dtype}
        self._timed = any(timed for *_, timed in self._columns)
        self._floats = any(FLOAT in each.dtype for each in plan.columns)
        self._defaults = any(default is not MISSING for _, default, _ in self._columns)
        self._flat = all(each.dtype in _FLAT for each in plan.columns)

    def json(self, table: FeatureTable, *, feast: bool = False, views: bool = False) -> bytes:
        """The answer.

        Args:
            feast: statuses, nulls and instants as Feast writes them. views: tell the views' versions, as Feast does
                when it is asked to.
        """
        n = len(table.rows)
        origins = [_Tail(each, n, feast) for each in table.origins]
        columns: Sequence[Sequence[Any]] = tuple(zip(*table.rows, strict=True)) if n else ((),) * len(self._columns)
        if feast and (self._timed or any(each.gone for each in origins)):
            columns = [
                _as_feast(values, origins[origin].gone, timed)
                for values, (origin, _, timed) in zip(columns, self._columns, strict=True)
            ]
        if self._bool_keys:
            columns = [
                [_text_keys(value) for value in values] if at in self._bool_keys else values
                for at, values in enumerate(columns)
            ]
        pieces, nulls = self._pieces(columns)
        if nulls and self._floats:
            # JSON has no NaN and no infinity: in words, as Feast and Protobuf write them.
            for at, piece in enumerate(pieces):
                if piece.count(b"null") != columns[at].count(None) and any(map(_odd, columns[at])):
                    pieces[at] = _encode([_in_words(value) for value in columns[at]])[1:-1]
        defaults: dict[str, list[int]] = {}
        own: dict[int, bytes] = {}
        if not feast and (nulls or self._defaults):
            for at, (origin, default, _) in enumerate(self._columns):
                values = columns[at]
                if (nulls and not origins[origin].explains(values)) or (default is not MISSING and default in values):
                    own[at] = origins[origin].own(values, default, defaults, self.names[at])
        constant = _known_tail(n)
        out = [self._head(table.failures, defaults, views), b'},"results":[']
        for name in self.key_types:
            out += (b'{"values":', _encode(table.entities[name]), constant, b",")
        if len(origins) == 1 and not own and n <= _TOGETHER_N:
            tail = b"]" + origins[0].usual
            out += (b'{"values":[', (tail + b',{"values":[').join(pieces), tail)
        else:
            for at, (piece, (origin, *_)) in enumerate(zip(pieces, self._columns, strict=True)):
                out += (b'{"values":[', piece, b"]", own.get(at) or origins[origin].usual, b",")
            out.pop()
        out.append(b"]}")
        return b"".join(out)

    def _pieces(self, columns: Sequence[Sequence[Any]]) -> tuple[list[bytes], bool]:
        """The JSON of each column's values, without brackets; whether null may be among them."""
        if self._flat and columns and 0 < len(columns[0]) <= _TOGETHER_N:
            # No string is among them, so what stands between two columns stands nowhere else.
            whole = _encode(columns)
            return whole[2:-2].split(b"],["), b"null" in whole
        pieces = [_encode(values)[1:-1] for values in columns]
        return pieces, any(b"null" in piece for piece in pieces)

    def _head(self, failures: Mapping[str, Exception], defaults: Mapping[str, list[int]], views: bool) -> bytes:
        out = self._names_json
        if views:
            out += self._views_json
        if failures:
            out += b',"failures":' + _encode({view: why_failed(error) for view, error in failures.items()})
        if defaults:
            out += b',"defaults":' + _encode(defaults)
        return out


class _Tail:
    """What follows the values in the columns of one origin.

    Attributes:
        usual: statuses and event timestamps of a column in which no value is null or its default.
        gone: where values are none of the entity's own; None: nowhere.
    """

    __slots__ = ("_first_gone", "_gone_n", "_times", "_why", "gone", "usual")

    def __init__(self, origin: Origin, n: int, feast: bool) -> None:
        why, times = origin.why, origin.event_times_us
        self._why = why
        self._times = b',"event_timestamps":' + _instants(times) + b"}"
        self.gone: Sequence[bool] | None = None
        self._gone_n = self._first_gone = 0
        if why is None:
            self.usual = b',"statuses":' + _present(n) + self._times
            return
        if feast:
            self.gone = [each in _GONE for each in why]
        self._gone_n = n - why.count(None)
        self._first_gone = next((at for at, each in enumerate(why) if each is not None), 0)
        words = _FEAST if feast else WORDS
        said = ["PRESENT" if each is None else words[each] for each in why]
        self.usual = b',"statuses":' + _encode(said) + self._times

    def explains(self, values: Sequence[Any]) -> bool:
        """Whether no value is null, or only those of entities that have none of their own, whose status tells it."""
        nulls = values.count(None)
        return not nulls or (nulls == self._gone_n and values[self._first_gone] is None)

    def own(self, values: Sequence[Any], default: Any, defaults: dict[str, list[int]], name: str) -> bytes:
        """The tail of a column with nulls or defaults; adds the entities with a default to `defaults`."""
        said = ["NULL_VALUE" if value is None else "PRESENT" for value in values]
        why = self._why
        if why is not None:
            said = [mine if each is None else WORDS[each] for each, mine in zip(why, said, strict=True)]
        if default is not MISSING:
            found = [at for at, value in enumerate(values) if value == default and (why is None or why[at] is None)]
            if found:
                defaults[name] = found
        return b',"statuses":' + _encode(said) + self._times


def _instants(times: Sequence[int | None]) -> bytes:
    """Event timestamps in RFC 3339; the epoch stands for none, as in Feast's answers."""
    first = times[0] if times else None
    if len(times) == 1:
        return _encode((EPOCH if first is None else as_datetime(first),))
    if first is None and times.count(None) == len(times):
        return _epochs(len(times)) if len(times) <= _KEPT_N else _encode([EPOCH] * len(times))
    known: dict[int | None, datetime] = {us: EPOCH if us is None else as_datetime(us) for us in set(times)}
    return _encode([known[us] for us in times])


@lru_cache(maxsize=256)
def _kept_present(n: int) -> bytes:
    return _encode(["PRESENT"] * n)


def _present(n: int) -> bytes:
    return _kept_present(n) if n <= _KEPT_N else _encode(["PRESENT"] * n)


@lru_cache(maxsize=256)
def _epochs(n: int) -> bytes:
    return _encode([EPOCH] * n)


def _known_tail(n: int) -> bytes:
    """What follows the values of a key column."""
    epochs = _epochs(n) if n <= _KEPT_N else _encode([EPOCH] * n)
    return b',"statuses":' + _present(n) + b',"event_timestamps":' + epochs + b"}"


def _odd(value: Any) -> bool:
    """Whether there is a NaN or an infinity in it."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_odd, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_odd, value))


def _in_words(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _in_words(each) for key, each in value.items()}
    return [_in_words(each) for each in value] if isinstance(value, (list, tuple)) else value


def _text_keys(value: Any) -> Any:
    """Names in JSON are texts: those of a map by bool are "true" and "false"."""
    if isinstance(value, dict):
        return {str(key).lower() if isinstance(key, bool) else key: _text_keys(each) for key, each in value.items()}
    return [_text_keys(each) for each in value] if isinstance(value, list) else value


def _as_feast(values: Sequence[Any], gone: Sequence[bool] | None, timed: bool) -> Sequence[Any]:
    """Null where the entity has no values of its own; instants as seconds, rounded down."""
    if gone is not None:
        values = [None if each else value for value, each in zip(values, gone, strict=True)]
    return [_seconds(value) for value in values] if timed else values


def _seconds(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(seconds=1)
    if isinstance(value, dict):
        return {key: _seconds(each) for key, each in value.items()}
    return [_seconds(each) for each in value] if isinstance(value, (list, tuple)) else value
