"""Where the rows of a run are: its log under the data folder or URL, its online store beside it or at an address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.cli.project import asked_file, remembered
from headrace.features.errors import HeadraceError
from headrace.features.views import ViewDefinition
from headrace.serving.client import Client
from headrace.serving.vectors import FeatureVector
from headrace.stores.opening import open_online

# The parts of a data folder, as the runners lay them out; asking needs no engine to be installed.
ONLINE = "online"
LOG = "log"


def is_url(data: str | Path) -> bool:
    """Whether the data are on an object store.

    >>> is_url("s3://bucket/rides"), is_url("headrace-data")
    (True, False)
    """
    return "://" in str(data)


def part_of(data: str | Path, part: str) -> str | Path:
    """A part of the data: `log` or `online`."""
    return f"{str(data).rstrip('/')}/{part}" if is_url(data) else Path(data) / part


@dataclass(frozen=True)
class Online:
    """Address and layout of an online store. place: a folder or a URL."""

    place: str | Path
    project: str = "headrace"
    layout: Any = "feast"


def online_of(data: str | Path, file: Path | None, given: str | None) -> Online:
    """The online store of the run into `data`.

    A replay's is in its folder. A live flow's is where its configuration says: `given` on this command line, the
    variable, the run's own --online, headrace.toml beside the views.

    Raises:
        HeadraceError: as `configure`, or the data are at a URL and no online store is named.
    """
    noted: Mapping[str, Any] = {} if is_url(data) else remembered(data)
    if given is None and "live" not in noted and not is_url(data):
        return Online(part_of(data, ONLINE))
    import os

    from headrace.ops.configuration import PREFIX, configuration_file, configure

    in_variable = f"{PREFIX}ONLINE_URL" in os.environ
    url = given or (None if in_variable else noted.get("live", {}).get("online"))
    views = asked_file(data, file) if file is not None or noted else None
    config = configure(configuration_file(views, None), options={"online": {"url": url}}).online
    if config.url is not None:
        return Online(config.url, config.project, config.layout)
    if is_url(data):
        raise HeadraceError(f"The online store of {data} is not known. Name it: --online redis://...")
    return Online(part_of(data, ONLINE))


def now(view: ViewDefinition, keys: Mapping[str, Any], online: Online) -> FeatureVector:
    """What the online store says now: by the wall clock behind a live flow, by the stream's own after a replay."""
    store = open_online(online.place, project=online.project, layout=online.layout, read_only=True)
    try:
        return Client(store).get(view, keys)
    finally:
        store.close()
