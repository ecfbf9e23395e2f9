"""What a feature log keeps of answers: a row per entity, in Arrow columns (docs/feature-logging.md lists them).

    served_at, at, service, version, fingerprint, trace, keys{}, request{}, features{}, statuses{}, event_times{}

Keys, features and the others are structs, so that a key, a feature and a value given along may have one name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.features.dtypes import BOOL, FLOAT, INT, TIMESTAMP
from headrace.features.features import MISSING
from headrace.features.reading import STATUSES, Status
from headrace.features.views import ViewDefinition
from headrace.serving.asking import Plan
from headrace.serving.watching import Answer
from headrace.stores.layout import arrow_type
from headrace.stores.rows import table_value

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LISTS = "ad-hoc"
"""The folder of lookups that asked for a list of features; no service can be called so."""

ON_DEMAND = "on demand"
"""Name of the event time of features on demand; no view can be called so."""

_CODES = {status: code for code, status in enumerate(STATUSES)}
_PRESENT, _NULL, _DEFAULT = (_CODES[each] for each in (Status.PRESENT, Status.NULL, Status.DEFAULT))
_AS_THEY_ARE = (FLOAT, INT, BOOL, TIMESTAMP)


class Noted(NamedTuple):
    """An answer and when it was given, microseconds."""

    answer: Answer
    served_us: int


Keep = Callable[[Answer], "list[int] | None"]
"""Which entities of an answer are kept; None: all."""


class LoggedRows:
    """Turns answers of one plan into rows. Made once per plan; holds no state between calls.

    Attributes:
        folder: where its files go, under the log's root: one for each definition, so that a folder has one schema.
        schema: of the rows; its metadata has `headrace.service`, `headrace.version`, `headrace.fingerprint` and
            `headrace.features`, the description of what was asked.
    """

    def __init__(self, plan: Plan) -> None:
        import pyarrow as pa

        service = plan.service
        self._plan, self._words = plan, pa.array([status.value for status in STATUSES])
        if service is None:
            self.service, self.version, self.fingerprint = None, None, _fingerprint(plan)
            self.folder = f"{LISTS}/{self.fingerprint[:12]}"
        else:
            self.service, self.version, self.fingerprint = service.name, service.version, service.fingerprint()
            self.folder = f"{service.name}/v{service.version}-{self.fingerprint[:12]}"
        status = pa.dictionary(pa.int8(), pa.string())
        instant = arrow_type(TIMESTAMP)
        keys = [(name, arrow_type(dtype)) for name, dtype in plan.keys.items()]
        views = [part.view.name for part in plan.parts] + ([ON_DEMAND] if plan.on_demand else [])
        fields: list[tuple[str, pa.DataType]] = [
            ("served_at", instant),
            ("at", instant),
            ("service", pa.string()),
            ("version", pa.int64()),
            ("fingerprint", pa.string()),
            ("trace", pa.string()),
            ("keys", pa.struct(keys)),
        ]
        if plan.request:
            fields.append(("request", pa.struct([(each.name, arrow_type(each.dtype)) for each in plan.request])))
        fields += [
            ("features", pa.struct([(each.name, arrow_type(each.dtype)) for each in plan.columns])),
            ("statuses", pa.struct([(each.name, status) for each in plan.columns])),
            ("event_times", pa.struct([(name, instant) for name in views])),
        ]
        described = [f"{each.name} {each.dtype}" for each in plan.columns]
        self.schema = pa.schema(fields).with_metadata(
            {
                "headrace.service": self.service or "",
                "headrace.version": "" if self.version is None else str(self.version),
                "headrace.fingerprint": self.fingerprint,
                "headrace.features": ", ".join(described) if service is None else service.describe(),
            }
        )

    def rows(self, noted: Sequence[Noted], keep: Keep) -> pa.RecordBatch | None:
        """The rows of some answers of the plan, in order; None when none of them is kept."""
        import numpy as np
        import pyarrow as pa

        taken = [(each, picked) for each in noted if (picked := keep(each.answer)) != [] and len(each.answer.table)]
        if not taken:
            return None
        counts = [len(each.answer.table) if picked is None else len(picked) for each, picked in taken]
        n = sum(counts)

        def column(of: Callable[[Answer], Sequence[Any]]) -> list[Any]:
            parts = (_picked(of(each.answer), picked) for each, picked in taken)
            return list(chain.from_iterable(parts))

        def repeated(values: Iterable[Any]) -> np.ndarray[Any, Any]:
            return np.repeat(np.array(list(values), dtype=np.int64), counts)

        def struct(name: str, arrays: list[pa.Array]) -> pa.Array:
            return pa.StructArray.from_arrays(arrays, fields=list(self.schema.field(name).type))

        tables = [each.answer.table for each, _ in taken]
        plan, instant = self._plan, arrow_type(TIMESTAMP)
        traces = chain.from_iterable(
            [each.answer.trace] * count for (each, _), count in zip(taken, counts, strict=True)
        )
        arrays: list[pa.Array] = [
            pa.array(repeated(each.served_us for each, _ in taken)).cast(instant),
            pa.array(repeated(table.at_us for table in tables)).cast(instant),
            pa.repeat(pa.scalar(self.service, pa.string()), n),
            pa.repeat(pa.scalar(self.version, pa.int64()), n),
            pa.repeat(pa.scalar(self.fingerprint, pa.string()), n),
            pa.array(list(traces), pa.string()),
            struct(
                "keys",
                [
                    pa.array(column(lambda a, name=field.name: a.table.entities[name]), field.type)  # type: ignore[misc]
                    for field in self.schema.field("keys").type
                ],
            ),
        ]
        if plan.request:
            given = [
                _instants(column(lambda a, name=each.name: a.request[name]), each.dtype)  # type: ignore[misc]
                for each in plan.request
            ]
            arrays.append(struct("request", given))
        values = list(zip(*column(lambda a: a.table.rows), strict=True))
        whys = [
            _why([table.origins[at].why for table in tables], taken, counts) for at in range(len(tables[0].origins))
        ]
        every = pa.DictionaryArray.from_arrays(np.zeros(n, dtype=np.int8), self._words)
        features, statuses = [], []
        for each, its in zip(plan.columns, values, strict=True):
            plain = its if each.dtype in _AS_THEY_ARE else [table_value(value, each.dtype) for value in its]
            features.append(pa.array(plain, arrow_type(each.dtype)))
            codes = _codes(its, each.default, whys[each.origin])
            statuses.append(every if codes is None else pa.DictionaryArray.from_arrays(codes, self._words))
        arrays += [struct("features", features), struct("statuses", statuses)]
        times = [
            pa.array(column(lambda a, at=at: a.table.origins[at].event_times_us), pa.int64()).cast(instant)  # type: ignore[misc]
            for at in range(len(tables[0].origins))
        ]
        arrays.append(struct("event_times", times))
        return pa.record_batch(arrays, schema=self.schema)


def _picked(values: Sequence[Any], picked: list[int] | None) -> Sequence[Any]:
    return values if picked is None else [values[at] for at in picked]


def _why(
    whys: Sequence[Sequence[Status | None] | None], taken: Sequence[tuple[Noted, list[int] | None]], counts: list[int]
) -> list[Status | None] | None:
    """Why the values of a view are those of an empty window; None: all are their own."""
    if all(why is None for why in whys):
        return None
    out: list[Status | None] = []
    for why, (_, picked), count in zip(whys, taken, counts, strict=True):
        out.extend([None] * count if why is None else _picked(why, picked))
    return out


def _codes(
    values: Sequence[Any], default: Any, why: list[Status | None] | None
) -> np.ndarray[Any, np.dtype[np.int8]] | None:
    """The statuses of a column, as `FeatureTable.statuses` tells them; None: all are PRESENT."""
    import numpy as np

    if why is None and None not in values and (default is MISSING or default not in values):
        return None
    own = [_NULL if value is None else _DEFAULT if value == default else _PRESENT for value in values]
    if why is not None:
        own = [mine if each is None else _CODES[each] for each, mine in zip(why, own, strict=True)]
    return np.array(own, dtype=np.int8)


def _instants(values: list[Any], dtype: str) -> pa.Array:
    """A column of values in which instants are microseconds."""
    import pyarrow as pa

    plain = [table_value(value, dtype) for value in values]
    array = pa.array(plain, arrow_type(dtype.replace(TIMESTAMP, INT)))
    return array.cast(arrow_type(dtype)) if TIMESTAMP in dtype else array


def list_fingerprint(asked: Iterable[tuple[str, str, ViewDefinition]]) -> str:
    """32 hex digits of what a list of features asks for: name, type and view of each, in order."""
    import hashlib

    says = [(name, dtype, view.fingerprint()) for name, dtype, view in asked]
    return hashlib.blake2b(repr(("list 1", says)).encode(), digest_size=16).hexdigest()


def _fingerprint(plan: Plan) -> str:
    return list_fingerprint((each.name, each.dtype, plan.parts[each.origin].view) for each in plan.columns)
