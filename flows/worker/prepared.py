"""State of features to come, kept beside a part's checkpoints until the part is opened with their definition.

    _headrace/parts/rides-0003/prepared/1f0c5a2b9d3e4f60.state

A file says: "these views, after the events of the source before these offsets". That stays true whoever runs meanwhile,
so several may write, and whoever finds one goes on from its offsets. It is whole or not there, has a version and a
checksum, and counts only for the views and rules under whose mark it lies, in the log in which it was made.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition
from headrace.flows.snapshot import SnapshotError, pack, read_meta, unpack
from headrace.flows.worker.seam import Seam
from headrace.stores.commits import newest_commits, private_folder
from headrace.stores.places import Place

logger = logging.getLogger("headrace.worker")

FORMAT = 1


class _Meta(msgspec.Struct):
    """What a file says beside its parts. born: of the log's part, see `Commit`."""

    format: int
    part: str
    born: str
    mark: str
    following: dict[int, int]
    seams: dict[int, Seam] = {}


@dataclass(frozen=True)
class Prepared:
    """parts: of a `History`, as it saved them. following, seams: its offsets and seams, by source partition."""

    parts: Mapping[str, bytes]
    following: Mapping[int, int]
    seams: Mapping[int, Seam]


def history_in_files(part: str, views: Iterable[str]) -> SnapshotError:
    """The error of a change of a part that began with history from files, which reading the topic does not give."""
    names = ", ".join(f"'{view}'" for view in views)
    return SnapshotError(
        f"Part '{part}': {names} has features without state, and this flow began with history from files, which its "
        "topic does not have. Prepare the change first, which reads both (headrace prepare); or begin the new features "
        'empty: on_change="start" (--on-change start).'
    )


def mark_of(source: KafkaSource, views: Iterable[ViewDefinition], partitions: int | None) -> str:
    """16 hex digits of all that the state of these views depends on beside the events.

    partitions: of the repartition topic; None: there is none.
    """
    judged = (source.lateness_us, source.max_ahead_us, source.dedup, source.idle_after_us, source.late)
    asked = sorted((view.name, view.fingerprint()) for view in views)
    says = repr(("prepared 1", source.name, source.topics, judged, asked, partitions))
    return hashlib.blake2b(says.encode(), digest_size=8).hexdigest()


def keep_prepared(place: Place, part: str, mark: str, prepared: Prepared) -> int:
    """Keep it in the place of all that was prepared for the part before; returns its bytes.

    Raises:
        StoreError, OSError: the place cannot be written. Nothing has changed then.
    """
    meta = _Meta(FORMAT, part, _born(place, part), mark, dict(prepared.following), dict(prepared.seams))
    arrays = {name: np.frombuffer(data, dtype=np.uint8) for name, data in prepared.parts.items()}
    data = pack(msgspec.to_builtins(meta), arrays)
    path = _path(part, mark)
    place.prepare([_folder(part)])
    place.put(path, data)
    place.delete([other for other in place.walk(_folder(part)) if other != path])
    return len(data)


def find_prepared(place: Place, part: str, mark: str) -> Prepared | None:
    """What was prepared for these views and rules in this log; None: nothing, or nothing that can be used."""
    path = _path(part, mark)
    data = place.read_many([path]).get(path)
    if data is None:
        return None
    try:
        given, arrays = unpack(data)
        meta = read_meta(given, _Meta, f"what was prepared for part '{part}'")
    except SnapshotError as error:
        logger.warning("part '%s': what was prepared for it cannot be used, its history is read: %s", part, error)
        return None
    if (meta.format, meta.part, meta.mark, meta.born) != (FORMAT, part, mark, _born(place, part)):
        return None
    return Prepared({name: array.tobytes() for name, array in arrays.items()}, meta.following, meta.seams)


def forget_prepared(place: Place, part: str, mark: str) -> None:
    """It has been taken up by a checkpoint, and nobody needs it any more."""
    place.delete([_path(part, mark)])


def _born(place: Place, part: str) -> str:
    commit = newest_commits(place, part).get(part)
    return "" if commit is None else commit.born


def _folder(part: str) -> str:
    return f"{private_folder(part)}/prepared"


def _path(part: str, mark: str) -> str:
    return f"{_folder(part)}/{mark}.state"
