"""What `headrace feast apply` would change in a Feast repository, feature by feature, and doing it.

Steps of a plan: read the registry; make the objects of the views (objects.py); compare both as facts, name by name.
Objects of another hand, without the tag `headrace`, are never changed: a name that is taken is an error. Removed is
what one of the given files had registered and has no longer, and an entity of ours that no view has any more. Rows in
the online store and the log are not touched.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from feast import FeatureStore, FileSource, PushSource

from headrace.features.errors import DefinitionError, HeadraceError
from headrace.features.services import FeatureService as Service
from headrace.features.time import format_duration
from headrace.materialize.feast.objects import FILE, FeastObjects, feast_objects, in_registry
from headrace.materialize.feast.online_store import TAG

KEEPER = "headrace_objects.py"
"""File of the repository that keeps `feast apply` from removing what it does not define."""

_KEEPER_TEXT = '''"""Written by `headrace feast apply`: without it `feast apply` would remove Headrace's objects."""

from pathlib import Path

from headrace.materialize.feast import registered_objects

globals().update(registered_objects(Path(__file__).parent))
'''

Action = Literal["add", "change", "remove"]


@dataclass(frozen=True)
class Difference:
    """One fact of an object. before, after: in words; None: there is none."""

    fact: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Change:
    """An object that is added, changed or removed.

    Attributes:
        kind: entity, source, view, service or file. name: of the object. differences: by fact, all of them when added.
    """

    action: Action
    kind: str
    name: str
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What differs between a Feast repository and some files of views.

    Attributes:
        project: Feast's. changes: in the order in which they are made. notes: what Feast has no place for.
        objects: to register. repo: the repository's folder.
    """

    project: str
    repo: Path
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    objects: tuple[Any, ...]


def open_repo(repo: Path) -> Any:
    """Feast's store of a repository.

    Raises:
        HeadraceError: there is no feature_store.yaml, or Feast does not take it.
    """
    if not (repo / "feature_store.yaml").is_file():
        raise HeadraceError(
            f"{repo} is no Feast repository: it has no feature_store.yaml. Name the folder that has it with --repo, or "
            "make one with `feast init`."
        )
    try:
        return FeatureStore(repo_path=str(repo))
    except Exception as error:
        raise HeadraceError(f"Feast does not take {repo / 'feature_store.yaml'}: {error}") from error


def plan(
    repo: Path,
    views: Mapping[str, Iterable[Any]],
    services: Mapping[str, Iterable[Service]],
    *,
    log: str,
    notes: Iterable[str] = (),
) -> tuple[Plan, Any]:
    """What would have to change, and Feast's store to change it in.

    Args:
        repo: folder of the Feast repository. views, services: by name of the Python file that defines them.
        log: root of the offline log. notes: to be shown with the plan.

    Raises:
        HeadraceError: no repository. DefinitionError: as `feast_objects`, or a name is taken by another's object.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Feast deprecates of itself
        store = open_repo(repo.resolve())
        there = in_registry(store)
        files = {each.name: file for group in (views, services) for file, found in group.items() for each in found}
        made = feast_objects(
            [view for found in views.values() for view in found],
            [service for found in services.values() for service in found],
            log=log,
            files=files,
            entities=[found for (kind, _), found in there.items() if kind == "entity"],
            one_file=getattr(store.config.offline_store, "type", "") != "duckdb",
        )
        wanted = _by_kind(made)
        _check_names(wanted, there)
        changes = [change for key, found in wanted.items() if (change := _changed(key, there.get(key), found))]
        changes += _removed(wanted, made, there, {*views, *services})
        clashes = _clashes(made, [found for key, found in there.items() if key[0] == "view" and key not in wanted])
    if _keeper_missing(repo):
        changes.append(
            Change("add", "file", KEEPER, (Difference("keeps `feast apply` from removing them", None, "yes"),))
        )
    return Plan(store.project, repo, tuple(changes), (*notes, *made.notes, *clashes), made.ours), store


def apply_plan(planned: Plan, store: Any) -> None:
    """Makes the changes of a plan. A second plan after it has none.

    Raises:
        HeadraceError: Feast refused; what it had registered before that stays.
    """
    removed = [change for change in planned.changes if change.action == "remove"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Feast deprecates of itself
            if any(change.action != "remove" and change.kind != "file" for change in planned.changes):
                store.apply(list(planned.objects))
            delete = {
                "service": store.registry.delete_feature_service,
                "view": store.registry.delete_feature_view,
                "source": store.registry.delete_data_source,
                "entity": store.registry.delete_entity,
            }
            for kind, remove in delete.items():  # each before what it refers to
                for change in removed:
                    if change.kind == kind:
                        remove(change.name, store.project)
    except Exception as error:
        raise HeadraceError(f"Feast did not take the views into project '{planned.project}': {error}") from error
    if _keeper_missing(planned.repo):
        (planned.repo / KEEPER).write_text(_KEEPER_TEXT)


def _keeper_missing(repo: Path) -> bool:
    return not any("registered_objects(" in file.read_text(errors="replace") for file in repo.glob("*.py"))


def _by_kind(made: FeastObjects) -> dict[tuple[str, str], Any]:
    ours = [("entity", each) for each in made.entities if each not in made.kept]
    ours += [("source", each) for each in made.sources]
    ours += [("view", each) for each in made.views]
    ours += [("service", each) for each in made.services]
    return {(kind, each.name): each for kind, each in ours}


def _check_names(wanted: Mapping[tuple[str, str], Any], there: Mapping[tuple[str, str], Any]) -> None:
    for (kind, name), _ in wanted.items():
        found = there.get((kind, name))
        if found is not None and TAG not in found.tags:
            raise DefinitionError(
                f"The Feast repository has a {kind} '{name}' that is not Headrace's, so it is left as it is. Give "
                "yours another name, or remove that one first."
            )


def _changed(key: tuple[str, str], before: Any, after: Any) -> Change | None:
    now = _facts(after)
    if before is None:
        return Change("add", *key, tuple(Difference(fact, None, said) for fact, said in now.items()))
    was = _facts(before)
    found = [
        Difference(fact, was.get(fact), now.get(fact)) for fact in {**was, **now} if was.get(fact) != now.get(fact)
    ]
    if not found and before.tags != after.tags:
        names = sorted(name for name in {**before.tags, **after.tags} if before.tags.get(name) != after.tags.get(name))
        found = [Difference(f"tag {name}", before.tags.get(name), after.tags.get(name)) for name in names]
    return Change("change", *key, tuple(found)) if found else None


def _removed(
    wanted: Mapping[tuple[str, str], Any], made: FeastObjects, there: Mapping[tuple[str, str], Any], files: set[str]
) -> list[Change]:
    """Ours, of one of these files, and not in them any more; and entities of ours that no view has any more."""
    ours = {key: found for key, found in there.items() if key not in wanted and TAG in found.tags}
    gone = [key for key, found in ours.items() if found.tags.get(FILE) in files]
    views = [found for key, found in there.items() if key[0] == "view" and key not in gone]
    used = {name for view in (*views, *made.views) for name in getattr(view, "entities", [])}
    gone += [key for key in ours if key[0] == "entity" and key[1] not in used]
    order = ["service", "view", "source", "entity"]
    return [Change("remove", *key) for key in sorted(gone, key=lambda key: (order.index(key[0]), key[1]))]


def _clashes(made: FeastObjects, others: Iterable[Any]) -> list[str]:
    """Keys that the repository's other views have, but none with this type: Feast writes them as other bytes."""
    known: dict[str, dict[str, str]] = {}
    for view in others:
        for field in getattr(view, "entity_columns", []):
            known.setdefault(field.name, {})[str(field.dtype)] = view.name
    return [
        f"{view.name}: key '{field.name}' is {field.dtype}, in the repository's view '{other}' it is {dtype}: no "
        "service can be asked for both"
        for view in made.views
        for field in view.entity_columns
        for dtype, other in list(known.get(field.name, {}).items())[:1]
        if str(field.dtype) not in known[field.name]
    ]


def _facts(found: Any) -> dict[str, str]:
    """What an object says, in words, by what it is about."""
    name = type(found).__name__
    if name == "Entity":
        return {"join key": f"{found.join_key} ({found.value_type.name.lower()})"}
    if isinstance(found, FileSource):
        return {"path": found.path, "timestamp": found.timestamp_field}
    if isinstance(found, PushSource):
        return {"batch source": found.batch_source.name if found.batch_source else "none"}
    if name == "FeatureService":
        return {
            f"{each.name}:{feature.name}": str(feature.dtype)
            for each in found.feature_view_projections
            for feature in each.features
        } | {"about": found.description}
    facts = {"entities": ", ".join(found.entities), "ttl": _ttl(found.ttl)}
    for field in found.features:
        facts[field.name] = f"{field.dtype}: {field.description}"
    return facts


def _ttl(ttl: Any) -> str:
    return format_duration(round(ttl.total_seconds() * 1_000_000)) if ttl else "none"
