"""Reading a user's Python file and finding the feature views, services and flows in it."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.cli.failing import place_in
from headrace.features.errors import DefinitionError, HeadraceError, did_you_mean
from headrace.features.services import FeatureService
from headrace.features.stream_source import StreamSource
from headrace.features.streams import Flow
from headrace.features.views import FeatureView, ViewDefinition, definition


@dataclass(frozen=True)
class ViewsFile:
    """A Python file and the feature views, services and flows that its names show, in the order of the file.

    Attributes:
        views: where names show services only, the views of these. flows: also those whose streams are sources of views.
    """

    path: Path
    views: tuple[ViewDefinition, ...]
    services: tuple[FeatureService, ...] = ()
    flows: tuple[Flow, ...] = ()

    def only(self, names: Iterable[str]) -> tuple[ViewDefinition, ...]:
        """The views with these names, or all when no name is given."""
        chosen = tuple(self.view(name) for name in names)
        return chosen or self.views

    def view(self, name: str) -> ViewDefinition:
        """The view of this name; the name of its class does as well.

        Raises:
            DefinitionError: the file has no such view; the message names the nearest.
        """
        for view in self.views:
            if name == view.name or name.replace("_", "").lower() == view.name.replace("_", "").lower():
                return view
        names = [view.name for view in self.views]
        raise DefinitionError(
            f"{self.path.name} has no feature view '{name}'{did_you_mean(name, names)} "
            f"Its views are: {', '.join(names)}."
        )


@dataclass(frozen=True)
class Shipped:
    """A views file on its way to another process, perhaps on another machine: called there, it gives what was chosen.

    path: where it was. text: what is in it. views: names of the chosen ones. flows: whether its flows run too.
    """

    path: str
    text: bytes
    views: tuple[str, ...]
    flows: bool

    @classmethod
    def of(cls, file: ViewsFile, views: Iterable[ViewDefinition], flows: Iterable[Flow]) -> Shipped:
        return cls(str(file.path), file.path.read_bytes(), tuple(view.name for view in views), any(True for _ in flows))

    def __call__(self) -> list[Any]:
        """The views and flows. The file is read where it was, with the modules beside it, or as it was shipped."""
        path = Path(self.path)
        if not path.is_file() or path.read_bytes() != self.text:
            path = Path(tempfile.mkdtemp(prefix="headrace-")) / path.name
            path.write_bytes(self.text)
        loaded = load(path, or_flows=True)
        return [*(loaded.view(name) for name in self.views), *(loaded.flows if self.flows else ())]


def load(path: Path, *, or_flows: bool = False) -> ViewsFile:
    """Runs the file as a module of its own and collects its views and services; it can import modules beside it.

    Args:
        or_flows: a file with flows need not have views.

    Raises:
        DefinitionError: there is no such file, it has no feature view, two of its views or services have one name, or
            it fails while it is read. The message names the file and line, and the cause is kept.
    """
    path = path.resolve()
    if not path.is_file():
        raise DefinitionError(
            f"There is no file {path}. Give the Python file with your feature views; "
            "`headrace init` writes one to start from."
        )
    views: dict[str, ViewDefinition] = {}
    services: dict[str, FeatureService] = {}
    flows: list[Flow] = []
    for value in _names_of(path).values():
        if isinstance(value, type) and issubclass(value, FeatureView) and value is not FeatureView:
            view = definition(value)
            if views.setdefault(view.name, view) != view:
                raise DefinitionError(
                    f"{path.name} has two feature views named '{view.name}'. "
                    "Give one of them another name: class X(FeatureView, name=...)."
                )
        elif isinstance(value, Flow) and value not in flows:
            flows.append(value)
        elif isinstance(value, FeatureService) and services.setdefault(value.name, value) != value:
            raise DefinitionError(
                f"{path.name} has two feature services named '{value.name}'. Give one of them another name."
            )
    if not views:
        views = {view.name: view for service in services.values() for view in service.views}
    for view in views.values():
        if isinstance(view.source, StreamSource) and view.source.stream.flow not in flows:
            flows.append(view.source.stream.flow)
    for view in (each for flow in flows for each in flow.views):
        if views.setdefault(view.name, view) != view:
            raise DefinitionError(f"{path.name} has two feature views named '{view.name}'. Name one of them another.")
    if not views and not (flows and or_flows):
        raise DefinitionError(
            f"{path.name} has no feature view. Define one: class DriverActivity(FeatureView, source=..., entity=...)."
        )
    return ViewsFile(path, tuple(views.values()), tuple(services.values()), tuple(flows))


def _names_of(path: Path) -> dict[str, Any]:
    # As `python FILE` does: modules beside it can be imported, now and when a function of the file runs.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    # Its classes look their names up through sys.modules. A file named like a module in use must not replace it.
    loaded = sys.modules.get(path.stem)
    name = path.stem if getattr(loaded, "__file__", str(path)) == str(path) else f"views_in_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{path.name} is no Python file: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except HeadraceError as error:
        raise DefinitionError(f"{place_in(path, error)}: {error}") from error
    except Exception as error:
        raise DefinitionError(
            f"{place_in(path, error)}: {type(error).__name__}: {error}. The file failed while it was read; "
            "add --debug for the traceback."
        ) from error
    return vars(module)
