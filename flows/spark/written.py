"""What the driver of a flow on Spark writes down in a part of the log of its own, and which engine may go on from what.

What is between two tasks of a flow lies in repartition topics where workers compute it, and in the checkpoints of those
who sent it on Spark. Neither looks where the other does: a flow whose rows go on by another key stays with its engine.
"""

from collections.abc import Iterable

import msgspec

from headrace.features.errors import DataError
from headrace.flows.snapshot import SnapshotError
from headrace.stores.checkpoints import read_checkpoint
from headrace.stores.commits import newest_commits
from headrace.stores.places import Place

PART = "_spark"
"""The part of the log in which the driver writes down what it does."""
TURN = "turn"


class Written(msgspec.Struct):
    """What the driver writes down before a turn.

    counts: partitions by source and topic. shards: of what is repartitioned. first: where partitions began. upto: how
    far the turn reads.
    """

    counts: dict[str, dict[str, int]]
    shards: dict[str, int]
    first: dict[str, dict[int, int]]
    upto: dict[str, dict[int, int]]
    version: int = 1


def read_written(root: str) -> Written | None:
    """What the driver of the log at `root` wrote last; None: there was none.

    Raises:
        SnapshotError: it cannot be read.
    """
    found = read_checkpoint(root, part=PART)
    if found is None or TURN not in found.snapshots:
        return None
    try:
        return msgspec.json.decode(found.snapshots[TURN][-1], type=Written)
    except msgspec.MsgspecError as error:
        raise SnapshotError(
            f"Part '{PART}': what the driver has written cannot be read: {error}. Start afresh (--fresh)."
        ) from None


def refuse_other_engine(place: Place, root: str) -> None:
    """Workers must not go on where Spark has rows between its tasks. Raises DataError."""
    if PART not in newest_commits(place, PART):
        return
    written = read_written(root)
    if written is not None and written.shards:
        raise DataError(
            f"The flow at {root} has been run by Spark, whose checkpoints hold rows on their way to "
            f"{', '.join(sorted(written.shards))}. Go on with --engine spark, or start afresh (--fresh)."
        )


def refuse_workers(place: Place, root: str, names: Iterable[str]) -> None:
    """Spark must not go on where workers have rows in repartition topics.

    Args:
        names: of what rows go on to by another key.

    Raises:
        DataError: workers have written there. What a backfill has handed over is taken up.
    """
    commits = newest_commits(place)
    wrote = sorted({name for name in names for part, each in commits.items() if _of(part, name) and each.sequence > 1})
    if wrote:
        raise DataError(
            f"The flow at {root} has been run by workers, and rows on their way to {', '.join(wrote)} may be in its "
            "repartition topics. Go on with --engine workers, or start afresh (--fresh)."
        )


def _of(part: str, name: str) -> bool:
    return part.startswith(f"{name}-") and part[len(name) + 1 :].isdigit()
