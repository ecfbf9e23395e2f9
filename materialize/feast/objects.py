"""Headrace's views and services as Feast's objects: entities, the log as FileSource, the stream as PushSource, views.

A feature keeps its name and type and says in its description what it computes. All objects carry the tag `headrace`;
objects without it are not ours and are never changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource
from feast import types as feast_types
from feast.data_format import ParquetFormat
from feast.value_type import ValueType

from headrace.features.describing import feature_text
from headrace.features.dtypes import BOOL, BYTES, FLOAT, INT, STRING, TIMESTAMP, split_list, split_map
from headrace.features.errors import DefinitionError
from headrace.features.services import FeatureService as Service
from headrace.features.views import ViewDefinition, definition
from headrace.materialize.feast.log import LOG
from headrace.materialize.feast.online_store import TAG
from headrace.stores.layout import EVENT_TIMESTAMP, row_layout

FILE = "headrace.file"
"""Tag: name of the Python file that defines the view. What that file has no longer is removed."""

VERSION = "headrace.version"
"""Tag of a service: its version."""

_SCALARS = {
    INT: feast_types.Int64,
    FLOAT: feast_types.Float64,
    STRING: feast_types.String,
    BYTES: feast_types.Bytes,
    BOOL: feast_types.Bool,
    TIMESTAMP: feast_types.UnixTimestamp,
}
_KEYS = {
    INT: ValueType.INT64,
    STRING: ValueType.STRING,
    BYTES: ValueType.BYTES,
    TIMESTAMP: ValueType.UNIX_TIMESTAMP,
}


@dataclass(frozen=True)
class FeastObjects:
    """What stands for some views and services in Feast.

    Attributes:
        entities: one for each join key. kept: those among them that the repository had, which are not ours.
        sources: FileSource of the log and PushSource of each view. views, services: as Feast's.
        notes: sentences about what Feast has no place for.
    """

    entities: tuple[Any, ...]
    kept: tuple[Any, ...]
    sources: tuple[Any, ...]
    views: tuple[Any, ...]
    services: tuple[Any, ...]
    notes: tuple[str, ...] = ()

    @property
    def ours(self) -> tuple[Any, ...]:
        """Everything to register, each after what it refers to."""
        entities = tuple(each for each in self.entities if each not in self.kept)
        return (*entities, *self.sources, *self.views, *self.services)


def feast_objects(
    views: Iterable[Any],
    services: Iterable[Service] = (),
    *,
    log: str,
    files: Mapping[str, str] | None = None,
    entities: Sequence[Any] = (),
    one_file: bool = True,
) -> FeastObjects:
    """The objects for views and services, as `headrace feast apply` registers them.

    Args:
        views: classes or definitions; those of the services are added.
        log: root of the offline log, a folder or a URL.
        files: by name of a view or service, the Python file that defines it, for the tag `headrace.file`.
        entities: Feast's entities of the repository; one with the join key of ours is taken instead of a new one.
        one_file: the offline store reads a folder, as Feast's `file` and `dask` do; `duckdb` needs a pattern.

    Raises:
        DefinitionError: a view without a log; a key or a feature of a type that Feast lacks; an entity of the
            repository with a key of another type.
    """
    asked = tuple(services)
    offered: dict[str, ViewDefinition] = {}
    for view in (*map(definition, views), *(view for service in asked for view in service.views)):
        if offered.setdefault(view.name, view) != view:
            raise DefinitionError(f"Two feature views are named '{view.name}'. Rename one of them.")
    made: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    sources: list[Any] = []
    feast_views: dict[str, Any] = {}
    for view in offered.values():
        tags = _tags(view.fingerprint(), (files or {}).get(view.name))
        own = [_entity(view, key, dtype, entities, made, kept) for key, dtype in row_layout(view).keys]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Feast deprecates of itself
            feast_views[view.name] = found = _view(view, own, log, tags, one_file)
        sources += [found.batch_source, found.stream_source]
    notes = [
        f"{service.name}: {', '.join(each.name for each in service.on_demand)} on demand; only Headrace's client and "
        "`headrace serve` compute it"
        for service in asked
        if service.on_demand
    ]
    return FeastObjects(
        tuple(made.values()),
        tuple(kept.values()),
        tuple(sources),
        tuple(feast_views.values()),
        tuple(_service(service, feast_views, files or {}) for service in asked),
        tuple(notes),
    )


def registered_objects(repo: str | Path) -> dict[str, Any]:
    """What `headrace feast apply` has registered in a Feast repository, by names that a module can take.

    `feast apply` removes from the registry what the repository's files do not define. A file of the repository says

        from pathlib import Path
        from headrace.materialize.feast import registered_objects
        globals().update(registered_objects(Path(__file__).parent))

    and Headrace's objects stay. `headrace feast apply` writes that file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Feast deprecates of itself
        store = FeatureStore(repo_path=str(repo))
        ours = {key: found for key, found in in_registry(store).items() if TAG in found.tags}
    # A view brings its sources along, and Feast refuses a source that is there twice.
    return {f"headrace_{kind}_{name}": found for (kind, name), found in ours.items() if kind != "source"}


