"""The mark of a backfill that has begun to hand its state over to a live flow, part by part, and is not through."""

from headrace.features.errors import DataError
from headrace.stores.manifest import PRIVATE
from headrace.stores.places import Place

_MARK = f"{PRIVATE}/handover.json"


def begun(place: Place) -> bytes | None:
    """What an unfinished backfill has said of itself; None: there is none."""
    return place.read_many([_MARK]).get(_MARK)


def begin(place: Place, said: bytes) -> None:
    """A backfill commits its first part."""
    place.prepare([PRIVATE])
    place.put(_MARK, said)


def finish(place: Place) -> None:
    """It has committed all of them."""
    place.delete([_MARK])


def refuse_unfinished(place: Place) -> None:
    """A flow must not begin with a part of its history. Raises DataError."""
    if begun(place) is not None:
        raise DataError(
            f"A backfill into the log at {place} has not come to its end: some parts of the flow have their history, "
            "and some have not. Start the same backfill again, it goes on with what is left; or start afresh (--fresh)."
        )
