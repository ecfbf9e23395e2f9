"""What Kustomize makes of an overlay, as far as ours need it, for machines that have no Kustomize.

Resources of files and folders, generated ConfigMaps (without the hashes in their names), strategic patches, images, the
namespace. Anything else in a kustomization is an error. test_kubernetes.py holds it against the real one where it is.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]

KNOWN = {"apiVersion", "kind", "namespace", "resources", "images", "configMapGenerator", "patches"}
KEYS = {"containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}
"""Lists whose elements a patch finds by this field; other lists it replaces."""


def render(folder: Path) -> list[Resource]:
    """The resources of a kustomization.

    Raises:
        ValueError: it uses something of Kustomize that is not rendered here.
    """
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := set(told) - KNOWN:
        raise ValueError(f"{folder / 'kustomization.yaml'} has {sorted(unknown)}, which is not rendered here.")
    made: list[Resource] = []
    for name in told.get("resources", ()):
        made += (
            render(folder / name) if (folder / name).is_dir() else list(yaml.safe_load_all((folder / name).read_text()))
        )
    for generator in told.get("configMapGenerator", ()):
        _generate(made, folder, generator)
    for patch in told.get("patches", ()):
        for document in yaml.safe_load_all((folder / patch["path"]).read_text()):
            found = named(made, document["kind"], document["metadata"]["name"])
            found.update(_merged(found, document))
    for image in told.get("images", ()):
        for container in (each for resource in made for each in containers(resource)):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    if "namespace" in told:
        for resource in made:
            resource["metadata"]["namespace"] = told["namespace"]
    return made


def named(resources: list[Resource], kind: str, name: str) -> Resource:
    """The resource of this kind and name."""
    (found,) = [each for each in resources if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod(resource: Resource) -> Resource:
    """What a workload says of its pods; of another resource nothing."""
    template = resource.get("spec", {}).get("template") or {}
    return dict(template.get("spec", {}))


def containers(resource: Resource) -> list[Resource]:
    """Of a workload's pods, those that run before the others included."""
    described = pod(resource)
    return [*described.get("initContainers", ()), *described.get("containers", ())]


def _generate(made: list[Resource], folder: Path, generator: Resource) -> None:
    data = {}
    for each in generator.get("files", ()):
        key, _, name = each.rpartition("=")
        data[key or name] = (folder / name).read_text()
    for each in generator.get("envs", ()):
        lines = [line for line in (folder / each).read_text().splitlines() if line and not line.startswith("#")]
        data |= dict(line.split("=", 1) for line in lines)
    if generator.get("behavior") == "merge":
        named(made, "ConfigMap", generator["name"])["data"].update(data)
    else:
        metadata = {"name": generator["name"]}
        made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _merged(under: Any, over: Any, field: str = "") -> Any:
    """A strategic merge: fields one by one, null takes away, named elements by their names and new ones first."""
    if isinstance(under, dict) and isinstance(over, dict):
        names = [*under, *(name for name in over if name not in under)]
        merged = {name: _merged(under.get(name), over[name], name) if name in over else under[name] for name in names}
        return {name: value for name, value in merged.items() if value is not None}
    if isinstance(under, list) and field in KEYS:
        key = KEYS[field]
        patches = {each[key]: each for each in over}
        known = {each[key] for each in under}
        kept = [_merged(each, patches[each[key]]) if each[key] in patches else each for each in under]
        return [*(each for each in over if each[key] not in known), *kept]
    return copy.deepcopy(over)
