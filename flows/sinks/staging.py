"""What a sink that stages its rows keeps in the flow's checkpoint."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.flows.sinks.protocol import SinkPlace
from headrace.flows.snapshot import SnapshotError, pack, unpack


@dataclass(frozen=True)
class Staged:
    """How far a sink is.

    token: of this line of checkpoints; one that begins anew, with an empty data folder, has another, so that the two
    never take each other's rows for their own. number: how many flushes there were. files: staged files of the last
    one and where they go.
    """

    token: str
    number: int
    files: tuple[tuple[str, str], ...] = ()

    @classmethod
    def new(cls) -> "Staged":
        return cls(secrets.token_hex(6), 0)

    def next(self, files: Sequence[tuple[str, str]]) -> "Staged":
        return replace(self, number=self.number + 1, files=tuple(files))


def saved(state: Staged) -> bytes:
    """As it rests in a checkpoint, with a version and a checksum."""
    meta = {"sink": 1, "token": state.token, "number": state.number, "files": [list(each) for each in state.files]}
    return pack(meta, {})


def restored(data: bytes | None, at: SinkPlace) -> Staged | None:
    """What `saved` wrote; None where there was no checkpoint.

    Raises:
        SnapshotError: it is not that, or of a newer version of Headrace.
    """
    if data is None:
        return None
    meta, _ = unpack(data)
    if meta.get("sink") != 1:
        raise SnapshotError(
            f"The checkpoint of step '{at.name}' was not made by its sink, or by a newer version of Headrace. Give the "
            "step another name, or start with an empty data folder."
        )
    return Staged(meta["token"], meta["number"], tuple((staged, place) for staged, place in meta["files"]))
