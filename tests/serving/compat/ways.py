"""Every way to ask for the same features of the same entities; each gives feature -> n of `Told`, in one form.

Names are `view__feature`. Instants among the values are aware datetimes, event times microseconds.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from tests.serving.compat.rows import Told
from tests.serving.compat.serving import Served

from headrace.features.dtypes import split_list, split_map
from headrace.materialize.training import training_set
from headrace.serving import AsyncClient, Client, FeatureTable
from headrace.stores.offline import OfflineLog

Entities = Mapping[str, Sequence[Any]]
Answer = dict[str, list[Told]]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FLOATS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def micros(instant: datetime | None) -> int | None:
    """An instant as microseconds since the epoch."""
    return None if instant is None else (instant - EPOCH) // timedelta(microseconds=1)


def _of_table(table: FeatureTable) -> Answer:
    return {
        name: [
            Told(value, str(status), micros(at))
            for value, status, at in zip(table[name], table.status(name), table.event_times[place], strict=True)
        ]
        for place, name in enumerate(table.names)
    }


def by_client(client: Client, asked: Sequence[str], entities: Entities) -> Answer:
    return _of_table(client.features(asked, entities, full_names=True))


async def by_async_client(client: AsyncClient, asked: Sequence[str], entities: Entities) -> Answer:
    return _of_table(await client.features(asked, entities, full_names=True))


def by_training_set(log: OfflineLog, views: Sequence[Any], entities: Entities, at: datetime) -> Answer:
    """As a training set whose spine asks at one instant; it tells no event times, so these are None."""
    n = len(next(iter(entities.values())))
    spine = pa.table({**{name: list(values) for name, values in entities.items()}, "event_timestamp": [at] * n})
    found = training_set(spine, views, log=log, prefix=True, statuses=True)
    return {
        f"{view.name}__{name}": [
            Told(_plain(value, view.dtypes[name]), status, None)
            for value, status in zip(
                found.column(f"{view.name}__{name}").to_pylist(),
                found.column(f"{view.name}__{name}__status").to_pylist(),
                strict=True,
            )
        ]
        for view in views
        for name in view.feature_names()
    }


def by_json(server: Served, asked: Sequence[str], entities: Entities, views: Sequence[Any]) -> Answer:
    """Over HTTP, in JSON. What the wire says by other words is put together again: NULL is NULL_VALUE there, DEFAULT is
    PRESENT and in `metadata.defaults`, and the epoch is the event time of what has none."""
    reply = server.ask({"features": list(asked), "entities": entities, "full_feature_names": True})
    assert reply.status == 200, reply.body
    said = reply.json
    names, n = said["metadata"]["feature_names"], len(next(iter(entities.values())))
    assert names[: len(entities)] == list(entities)
    dtypes = {f"{view.name}__{name}": view.dtypes[name] for view in views for name in view.feature_names()}
    columns = dict(zip(names, said["results"], strict=True))
    for name, values in entities.items():
        times = ["1970-01-01T00:00:00Z"] * n
        assert columns.pop(name) == {"values": list(values), "statuses": ["PRESENT"] * n, "event_timestamps": times}
    defaults = said["metadata"].get("defaults", {})
    answer: Answer = {}
    for name, column in columns.items():
        statuses = ["NULL" if word == "NULL_VALUE" else word for word in column["statuses"]]
        for place in defaults.get(name, ()):
            assert statuses[place] == "PRESENT"
            statuses[place] = "DEFAULT"
        answer[name] = [
            Told(from_json(value, dtypes[name]), status, micros(datetime.fromisoformat(at)) or None)
            for value, status, at in zip(column["values"], statuses, column["event_timestamps"], strict=True)
        ]
    return answer


def from_json(value: Any, dtype: str) -> Any:
    """A value of the wire as clients give it."""
    element, pair = split_list(dtype), split_map(dtype)
    if value is None:
        return None
    if element is not None:
        return [from_json(each, element) for each in value]
    if pair is not None:
        return {_key(key, pair[0]): from_json(each, pair[1]) for key, each in value.items()}
    if dtype == "float64" and isinstance(value, str):
        return _FLOATS[value]
    if dtype == "bytes":
        return base64.b64decode(value, validate=True)
    return datetime.fromisoformat(value) if dtype == "timestamp" else value


def _key(text: str, dtype: str) -> Any:
    return int(text) if dtype == "int64" else text


def by_arrow(server: Served, asked: Sequence[str], entities: Entities, views: Sequence[Any]) -> Answer:
    """Over HTTP, as an Arrow stream."""
    body = {"features": list(asked), "entities": entities, "full_feature_names": True}
    reply = server.ask(body, Accept="application/vnd.apache.arrow.stream")
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/vnd.apache.arrow.stream"
    with pa.ipc.open_stream(io.BytesIO(reply.body)) as stream:
        table = stream.read_all()
    words = json.loads(table.schema.metadata[b"headrace"])["statuses"]
    assert table.select(list(entities)).to_pydict() == {name: list(values) for name, values in entities.items()}
    codes, times = table.column("__statuses").to_pylist(), table.column("__event_timestamps").to_pylist()
    dtypes = {f"{view.name}__{name}": view.dtypes[name] for view in views for name in view.feature_names()}
    names = table.column_names[len(entities) : -2]
    return {
        name: [
            Told(_plain(value, dtypes[name]), words[code[place]], micros(at[place]))
            for value, code, at in zip(table.column(name).to_pylist(), codes, times, strict=True)
        ]
        for place, name in enumerate(names)
    }


def _plain(value: Any, dtype: str) -> Any:
    """A value of Arrow as Python has it: maps are lists of pairs there."""
    return dict(value) if value is not None and split_map(dtype) is not None else value
