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
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from headrace.features.dtypes import FLOAT, TIMESTAMP
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


class Wire:
    """How the answers of one plan are written; what does not depend on the rows is made once.

    Attributes:
        key_types: key column -> its type. names: of the features in answers.
    """

    __slots__ = ("_columns", "_names_json", "_views_json", "key_types", "names")

    def __init__(self, plan: Plan, names: Sequence[str] | None = None) -> None:
        self.key_types = dict(plan.keys)
        self.names = tuple([each.name for each in plan.columns] if names is None else names)
        self._names_json = b'{"metadata":{"feature_names":' + _encode([*self.key_types, *self.names])
        views = [{"name": part.view.name, "version": 0} for part in plan.parts]
        self._views_json = b',"feature_view_metadata":' + _encode(views)
        self._columns = [
            (each.origin, each.default, FLOAT in each.dtype, TIMESTAMP in each.dtype) for each in plan.columns
        ]

    def json(self, table: FeatureTable, *, feast: bool = False, views: bool = False) -> bytes:
        """The answer.

        Args:
            feast: statuses, nulls and instants as Feast writes them. views: tell the views' versions, as Feast does
                when it is asked to.
        """
        n = len(table.rows)
        origins = [_Tail(each, n, feast) for each in table.origins]
        out = [b""]
        constant = _known_tail(n)
        for name in self.key_types:
            out += (b'{"values":', _encode(table.entities[name]), constant, b",")
        defaults: dict[str, list[int]] = {}
        columns: Sequence[Sequence[Any]] = tuple(zip(*table.rows, strict=True)) if n else ((),) * len(self._columns)
        for at, values in enumerate(columns):
            origin, default, floats, timed = self._columns[at]
            tail = origins[origin]
            if feast and (timed or tail.gone):
                values = _as_feast(values, tail.gone, timed)
            written = _encode(values)
            if b"null" in written and floats and any(map(_odd, values)):
                # JSON has no NaN and no infinity: in words, as Feast and Protobuf write them.
                values = [_in_words(each) for each in values]
                written = _encode(values)
            usual = tail.usual
            if not feast and (
                (b"null" in written and None in values) or (default is not MISSING and default in values)
            ):
                usual = tail.own(values, default, defaults, self.names[at])
            out += (b'{"values":', written, usual, b",")
        if len(out) > 1:
            out.pop()
        out[0] = self._head(table.failures, defaults, views) + b'},"results":['
        out.append(b"]}")
        return b"".join(out)

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

    __slots__ = ("_times", "_why", "gone", "usual")

    def __init__(self, origin: Origin, n: int, feast: bool) -> None:
        why, times = origin.why, origin.event_times_us
        self._why = why
        self._times = b',"event_timestamps":' + _instants(times) + b"}"
        self.gone: Sequence[bool] | None = None
        if why is None:
            self.usual = b',"statuses":' + _present(n) + self._times
            return
        if feast:
            self.gone = [each in _GONE for each in why]
        words = _FEAST if feast else WORDS
        said = ["PRESENT" if each is None else words[each] for each in why]
        self.usual = b',"statuses":' + _encode(said) + self._times

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


def _as_feast(values: Sequence[Any], gone: Sequence[bool] | None, timed: bool) -> Sequence[Any]:
    """Null where the entity has no values of its own; instants as seconds, rounded down."""
    if gone is not None:
        values = [None if each else value for value, each in zip(values, gone, strict=True)]
    return [_seconds(value) for value in values] if timed else values


def _seconds(value: Any) -> Any:
    if isinstance(value, datetime):
        return int((value - EPOCH).total_seconds() // 1)
    if isinstance(value, dict):
        return {key: _seconds(each) for key, each in value.items()}
    return [_seconds(each) for each in value] if isinstance(value, (list, tuple)) else value
