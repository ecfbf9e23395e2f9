"""Reading a feature log back: what one service, or one list of features, was answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headrace.features.errors import DataError, did_you_mean
from headrace.features.services import FeatureService
from headrace.features.time import format_instant, instant_us
from headrace.serving.logged_rows import LISTS
from headrace.stores.errors import MissingStoreError
from headrace.stores.places import Place, Root, open_place, plain_root, shown_root

if TYPE_CHECKING:
    import pyarrow as pa

_FILE = re.compile(
    r"(?P<service>[^/]+)/(?:v(?P<version>\d+)-)?(?P<fingerprint>[0-9a-f]{12})/"
    r"(?P<first>\d{8}T\d{6}\.\d{6}Z)-(?P<last>\d{8}T\d{6}\.\d{6}Z)-[0-9a-f]+-\d+\.parquet"
)


@dataclass(frozen=True)
class LoggedFile:
    """A file of the log; `first_us` and `last_us` are the times of its first and last answer."""

    path: str
    service: str
    version: int | None
    fingerprint: str
    first_us: int
    last_us: int


def read_feature_log(
    place: Root,
    service: FeatureService | str | None = None,
    *,
    version: int | None = None,
    fingerprint: str | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
) -> pa.Table:
    """What was answered, a row per entity, in the order of `served_at`; docs/feature-logging.md has the columns.
    `.flatten()` makes plain columns of the structs: `keys.driver_id`, `features.fare_mean_1h`.

    Args:
        place: as given to `FeatureLog`.
        service: as it is defined now, or its name; None: lookups that asked for a list of features.
        version, fingerprint: needed where the log has several definitions of that name; of the fingerprint the first 12
            digits or more.
        since, until: answers of this time, (since, until].

    Raises:
        MissingStoreError: nothing was logged of this service, version or fingerprint.
        DataError: several definitions fit; the message lists them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from headrace.stores.parquet import read_parquet

    if isinstance(service, FeatureService):
        if version is not None or fingerprint is not None:
            raise DataError(
                f"read_feature_log: {service!r} says its version and fingerprint itself. Give its name with others."
            )
        version, fingerprint = service.version, service.fingerprint()
        service = service.name
    if version is not None and service is None:
        raise DataError("read_feature_log: only a service has a version. Give its name, or the fingerprint of a list.")
    opened, shown = open_place(place), shown_root(plain_root(place))
    files = _chosen(list(logged_files(opened, service or LISTS)), shown, service, version, fingerprint, opened)
    after = None if since is None else instant_us(since, "since")
    to = None if until is None else instant_us(until, "until")
    wanted = [each for each in files if (after is None or each.last_us > after) and (to is None or each.first_us <= to)]
    if not wanted:
        return read_parquet(opened, files[0].path).slice(0, 0)
    table = pa.concat_tables([read_parquet(opened, each.path) for each in wanted])
    served = table.column("served_at").cast("int64")
    inside = pc.is_valid(served)
    if after is not None:
        inside = pc.and_(inside, pc.greater(served, after))
    if to is not None:
        inside = pc.and_(inside, pc.less_equal(served, to))
    table = table.filter(inside)
    return table.take(pc.sort_indices(table, sort_keys=[("served_at", "ascending")]))


def logged_files(place: Place, folder: str = "") -> Iterator[LoggedFile]:
    """The files of a feature log, or of one folder of it."""
    for path in sorted(place.walk(folder)):
        found = _FILE.fullmatch(path.lstrip("/"))
        if found is not None:
            yield LoggedFile(
                path,
                found["service"],
                None if found["version"] is None else int(found["version"]),
                found["fingerprint"],
                _instant(found["first"]),
                _instant(found["last"]),
            )


def _chosen(
    files: list[LoggedFile], shown: str, service: str | None, version: int | None, fingerprint: str | None, place: Place
) -> list[LoggedFile]:
    """The files of the one definition that was asked for; at least one."""
    what = "lists of features" if service is None else f"service '{service}'"
    if not files:
        known = sorted(
            {match["service"] for path in place.walk("") if (match := _FILE.fullmatch(path.lstrip("/")))} - {LISTS}
        )
        raise MissingStoreError(
            f"The feature log at {shown} has no answers of {what}{did_you_mean(service or '', known)} It has the "
            f"services: {', '.join(known) or 'none'}."
        )
    definitions: dict[tuple[int | None, str], list[LoggedFile]] = {}
    for each in files:
        definitions.setdefault((each.version, each.fingerprint), []).append(each)
    fitting = {
        (number, mark): its
        for (number, mark), its in definitions.items()
        if (version is None or number == version) and (fingerprint is None or fingerprint.startswith(mark))
    }
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    listed = "; ".join(_told(number, mark, its) for (number, mark), its in (fitting or definitions).items())
    if not fitting:
        raise MissingStoreError(
            f"The feature log at {shown} has no answers of {what} with the version and fingerprint asked for. It has: "
            f"{listed}."
        )
    raise DataError(
        f"The feature log at {shown} has {what} by several definitions, whose columns may differ: {listed}. Read one "
        "of them: version=..., fingerprint='...', or the service itself."
    )


def _told(version: int | None, fingerprint: str, files: list[LoggedFile]) -> str:
    which = f"fingerprint {fingerprint}" if version is None else f"version {version}, fingerprint {fingerprint}"
    first, last = min(each.first_us for each in files), max(each.last_us for each in files)
    return f"{which} ({format_instant(first)} to {format_instant(last)})"


def _instant(text: str) -> int:
    return instant_us(datetime.strptime(text, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC), "served_at")