def in_registry(store: Any) -> dict[tuple[str, str], Any]:
    """All objects of a repository's registry that are of a kind of ours, by kind and name."""
    every = {
        "entity": store.list_entities(),
        "source": store.list_data_sources(),
        "view": store.list_all_feature_views(),
        "service": store.list_feature_services(),
    }
    return {(kind, each.name): each for kind, found in every.items() for each in found}


def _tags(fingerprint: str, file: str | None) -> dict[str, str]:
    return {TAG: fingerprint, **({} if file is None else {FILE: file})}


def _entity(
    view: ViewDefinition,
    key: str,
    dtype: str,
    there: Sequence[Any],
    made: dict[str, Any],
    kept: dict[str, Any],
) -> Any:
    """Feast's entity of one key column, of which Feast knows one each; adds it to `made`, one of another to `kept`."""
    shown = f"View '{view.name}': key '{key}'"
    if dtype not in _KEYS:
        raise DefinitionError(f"{shown} is {dtype}; Feast's join keys are int, str, bytes or datetime. Key by another.")
    name = view.entity.name if len(view.entity.keys) == 1 else key
    others = [each for each in there if TAG not in each.tags]
    found = next((each for each in others if each.join_key == key), None)
    clash = next((each for each in others if each.name == name and each.join_key != key), None)
    if clash is not None:
        raise DefinitionError(
            f"{shown}: the repository has an entity '{name}' with the join key '{clash.join_key}'. Rename yours: "
            f"Entity('other', key='{key}')."
        )
    if found is not None:
        if found.value_type not in (_KEYS[dtype], ValueType.UNKNOWN):
            raise DefinitionError(
                f"{shown} is {dtype}; the repository's entity '{found.name}' has it as {found.value_type.name}. Give "
                "the event's column the same type."
            )
        kept[found.name] = made[found.name] = found
        return found
    same = next((each for each in made.values() if each.join_key == key), None)
    if same is not None:
        if same.value_type != _KEYS[dtype]:
            raise DefinitionError(f"{shown} is {dtype} here and {same.value_type.name} in another view. Use one type.")
        return same
    made[name] = Entity(name=name, join_keys=[key], value_type=_KEYS[dtype], tags={TAG: "entity"})
    return made[name]


def _view(view: ViewDefinition, entities: list[Any], log: str, tags: Mapping[str, str], one_file: bool) -> Any:
    if not view.log:
        raise DefinitionError(
            f"View '{view.name}' has no log (log=False), which Feast's historical reads and `feast materialize` read. "
            "Give it one, or leave it to `headrace serve`."
        )
    layout = row_layout(view)
    folder = f"{log.rstrip('/')}/view={view.name}"
    source = FileSource(
        name=f"{view.name}_log",
        path=folder if one_file else f"{folder}/*/*.parquet",
        file_format=ParquetFormat(),
        timestamp_field=EVENT_TIMESTAMP,
        description=f"Offline log of Headrace's view {view.name}: settled rows",
        tags={**tags, TAG: "log"},
    )
    stream = PushSource(
        name=f"{view.name}_stream",
        batch_source=source,
        description=f"Rows of {view.name} as its flow writes them, from {view.source.name}",
        tags={**tags, TAG: "stream"},
    )
    return FeatureView(
        name=view.name,
        entities=entities,
        schema=[
            *(Field(name=name, dtype=_SCALARS[dtype]) for name, dtype in layout.keys),
            *(
                Field(
                    name=name,
                    dtype=feast_type(view, name, dtype),
                    description=feature_text(view, view.feature(name)),
                    tags={TAG: meaning},
                )
                for (name, dtype), meaning in zip(layout.features, layout.meaning, strict=True)
                if name not in view.hidden_names
            ),
        ],
        source=stream,
        ttl=timedelta(microseconds=view.ttl_us or 0),
        description=f"{view.entity.name} from {view.source.name}, by Headrace",
        tags={**tags, LOG: log},
    )


def feast_type(view: ViewDefinition, name: str, dtype: str) -> Any:
    """Feast's type of a feature. Raises DefinitionError where it has none."""
    pair = split_map(dtype)
    element = split_list(dtype)
    if pair is not None:
        return feast_types.Map if pair[0] == STRING else feast_types.ScalarMap
    if element is not None and element in _SCALARS:
        return feast_types.Array(_SCALARS[element])
    if dtype in _SCALARS:
        return _SCALARS[dtype]
    raise DefinitionError(
        f"View '{view.name}': feature '{name}' is {dtype}, for which Feast has no type. Hide it: _{name}."
    )


def _service(service: Service, views: Mapping[str, Any], files: Mapping[str, str]) -> Any:
    chosen: dict[str, list[str]] = {}
    for each in service.features:
        chosen.setdefault(each.view.name, []).append(each.feature)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Feast deprecates of itself
        return FeatureService(
            name=service.name,
            features=[views[name][names] for name, names in chosen.items()],
            description=f"{service.name} version {service.version}, by Headrace",
            tags={**_tags(service.fingerprint(), files.get(service.name)), VERSION: str(service.version)},
        )
