"""What a feature log holds of the services and views as they are defined now, file by file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.features.services import FeatureService, ServedFeature
from headrace.features.views import ViewDefinition
from headrace.serving.log_reading import LoggedFile, logged_files
from headrace.serving.logged_rows import LISTS, list_fingerprint
from headrace.stores.places import Place, Root, open_place

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class LoggedAnswers:
    """Answers of one definition.

    Attributes:
        shown: what was asked, in words. features: the stored ones of it, with their names in the answers.
        place, files: where they are, in order of time.
    """

    shown: str
    features: tuple[ServedFeature, ...]
    place: Place
    files: tuple[LoggedFile, ...]

    def tables(self) -> Iterator[pa.Table]:
        """The rows, a file at a time; one that was deleted meanwhile is left out."""
        from headrace.stores.parquet import read_parquet

        for file in self.files:
            try:
                yield read_parquet(self.place, file.path)
            except FileNotFoundError:
                continue


def logged_answers(
    place: Root, services: Sequence[FeatureService], views: Sequence[ViewDefinition], *, since_us: int | None = None
) -> tuple[list[LoggedAnswers], dict[str, str]]:
    """What a feature log holds of these services, and of lists of features of these views.

    Args:
        place: as given to `FeatureLog`. since_us: files with answers given later only, microseconds.

    Returns:
        The answers by definition, and what else is there: in words, with why it is left out.
    """
    opened = open_place(place)
    found: dict[tuple[str, int | None, str], list[LoggedFile]] = {}
    for file in logged_files(opened):
        if since_us is None or file.last_us > since_us:
            found.setdefault((file.service, file.version, file.fingerprint), []).append(file)
    by_name = {service.name: service for service in services}
    made, left = [], {}
    for (name, version, mark), files in found.items():
        files.sort(key=lambda each: (each.first_us, each.path))
        features: tuple[ServedFeature, ...] | None
        if name == LISTS:
            shown = f"list {mark}"
            features = _list_of(opened, files[0], views, mark)
        else:
            shown = f"service '{name}' version {version}, {mark}"
            service = by_name.get(name)
            fits = service is not None and service.fingerprint().startswith(mark)
            features = service.features if service is not None and fits else None
        if features is None:
            left[shown] = "of another definition than the file has now"
        else:
            made.append(LoggedAnswers(shown, features, opened, tuple(files)))
    return made, left


def _list_of(
    place: Place, file: LoggedFile, views: Sequence[ViewDefinition], mark: str
) -> tuple[ServedFeature, ...] | None:
    """The features of a list, from the columns of its answers; None where the views are no longer the same."""
    from headrace.stores.parquet import read_parquet

    schema = read_parquet(place, file.path).schema
    asked = [view for view in views if schema.field("event_times").type.get_field_index(view.name) >= 0]
    features = []
    for field in schema.field("features").type:
        fitting = [
            ServedFeature(field.name, view, feature)
            for view in asked
            for feature in view.feature_names()
            if field.name in (feature, f"{view.name}__{feature}")
        ]
        if len(fitting) != 1:
            return None
        features += fitting
    told = list_fingerprint([(each.name, each.dtype, each.view) for each in features])
    return tuple(features) if told.startswith(mark) else None
